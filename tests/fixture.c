/* fixture: the pillar that the official conformance suite expects, and a gateway in front of it.
 * For tests only: `fixture PORT DATA` serves http://127.0.0.1:PORT/mcp until SIGTERM. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "actors/gateway/gateway.h"
#include "bus/host.h"
#include "proto/json.h"
#include "proto/mp.h"

#define PNG                                                                                        \
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJg" \
    "gg=="
#define WAV "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
#define TASKS_EXTENSION "io.modelcontextprotocol/tasks"

enum { TASKS_MOST = 256, STEP_MS = 50, QUICK_MS = 300 };

typedef struct task {
    char id[64];
    const char *tool;
    char text[256]; /* the result */
    int64_t made_ms, due_ms;
    bool cancelled;
    int wanted, answered; /* bits of inputs */
} task_t;

typedef struct fixture {
    bool more_tools, more_prompts;
    task_t tasks[TASKS_MOST];
    size_t task_count;
} fixture_t;

#define fixture_mcp_list_ARGS(F)                                                                   \
    F(STR, kind, must, 1, 32, "tools, prompts, resources or templates.")                           \
    F(STR, cursor, opt(), 0, 64, "Where to go on.")
#define fixture_mcp_list_REPLY(F)                                                                  \
    F(ANY, items, must, 0, 0, "As MCP lists them.")                                                \
    F(STR, next, opt(), 0, 0, "Where to go on.")
#define fixture_mcp_call_ARGS(F)                                                                   \
    F(STR, kind, must, 1, 32, "tool, prompt or resource.")                                         \
    F(STR, name, must, 0, 4096, "Name or URI.")                                                    \
    F(ANY, arguments, opt(), 0, 0, "Arguments.")                                                   \
    F(ANY, responses, opt(), 0, 0, "Answers to inputs.")                                           \
    F(STR, state, opt(), 0, 0, "As it was given.")                                                 \
    F(ANY, capabilities, opt(), 0, 0, "Of the client.")                                            \
    F(BOOL, tasks, must, 0, 0, "May the answer be a task?")
#define fixture_mcp_call_REPLY(F)                                                                  \
    F(ANY, result, opt(), 0, 0, "The result.")                                                     \
    F(ANY, inputs, opt(), 0, 0, "What is asked for.")                                              \
    F(STR, state, opt(), 0, 0, "To be given back.")                                                \
    F(STR, task, opt(), 0, 0, "Id of a task.")                                                     \
    F(ANY, detail, opt(), 0, 0, "The task.")                                                       \
    F(ANY, needs, opt(), 0, 0, "Capabilities.")                                                    \
    F(BOOL, missing, opt(), 0, 0, "There is no such thing.")                                       \
    F(STRS, changed, opt(), 0, 0, "Lists and resources.")
#define fixture_mcp_complete_ARGS(F)                                                               \
    F(STR, kind, must, 1, 32, "prompt or resource.")                                               \
    F(STR, name, must, 0, 4096, "Name or URI.")                                                    \
    F(STR, argument, must, 0, 256, "Which argument.")                                              \
    F(STR, value, must, 0, 4096, "What is typed so far.")
#define fixture_mcp_complete_REPLY(F)                                                              \
    F(STRS, values, opt(), 0, 0, "What it may become.")                                            \
    F(BOOL, missing, opt(), 0, 0, "There is no such thing.")
#define fixture_mcp_task_ARGS(F)                                                                   \
    F(STR, id, must, 1, 128, "Which task.")                                                        \
    F(STR, operation, must, 1, 32, "get, update or cancel.")                                       \
    F(ANY, responses, opt(), 0, 0, "Answers to inputs.")
#define fixture_mcp_task_REPLY(F)                                                                  \
    F(ANY, detail, opt(), 0, 0, "The task.")                                                       \
    F(BOOL, missing, opt(), 0, 0, "There is no such task.")
#define FIXTURE_METHODS(M)                                                                         \
    M(fixture_t, fixture_mcp_list, READS | ANY_COMPANY | PARKS, "Lists.")                          \
    M(fixture_t, fixture_mcp_call, READS | ANY_COMPANY | PARKS, "Calls.")                          \
    M(fixture_t, fixture_mcp_complete, READS | ANY_COMPANY | PARKS, "Completes.")                  \
    M(fixture_t, fixture_mcp_task, READS | ANY_COMPANY | PARKS, "Looks after a task.")
METHODS(fixture_methods, FIXTURE_METHODS)

typedef fixture_mcp_call_args_t args_t;
typedef fixture_mcp_call_reply_t reply_t;

/* JSON with ' for ". */
static bytes_t json(call_t *call, const char *text)
{
    bytes_t out;
    char *copy = arena_strdup(call_arena(call), text);
    for (char *at = copy; *at; at++)
        if (*at == '\'')
            *at = '"';
    err_t err = json_to_msgpack(call_arena(call), copy, strlen(copy), NULL, &out);
    if (err_is(err)) {
        fprintf(stderr, "fixture: %s\n%s\n", err_what(err), copy);
        abort();
    }
    return out;
}

static const char *quoted(call_t *call, const char *text)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    json_put_string(&out, text, strlen(text));
    return out.data;
}

static bytes_t text_result(call_t *call, const char *text, bool is_error)
{
    return json(call, arena_printf(call_arena(call), "{'content':[{'type':'text','text':%s}]%s}",
                                   quoted(call, text), is_error ? ",'isError':true" : ""));
}

static const char *text_at(call_t *call, bytes_t map, const char *one, const char *two,
                           const char *three)
{
    bytes_t field = map;
    const char *const names[] = {one, two, three};
    for (int i = 0; i < 3 && names[i]; i++)
        if (!field.size || !mp_get(field, names[i], &field))
            return NULL;
    return mp_text(call_arena(call), field);
}

static bool has(bytes_t map, const char *name)
{
    bytes_t field;
    return map.size && mp_get(map, name, &field);
}

/* ---- Lists ---- */

#define EMPTY "'inputSchema':{'type':'object','properties':{}}"
#define PLAIN(name, doc) "{'name':'" name "','description':'" doc "'," EMPTY "},"
#define STRING(name, key, doc)                                                                     \
    "{'name':'" name "','description':'" doc                                                       \
    "','inputSchema':{'type':'object','properties':{'" key                                         \
    "':{'type':'string','description':'Any text.'}},'required':['" key "']}},"

static const char tools_json[] = PLAIN("test_simple_text", "Answers with text") PLAIN(
    "test_image_content", "An image") PLAIN("test_audio_content",
                                            "A sound") PLAIN("test_embedded_resource", "A resource")
    PLAIN("test_multiple_content_types", "Text, image and resource") PLAIN(
        "test_tool_with_logging",
        "Three lines of log") PLAIN("test_tool_with_progress",
                                    "Three steps") PLAIN("test_error_handling", "Always fails")
        PLAIN("test_reconnection", "Lets the client fetch the answer") STRING(
            "test_sampling", "prompt",
            "Asks the model of the client") STRING("test_elicitation", "message", "Asks the user")
            PLAIN("test_elicitation_sep1034_defaults",
                  "Asks with defaults") PLAIN("test_elicitation_sep1330_enums", "Asks with choices")
                PLAIN("test_missing_capability", "Needs sampling") PLAIN(
                    "test_streaming_elicitation", "Asks the user") PLAIN("test_logging_tool",
                                                                         "Writes a line of log")
                    PLAIN("test_trigger_tool_change", "Changes the list of tools") PLAIN(
                        "test_trigger_prompt_change", "Changes the list of prompts")
                        PLAIN("test_input_required_result_elicitation", "Asks for a name") PLAIN(
                            "test_input_required_result_sampling", "Asks the model")
                            PLAIN("test_input_required_result_list_roots", "Asks for roots") PLAIN(
                                "test_input_required_result_request_state", "Carries a state")
                                PLAIN("test_input_required_result_multiple_inputs",
                                      "Asks three things at once")
                                    PLAIN("test_input_required_result_multi_round", "Asks twice")
                                        PLAIN("test_input_required_result_tampered_state",
                                              "Carries a state")
                                            PLAIN("test_input_required_result_capabilities",
                                                  "Asks what the client offers");

static const char jobs_json[] =
    STRING("greet", "name",
           "Says hello") "{'name':'slow_compute','description':'Takes its "
                         "time','inputSchema':{'type':'object',"
                         "'properties':{'seconds':{'type':'number'},'label':{'"
                         "type':'string'}}}}," PLAIN("failing_job", "A task that fails")
                             PLAIN("protocol_error_job",
                                   "A task that breaks") "{'name':'confirm_"
                                                         "delete','description':"
                                                         "'A task that asks "
                                                         "once','inputSchema':{'"
                                                         "type':'object',"
                                                         "'properties':{'"
                                                         "filename':{'type':'"
                                                         "string'}}}}," PLAIN("multi_input",
                                                                              "A task that asks "
                                                                              "twice at once")
                                                             PLAIN("test_tool_"
                                                                   "with_task",
                                                                   "Asks, then "
                                                                   "becomes a "
                                                                   "task") "{'"
                                                                           "name':"
                                                                           "'test_"
                                                                           "x_mcp_"
                                                                           "header"
                                                                           "','"
                                                                           "descri"
                                                                           "ption'"
                                                                           ":'"
                                                                           "Mirror"
                                                                           "s an "
                                                                           "argume"
                                                                           "nt in "
                                                                           "a "
                                                                           "header"
                                                                           "','"
                                                                           "inputS"
                                                                           "chema'"
                                                                           ":{"
                                                                           "'type'"
                                                                           ":'"
                                                                           "object"
                                                                           "','"
                                                                           "proper"
                                                                           "ties':"
                                                                           "{'"
                                                                           "region"
                                                                           "':{'"
                                                                           "type':"
                                                                           "'strin"
                                                                           "g','x-"
                                                                           "mcp-"
                                                                           "header"
                                                                           "':'"
                                                                           "Region"
                                                                           "'},"
                                                                           "'count"
                                                                           "':{'"
                                                                           "type':"
                                                                           "'integ"
                                                                           "er','"
                                                                           "x-mcp-"
                                                                           "header"
                                                                           "':'"
                                                                           "Count'"
                                                                           "}}}},"
                                                                           "{'"
                                                                           "name':"
                                                                           "'json_"
                                                                           "schema"
                                                                           "_2020_"
                                                                           "12_"
                                                                           "tool',"
                                                                           "'descr"
                                                                           "iption"
                                                                           "':'"
                                                                           "All "
                                                                           "of "
                                                                           "JSON "
                                                                           "Schema"
                                                                           "','"
                                                                           "inputS"
                                                                           "chema'"
                                                                           ":{"
                                                                           "'$"
                                                                           "schema"
                                                                           "':'"
                                                                           "https:"
                                                                           "//"
                                                                           "json-"
                                                                           "schema"
                                                                           ".org/"
                                                                           "draft/"
                                                                           "2020-"
                                                                           "12/"
                                                                           "schema"
                                                                           "','"
                                                                           "type':"
                                                                           "'objec"
                                                                           "t','$"
                                                                           "defs':"
                                                                           "{'"
                                                                           "addres"
                                                                           "s':{"
                                                                           "'$"
                                                                           "anchor"
                                                                           "':'"
                                                                           "addres"
                                                                           "sDef',"
                                                                           "'type'"
                                                                           ":'"
                                                                           "object"
                                                                           "','"
                                                                           "proper"
                                                                           "ties':"
                                                                           "{'"
                                                                           "street"
                                                                           "':{'"
                                                                           "type':"
                                                                           "'strin"
                                                                           "g'},'"
                                                                           "city':"
                                                                           "{"
                                                                           "'type'"
                                                                           ":'"
                                                                           "string"
                                                                           "'}}}},"
                                                                           "'prope"
                                                                           "rties'"
                                                                           ":{'"
                                                                           "name':"
                                                                           "{'"
                                                                           "type':"
                                                                           "'strin"
                                                                           "g'},'"
                                                                           "addres"
                                                                           "s':{'$"
                                                                           "ref':"
                                                                           "'#/"
                                                                           "$defs/"
                                                                           "addres"
                                                                           "s'},'"
                                                                           "contac"
                                                                           "tMetho"
                                                                           "d':{'"
                                                                           "type':"
                                                                           "'strin"
                                                                           "g','"
                                                                           "enum':"
                                                                           "['"
                                                                           "phone'"
                                                                           ",'"
                                                                           "email'"
                                                                           "]},'"
                                                                           "phone'"
                                                                           ":{"
                                                                           "'type'"
                                                                           ":'"
                                                                           "string"
                                                                           "'},'"
                                                                           "email'"
                                                                           ":{'"
                                                                           "type':"
                                                                           "'strin"
                                                                           "g'}},'"
                                                                           "allOf'"
                                                                           ":[{'"
                                                                           "anyOf'"
                                                                           ":[{'"
                                                                           "requir"
                                                                           "ed':['"
                                                                           "phone'"
                                                                           "]},{"
                                                                           "'requi"
                                                                           "red':["
                                                                           "'email"
                                                                           "']}]}]"
                                                                           ",'if':"
                                                                           "{'"
                                                                           "proper"
                                                                           "ties':"
                                                                           "{'"
                                                                           "contac"
                                                                           "tMetho"
                                                                           "d':{'"
                                                                           "const'"
                                                                           ":'"
                                                                           "phone'"
                                                                           "}},'"
                                                                           "requir"
                                                                           "ed':["
                                                                           "'conta"
                                                                           "ctMeth"
                                                                           "od']},"
                                                                           "'then'"
                                                                           ":{'"
                                                                           "requir"
                                                                           "ed':['"
                                                                           "phone'"
                                                                           "]},'"
                                                                           "else':"
                                                                           "{'"
                                                                           "requir"
                                                                           "ed':['"
                                                                           "email'"
                                                                           "]},"
                                                                           "'addit"
                                                                           "ionalP"
                                                                           "ropert"
                                                                           "ies':"
                                                                           "false}"
                                                                           "}";

static const char prompts_json[] =
    "{'name':'test_simple_prompt','description':'Without arguments'},"
    "{'name':'test_prompt_with_arguments','description':'With two arguments','arguments':["
    "{'name':'arg1','description':'First','required':true},"
    "{'name':'arg2','description':'Second','required':true}]},"
    "{'name':'test_prompt_with_embedded_resource','description':'With a resource','arguments':["
    "{'name':'resourceUri','description':'Which resource','required':true}]},"
    "{'name':'test_prompt_with_image','description':'With an image'},"
    "{'name':'test_input_required_result_prompt','description':'Asks for context'}";

static const char resources_json[] =
    "{'uri':'test://static-text','name':'static-text','description':'Text that stays','mimeType':"
    "'text/plain'},{'uri':'test://static-binary','name':'static-binary','description':'An image',"
    "'mimeType':'image/png'},{'uri':'test://watched-resource','name':'watched-resource',"
    "'description':'Can be watched','mimeType':'text/plain'}";

static const char templates_json[] =
    "{'uriTemplate':'test://template/{id}/data','name':'template','description':'One for each id',"
    "'mimeType':'application/json'}";

static err_t fixture_mcp_list(fixture_t *self, call_t *call, const fixture_mcp_list_args_t *args,
                              fixture_mcp_list_reply_t *reply)
{
    const char *items = !strcmp(args->kind, "tools")       ? tools_json
                        : !strcmp(args->kind, "prompts")   ? prompts_json
                        : !strcmp(args->kind, "resources") ? resources_json
                                                           : templates_json;
    const char *more = "";
    if (self->more_tools && items == tools_json)
        more = ",{'name':'test_dynamic_tool','description':'Comes and goes'," EMPTY "}";
    if (self->more_prompts && items == prompts_json)
        more = ",{'name':'test_dynamic_prompt','description':'Comes and goes'}";
    reply->items = json(call, arena_printf(call_arena(call), "[%s%s%s]", items,
                                           items == tools_json ? jobs_json : "", more));
    return err_ok();
}

/* ---- Tools: what is the same each time ---- */

typedef struct fixed {
    const char *name, *result;
} fixed_t;

static const fixed_t fixed_tools[] = {
    {"test_simple_text",
     "{'content':[{'type':'text','text':'This is a simple text response for testing.'}]}"},
    {"test_image_content",
     "{'content':[{'type':'image','data':'" PNG "','mimeType':'image/png'}]}"},
    {"test_audio_content",
     "{'content':[{'type':'audio','data':'" WAV "','mimeType':'audio/wav'}]}"},
    {"test_embedded_resource",
     "{'content':[{'type':'resource','resource':{'uri':'test://embedded-resource','mimeType':"
     "'text/plain','text':'This is an embedded resource content.'}}]}"},
    {"test_multiple_content_types",
     "{'content':[{'type':'text','text':'Multiple content types "
     "test:'},{'type':'image','data':'" PNG
     "','mimeType':'image/png'},{'type':'resource','resource':{'uri':'test://mixed-content-"
     "resource','mimeType':'application/json','text':'{}'}}]}"},
    {"test_error_handling",
     "{'content':[{'type':'text','text':'This tool intentionally returns an error for testing'}],"
     "'isError':true}"},
    {"json_schema_2020_12_tool", "{'content':[{'type':'text','text':'called'}]}"},
    {"test_x_mcp_header", "{'content':[{'type':'text','text':'called'}]}"},
    {"test_dynamic_tool", "{'content':[{'type':'text','text':'called'}]}"},
    {NULL, NULL}};

/* ---- Tools that take time ---- */

typedef struct steps {
    int done;
    bool log;
} steps_t;

static err_t step(void *self, call_t *call, void *reply, void *ctx)
{
    steps_t *steps = ctx;
    static const char *const lines[] = {"Tool execution started", "Tool processing data",
                                        "Tool execution completed"};
    (void)self;
    if (steps->log)
        call_note(call, "info", lines[steps->done]);
    else
        call_progress(call, 50 * steps->done, 100, lines[steps->done]);
    if (++steps->done == 3) {
        ((reply_t *)reply)->result = text_result(call, "done", false);
        return err_ok();
    }
    call_resume_after(call, STEP_MS, step, steps);
    return call_park(call);
}

static err_t finish_later(void *self, call_t *call, void *reply, void *ctx)
{
    (void)self;
    ((reply_t *)reply)->result = text_result(call, ctx, false);
    return err_ok();
}

/* ---- Tools that ask ---- */

#define ASK(key, message, property, type)                                                          \
    "'" key "':{'method':'elicitation/create','params':{'message':'" message                       \
    "','requestedSchema':{'type':'object','properties':{'" property "':{'type':'" type             \
    "'}},'required':['" property "']}}}"
#define SAMPLE(key, prompt)                                                                        \
    "'" key "':{'method':'sampling/createMessage','params':{'messages':[{'role':'user','content':" \
    "{'type':'text','text':'" prompt "'}}],'maxTokens':100}}"
#define ROOTS "'client_roots':{'method':'roots/list','params':{}}"

static const char defaults_json[] =
    "{'form':{'method':'elicitation/create','params':{'message':'Please review the fields',"
    "'requestedSchema':{'type':'object','properties':{"
    "'name':{'type':'string','description':'User name','default':'John Doe'},"
    "'age':{'type':'integer','description':'User age','default':30},"
    "'score':{'type':'number','description':'User score','default':95.5},"
    "'status':{'type':'string','description':'User status','enum':['active','inactive','pending'],"
    "'default':'active'},"
    "'verified':{'type':'boolean','description':'Verified','default':true}},'required':[]}}}}";

static const char enums_json[] =
    "{'form':{'method':'elicitation/create','params':{'message':'Please choose','requestedSchema':{"
    "'type':'object','properties':{"
    "'untitledSingle':{'type':'string','description':'One','enum':['option1','option2','option3']},"
    "'titledSingle':{'type':'string','description':'One','oneOf':[{'const':'value1','title':"
    "'First Option'},{'const':'value2','title':'Second Option'},{'const':'value3','title':"
    "'Third Option'}]},"
    "'legacyEnum':{'type':'string','description':'One','enum':['opt1','opt2','opt3'],'enumNames':["
    "'Option One','Option Two','Option Three']},"
    "'untitledMulti':{'type':'array','description':'Some','minItems':1,'maxItems':3,'items':{"
    "'type':'string','enum':['option1','option2','option3']}},"
    "'titledMulti':{'type':'array','description':'Some','minItems':1,'maxItems':3,'items':{'anyOf':"
    "[{'const':'value1','title':'First Choice'},{'const':'value2','title':'Second Choice'},{"
    "'const':'value3','title':'Third Choice'}]}}},'required':[]}}}}";

typedef struct asking {
    const char *name, *inputs, *state;
    const char *keys[4];
} asking_t;

static const asking_t askings[] = {
    {"test_elicitation_sep1034_defaults", defaults_json, NULL, {"form"}},
    {"test_elicitation_sep1330_enums", enums_json, NULL, {"form"}},
    {"test_streaming_elicitation",
     "{" ASK("user_name", "What is your name?", "name", "string") "}",
     NULL,
     {"user_name"}},
    {"test_input_required_result_elicitation",
     "{" ASK("user_name", "What is your name?", "name", "string") "}",
     NULL,
     {"user_name"}},
    {"test_input_required_result_sampling",
     "{" SAMPLE("capital_question", "What is the capital of France?") "}",
     NULL,
     {"capital_question"}},
    {"test_input_required_result_list_roots", "{" ROOTS "}", NULL, {"client_roots"}},
    {"test_input_required_result_request_state",
     "{" ASK("confirm", "Please confirm", "ok", "boolean") "}",
     "waiting",
     {"confirm"}},
    {"test_input_required_result_tampered_state",
     "{" ASK("confirm", "Please confirm", "ok", "boolean") "}",
     "waiting",
     {"confirm"}},
    {"test_input_required_result_multiple_inputs",
     "{" ASK("user_name", "What is your name?", "name",
             "string") "," SAMPLE("greeting", "Generate a greeting") "," ROOTS "}",
     "waiting",
     {"user_name", "greeting", "client_roots"}},
    {NULL, NULL, NULL, {NULL}}};

static bool answered(const asking_t *asking, const args_t *args)
{
    if (asking->state && !args->state)
        return false;
    for (int i = 0; asking->keys[i]; i++)
        if (!has(args->responses, asking->keys[i]))
            return false;
    return true;
}

static err_t ask(call_t *call, reply_t *reply, const char *inputs, const char *state)
{
    reply->inputs = json(call, inputs);
    reply->state = state;
    return err_ok();
}

static const char *as_text(call_t *call, bytes_t value)
{
    buf_t out;
    buf_open(&out, call_arena(call));
    return value.size && !err_is(json_from_msgpack(value, JSON_COMPACT, &out)) ? out.data : "";
}

static err_t ask_rounds(call_t *call, const args_t *args, reply_t *reply)
{
    if (args->state && !strcmp(args->state, "two") && has(args->responses, "step2")) {
        reply->result = text_result(call, as_text(call, args->responses), false);
        return err_ok();
    }
    if (args->state && has(args->responses, "step1"))
        return ask(call, reply,
                   "{" ASK("step2", "Step 2: What is your favorite color?", "color", "string") "}",
                   "two");
    return ask(call, reply, "{" ASK("step1", "Step 1: What is your name?", "name", "string") "}",
               "one");
}

/* Only what the client offers. */
static err_t ask_offered(call_t *call, const args_t *args, reply_t *reply)
{
    buf_t inputs;
    buf_open(&inputs, call_arena(call));
    if (args->responses.size) {
        reply->result = text_result(call, as_text(call, args->responses), false);
        return err_ok();
    }
    if (has(args->capabilities, "sampling"))
        buf_puts(&inputs, SAMPLE("greeting", "Generate a greeting"));
    if (has(args->capabilities, "elicitation"))
        buf_printf(&inputs, "%s%s", inputs.size ? "," : "",
                   ASK("user_name", "What is your name?", "name", "string"));
    if (!inputs.size) {
        reply->needs = json(call, "{'elicitation':{}}");
        return err_ok();
    }
    return ask(call, reply, arena_printf(call_arena(call), "{%s}", inputs.data), NULL);
}

static err_t ask_model(call_t *call, const args_t *args, reply_t *reply)
{
    const char *text = text_at(call, args->responses, "model", "content", "text");
    if (has(args->responses, "model")) {
        reply->result = text_result(
            call, arena_printf(call_arena(call), "LLM response: %s", text ? text : ""), false);
        return err_ok();
    }
    text = text_at(call, args->arguments, "prompt", NULL, NULL);
    return ask(
        call, reply,
        arena_printf(call_arena(call),
                     "{'model':{'method':'sampling/createMessage','params':{'messages':[{"
                     "'role':'user','content':{'type':'text','text':%s}}],'maxTokens':100}}}",
                     quoted(call, text ? text : "")),
        NULL);
}

static err_t ask_user(call_t *call, const args_t *args, reply_t *reply)
{
    if (has(args->responses, "user")) {
        reply->result = text_result(
            call,
            arena_printf(call_arena(call), "User response: %s", as_text(call, args->responses)),
            false);
        return err_ok();
    }
    const char *text = text_at(call, args->arguments, "message", NULL, NULL);
    return ask(call, reply,
               arena_printf(call_arena(call),
                            "{'user':{'method':'elicitation/create','params':{'message':%s,"
                            "'requestedSchema':{'type':'object','properties':{'response':{'type':"
                            "'string','description':'What the user says'}},'required':['response']"
                            "}}}}",
                            quoted(call, text ? text : "")),
               NULL);
}

/* ---- Tasks ---- */

static const char *when(call_t *call, int64_t ms)
{
    return record_time_text(call_arena(call), ms);
}

static const char *state_of(call_t *call, const task_t *task)
{
    if (task->cancelled)
        return "cancelled";
    if (task->wanted & ~task->answered)
        return "input_required";
    if (call_now_ms(call) < task->due_ms)
        return "working";
    return !strcmp(task->tool, "protocol_error_job") ? "failed" : "completed";
}

static bytes_t detail_of(call_t *call, const task_t *task, bool full)
{
    const char *state = state_of(call, task);
    buf_t out;
    buf_open(&out, call_arena(call));
    buf_printf(&out,
               "{'status':'%s','createdAt':'%s','lastUpdatedAt':'%s','ttlMs':600000,"
               "'pollIntervalMs':100",
               full ? state : "working", when(call, task->made_ms),
               when(call, full ? call_now_ms(call) : task->made_ms));
    if (full && !strcmp(state, "completed"))
        buf_printf(&out, ",'result':{'content':[{'type':'text','text':%s}]%s}",
                   quoted(call, task->text),
                   !strcmp(task->tool, "failing_job") ? ",'isError':true" : "");
    if (full && !strcmp(state, "failed"))
        buf_puts(&out, ",'error':{'code':-32603,'message':'the job broke'}");
    if (full && !strcmp(state, "input_required")) {
        int open = task->wanted & ~task->answered;
        buf_printf(&out, ",'inputRequests':{%s%s%s}",
                   open & 1 ? ASK("first", "Really?", "confirm", "boolean") : "",
                   open == 3 ? "," : "",
                   open & 2 ? ASK("second", "Really, really?", "confirm", "boolean") : "");
    }
    buf_puts(&out, "}");
    return json(call, out.data);
}

static err_t make_task(fixture_t *self, call_t *call, const char *tool, const char *text,
                       int64_t takes_ms, int wanted, reply_t *reply)
{
    task_t *task = &self->tasks[self->task_count++ % TASKS_MOST]; /* the oldest makes room */
    *task = (task_t){.tool = tool,
                     .made_ms = call_now_ms(call),
                     .due_ms = call_now_ms(call) + takes_ms,
                     .wanted = wanted};
    snprintf(task->id, sizeof(task->id), "%s", call_new_id(call, "job_"));
    snprintf(task->text, sizeof(task->text), "%s", text);
    reply->task = task->id;
    reply->detail = detail_of(call, task, false);
    return err_ok();
}

static err_t needs_tasks(call_t *call, reply_t *reply)
{
    reply->needs = json(call, "{'extensions':{'" TASKS_EXTENSION "':{}}}");
    return err_ok();
}

static err_t slow_compute(fixture_t *self, call_t *call, const args_t *args, reply_t *reply)
{
    double seconds = 0;
    bytes_t field;
    if (args->arguments.size && mp_get(args->arguments, "seconds", &field))
        mp_real(field, &seconds);
    if (args->tasks)
        return make_task(self, call, "slow_compute", "computed", (int64_t)(seconds * 1000), 0,
                         reply);
    call_resume_after(call, (int64_t)(seconds * 1000), finish_later, (void *)"computed");
    return call_park(call);
}

/* Asks first, then goes on as a task. */
static err_t tool_with_task(fixture_t *self, call_t *call, const args_t *args, reply_t *reply)
{
    if (!args->tasks)
        return needs_tasks(call, reply);
    const char *name = text_at(call, args->responses, "user_name", "content", "name");
    if (!name)
        return ask(call, reply, "{" ASK("user_name", "What is your name?", "name", "string") "}",
                   "asked");
    return make_task(self, call, "test_tool_with_task",
                     arena_printf(call_arena(call), "Hello, %s!", name), QUICK_MS, 0, reply);
}

static err_t call_job(fixture_t *self, call_t *call, const args_t *args, reply_t *reply)
{
    static const struct {
        const char *name;
        int wanted;
    } jobs[] = {
        {"failing_job", 0}, {"protocol_error_job", 0}, {"confirm_delete", 1}, {"multi_input", 3}};
    if (!strcmp(args->name, "slow_compute"))
        return slow_compute(self, call, args, reply);
    if (!strcmp(args->name, "test_tool_with_task"))
        return tool_with_task(self, call, args, reply);
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
        if (!strcmp(jobs[i].name, args->name))
            return args->tasks ? make_task(self, call, jobs[i].name, "the job ended", QUICK_MS,
                                           jobs[i].wanted, reply)
                               : needs_tasks(call, reply);
    reply->missing = reply->has_missing = true;
    return err_ok();
}

static err_t fixture_mcp_task(fixture_t *self, call_t *call, const fixture_mcp_task_args_t *args,
                              fixture_mcp_task_reply_t *reply)
{
    task_t *task = NULL;
    for (size_t i = 0; i < TASKS_MOST && !task; i++)
        if (!strcmp(self->tasks[i].id, args->id))
            task = &self->tasks[i];
    if (!task) {
        reply->missing = reply->has_missing = true;
        return err_ok();
    }
    const char *state = state_of(call, task);
    if (!strcmp(args->operation, "cancel") &&
        (!strcmp(state, "working") || !strcmp(state, "input_required")))
        task->cancelled = true;
    if (!strcmp(args->operation, "update")) {
        task->answered |= has(args->responses, "first") ? 1 : 0;
        task->answered |= has(args->responses, "second") ? 2 : 0;
    }
    reply->detail = detail_of(call, task, true);
    return err_ok();
}

/* ---- Everything else ---- */

static err_t change(fixture_t *self, call_t *call, bool tools, reply_t *reply)
{
    static const char *const what[] = {"tools", "prompts"};
    if (tools)
        self->more_tools = !self->more_tools;
    else
        self->more_prompts = !self->more_prompts;
    reply->changed = (strs_t){&what[!tools], 1};
    reply->result = text_result(call, "changed", false);
    return err_ok();
}

static err_t call_special(fixture_t *self, call_t *call, const args_t *args, reply_t *reply)
{
    const char *name = args->name;
    if (!strcmp(name, "test_tool_with_logging") || !strcmp(name, "test_tool_with_progress")) {
        steps_t *steps = ARENA_NEW(call_arena(call), steps_t);
        steps->log = !strcmp(name, "test_tool_with_logging");
        return step(self, call, reply, steps);
    }
    if (!strcmp(name, "test_reconnection")) {
        call_fetch_later(call);
        call_resume_after(call, 2 * STEP_MS, finish_later, (void *)"Reconnection test completed");
        return call_park(call);
    }
    if (!strcmp(name, "test_logging_tool")) {
        call_note(call, "info", "a line of log");
        reply->result = text_result(call, "logged", false);
        return err_ok();
    }
    if (!strncmp(name, "test_trigger_", 13))
        return change(self, call, !strcmp(name, "test_trigger_tool_change"), reply);
    if (!strcmp(name, "test_missing_capability")) {
        if (has(args->capabilities, "sampling"))
            reply->result = text_result(call, "sampling is offered", false);
        else
            reply->needs = json(call, "{'sampling':{}}");
        return err_ok();
    }
    if (!strcmp(name, "greet")) {
        const char *who = text_at(call, args->arguments, "name", NULL, NULL);
        reply->result = text_result(
            call, arena_printf(call_arena(call), "Hello, %s!", who ? who : "you"), false);
        return err_ok();
    }
    return call_job(self, call, args, reply);
}

static err_t call_asking(fixture_t *self, call_t *call, const args_t *args, reply_t *reply)
{
    for (const asking_t *at = askings; at->name; at++) {
        if (strcmp(at->name, args->name) != 0)
            continue;
        if (!answered(at, args))
            return ask(call, reply, at->inputs, at->state);
        reply->result =
            text_result(call,
                        arena_printf(call_arena(call), "%s%s", at->state ? "state-ok " : "",
                                     as_text(call, args->responses)),
                        false);
        return err_ok();
    }
    if (!strcmp(args->name, "test_input_required_result_multi_round"))
        return ask_rounds(call, args, reply);
    if (!strcmp(args->name, "test_input_required_result_capabilities"))
        return ask_offered(call, args, reply);
    if (!strcmp(args->name, "test_sampling"))
        return ask_model(call, args, reply);
    if (!strcmp(args->name, "test_elicitation"))
        return ask_user(call, args, reply);
    return call_special(self, call, args, reply);
}

#define MESSAGE(content) "{'role':'user','content':" content "}"
#define IMAGE "{'type':'image','data':'" PNG "','mimeType':'image/png'}"

static err_t get_prompt(call_t *call, const args_t *args, reply_t *reply)
{
    arena_t *arena = call_arena(call);
    const char *one = text_at(call, args->arguments, "arg1", NULL, NULL);
    const char *two = text_at(call, args->arguments, "arg2", NULL, NULL);
    const char *uri = text_at(call, args->arguments, "resourceUri", NULL, NULL);
    const char *context = text_at(call, args->responses, "user_context", "content", "context");
    const char *messages = NULL;
    if (!strcmp(args->name, "test_simple_prompt") || !strcmp(args->name, "test_dynamic_prompt"))
        messages = MESSAGE("{'type':'text','text':'This is a simple prompt for testing.'}");
    if (!strcmp(args->name, "test_prompt_with_arguments"))
        messages =
            arena_printf(arena, MESSAGE("{'type':'text','text':%s}"),
                         quoted(call, arena_printf(arena, "Prompt with arguments: arg1=%s, arg2=%s",
                                                   one ? one : "", two ? two : "")));
    if (!strcmp(args->name, "test_prompt_with_embedded_resource"))
        messages = arena_printf(arena,
                                MESSAGE("{'type':'resource','resource':{'uri':%s,'mimeType':"
                                        "'text/plain','text':'Embedded resource content.'}}"),
                                quoted(call, uri ? uri : "test://none"));
    if (!strcmp(args->name, "test_prompt_with_image"))
        messages = MESSAGE(IMAGE) "," MESSAGE("{'type':'text','text':'Please look.'}");
    if (!strcmp(args->name, "test_input_required_result_prompt")) {
        if (!context)
            return ask(call, reply,
                       "{" ASK("user_context", "What context should the prompt use?", "context",
                               "string") "}",
                       NULL);
        messages = arena_printf(arena, MESSAGE("{'type':'text','text':%s}"), quoted(call, context));
    }
    if (messages)
        reply->result = json(call, arena_printf(arena, "{'messages':[%s]}", messages));
    else
        reply->missing = reply->has_missing = true;
    return err_ok();
}

static err_t read_resource(call_t *call, const args_t *args, reply_t *reply)
{
    char id[64];
    int used = 0;
    const char *content = NULL;
    arena_t *arena = call_arena(call);
    if (!strcmp(args->name, "test://static-text"))
        content = "'mimeType':'text/plain','text':'This is the content of the static text "
                  "resource.'";
    if (!strcmp(args->name, "test://watched-resource"))
        content = "'mimeType':'text/plain','text':'Watched resource content'";
    if (!strcmp(args->name, "test://static-binary"))
        content = "'mimeType':'image/png','blob':'" PNG "'";
    if (sscanf(args->name, "test://template/%63[A-Za-z0-9]/data%n", id, &used) == 1 && used &&
        !args->name[used])
        content =
            arena_printf(arena, "'mimeType':'application/json','text':%s",
                         quoted(call, arena_printf(arena,
                                                   "{\"id\":\"%s\",\"templateTest\":true,\"data\":"
                                                   "\"Data for ID: %s\"}",
                                                   id, id)));
    if (content)
        reply->result = json(call, arena_printf(arena, "{'contents':[{'uri':%s,%s}]}",
                                                quoted(call, args->name), content));
    else
        reply->missing = reply->has_missing = true;
    return err_ok();
}

static err_t fixture_mcp_call(fixture_t *self, call_t *call, const args_t *args, reply_t *reply)
{
    if (!strcmp(args->kind, "prompt"))
        return get_prompt(call, args, reply);
    if (!strcmp(args->kind, "resource"))
        return read_resource(call, args, reply);
    for (const fixed_t *at = fixed_tools; at->name; at++)
        if (!strcmp(at->name, args->name)) {
            reply->result = json(call, at->result);
            return err_ok();
        }
    return call_asking(self, call, args, reply);
}

static err_t fixture_mcp_complete(fixture_t *self, call_t *call,
                                  const fixture_mcp_complete_args_t *args,
                                  fixture_mcp_complete_reply_t *reply)
{
    static const char *const values[] = {"paris", "park", "party"};
    (void)self;
    (void)call;
    reply->missing = reply->has_missing = strncmp(args->name, "test", 4) != 0;
    reply->values = (strs_t){values, 3};
    return err_ok();
}

static const actor_def_t fixture_actor = {
    .name = "fixture",
    .doc = "Named things that the conformance suite looks for.",
    .size = sizeof(fixture_t),
    .methods = fixture_methods,
};

/* ---- The process ---- */

static int serve(host_t *host, int port)
{
    arena_t *arena = arena_new();
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    struct pollfd fd = {.fd = signalfd(-1, &signals, SFD_CLOEXEC), .events = POLLIN};
    err_t err = host_start(host, &fixture_actor, NULL, arena);
    if (!err_is(err))
        err = host_start(host, &gateway_actor, NULL, arena);
    if (err_is(err)) {
        fprintf(stderr, "fixture: %s\n", err_what(err));
        return 1;
    }
    printf("fixture is ready at http://127.0.0.1:%d/mcp\n", port);
    fflush(stdout);
    poll(&fd, 1, -1);
    arena_destroy(&arena);
    return 0;
}

int main(int argc, char **argv)
{
    int port = argc == 3 ? atoi(argv[1]) : 0;
    if (port < 1) {
        fprintf(stderr, "usage: fixture PORT DATA\n");
        return 2;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* before the first thread */
    arena_t *arena = arena_new();
    const char *settings[] = {"gateway.pillar=fixture",
                              arena_printf(arena, "gateway.port=%d", port), NULL};
    host_options_t options = {.data_dir = argv[2], .settings = settings, .log_level = LOG_WARN};
    host_t *host = NULL;
    err_t err = host_open(&options, arena, &host);
    if (err_is(err)) {
        fprintf(stderr, "fixture: %s\n", err_what(err));
        return 1;
    }
    int status = serve(host, port);
    host_close(&host, 1000);
    arena_destroy(&arena);
    return status;
}

#include "actors/outside/outside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/outside/begun.h"
#include "actors/outside/server.h"
#include "bus/child.h"
#include "bus/http_client.h"

RECORD_ROWS_(outside_settings, outside_settings_FIELDS)
static const record_t outside_settings_record = {"outside_settings", outside_settings_rows,
                                                 sizeof(outside_settings_t)};

enum { LOG_WAITING_MOST = 200, LIFE_BYTES = 8, DAY_MS = 24 * 3600 * 1000 };

typedef struct log_line {
    struct log_line *next;
    log_level_t level;
    char *text;
} log_line_t;

typedef struct outside {
    const outside_settings_t *settings; /* first: the skeleton fills it in */
    actor_t *actor;
    children_t *children;
    http_client_t *http;
    char *file, life[2 * LIFE_BYTES + 1];
    server_t *servers[CONFIG_SERVERS_MOST];
    size_t count;
    /* The file as it was read last: */
    bool seen;
    int unseen; /* errno since it cannot be looked at; 0: it can */
    off_t size;
    ino_t inode;
    struct timespec changed;
    char *problem;             /* of the file; NULL: none */
    int64_t armed_us, look_us; /* when it wakes up next; when it looks at the file */
    log_line_t *log, **log_end;
    int log_count, log_lost;
    begun_t begun;
} outside_t;

/* ---- Log lines wait until there is a call that may write them ---- */

static void keep_line(void *ctx, log_level_t level, const char *text)
{
    outside_t *self = ctx;
    if (self->log_count == LOG_WAITING_MOST) {
        self->log_lost++;
        return;
    }
    log_line_t *line = calloc(1, sizeof(*line));
    if (!line || !(line->text = strdup(text)))
        abort();
    line->level = level;
    *self->log_end = line;
    self->log_end = &line->next;
    self->log_count++;
}

static void write_lines(outside_t *self, call_t *call)
{
    while (self->log) {
        log_line_t *line = self->log;
        self->log = line->next;
        if (call)
            call_log(call, line->level, "%s", line->text);
        free(line->text);
        free(line);
    }
    if (call && self->log_lost)
        call_log(call, LOG_WARN, "%d more lines of mcp servers were left out", self->log_lost);
    self->log_end = &self->log;
    self->log_count = self->log_lost = 0;
}

/* ---- mcp.json ---- */

static const char *variable(const char *name)
{
    return getenv(name);
}

/* One byte more than the limit, so that the reader sees that it is too large. */
static char *read_whole(const char *path, size_t most, size_t *size)
{
    FILE *file = fopen(path, "re");
    char *text = file ? malloc(most + 1) : NULL;
    if (text)
        *size = fread(text, 1, most + 1, file);
    if (file)
        fclose(file);
    return text;
}

static config_limits_t limits_of(const outside_t *self)
{
    return (config_limits_t){.bytes = (size_t)self->settings->file_bytes,
                             .servers = (size_t)self->settings->servers};
}

static void hurry(void *ctx, int64_t due_us);

static server_world_t world_of(outside_t *self)
{
    return (server_world_t){.settings = self->settings,
                            .actor = self->actor,
                            .children = self->children,
                            .http = self->http,
                            .hurry = hurry,
                            .log = keep_line,
                            .ctx = self};
}

static void set_problem(outside_t *self, const char *text)
{
    free(self->problem);
    self->problem = text ? strdup(text) : NULL;
    if (text)
        keep_line(self, LOG_ERROR, text);
}

static server_t *take_same(outside_t *self, const config_server_t *config)
{
    for (size_t i = 0; i < self->count; i++) {
        server_t *server = self->servers[i];
        if (server && !strcmp(server_config(server)->name, config->name) &&
            !strcmp(server_config(server)->digest, config->digest)) {
            self->servers[i] = NULL;
            return server;
        }
    }
    return NULL;
}

static void on_http(void *state, void *ctx)
{
    outside_t *self = state;
    (void)ctx;
    http_client_on_readable(self->http);
}

/* libcurl costs time and memory when it begins: not before a server needs it. */
static void need_http(outside_t *self, const config_t *config)
{
    bool needed = false;
    for (size_t i = 0; i < config->count; i++)
        needed = needed || config->servers[i].url;
    if (!needed || self->http)
        return;
    self->http = http_client_new();
    actor_watch(self->actor, http_client_fd(self->http), on_http, NULL);
}

/* Servers of which nothing changed go on as they are. Each has a copy of the configuration of its
 * own: the file is read once more into the arena of each that is new. */
static void apply(outside_t *self, const char *text, size_t size, const config_t *config)
{
    server_t *now[CONFIG_SERVERS_MOST] = {NULL};
    need_http(self, config);
    server_world_t world = world_of(self);
    for (size_t i = 0; i < config->count; i++) {
        now[i] = take_same(self, &config->servers[i]);
        if (now[i])
            continue;
        arena_t *arena = arena_new();
        config_t own;
        config_parse(text, size, limits_of(self), variable, arena, &own);
        now[i] = server_new(&world, &own.servers[i], arena);
    }
    for (size_t i = 0; i < self->count; i++)
        server_destroy(&self->servers[i]);
    memcpy(self->servers, now, config->count * sizeof(*now));
    self->count = config->count;
}

static void read_config(outside_t *self)
{
    size_t size = 0;
    char *text = read_whole(self->file, (size_t)self->settings->file_bytes, &size);
    arena_t *arena = arena_new();
    config_t config = {0};
    err_t err;
    if (!text)
        err = err_make(arena, ERR_IO, "%s cannot be read: %s", self->file, strerror(errno));
    else
        err = config_parse(text, size, limits_of(self), variable, arena, &config);
    if (err_is(err))
        set_problem(self, arena_printf(arena, "%s: %s; what was read before it goes on", self->file,
                                       err_what(err)));
    else
        set_problem(self, NULL);
    if (!err_is(err))
        apply(self, text, size, &config);
    free(text);
    arena_destroy(&arena);
}

static void forget_file(outside_t *self)
{
    if (!self->seen)
        return;
    self->seen = false;
    self->unseen = 0;
    set_problem(self, NULL);
    keep_line(self, LOG_INFO, "mcp.json is gone, and so are its servers");
    apply(self, "", 0, &(config_t){0});
}

/* A disk or a mount in trouble is no order to end the servers. Said once for each trouble. */
static void keep_unseen(outside_t *self, int error)
{
    char text[512];
    if (self->unseen == error)
        return;
    self->unseen = error;
    snprintf(text, sizeof(text), "%s cannot be looked at: %s; what was read before goes on",
             self->file, strerror(error));
    set_problem(self, text);
}

static void look_at_file(outside_t *self)
{
    struct stat now;
    if (stat(self->file, &now)) {
        if (errno == ENOENT || errno == ENOTDIR)
            forget_file(self);
        else
            keep_unseen(self, errno);
        return;
    }
    if (self->seen && !self->unseen && self->size == now.st_size && self->inode == now.st_ino &&
        !memcmp(&self->changed, &now.st_mtim, sizeof(self->changed)))
        return;
    self->seen = true;
    self->unseen = 0;
    self->size = now.st_size;
    self->inode = now.st_ino;
    self->changed = now.st_mtim;
    read_config(self);
}

/* ---- Time ---- */

static err_t tend(void *state, call_t *call, void *ctx);

/* Earlier plans fire too and find that they are not the one that counts. */
static void hurry(void *ctx, int64_t due_us)
{
    outside_t *self = ctx;
    if (due_us >= self->armed_us)
        return;
    int64_t wait = (due_us - actor_mono_us(self->actor) + 999) / 1000;
    self->armed_us = due_us;
    actor_work(self->actor, wait > 0 ? wait : 0, tend, NULL);
}

static err_t tend(void *state, call_t *call, void *ctx)
{
    outside_t *self = state;
    int64_t now = actor_mono_us(self->actor);
    (void)ctx;
    if (now < self->armed_us)
        return err_ok();
    self->armed_us = INT64_MAX;
    if (now >= self->look_us) {
        look_at_file(self);
        self->look_us = now + self->settings->reload_ms * 1000;
    }
    int64_t next = self->look_us;
    for (size_t i = 0; i < self->count; i++) {
        int64_t due = server_tend(self->servers[i], now);
        if (due < next)
            next = due;
    }
    write_lines(self, call);
    hurry(self, next);
    return err_ok();
}

static void on_children(void *state, void *ctx)
{
    outside_t *self = state;
    (void)ctx;
    children_on_readable(self->children);
}

/* ---- Life ---- */

static err_t outside_open(void *state, call_t *call)
{
    outside_t *self = state;
    uint8_t life[LIFE_BYTES];
    self->actor = call_actor(call);
    self->log_end = &self->log;
    const char *file = self->settings->file ? self->settings->file
                                            : arena_printf(call_arena(call), "%s/mcp.json",
                                                           actor_data_dir(self->actor));
    self->file = strdup(file);
    call_random(call, life, sizeof(life));
    for (size_t i = 0; i < sizeof(life); i++)
        snprintf(self->life + 2 * i, 3, "%02x", life[i]);
    self->children = children_new();
    self->armed_us = INT64_MAX;
    actor_watch(self->actor, children_fd(self->children), on_children, NULL);
    hurry(self, actor_mono_us(self->actor));
    return err_ok();
}

static void outside_close(void *state)
{
    outside_t *self = state;
    self->armed_us = INT64_MIN; /* no more work: nobody would do it */
    for (size_t i = 0; i < self->count; i++)
        server_destroy(&self->servers[i]);
    children_destroy(&self->children);
    http_client_destroy(&self->http);
    if (self->log_end)
        write_lines(self, NULL);
    free(self->file);
    free(self->problem);
}

/* ---- Rows ---- */

#define TOOL_ROW(F) F(STR, tool, must, 3, 256, "SERVER/TOOL, as mcp_servers names them.")

#define outside_look_ARGS(F) TOOL_ROW(F) COMPANY_ROW(F)
#define outside_look_REPLY(F)                                                                      \
    F(STR, life, must, 0, 0, "Of this actor; outside_call wants it back.")                         \
    F(BOOL, ready, must, 0, 0, "The tool can be called now.")                                      \
    F(BOOL, known, must, 0, 0, "There is such a server, and it has the tool or is away.")          \
    F(BOOL, reads, must, 0, 0, "The server says that it only reads.")                              \
    F(BOOL, repeatable, must, 0, 0, "The server says that a second time does no harm.")            \
    F(STR, why, opt(), 0, 0, "Why not.")

#define outside_end_VALUES(V)                                                                      \
    V(OUTSIDE_DONE, "done")                                                                        \
    V(OUTSIDE_FAILED, "failed")                                                                    \
    V(OUTSIDE_REFUSED, "refused") V(OUTSIDE_UNSENT, "unsent") V(OUTSIDE_UNKNOWN, "unknown")
RECORD_ENUM(outside_end, outside_end_VALUES)

#define outside_call_ARGS(F)                                                                       \
    TOOL_ROW(F)                                                                                    \
    F(STR, life, must, 0, 64, "What outside_look said.")                                           \
    F(ANY, arguments, opt(), 0, 0, "A map.")                                                       \
    F(STR, effect, opt(), 0, 128, "Id of the effect, for the server's own log.")                   \
    F(INT, timeout_ms, opt(), 1, 86400000, "How long it may take; mcp.json may say less.")         \
    COMPANY_ROW(F)
#define outside_call_REPLY(F)                                                                      \
    F(ENUM(outside_end), end, must, 0, 0,                                                          \
      "done; failed: the tool says so; refused, unsent: it was certainly not done, and later "     \
      "that "                                                                                      \
      "would be the same, or not; unknown: nobody knows whether it happened.")                     \
    F(ANY, result, opt(), 0, 0, "done: structuredContent, or {text, content}.")                    \
    F(STR, why, opt(), 0, 0, "Why not.")

#define outside_tool_FIELDS(F)                                                                     \
    F(STR, name, must, 0, 0, "SERVER/TOOL.")                                                       \
    F(STR, doc, must, 0, 0, "What it does, in the server's words.")                                \
    F(STR, replay, must, 0, 0, "safe: a second time does no harm, says the server. manual.")       \
    F(BOOL, reads, must, 0, 0, "It only reads, says the server.")                                  \
    F(STR, problem, opt(), 0, 0, "Why it cannot be used; the others can.")                         \
    F(ANY, input, opt(), 0, 0, "JSON Schema of its arguments.")
RECORD(outside_tool, outside_tool_FIELDS)

#define outside_tools_ARGS(F)                                                                      \
    F(STRS, allowed, must, 0, 1000, "SERVER/TOOL, or SERVER/* for all of a server.")               \
    COMPANY_ROW(F)
#define outside_tools_REPLY(F)                                                                     \
    F(STR, life, must, 0, 0, "Of this actor; outside_call wants it back.")                         \
    F(LIST(outside_tool), tools, must, 0, 0, "Those that are there and can be called.")

#define mcp_server_FIELDS(F)                                                                       \
    F(STR, name, must, 0, 0, "Its name in mcp.json; its tools are NAME/TOOL.")                     \
    F(STR, state, must, 0, 0,                                                                      \
      "starting, ready, away (it is started again), wrong (mcp.json is) or disabled.")             \
    F(STR, why, opt(), 0, 0, "Why it is not ready.")                                               \
    F(STR, transport, must, 0, 0, "stdio, http or sse.")                                           \
    F(STR, protocol, opt(), 0, 0, "Revision of MCP that is spoken.")                               \
    F(STR, title, opt(), 0, 0, "What it calls itself.")                                            \
    F(TIME, since, must, 0, 0, "Since when it is in this state.")                                  \
    F(INT, starts, must, 0, 0, "How often it was started.")                                        \
    F(INT, calls, must, 0, 0, "Calls so far.")                                                     \
    F(INT, errors, must, 0, 0, "Of them not done.")                                                \
    F(INT, open_calls, must, 0, 0, "Under way.")                                                   \
    F(INT, tool_count, must, 0, 0, "Tools that it offers.")                                        \
    F(INT, dropped, must, 0, 0, "Tools that are not offered: too many, or without a name.")        \
    F(LIST(outside_tool), tools, opt(), 0, 0, "Its tools, when they were asked for.")
RECORD(mcp_server, mcp_server_FIELDS)

#define mcp_servers_ARGS(F)                                                                        \
    F(STR, server, opt(), 1, 64, "Only this one, with its tools and their schemas.")               \
    F(BOOL, tools, opt(false), 0, 0, "Also the tools of each.")                                    \
    COMPANY_ROW(F)
#define mcp_servers_REPLY(F)                                                                       \
    F(STR, file, must, 0, 0, "Where they are written down.")                                       \
    F(STR, problem, opt(), 0, 0,                                                                   \
      "What is wrong with the file; in full to the role admin, since it may name others' "         \
      "servers.")                                                                                  \
    F(LIST(mcp_server), servers, must, 0, 0, "In the order of the file.")

#define OUTSIDE_METHODS(M)                                                                         \
    M(outside_t, mcp_servers, TOOL | READS | OPEN_WORLD,                                           \
      "The MCP servers of mcp.json: how they are, and which tools procedures can use.")            \
    M(outside_t, outside_look, READS, "Worker: can this tool be called, and twice?")               \
    M(outside_t, outside_call, WRITES | OPEN_WORLD, "Worker: calls a tool of a foreign server.")   \
    M(outside_t, outside_tools, READS, "Worker: the tools that a prose step may use.")
METHODS(outside_methods, OUTSIDE_METHODS)

/* ---- Finding ---- */

static server_t *find_server(const outside_t *self, const char *company, const char *name,
                             size_t size)
{
    for (size_t i = 0; i < self->count; i++) {
        const config_server_t *config = server_config(self->servers[i]);
        if (strlen(config->name) == size && !memcmp(config->name, name, size) &&
            config_serves(config, company))
            return self->servers[i];
    }
    return NULL;
}

typedef struct found {
    server_t *server;
    const foreign_tool_t *tool;
    const char *name; /* behind the / */
    bool passes;      /* it may be there later */
    const char *why;  /* NULL: it can be called */
} found_t;

static const char *no_server(const outside_t *self, call_t *call, const char *name, size_t size)
{
    buf_t names;
    buf_open(&names, call_arena(call));
    for (size_t i = 0; i < self->count; i++)
        if (config_serves(server_config(self->servers[i]), call_company(call)))
            buf_printf(&names, "%s%s", names.size ? ", " : "",
                       server_config(self->servers[i])->name);
    return arena_printf(call_arena(call), "there is no mcp server '%.*s'; mcp.json has %s",
                        (int)size, name, names.size ? names.data : "none for this company");
}

static const char *no_tool(call_t *call, const server_t *server, const char *name)
{
    size_t count;
    const foreign_tool_t *tools = server_tools(server, &count);
    const char **names = ARENA_ARRAY(call_arena(call), const char *, count + 1);
    for (size_t i = 0; i < count; i++)
        names[i] = tools[i].name;
    const char *near = record_nearest(name, names);
    return arena_printf(call_arena(call), "the mcp server %s has no tool '%s'%s%s%s",
                        server_config(server)->name, name, near ? "; did you mean " : "",
                        near ? near : "", near ? "?" : "");
}

static found_t find(const outside_t *self, call_t *call, const char *tool)
{
    found_t found = {.name = ""};
    const char *slash = strchr(tool, '/');
    if (!slash) {
        found.why = "a tool of an mcp server is written SERVER/TOOL";
        return found;
    }
    found.name = slash + 1;
    found.server = find_server(self, call_company(call), tool, (size_t)(slash - tool));
    if (!found.server) {
        found.why = no_server(self, call, tool, (size_t)(slash - tool));
        return found;
    }
    found.tool = server_tool(found.server, found.name);
    server_state_t state = server_state(found.server);
    const char *problem = server_problem(found.server);
    found.passes = state == SERVER_STARTING || state == SERVER_AWAY;
    if (state != SERVER_READY)
        found.why = arena_printf(call_arena(call), "the mcp server %s is %s%s%s",
                                 server_config(found.server)->name, server_state_names[state],
                                 problem ? ": " : "", problem ? problem : "");
    else if (!found.tool)
        found.why = no_tool(call, found.server, found.name);
    else if (found.tool->problem)
        found.why = arena_printf(call_arena(call), "the tool %s cannot be used: %s", tool,
                                 found.tool->problem);
    return found;
}

static err_t outside_look(outside_t *self, call_t *call, const outside_look_args_t *args,
                          outside_look_reply_t *reply)
{
    found_t found = find(self, call, args->tool);
    reply->life = self->life;
    reply->ready = !found.why;
    reply->known = !found.why || found.passes;
    reply->reads = found.tool && found.tool->reads;
    reply->repeatable = found.tool && found.tool->repeatable;
    reply->has_ready = reply->has_known = reply->has_reads = reply->has_repeatable = true;
    reply->why = found.why;
    return err_ok();
}

/* ---- Calling ---- */

static err_t on_outcome(void *self, call_t *call, void *out, const server_outcome_t *outcome)
{
    static const outside_end_t ends[] = {[END_DONE] = OUTSIDE_DONE,
                                         [END_FAILED] = OUTSIDE_FAILED,
                                         [END_REFUSED] = OUTSIDE_REFUSED,
                                         [END_UNSENT] = OUTSIDE_UNSENT,
                                         [END_UNKNOWN] = OUTSIDE_UNKNOWN};
    outside_call_reply_t *reply = out;
    (void)self;
    (void)call;
    reply->end = (int)ends[outcome->end];
    reply->has_end = true;
    reply->result = outcome->value;
    reply->why = outcome->end == END_DONE ? NULL : outcome->text;
    return err_ok();
}

static int64_t patience_ms(const outside_t *self, const found_t *found,
                           const outside_call_args_t *args)
{
    int64_t said = config_timeout_of(server_config(found->server), found->name);
    int64_t wait = said                   ? said
                   : args->has_timeout_ms ? args->timeout_ms
                                          : self->settings->call_timeout_ms;
    return args->has_timeout_ms && args->timeout_ms < wait ? args->timeout_ms : wait;
}

/* Sent again, and not under way any more: its answer was lost, unless it never came here. */
static bool may_have_ended(const outside_t *self, call_t *call, const char *effect)
{
    int64_t age_ms = call_age_ms(call);
    if (age_ms > DAY_MS)
        age_ms = DAY_MS;
    return age_ms > 0 && begun_maybe(&self->begun, call_company(call), effect,
                                     actor_mono_us(self->actor) - age_ms * 1000);
}

static err_t outside_call(outside_t *self, call_t *call, const outside_call_args_t *args,
                          outside_call_reply_t *reply)
{
    const char *effect = args->effect ? args->effect : "";
    found_t found = find(self, call, args->tool);
    server_outcome_t outcome = {.text = found.why};
    if (strcmp(args->life, self->life) != 0) {
        outcome = (server_outcome_t){.end = END_UNKNOWN,
                                     .text = "the agency's connection to the mcp servers was lost "
                                             "while the call was under way"};
        return on_outcome(self, call, reply, &outcome);
    }
    if (!(found.tool && found.tool->repeatable) && may_have_ended(self, call, effect)) {
        outcome = (server_outcome_t){.end = END_UNKNOWN,
                                     .text = "the call was made, and its answer was lost on the "
                                             "way from the connection to the mcp servers"};
        return on_outcome(self, call, reply, &outcome);
    }
    if (found.why) {
        outcome.end = found.passes ? END_UNSENT : END_REFUSED;
        return on_outcome(self, call, reply, &outcome);
    }
    begun_note(&self->begun, call_company(call), effect, actor_mono_us(self->actor));
    return server_call(found.server, call, found.tool, args->arguments, effect,
                       patience_ms(self, &found, args), reply, on_outcome);
}

/* ---- Listing ---- */

static outside_tool_t describe(arena_t *arena, const server_t *server, const foreign_tool_t *tool,
                               bool schema)
{
    return (outside_tool_t){
        .name = arena_printf(arena, "%s/%s", server_config(server)->name, tool->name),
        .doc = tool->doc,
        .replay = tool->repeatable ? "safe" : "manual",
        .reads = tool->reads,
        .has_reads = true,
        .problem = tool->problem,
        .input = schema ? tool->input : (bytes_t){0}};
}

static outside_tool_list_t all_tools(arena_t *arena, const server_t *server, bool schemas)
{
    size_t count;
    const foreign_tool_t *tools = server_tools(server, &count);
    outside_tool_list_t list = {ARENA_ARRAY(arena, outside_tool_t, count + 1), count};
    for (size_t i = 0; i < count; i++)
        list.items[i] = describe(arena, server, &tools[i], schemas);
    return list;
}

static bool permitted(strs_t allowed, const char *server, const char *tool)
{
    size_t size = strlen(server);
    for (size_t i = 0; i < allowed.count; i++) {
        const char *item = allowed.items[i];
        if (!strncmp(item, server, size) && item[size] == '/' &&
            (!strcmp(item + size + 1, "*") || !strcmp(item + size + 1, tool)))
            return true;
    }
    return false;
}

static err_t outside_tools(outside_t *self, call_t *call, const outside_tools_args_t *args,
                           outside_tools_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    size_t room = 0, count;
    for (size_t i = 0; i < self->count; i++) {
        server_tools(self->servers[i], &count);
        room += count;
    }
    reply->life = self->life;
    reply->tools.items = ARENA_ARRAY(arena, outside_tool_t, room + 1);
    for (size_t i = 0; i < self->count; i++) {
        const server_t *server = self->servers[i];
        const config_server_t *config = server_config(server);
        const foreign_tool_t *tools = server_tools(server, &count);
        if (server_state(server) != SERVER_READY || !config_serves(config, call_company(call)))
            continue;
        for (size_t j = 0; j < count; j++)
            if (!tools[j].problem && permitted(args->allowed, config->name, tools[j].name))
                reply->tools.items[reply->tools.count++] = describe(arena, server, &tools[j], true);
    }
    return err_ok();
}

static mcp_server_t view(arena_t *arena, const server_t *server, bool tools, bool schemas)
{
    server_facts_t facts;
    size_t count;
    server_facts(server, &facts);
    server_tools(server, &count);
    mcp_server_t row = {.name = server_config(server)->name,
                        .state = server_state_names[server_state(server)],
                        .why = server_problem(server),
                        .transport = facts.transport,
                        .protocol = facts.version,
                        .title = facts.title,
                        .since = facts.since_ms,
                        .has_since = true,
                        .starts = facts.starts,
                        .has_starts = true,
                        .calls = facts.calls,
                        .has_calls = true,
                        .errors = facts.errors,
                        .has_errors = true,
                        .open_calls = facts.open_calls,
                        .has_open_calls = true,
                        .tool_count = (int64_t)count,
                        .has_tool_count = true,
                        .dropped = facts.dropped_tools,
                        .has_dropped = true};
    if (tools) {
        row.tools = all_tools(arena, server, schemas);
        row.has_tools = true;
    }
    return row;
}

static void say_server(buf_t *out, const mcp_server_t *row)
{
    buf_printf(out, "%s%s (%s%s%s): %s", out->size ? "\n" : "", row->name, row->transport,
               row->protocol ? ", MCP " : "", row->protocol ? row->protocol : "", row->state);
    if (row->why)
        buf_printf(out, ", %s", row->why);
    buf_printf(out, "; %lld tools, %lld calls, %lld not done", (long long)row->tool_count,
               (long long)row->calls, (long long)row->errors);
    for (size_t i = 0; i < row->tools.count; i++) {
        const outside_tool_t *tool = &row->tools.items[i];
        int size = (int)strcspn(tool->doc, "\n");
        buf_printf(out, "\n  %s (%s) %.*s", tool->name,
                   tool->problem ? tool->problem
                   : tool->reads ? "reads"
                                 : tool->replay,
                   size > 100 ? 100 : size, tool->doc);
    }
}

/* The file is the operator's; a company's servers are no other company's business. */
static const char *problem_for(const outside_t *self, call_t *call)
{
    if (!self->problem)
        return NULL;
    return call_role(call) == ROLE_ADMIN
               ? arena_strdup(call_arena(call), self->problem)
               : "something is wrong with the file, and the servers are as it said before: the "
                 "role admin sees what it is";
}

static err_t mcp_servers(outside_t *self, call_t *call, const mcp_servers_args_t *args,
                         mcp_servers_reply_t *reply)
{
    arena_t *arena = call_arena(call);
    buf_t text;
    buf_open(&text, arena);
    if (args->server && !find_server(self, call_company(call), args->server, strlen(args->server)))
        return err_of(ERR_NOT_FOUND, no_server(self, call, args->server, strlen(args->server)));
    reply->file = self->file;
    reply->problem = problem_for(self, call);
    reply->servers.items = ARENA_ARRAY(arena, mcp_server_t, self->count + 1);
    if (reply->problem)
        buf_puts(&text, reply->problem);
    for (size_t i = 0; i < self->count; i++) {
        const config_server_t *config = server_config(self->servers[i]);
        if (!config_serves(config, call_company(call)) ||
            (args->server && strcmp(args->server, config->name) != 0))
            continue;
        mcp_server_t *row = &reply->servers.items[reply->servers.count++];
        *row = view(arena, self->servers[i], args->tools || args->server, args->server != NULL);
        say_server(&text, row);
    }
    if (!text.size)
        buf_printf(&text, "There are no mcp servers; %s would name them.", self->file);
    call_say_text(call, text.data);
    return err_ok();
}

/* ---- What it counts ---- */

static void outside_measure(void *state, call_t *call, metrics_t *out)
{
    const outside_t *self = state;
    (void)call;
    const char *labels[] = {"server", NULL, NULL};
    server_facts_t facts;
    metrics_family(out, "agency_mcp_server_up", METRIC_GAUGE, "1: the foreign server is ready.");
    for (size_t i = 0; i < self->count; i++) {
        labels[1] = server_config(self->servers[i])->name;
        metrics_put(out, server_state(self->servers[i]) == SERVER_READY, labels);
    }
    metrics_family(out, "agency_mcp_server_starts", METRIC_COUNTER, "How often it was started.");
    for (size_t i = 0; i < self->count; i++) {
        labels[1] = server_config(self->servers[i])->name;
        server_facts(self->servers[i], &facts);
        metrics_put(out, (double)facts.starts, labels);
    }
    metrics_family(out, "agency_mcp_server_calls", METRIC_COUNTER, "Calls of its tools.");
    for (size_t i = 0; i < self->count; i++) {
        labels[1] = server_config(self->servers[i])->name;
        server_facts(self->servers[i], &facts);
        metrics_put(out, (double)facts.calls, labels);
    }
}

const actor_def_t outside_actor = {
    .name = "outside",
    .doc = "MCP servers that others run, as tools for the steps of runs.",
    .size = sizeof(outside_t),
    .open = outside_open,
    .close = outside_close,
    .methods = outside_methods,
    .measure = outside_measure,
    .settings = &outside_settings_record,
};

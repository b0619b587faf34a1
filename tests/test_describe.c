/* What rows say about themselves: JSON Schema word for word, Markdown, and for every tool of every
 * actor a schema of known words only, whose required names are properties. */
#include "proto/describe.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bus/actor.h"
#include "proto/json.h"
#include "proto/mp.h"

#define colour_VALUES(V) V(RED, "red") V(GREEN, "green")
RECORD_ENUM(colour, colour_VALUES)

#define item_FIELDS(F)                                                                             \
    F(STR, id, must, 1, 8, "The id.")                                                              \
    F(INT, weight, opt(7), 0, 100, "How | heavy.")
RECORD(item, item_FIELDS)

#define all_FIELDS(F)                                                                              \
    F(STR, query, must, 1, 16, "Query.")                                                           \
    F(INT, limit, opt(3), 1, 100, "Limit.")                                                        \
    F(INT, above, opt(), 1, 0, "Above.")                                                           \
    F(INT, below, opt(), -5, 0, "Below.")                                                          \
    F(TIME, since, opt(), 0, 0, "Since.")                                                          \
    F(REAL, score, opt(0.5), 0, 1, "Score.")                                                       \
    F(BOOL, exact, opt(true), 0, 0, "Exact.")                                                      \
    F(ENUM(colour), colour, opt(green), 0, 0, "Colour.")                                           \
    F(VEC, vector, opt(), 0, 4, "Vector.")                                                         \
    F(STRS, labels, opt(), 0, 3, "Labels.")                                                        \
    F(REC(item), best, must, 0, 0, "Best.")                                                        \
    F(LIST(item), items, opt(), 1, 5, "Items.")                                                    \
    F(COMPANY, company, opt(), 0, 0, "Company.")                                                   \
    F(ANY, extra, opt(), 0, 0, "Extra.")                                                           \
    F(JSON, args, opt(), 0, 0, "Args.")                                                            \
    F(BYTES, blob, opt(), 0, 0, "Blob.")
RECORD(all, all_FIELDS)

#define ITEM_SCHEMA                                                                                \
    "'type':'object','properties':{"                                                               \
    "'id':{'type':'string','minLength':1,'maxLength':8,'description':'The id.'},"                  \
    "'weight':{'type':'integer','minimum':0,'maximum':100,'description':'How | heavy.',"           \
    "'default':7}},'required':['id'],'additionalProperties':false"

static const char all_schema[] =
    "{'type':'object','properties':{"
    "'query':{'type':'string','minLength':1,'maxLength':16,'description':'Query.'},"
    "'limit':{'type':'integer','minimum':1,'maximum':100,'description':'Limit.','default':3},"
    "'above':{'type':'integer','minimum':1,'description':'Above.'},"
    "'below':{'type':'integer','minimum':-5,'maximum':0,'description':'Below.'},"
    "'since':{'type':['integer','string'],'examples':['2026-01-31T12:00:00Z',1769860800000],"
    "'description':'Since.'},"
    "'score':{'type':'number','minimum':0,'maximum':1,'description':'Score.','default':0.5},"
    "'exact':{'type':'boolean','description':'Exact.','default':true},"
    "'colour':{'type':'string','enum':['red','green'],'description':'Colour.','default':'green'},"
    "'vector':{'type':'array','items':{'type':'number'},'minItems':0,'maxItems':4,"
    "'description':'Vector.'},"
    "'labels':{'type':'array','items':{'type':'string'},'minItems':0,'maxItems':3,"
    "'description':'Labels.'},"
    "'best':{" ITEM_SCHEMA ",'description':'Best.'},"
    "'items':{'type':'array','items':{" ITEM_SCHEMA "},'minItems':1,'maxItems':5,"
    "'description':'Items.'},"
    "'company':{'type':'string','pattern':'^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$',"
    "'description':'Company.'},"
    "'extra':{'description':'Extra.'},'args':{'description':'Args.'},"
    "'blob':{'type':'string','contentEncoding':'base64','description':'Blob.'}},"
    "'required':['query','best'],'additionalProperties':false}";

static arena_t *arena;

static void open_arena(void)
{
    arena = arena_new();
}

static void close_arena(void)
{
    arena_destroy(&arena);
}

static bytes_t schema_of(const record_t *record)
{
    buf_t out;
    buf_open(&out, arena);
    describe_schema(record, &out);
    ck_assert(!err_is(mp_check(buf_bytes(&out))));
    return buf_bytes(&out);
}

static const char *quoted(bytes_t value)
{
    buf_t out;
    buf_open(&out, arena);
    ck_assert(!err_is(json_from_msgpack(value, JSON_COMPACT, &out)));
    for (char *at = out.data; *at; at++)
        if (*at == '"')
            *at = '\'';
    return out.data;
}

START_TEST(schema_word_for_word)
{
    ck_assert_str_eq(quoted(schema_of(&all_record)), all_schema);
}
END_TEST

START_TEST(markdown)
{
    buf_t out;
    buf_open(&out, arena);
    describe_markdown(&all_record, &out);
    ck_assert_ptr_nonnull(strstr(out.data, "| `query` | text | required | 1 to 16 | Query. |\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "| `limit` | integer | 3 | 1 to 100 | Limit. |\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "| `above` | integer |  | from 1 | Above. |\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "| `below` | integer |  | -5 to 0 | Below. |\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "| `colour` | red, green | green |  | Colour. |\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "| `items` | list of item |"));
    ck_assert_ptr_nonnull(strstr(out.data, "| How \\| heavy. |\n"));
    const char *item = strstr(out.data, "\n`item` is:\n");
    ck_assert_ptr_nonnull(item);
    ck_assert_ptr_null(strstr(item + 1, "\n`item` is:\n"));
}
END_TEST

/* ---- Every tool of every actor ---- */

typedef bool (*visit_t)(const char *key, bytes_t value);

static bool every_pair(bytes_t map, visit_t visit)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    bytes_t value;
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return false;
    while (head.count--)
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_slice(&reader, &value) ||
            !visit(arena_strndup(arena, key.text, key.size), value))
            return false;
    return true;
}

static bool sound_schema(bytes_t schema);

static bool sound_property(const char *name, bytes_t value)
{
    return *name && sound_schema(value);
}

static bool is_type(bytes_t value, mp_type_t wanted)
{
    mp_type_t type;
    return mp_type_of(value, &type) && type == wanted;
}

/* A keyword and its value as the meta-schema of 2020-12 wants them. */
static bool sound_pair(const char *key, bytes_t value)
{
    static const char *const counts[] = {"minLength", "maxLength", "minItems", "maxItems", NULL};
    static const char *const texts[] = {"description", "pattern", "contentEncoding", NULL};
    static const char *const others[] = {"type", "enum", "required", "default", NULL};
    int64_t number;
    for (int i = 0; counts[i]; i++)
        if (!strcmp(key, counts[i]))
            return mp_int(value, &number) && number >= 0;
    for (int i = 0; texts[i]; i++)
        if (!strcmp(key, texts[i]))
            return is_type(value, MP_STR);
    for (int i = 0; others[i]; i++)
        if (!strcmp(key, others[i]))
            return true;
    if (!strcmp(key, "examples"))
        return is_type(value, MP_ARRAY);
    if (!strcmp(key, "minimum") || !strcmp(key, "maximum"))
        return is_type(value, MP_INT);
    if (!strcmp(key, "properties"))
        return every_pair(value, sound_property);
    if (!strcmp(key, "items"))
        return sound_schema(value);
    return !strcmp(key, "additionalProperties") && is_type(value, MP_BOOL);
}

static bool sound_schema(bytes_t schema)
{
    bytes_t required, name, properties, found;
    if (!every_pair(schema, sound_pair))
        return false;
    if (!mp_get(schema, "required", &required))
        return true;
    for (uint32_t i = 0; mp_at(required, i, &name); i++)
        if (!mp_get(schema, "properties", &properties) ||
            !mp_get(properties, mp_text(arena, name), &found))
            return false;
    return true;
}

extern const actor_def_t agent_actor, brain_actor, worker_actor, gateway_actor, elastic_actor,
    swarm_actor;

static int check_methods(const method_t *methods)
{
    int count = 0;
    for (; methods && methods->name; methods++) {
        const record_t *records[] = {methods->args, methods->reply};
        for (int i = 0; i < 2; i++) {
            if (!records[i])
                continue;
            bytes_t schema = schema_of(records[i]), type;
            ck_assert_msg(sound_schema(schema), "%s: %s", methods->name, quoted(schema));
            ck_assert(mp_get(schema, "type", &type) && mp_equals(type, "object"));
            count++;
        }
    }
    return count;
}

START_TEST(all_tools_have_sound_schemas)
{
    const actor_def_t *const actors[] = {&agent_actor,   &brain_actor,   &worker_actor,
                                         &gateway_actor, &elastic_actor, &swarm_actor};
    int count = 0;
    for (size_t i = 0; i < sizeof(actors) / sizeof(*actors); i++) {
        count += check_methods(actors[i]->methods);
        for (const method_t *const *more = actors[i]->more_methods; more && *more; more++)
            count += check_methods(*more);
    }
    ck_assert_int_gt(count, 40);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("describe");
    TCase *core = tcase_create("core");
    tcase_add_checked_fixture(core, open_arena, close_arena);
    tcase_add_test(core, schema_word_for_word);
    tcase_add_test(core, markdown);
    tcase_add_test(core, all_tools_have_sound_schemas);
    suite_add_tcase(suite, core);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

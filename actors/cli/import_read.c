#include "actors/cli/import_read.h"

#include <math.h>
#include <string.h>

#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

void import_read_open(import_read_t *read, arena_t *arena, const char *company)
{
    *read = (import_read_t){.arena = arena, .company = company};
    buf_open(&read->items, arena);
    buf_open(&read->problems, arena);
}

const import_item_t *import_items(const import_read_t *read)
{
    return arena_copy(read->arena, read->items.data, read->items.size);
}

const import_problem_t *import_problems(const import_read_t *read)
{
    return arena_copy(read->arena, read->problems.data, read->problems.size);
}

static void problem(import_read_t *read, const char *where, const char *why)
{
    import_problem_t row = {where, why};
    buf_put(&read->problems, &row, sizeof(row));
    read->problem_count++;
}

static void item(import_read_t *read, import_kind_t kind, const char *id, const char *where,
                 const buf_t *args)
{
    import_item_t row = {.kind = kind, .id = id, .where = where, .args = buf_bytes(args)};
    buf_put(&read->items, &row, sizeof(row));
    read->item_count++;
}

static uint32_t count_of(bytes_t value, mp_type_t type)
{
    mp_reader_t reader = mp_reader(value);
    mp_value_t head;
    return value.size && mp_read(&reader, &head) && head.type == type ? head.count : 0;
}

static bool is_a(bytes_t value, mp_type_t type)
{
    mp_type_t have;
    return value.size && mp_type_of(value, &have) && have == type;
}

/* The first of these keys that is there and not null; `names` is separated by '|'. */
static bool find(bytes_t map, const char *names, bytes_t *value)
{
    char name[64];
    for (const char *at = names; *at;) {
        size_t size = strcspn(at, "|");
        memcpy(name, at, size);
        name[size] = '\0';
        if (mp_get(map, name, value) && !is_a(*value, MP_NIL))
            return true;
        at += size + (at[size] == '|');
    }
    return false;
}

static bool among(const mp_value_t *key, const char *names)
{
    for (const char *at = names; *at;) {
        size_t size = strcspn(at, "|");
        if (key->size == size && !memcmp(key->text, at, size))
            return true;
        at += size + (at[size] == '|');
    }
    return false;
}

/* Writes the pairs whose key is not among `names`; returns how many. Nulls are left out. */
static uint32_t put_others(bytes_t map, const char *names, buf_t *out)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    bytes_t value;
    uint32_t count = 0;
    if (!map.size || !mp_read(&reader, &head) || head.type != MP_MAP)
        return 0;
    for (uint32_t i = 0; i < head.count; i++) {
        if (!mp_read(&reader, &key) || key.type != MP_STR || !mp_slice(&reader, &value))
            break;
        if (among(&key, names) || is_a(value, MP_NIL))
            continue;
        mp_put_strn(out, key.text, key.size);
        mp_put_raw(out, value);
        count++;
    }
    return count;
}

/* Pairs in `pairs` become a map. */
static void put_pairs(buf_t *out, const char *name, uint32_t count, const buf_t *pairs)
{
    mp_put_str(out, name);
    mp_put_map(out, count);
    buf_put(out, pairs->data, pairs->size);
}

static bool parse(import_read_t *read, const char *where, const char *text, size_t size,
                  bytes_t *value)
{
    err_t err = json_to_msgpack(read->arena, text, size, NULL, value);
    if (err_is(err))
        problem(read, where, err_what(err));
    return !err_is(err);
}

/* ---- The graph ---- */

#define NODE_KEYS "id|type|properties"
#define EDGE_KEYS "from|source|to|target|relation|label|properties"

static void put_change(import_read_t *read, import_kind_t kind, const char *where, uint32_t given,
                       const buf_t *fields, bytes_t from)
{
    buf_t args, pairs;
    bytes_t properties = {0};
    buf_open(&args, read->arena);
    buf_open(&pairs, read->arena);
    mp_get(from, "properties", &properties);
    uint32_t count = put_others(properties, "", &pairs);
    /* Of two values for one key the first wins: what stands in properties. */
    buf_t extra;
    buf_open(&extra, read->arena);
    uint32_t more = put_others(from, kind == IMPORT_NODE ? NODE_KEYS : EDGE_KEYS, &extra);
    buf_put(&pairs, extra.data, extra.size);
    mp_put_map(&args, 2);
    mp_put_str(&args, "operation");
    mp_put_str(&args, kind == IMPORT_NODE ? "add_node" : "add_edge");
    mp_put_str(&args, "args");
    mp_put_map(&args, given + 1);
    buf_put(&args, fields->data, fields->size);
    put_pairs(&args, "properties", count + more, &pairs);
    item(read, kind, NULL, where, &args);
}

static bool put_text(buf_t *fields, const char *name, bytes_t value)
{
    if (!is_a(value, MP_STR))
        return false;
    mp_put_str(fields, name);
    mp_put_raw(fields, value);
    return true;
}

static void read_node(import_read_t *read, const char *where, bytes_t node, bytes_t key)
{
    buf_t fields;
    bytes_t id = key, type, properties;
    buf_open(&fields, read->arena);
    if (!is_a(node, MP_MAP))
        problem(read, where, "a node must be an object {id, type, properties}");
    else if ((find(node, "id", &id) || key.size) && !put_text(&fields, "id", id))
        problem(read, where, "the id of a node must be text");
    else if (!fields.size)
        problem(read, where, "a node without id");
    else if (find(node, "type", &type) && !put_text(&fields, "type", type))
        problem(read, where, "the type of a node must be text");
    else if (find(node, "properties", &properties) && !is_a(properties, MP_MAP))
        problem(read, where, "properties must be an object");
    else
        put_change(read, IMPORT_NODE, where, find(node, "type", &type) ? 2 : 1, &fields, node);
}

static void read_edge(import_read_t *read, const char *where, bytes_t edge)
{
    buf_t fields;
    bytes_t from, to, relation, properties;
    const char *named = "relation|label";
    buf_open(&fields, read->arena);
    if (!is_a(edge, MP_MAP))
        problem(read, where, "an edge must be an object {from, to, relation, properties}");
    else if (!find(edge, "from|source", &from) || !put_text(&fields, "from", from) ||
             !find(edge, "to|target", &to) || !put_text(&fields, "to", to) ||
             !find(edge, named, &relation) || !put_text(&fields, "relation", relation))
        problem(read, where, "an edge needs from, to and relation as text");
    else if (find(edge, "properties", &properties) && !is_a(properties, MP_MAP))
        problem(read, where, "properties must be an object");
    else
        put_change(read, IMPORT_EDGE, where, 3, &fields, edge);
}

/* A list of nodes or edges; nodes also as an object by id. */
static void read_parts(import_read_t *read, bytes_t parts, const char *name, bool nodes)
{
    bytes_t part, none = {0};
    for (uint32_t i = 0; i < count_of(parts, MP_ARRAY) && mp_at(parts, i, &part); i++) {
        const char *where = arena_printf(read->arena, "%s[%u]", name, i);
        if (nodes)
            read_node(read, where, part, none);
        else
            read_edge(read, where, part);
    }
    if (is_a(parts, MP_ARRAY))
        return;
    if (!nodes || !is_a(parts, MP_MAP)) {
        problem(read, name, "must be a list");
        return;
    }
    mp_reader_t reader = mp_reader(parts);
    mp_value_t head;
    bytes_t key;
    if (!mp_read(&reader, &head))
        return;
    for (uint32_t i = 0; i < head.count && mp_slice(&reader, &key) && mp_slice(&reader, &part); i++)
        read_node(read, arena_printf(read->arena, "nodes.%s", mp_text(read->arena, key)), part,
                  key);
}

/* What stands beside what we read is not lost without a word. */
static void name_others(import_read_t *read, bytes_t map, const char *known)
{
    mp_reader_t reader = mp_reader(map);
    mp_value_t head, key;
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return;
    for (uint32_t i = 0; i < head.count && mp_read(&reader, &key) && mp_skip(&reader); i++)
        if (!among(&key, known))
            problem(read, arena_strndup(read->arena, key.text, key.size), "not understood");
}

void import_graph(import_read_t *read, const char *text, size_t size)
{
    bytes_t graph, nodes, edges;
    if (!parse(read, "", text, size, &graph))
        return;
    if (!is_a(graph, MP_MAP)) {
        problem(read, "", "a graph must be an object {nodes, edges}");
        return;
    }
    if (find(graph, "nodes", &nodes))
        read_parts(read, nodes, "nodes", true);
    if (find(graph, "edges", &edges))
        read_parts(read, edges, "edges", false);
    name_others(read, graph, "nodes|edges");
}

/* ---- Memories ---- */

/* Written under the name on the left; the first of the names on the right is taken. */
static const struct {
    const char *name, *from;
} memory_keys[] = {{"taskId", "taskId|task_id"},
                   {"request", "request|userPrompt"},
                   {"solution", "solution|agentResponse"},
                   {"artifacts", "artifacts"},
                   {"type", "type"},
                   {"author", "author"},
                   {"thread", "thread"},
                   {"timestamp", "timestamp"},
                   {"tokens", "tokens"},
                   {"duration", "duration"},
                   {"related_episode_id", "related_episode_id"},
                   {"simulation_attempts", "simulation_attempts"},
                   {"resolved_via_dreaming", "resolved_via_dreaming"},
                   {"dreaming_outcomes", "dreaming_outcomes"},
                   {"forecast_horizon", "forecast_horizon"},
                   {"error_margin", "error_margin"},
                   {"source_agency", "source_agency"}};

#define MEMORY_KNOWN                                                                               \
    "id|company|vector|_distance|metadata|taskId|task_id|request|userPrompt|solution|"             \
    "agentResponse|artifacts|type|author|thread|timestamp|tokens|duration|related_episode_id|"     \
    "simulation_attempts|resolved_via_dreaming|dreaming_outcomes|forecast_horizon|error_margin|"   \
    "source_agency"

/* Whose it is: what the record says, unless the path says otherwise. False: they disagree. */
static bool owner_of(import_read_t *read, const char *where, bytes_t record, bytes_t *company)
{
    *company = (bytes_t){0};
    if (!find(record, "company", company) || mp_equals(*company, "")) {
        *company = (bytes_t){0};
        return true;
    }
    if (!read->company || mp_equals(*company, read->company))
        return true;
    problem(read, where,
            arena_printf(read->arena, "says another company than its folder '%s'", read->company));
    return false;
}

static const char *content_id(arena_t *arena, bytes_t record)
{
    return arena_printf(arena, "import-%.32s", digest_hex(arena, record));
}

static uint32_t put_known(bytes_t record, buf_t *pairs)
{
    uint32_t count = 0;
    for (size_t i = 0; i < sizeof(memory_keys) / sizeof(memory_keys[0]); i++) {
        bytes_t value;
        if (!find(record, memory_keys[i].from, &value))
            continue;
        /* The earlier system wrote "" for what was not there. */
        if (i > 2 && mp_equals(value, ""))
            continue;
        mp_put_str(pairs, memory_keys[i].name);
        mp_put_raw(pairs, value);
        count++;
    }
    return count;
}

static void read_memory(import_read_t *read, const char *where, bytes_t record)
{
    bytes_t request, solution, task, company, metadata = {0}, given;
    if (!is_a(record, MP_MAP) || !find(record, "request|userPrompt", &request) ||
        !find(record, "solution|agentResponse", &solution)) {
        problem(read, where, "no memory: it needs request and solution");
        return;
    }
    if (!owner_of(read, where, record, &company))
        return;
    const char *id = find(record, "id", &given) ? mp_text(read->arena, given) : NULL;
    if (!id || !*id)
        id = content_id(read->arena, record);
    buf_t args, pairs, facts;
    buf_open(&args, read->arena);
    buf_open(&pairs, read->arena);
    buf_open(&facts, read->arena);
    uint32_t count = put_known(record, &pairs);
    if (!find(record, "taskId|task_id", &task)) {
        mp_put_str(&pairs, "taskId");
        mp_put_str(&pairs, "");
        count++;
    }
    mp_get(record, "metadata", &metadata);
    uint32_t others = put_others(metadata, "", &facts);
    if (metadata.size && !is_a(metadata, MP_MAP) && !is_a(metadata, MP_NIL)) {
        mp_put_str(&facts, "metadata");
        mp_put_raw(&facts, metadata);
        others++;
    }
    others += put_others(record, MEMORY_KNOWN, &facts);
    mp_put_map(&args, count + 1 + (others ? 1 : 0) + (company.size ? 1 : 0));
    buf_put(&args, pairs.data, pairs.size);
    mp_put_str(&args, "id");
    mp_put_str(&args, id);
    if (company.size) {
        mp_put_str(&args, "company");
        mp_put_raw(&args, company);
    }
    if (others)
        put_pairs(&args, "metadata", others, &facts);
    item(read, IMPORT_MEMORY, id, where, &args);
}

void import_memories(import_read_t *read, const char *text, size_t size)
{
    bytes_t all, list, one;
    if (!parse(read, "", text, size, &all))
        return;
    if (is_a(all, MP_ARRAY))
        list = all;
    else if (is_a(all, MP_MAP) && find(all, "episodes|memories", &list) && is_a(list, MP_ARRAY))
        name_others(read, all, "episodes|memories");
    else {
        read_memory(read, "", all);
        return;
    }
    for (uint32_t i = 0; i < count_of(list, MP_ARRAY) && mp_at(list, i, &one); i++)
        read_memory(read, arena_printf(read->arena, "[%u]", i), one);
}

/* ---- Lines ---- */

typedef struct line {
    const char *text;
    size_t size, number;
} line_t;

/* The next line that is not blank. */
static bool next_line(const char **at, const char *end, line_t *line)
{
    while (*at < end) {
        const char *stop = memchr(*at, '\n', (size_t)(end - *at));
        if (!stop)
            stop = end;
        *line = (line_t){*at, (size_t)(stop - *at), line->number + 1};
        *at = stop < end ? stop + 1 : end;
        for (size_t i = 0; i < line->size; i++)
            if (!strchr(" \t\r", line->text[i]) || !line->text[i])
                return true;
    }
    return false;
}

void import_memory_lines(import_read_t *read, const char *text, size_t size)
{
    line_t line = {0};
    const char *at = text, *end = text + size;
    while (next_line(&at, end, &line)) {
        const char *where = arena_printf(read->arena, "line %zu", line.number);
        bytes_t record;
        if (parse(read, where, line.text, line.size, &record))
            read_memory(read, where, record);
    }
}

static const char *metric_fault(bytes_t row)
{
    bytes_t value;
    double number;
    if (!is_a(row, MP_MAP) || !find(row, "agent", &value) || !is_a(value, MP_STR) ||
        !find(row, "metric", &value) || !is_a(value, MP_STR))
        return "no metric: it needs agent and metric as text";
    if (!find(row, "timestamp", &value))
        return "no metric: it has no timestamp";
    if (!find(row, "value", &value) || !mp_real(value, &number) || !isfinite(number))
        return "no metric: value must be a number";
    if (find(row, "tags", &value) && !is_a(value, MP_MAP))
        return "no metric: tags must be an object";
    return NULL;
}

size_t import_metric_lines(import_read_t *read, const char *text, size_t size, buf_t *out)
{
    line_t line = {0};
    size_t count = 0;
    const char *at = text, *end = text + size;
    while (next_line(&at, end, &line)) {
        const char *where = arena_printf(read->arena, "line %zu", line.number), *fault;
        bytes_t row;
        if (!parse(read, where, line.text, line.size, &row))
            continue;
        if ((fault = metric_fault(row))) {
            problem(read, where, fault);
            continue;
        }
        buf_put(out, line.text, line.size);
        buf_puts(out, "\n");
        count++;
    }
    return count;
}

/* ---- Ghost logs ---- */

void import_ghost_log(import_read_t *read, const char *text, size_t size)
{
    bytes_t log, task, name, status, error, when;
    if (!parse(read, "", text, size, &log))
        return;
    if (!is_a(log, MP_MAP) || !find(log, "taskId", &task) || !is_a(task, MP_STR) ||
        !find(log, "status", &status) || !is_a(status, MP_STR)) {
        problem(read, "", "no ghost log: it needs taskId and status");
        return;
    }
    arena_t *arena = read->arena;
    const char *id = content_id(arena, log);
    const char *said = mp_text(arena, status), *what = NULL;
    if (find(log, "errorMessage", &error))
        what = mp_text(arena, error);
    bool timed = find(log, "endTime|startTime", &when);
    buf_t args, facts;
    buf_open(&args, arena);
    buf_open(&facts, arena);
    uint32_t count = put_others(log, "", &facts);
    mp_put_map(&args, 6 + timed);
    mp_put_str(&args, "id");
    mp_put_str(&args, id);
    mp_put_str(&args, "type");
    mp_put_str(&args, "ghost_log");
    mp_put_str(&args, "taskId");
    mp_put_raw(&args, task);
    mp_put_str(&args, "request");
    mp_put_raw(&args, find(log, "taskName", &name) ? name : task);
    mp_put_str(&args, "solution");
    mp_put_str(&args, what ? arena_printf(arena, "%s: %s", said, what) : said);
    if (timed) {
        mp_put_str(&args, "timestamp");
        mp_put_raw(&args, when);
    }
    put_pairs(&args, "metadata", count, &facts);
    item(read, IMPORT_MEMORY, id, "", &args);
}

/* ---- Proposals ---- */

static const char *field_text(import_read_t *read, bytes_t map, const char *names)
{
    bytes_t value;
    return find(map, names, &value) ? mp_text(read->arena, value) : NULL;
}

/* The earlier system named files from its own folder. */
static const char *without_folder(const char *path)
{
    if (!strncmp(path, "./", 2))
        path += 2;
    return strncmp(path, ".agent/", 7) ? path : path + 7;
}

static const char *without_folders(arena_t *arena, const char *patch)
{
    buf_t out;
    buf_open(&out, arena);
    for (const char *at = patch; *at;) {
        size_t size = strcspn(at, "\n");
        bool head = !strncmp(at, "--- ", 4) || !strncmp(at, "+++ ", 4);
        size_t skip = head ? 4 : 0;
        buf_put(&out, at, skip);
        if (head && (!strncmp(at + 4, "a/", 2) || !strncmp(at + 4, "b/", 2))) {
            buf_put(&out, at + 4, 2);
            skip += 2;
        }
        if (head)
            skip = (size_t)(without_folder(at + skip) - at);
        buf_put(&out, at + skip, size > skip ? size - skip : 0);
        at += size;
        if (*at)
            buf_put(&out, at++, 1);
    }
    return out.size ? out.data : "";
}

static void put_pair(buf_t *out, const char *name, const char *text)
{
    mp_put_str(out, name);
    mp_put_str(out, text);
}

/* propose_change(title, description, affectedFiles, patch) */
static bytes_t change_args(import_read_t *read, bytes_t proposal, const char *title,
                           const char *description, const char *patch)
{
    buf_t args;
    bytes_t files = {0}, file;
    buf_open(&args, read->arena);
    find(proposal, "affectedFiles", &files);
    mp_put_map(&args, 4);
    put_pair(&args, "title", title);
    put_pair(&args, "description", description);
    mp_put_str(&args, "affectedFiles");
    mp_put_array(&args, count_of(files, MP_ARRAY));
    for (uint32_t i = 0; mp_at(files, i, &file); i++) {
        const char *path = mp_text(read->arena, file);
        mp_put_str(&args, path ? without_folder(path) : "");
    }
    put_pair(&args, "patch", without_folders(read->arena, patch));
    return buf_bytes(&args);
}

/* suggest_agent_improvement(agent_name, title, description, changes) */
static bytes_t soul_args(import_read_t *read, const char *agent, const char *title,
                         const char *description, const char *changes)
{
    buf_t args;
    buf_open(&args, read->arena);
    mp_put_map(&args, 4);
    put_pair(&args, "agent_name", agent);
    put_pair(&args, "title", title);
    put_pair(&args, "description", description);
    put_pair(&args, "changes", changes);
    return buf_bytes(&args);
}

static bytes_t proposal_memory(import_read_t *read, bytes_t proposal, const char *id,
                               const char *title, const char *solution)
{
    buf_t args, facts;
    bytes_t when;
    bool timed = find(proposal, "createdAt|created_at|timestamp", &when);
    buf_open(&args, read->arena);
    buf_open(&facts, read->arena);
    uint32_t count = put_others(proposal, "patch|changes", &facts);
    mp_put_map(&args, 6 + timed);
    put_pair(&args, "id", id);
    put_pair(&args, "type", "hr_proposal");
    put_pair(&args, "taskId", id);
    put_pair(&args, "request", title);
    put_pair(&args, "solution", solution);
    if (timed) {
        mp_put_str(&args, "timestamp");
        mp_put_raw(&args, when);
    }
    put_pairs(&args, "metadata", count, &facts);
    return buf_bytes(&args);
}

void import_proposal(import_read_t *read, const char *text, size_t size)
{
    bytes_t proposal;
    arena_t *arena = read->arena;
    if (!parse(read, "", text, size, &proposal))
        return;
    const char *title = is_a(proposal, MP_MAP) ? field_text(read, proposal, "title") : NULL;
    const char *patch = title ? field_text(read, proposal, "patch|changes") : NULL;
    if (!title || !*title || !patch) {
        problem(read, "", "no proposal: it needs title, and patch or changes, as text");
        return;
    }
    const char *given = field_text(read, proposal, "id");
    const char *id = given && *given ? arena_printf(arena, "import-proposal-%.200s", given)
                                     : content_id(arena, proposal);
    const char *description = field_text(read, proposal, "description");
    const char *status = field_text(read, proposal, "status");
    const char *agent = field_text(read, proposal, "agent_name|agentName|agent");
    bool open = !status || !strcmp(status, "pending") || !strcmp(status, "approved");
    description = description && *description ? description : title;
    import_item_t row = {.kind = IMPORT_PROPOSAL, .id = id, .where = ""};
    row.args = proposal_memory(
        read, proposal, id, title,
        arena_printf(arena, "%s: %s\n\n%s", status ? status : "pending", description, patch));
    if (open && find(proposal, "affectedFiles", &(bytes_t){0})) {
        row.tool = "propose_change";
        row.propose = change_args(read, proposal, title, description, patch);
    } else if (open && agent) {
        row.tool = "suggest_agent_improvement";
        row.propose = soul_args(read, agent, title, description, patch);
    }
    buf_put(&read->items, &row, sizeof(row));
    read->item_count++;
}

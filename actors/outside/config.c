#include "actors/outside/config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { NAME_LONGEST = 64, SECRET_SHORTEST = 6, TIMEOUT_LONGEST_MS = 24 * 3600 * 1000 };

#define config_file_FIELDS(F) F(ANY, mcpServers, must, 0, 0, "The servers, by name.")
RECORD(config_file, config_file_FIELDS)

#define config_row_FIELDS(F)                                                                       \
    F(STR, type, opt(), 1, 32,                                                                     \
      "stdio, http, streamable-http or sse; absent: by what else is there.")                       \
    F(STR, command, opt(), 1, 4096, "stdio: the program.")                                         \
    F(STRS, args, opt(), 0, 256, "stdio: its arguments.")                                          \
    F(ANY, env, opt(), 0, 0, "stdio: variables, name to value.")                                   \
    F(STR, cwd, opt(), 1, 4096, "stdio: its folder.")                                              \
    F(STR, url, opt(), 1, 4096, "http: the endpoint.")                                             \
    F(ANY, headers, opt(), 0, 0, "http: more headers, name to value.")                             \
    F(BOOL, disabled, opt(false), 0, 0, "Leave it alone.")                                         \
    F(STRS, companies, opt(), 0, 1000, "Whose runs may use it; absent: everybody's.")              \
    F(STRS, tools, opt(), 0, 1000, "The tools that are offered; absent: all.")                     \
    F(INT, timeout_ms, opt(), 1, TIMEOUT_LONGEST_MS, "How long a call may take.")                  \
    F(ANY, tool_timeout_ms, opt(), 0, 0, "The same for single tools, name to ms.")
RECORD(config_row, config_row_FIELDS)

/* What one server needs while it is read. */
typedef struct reading {
    arena_t *arena;
    config_lookup_t *lookup;
    config_server_t *server;
    const char **secrets;
    size_t secret_count, secret_room;
} reading_t;

static void add_secret(reading_t *in, const char *value)
{
    if (strlen(value) >= SECRET_SHORTEST && in->secret_count < in->secret_room)
        in->secrets[in->secret_count++] = value;
}

static bool name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* `at` is behind "${": the value of the variable, or NULL and the problem is noted. */
static const char *variable(reading_t *in, const char *at, const char *end)
{
    const char *colon = at;
    while (colon < end && name_char(*colon))
        colon++;
    const char *name = arena_strndup(in->arena, at, (size_t)(colon - at));
    bool instead = end - colon >= 2 && colon[0] == ':' && colon[1] == '-';
    const char *value = *name && (colon == end || instead) ? in->lookup(name) : NULL;
    if (value && *value) {
        add_secret(in, arena_strdup(in->arena, value));
        return value;
    }
    if (*name && instead)
        return arena_strndup(in->arena, colon + 2, (size_t)(end - colon - 2));
    in->server->problem =
        arena_printf(in->arena,
                     *name && colon == end
                         ? "the environment variable %s is not set: set it, or write ${%s:-instead}"
                         : "'${%s' is not understood: write ${NAME} or ${NAME:-instead}%.0s",
                     *name ? name : "…", name);
    return NULL;
}

static const char *expand(reading_t *in, const char *text)
{
    buf_t out;
    buf_open(&out, in->arena);
    for (const char *at = text; *at;) {
        const char *end = at[0] == '$' && at[1] == '{' ? strchr(at, '}') : NULL;
        if (!end) {
            buf_put(&out, at++, 1);
            continue;
        }
        const char *value = variable(in, at + 2, end);
        if (!value)
            return "";
        buf_puts(&out, value);
        at = end + 1;
    }
    return out.data;
}

static bool plain(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

/* A map of text to text into "NAME<between>value". `first` entries are there already. */
static err_t read_pairs(reading_t *in, bytes_t map, const char *what, const char *between,
                        const char **list, size_t first)
{
    mp_value_t head;
    mp_reader_t reader = mp_reader(map);
    if (!map.size)
        return err_ok();
    if (!mp_read(&reader, &head) || head.type != MP_MAP || head.count > 256)
        return err_make(in->arena, ERR_ARGUMENT, "%s must be an object of at most 256 names", what);
    for (uint32_t i = 0; i < head.count; i++) {
        bytes_t key, value;
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            return err_of(ERR_PARSE, "unreadable");
        const char *name = mp_text(in->arena, key), *text = mp_text(in->arena, value);
        if (!name || !*name || strpbrk(name, "=:\r\n ") || !text)
            return err_make(in->arena, ERR_ARGUMENT,
                            "%s: each name needs a value that is text (quote numbers), and has "
                            "no '=', ':' or space in it",
                            what);
        text = expand(in, text);
        if (!plain(text) && *between == ':')
            return err_make(in->arena, ERR_ARGUMENT, "the header %s has a line end in it", name);
        add_secret(in, text);
        const char *word = strrchr(text, ' '); /* of "Bearer KEY" a server may repeat the key */
        if (word && *between == ':')
            add_secret(in, word + 1);
        list[first + i] = arena_printf(in->arena, "%s%s%s", name, between, text);
    }
    return err_ok();
}

static uint32_t pairs_in(bytes_t map)
{
    mp_value_t head;
    mp_reader_t reader = mp_reader(map);
    return map.size && mp_read(&reader, &head) && head.type == MP_MAP ? head.count : 0;
}

/* What programs need to run at all; the rest of our environment is none of their business. */
static const char *const inherited[] = {"PATH",  "HOME", "USER", "LOGNAME",
                                        "SHELL", "LANG", "TERM", "TMPDIR"};
enum { INHERITED = sizeof(inherited) / sizeof(*inherited) };

static err_t read_command(reading_t *in, const config_row_t *row)
{
    config_server_t *server = in->server;
    const char **argv = ARENA_ARRAY(in->arena, const char *, row->args.count + 2);
    const char **env = ARENA_ARRAY(in->arena, const char *, pairs_in(row->env) + INHERITED + 1);
    err_t err = read_pairs(in, row->env, "env", "=", env, 0);
    size_t count = pairs_in(row->env);
    for (size_t i = 0; i < INHERITED; i++) {
        const char *value = in->lookup(inherited[i]);
        if (value)
            env[count++] = arena_printf(in->arena, "%s=%s", inherited[i], value);
    }
    server->env = env;
    argv[0] = server->command = expand(in, row->command);
    for (size_t i = 0; i < row->args.count; i++)
        argv[i + 1] = expand(in, row->args.items[i]);
    server->argv = argv;
    server->cwd = row->cwd ? expand(in, row->cwd) : NULL;
    return err;
}

static err_t read_url(reading_t *in, const config_row_t *row)
{
    config_server_t *server = in->server;
    const char **headers = ARENA_ARRAY(in->arena, const char *, pairs_in(row->headers) + 1);
    err_t err = read_pairs(in, row->headers, "headers", ": ", headers, 0);
    server->headers = headers;
    server->url = expand(in, row->url);
    server->sse = row->type && !strcasecmp(row->type, "sse");
    if (!server->problem &&
        ((strncmp(server->url, "http://", 7) != 0 && strncmp(server->url, "https://", 8) != 0) ||
         !plain(server->url)))
        server->problem = "the url must begin with http:// or https://";
    return err;
}

static err_t read_timeouts(reading_t *in, bytes_t map)
{
    uint32_t count = pairs_in(map);
    mp_type_t type;
    if (map.size && (!mp_type_of(map, &type) || type != MP_MAP))
        return err_of(ERR_ARGUMENT, "tool_timeout_ms must be an object: tool to ms");
    config_timeout_t *list = ARENA_ARRAY(in->arena, config_timeout_t, count + 1);
    mp_reader_t reader = mp_reader(map);
    mp_value_t head;
    if (count)
        mp_read(&reader, &head);
    for (uint32_t i = 0; i < count; i++) {
        bytes_t key, value;
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            return err_of(ERR_PARSE, "unreadable");
        list[i].tool = mp_text(in->arena, key);
        if (!list[i].tool || !mp_int(value, &list[i].ms) || list[i].ms < 1 ||
            list[i].ms > TIMEOUT_LONGEST_MS)
            return err_of(ERR_ARGUMENT, "tool_timeout_ms: each tool needs 1 to 86400000 ms");
    }
    in->server->timeouts = list;
    in->server->timeout_count = count;
    return err_ok();
}

static bool says(const char *type, const char *const *names)
{
    for (; type && *names; names++)
        if (!strcasecmp(type, *names))
            return true;
    return false;
}

static err_t read_kind(reading_t *in, const config_row_t *row)
{
    static const char *const pipes[] = {"stdio", NULL};
    static const char *const https[] = {
        "http", "streamable-http", "streamableHttp", "streamable_http", "sse", NULL};
    if (row->command && row->url)
        return err_of(ERR_ARGUMENT, "it has both command and url: keep one");
    if (!row->command && !row->url)
        return err_of(ERR_ARGUMENT, "it needs command (a program that speaks MCP on its standard "
                                    "input and output) or url (Streamable HTTP; with type sse "
                                    "HTTP+SSE)");
    if (row->type && !says(row->type, row->command ? pipes : https))
        return err_make(in->arena, ERR_ARGUMENT,
                        "type '%.32s' does not go with %s: write %s, or leave it out", row->type,
                        row->command ? "command" : "url", row->command ? "stdio" : "http");
    if (row->command && (row->headers.size))
        return err_of(ERR_ARGUMENT, "headers go with url, not with command");
    if (row->url && (row->env.size || row->has_args || row->cwd))
        return err_of(ERR_ARGUMENT, "args, env and cwd go with command, not with url");
    return row->command ? read_command(in, row) : read_url(in, row);
}

/* Longest first, so that one that holds another is replaced whole. */
static int by_length(const void *one, const void *other)
{
    size_t a = strlen(*(const char *const *)one), b = strlen(*(const char *const *)other);
    return (a < b) - (a > b);
}

static bool good_name(const char *name)
{
    size_t size = strlen(name);
    bool good = size && size <= NAME_LONGEST && isalpha((unsigned char)*name);
    for (; *name; name++)
        good = good && (isalnum((unsigned char)*name) || strchr("_.-", *name));
    return good;
}

/* Everything that makes a difference, values of variables included. */
static const char *digest(arena_t *arena, const config_server_t *server, bytes_t row)
{
    buf_t all;
    buf_open(&all, arena);
    buf_put(&all, row.data, row.size);
    for (const char *const *at = server->argv; at && *at; at++)
        buf_printf(&all, "%s\n", *at);
    for (const char *const *at = server->env; at && *at; at++)
        buf_printf(&all, "%s\n", *at);
    for (const char *const *at = server->headers; at && *at; at++)
        buf_printf(&all, "%s\n", *at);
    buf_printf(&all, "%s\n%s", server->url ? server->url : "", server->cwd ? server->cwd : "");
    return digest_hex(arena, buf_bytes(&all));
}

static err_t read_server(config_lookup_t *lookup, arena_t *arena, bytes_t value,
                         config_server_t *server)
{
    config_row_t row;
    err_t err = record_decode(&config_row_record, value, arena, "key", &row);
    if (err_is(err))
        return err;
    size_t room = 1024;
    reading_t in = {.arena = arena,
                    .lookup = lookup,
                    .server = server,
                    .secrets = ARENA_ARRAY(arena, const char *, room),
                    .secret_room = room};
    server->disabled = row.disabled;
    server->for_some = row.has_companies;
    server->companies = row.companies;
    server->only_some = row.has_tools;
    server->tools = row.tools;
    server->timeout_ms = row.timeout_ms;
    err = read_kind(&in, &row);
    if (!err_is(err))
        err = read_timeouts(&in, row.tool_timeout_ms);
    qsort(in.secrets, in.secret_count, sizeof(*in.secrets), by_length);
    server->secrets = (strs_t){in.secrets, in.secret_count};
    server->digest = digest(arena, server, value);
    return err;
}

static err_t read_servers(bytes_t map, size_t most, config_lookup_t *lookup, arena_t *arena,
                          config_t *out)
{
    mp_value_t head;
    mp_reader_t reader = mp_reader(map);
    if (!mp_read(&reader, &head) || head.type != MP_MAP)
        return err_of(ERR_ARGUMENT, "mcpServers must be an object: name to server");
    if (head.count > most)
        return err_make(arena, ERR_ARGUMENT,
                        "mcpServers has %u servers, and outside.servers is %zu", head.count, most);
    config_server_t *servers = ARENA_ARRAY(arena, config_server_t, head.count + 1);
    for (uint32_t i = 0; i < head.count; i++) {
        bytes_t key, value;
        if (!mp_slice(&reader, &key) || !mp_slice(&reader, &value))
            return err_of(ERR_PARSE, "unreadable");
        servers[i].name = mp_text(arena, key);
        if (!servers[i].name || !good_name(servers[i].name))
            return err_make(arena, ERR_ARGUMENT,
                            "'%.64s' is no name of a server: a letter, then letters, digits, _ . - "
                            "(at most %d)",
                            servers[i].name ? servers[i].name : "", NAME_LONGEST);
        err_t err = read_server(lookup, arena, value, &servers[i]);
        if (err_is(err))
            return err_make(arena, err.code, "server '%s': %s", servers[i].name, err_what(err));
    }
    *out = (config_t){servers, head.count};
    return err_ok();
}

err_t config_parse(const char *text, size_t size, config_limits_t most, config_lookup_t *lookup,
                   arena_t *arena, config_t *out)
{
    json_limits_t limits = {.largest_bytes = most.bytes};
    config_file_t file;
    bytes_t root;
    *out = (config_t){0};
    err_t err = json_to_msgpack(arena, text, size, &limits, &root);
    if (!err_is(err))
        err = record_decode(&config_file_record, root, arena, "key", &file);
    return err_is(err) ? err : read_servers(file.mcpServers, most.servers, lookup, arena, out);
}

static bool holds(strs_t list, const char *text)
{
    for (size_t i = 0; i < list.count; i++)
        if (!strcmp(list.items[i], text))
            return true;
    return false;
}

bool config_serves(const config_server_t *server, const char *company)
{
    return !server->for_some || (company && holds(server->companies, company));
}

bool config_offers(const config_server_t *server, const char *tool)
{
    return !server->only_some || holds(server->tools, tool);
}

int64_t config_timeout_of(const config_server_t *server, const char *tool)
{
    for (size_t i = 0; i < server->timeout_count; i++)
        if (!strcmp(server->timeouts[i].tool, tool))
            return server->timeouts[i].ms;
    return server->timeout_ms;
}

const char *config_redact(const config_server_t *server, const char *text, arena_t *arena)
{
    for (size_t i = 0; i < server->secrets.count; i++) {
        const char *secret = server->secrets.items[i], *at = strstr(text, secret);
        if (!at)
            continue;
        buf_t out;
        buf_open(&out, arena);
        for (; at; at = strstr(text, secret)) {
            buf_put(&out, text, (size_t)(at - text));
            buf_puts(&out, "***");
            text = at + strlen(secret);
        }
        buf_puts(&out, text);
        text = out.data;
    }
    return text;
}

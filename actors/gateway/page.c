/* page: the dashboard, whose files the assembler put into the binary. It is an MCP
 * client like any other: all that it shows it asks of POST /mcp, so what is here is the same for
 * everybody, says nothing about anybody and needs no token. */
#include "actors/gateway/parts.h"

#include <string.h>

#include "bus/digest.h"

/* The assembler reads the file; CMake says where and depends on it. */
#define EMBED(name, file)                                                                          \
    __asm__(".section .rodata\n"                                                                   \
            ".global page_" #name "\n.global page_" #name "_end\n"                                 \
            "page_" #name ":\n.incbin \"" PAGE_FOLDER "/" file "\"\n"                              \
            "page_" #name "_end:\n.byte 0\n.previous\n");                                          \
    extern const uint8_t page_##name[], page_##name##_end[]

EMBED(html, "index.html");
EMBED(style, "style.css");
EMBED(icon, "icon.svg");
EMBED(app, "app.js");
EMBED(dom, "dom.js");
EMBED(client, "client.js");
EMBED(data, "data.js");
EMBED(chart, "chart.js");
EMBED(overview, "overview.js");
EMBED(work, "work.js");
EMBED(decisions, "decisions.js");
EMBED(health, "health.js");
EMBED(memory, "memory.js");
EMBED(procedures, "procedures.js");

#define HTML "text/html; charset=utf-8"
#define CSS "text/css; charset=utf-8"
#define JS "text/javascript; charset=utf-8"
#define ROW(path, type, name)                                                                      \
    {                                                                                              \
        path, type, page_##name, page_##name##_end                                                 \
    }

static const struct {
    const char *path, *type;
    const uint8_t *begin, *end;
} files[] = {ROW("/", HTML, html),
             ROW("/style.css", CSS, style),
             ROW("/icon.svg", "image/svg+xml", icon),
             ROW("/app.js", JS, app),
             ROW("/dom.js", JS, dom),
             ROW("/client.js", JS, client),
             ROW("/data.js", JS, data),
             ROW("/chart.js", JS, chart),
             ROW("/overview.js", JS, overview),
             ROW("/work.js", JS, work),
             ROW("/decisions.js", JS, decisions),
             ROW("/health.js", JS, health),
             ROW("/memory.js", JS, memory),
             ROW("/procedures.js", JS, procedures)};
enum { FILES = sizeof(files) / sizeof(files[0]) };

/* Nothing but these files and POST /mcp of the same origin, whatever a name in the data says. */
static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static bool has_it(http_request_t *request, const char *tag)
{
    const char *known = http_header(request, "If-None-Match");
    return known && (strstr(known, tag) || !strcmp(known, "*"));
}

static size_t find(const char *path)
{
    size_t i = 0;
    while (i < FILES && strcmp(files[i].path, path) != 0)
        i++;
    return i;
}

bool page_has(const char *path)
{
    return find(path) < FILES;
}

void page_get(http_request_t *request, const char *path)
{
    size_t i = find(path);
    bytes_t body = {files[i].begin, (size_t)(files[i].end - files[i].begin)};
    const char *hex = digest_hex(http_arena(request), body);
    const char *tag = arena_printf(http_arena(request), "\"%.32s\"", hex);
    http_set_header(request, "ETag", tag);
    http_set_header(request, "Cache-Control", "no-cache"); /* a new version is seen at once */
    http_set_header(request, "Content-Security-Policy", policy);
    http_set_header(request, "X-Content-Type-Options", "nosniff");
    http_set_header(request, "Referrer-Policy", "no-referrer");
    if (has_it(request, tag))
        http_reply(request, 304, NULL, (bytes_t){0});
    else
        http_reply(request, 200, files[i].type, body);
}

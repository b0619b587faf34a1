#include "actors/gateway/headers.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { PORT_DIGITS = 5, NUMBER_DIGITS = 9 };

/* ---- Accept ---- */

/* One range, "type/subtype;q=0.5" up to the comma. How well it fits: 0 not, 1 by wildcard, 2. */
static int fits(const char *range, size_t size, const char *type)
{
    size_t major = strcspn(type, "/") + 1;
    while (size && strchr(" \t", range[size - 1]))
        size--;
    if (size == strlen(type) && !strncasecmp(range, type, size))
        return 2;
    if (size == 3 && !strncmp(range, "*/*", 3))
        return 1;
    return size == major + 1 && range[major] == '*' && !strncasecmp(range, type, major);
}

static bool is_zero(const char *parameters, size_t size)
{
    for (const char *end = parameters + size; parameters < end;) {
        size_t skip = 1 + strspn(parameters + 1, " \t"); /* behind the semicolon */
        const char *at = parameters + skip;
        if (at + 2 < end && (*at == 'q' || *at == 'Q') && at[1] == '=' && at[2] == '0') {
            at += 3;
            while (at < end && (*at == '.' || *at == '0'))
                at++;
            return at >= end || strchr(" \t;", *at);
        }
        parameters++;
        while (parameters < end && *parameters != ';')
            parameters++;
    }
    return false;
}

/* The range that fits best decides: 0 none or refused, else as fits says. */
static int best(const char *accept, const char *type)
{
    int found = 0, refused = 0;
    for (const char *at = accept; *at;) {
        at += strspn(at, " \t,");
        size_t size = strcspn(at, ","), name = strcspn(at, ";,");
        int level = fits(at, name, type);
        if (level && is_zero(at + name, size - name))
            refused = level > refused ? level : refused;
        else if (level > found)
            found = level;
        at += size;
    }
    return found > refused ? found : 0;
}

bool headers_accept(const char *accept, const char *type)
{
    return !accept || !accept[strspn(accept, " \t,")] || best(accept, type) > 0;
}

bool headers_accept_named(const char *accept, const char *type)
{
    return accept && best(accept, type) == 2;
}

/* JSON is UTF-8, and some say so (RFC 8259 §8.1). */
bool headers_is_json(const char *type)
{
    static const char json[] = "application/json", charset[] = "charset=";
    if (strncasecmp(type, json, sizeof(json) - 1) != 0)
        return false;
    const char *rest = type + sizeof(json) - 1;
    rest += strspn(rest, " \t");
    if (*rest != ';')
        return !*rest;
    for (const char *at = rest; *at; at++)
        if (!strncasecmp(at, charset, sizeof(charset) - 1)) {
            at += sizeof(charset) - 1;
            at += *at == '"';
            return !strncasecmp(at, "utf-8", 5) || !strncasecmp(at, "utf8", 4) ||
                   !strncasecmp(at, "us-ascii", 8);
        }
    return true;
}

/* ---- Host and Origin ---- */

/* Bytes of the host; 0 when it is not host or host:port. */
static size_t host_size(const char *host)
{
    size_t size = *host == '[' ? strcspn(host, "]") : strcspn(host, ":");
    if (*host == '[' && !host[size])
        return 0;
    size += *host == '[';
    if (!host[size])
        return size;
    size_t digits = strspn(host + size + 1, "0123456789");
    return host[size] == ':' && digits && digits <= PORT_DIGITS && !host[size + 1 + digits] ? size
                                                                                            : 0;
}

bool headers_host_is(const char *host, const char *name)
{
    size_t size = host_size(host);
    return size && strlen(name) == size && !strncasecmp(host, name, size);
}

bool headers_host_is_loopback(const char *host)
{
    return headers_host_is(host, "localhost") || headers_host_is(host, "127.0.0.1") ||
           headers_host_is(host, "[::1]");
}

bool headers_origin_is_loopback(const char *origin)
{
    return (!strncasecmp(origin, "http://", 7) && headers_host_is_loopback(origin + 7)) ||
           (!strncasecmp(origin, "https://", 8) && headers_host_is_loopback(origin + 8));
}

/* ---- Others ---- */

const char *headers_bearer(const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return NULL;
    const char *token = authorization + 7 + strspn(authorization + 7, " ");
    return *token ? token : NULL;
}

bool headers_event_id(const char *text, size_t *stream_size, int *number)
{
    const char *dash = strrchr(text, '-');
    size_t digits = dash ? strspn(dash + 1, "0123456789") : 0;
    if (!dash || dash == text || !digits || digits > NUMBER_DIGITS || dash[1 + digits])
        return false;
    *stream_size = (size_t)(dash - text);
    *number = atoi(dash + 1);
    return true;
}

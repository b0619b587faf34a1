#include "actors/gateway/uri.h"

#include <string.h>

#include "proto/frame.h"
#include "proto/mp.h"

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* NULL: a bad escape, a NUL, or no UTF-8. */
static const char *unescape(arena_t *arena, const char *text, size_t size)
{
    char *out = arena_alloc(arena, size + 1);
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '%') {
            out[length++] = text[i];
            continue;
        }
        int high = i + 2 < size ? hex(text[i + 1]) : -1, low = high < 0 ? -1 : hex(text[i + 2]);
        if (low < 0 || !(high | low))
            return NULL;
        out[length++] = (char)(high << 4 | low);
        i += 2;
    }
    return length && mp_utf8(out, length) ? out : NULL;
}

const char *uri_kind(arena_t *arena, const char *text)
{
    size_t scheme = strlen(URI_SCHEME);
    if (strncmp(text, URI_SCHEME, scheme) != 0)
        return NULL;
    size_t size = strcspn(text + scheme, "/");
    return size && size <= 32 && text[scheme + size] ? arena_strndup(arena, text + scheme, size)
                                                     : NULL;
}

bool uri_read(arena_t *arena, const char *text, uri_t *out)
{
    static const char mark[] = "?company=";
    *out = (uri_t){.kind = uri_kind(arena, text)};
    if (!out->kind)
        return false;
    const char *id = text + strlen(URI_SCHEME) + strlen(out->kind) + 1;
    size_t size = strcspn(id, "?#");
    out->id = unescape(arena, id, size);
    if (!out->id || !id[size])
        return out->id != NULL;
    if (strncmp(id + size, mark, strlen(mark)) != 0)
        return false;
    out->company = arena_strdup(arena, id + size + strlen(mark));
    return frame_company_name(out->company);
}

/* Unreserved characters of RFC 3986 stay. */
static void put_escaped(buf_t *out, const char *text)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++)
        if (strchr(fine, *text))
            buf_put(out, text, 1);
        else
            buf_printf(out, "%%%02X", (unsigned)(unsigned char)*text);
}

void uri_put(buf_t *out, const char *kind, const char *id, const char *company)
{
    buf_printf(out, URI_SCHEME "%s/", kind);
    put_escaped(out, id);
    if (company)
        buf_printf(out, "?company=%s", company);
}

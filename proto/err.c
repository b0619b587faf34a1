#include "proto/err.h"

#include <stdarg.h>
#include <string.h>

static const err_info_t infos[ERR_COUNT] = {
#define ERR_INFO(name, rpc, http, retry, doc) {#name, rpc, http, retry, doc},
    ERR_ROWS(ERR_INFO)
#undef ERR_INFO
};

err_t err_make(arena_t *arena, err_code_t code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *what = arena_vprintf(arena, format, args);
    va_end(args);
    return (err_t){code, what};
}

const err_info_t *err_info(err_code_t code)
{
    return (unsigned)code < ERR_COUNT ? &infos[code] : &infos[ERR_INTERNAL];
}

const char *err_what(err_t err)
{
    return err.what ? err.what : err_info(err.code)->doc;
}

err_code_t err_by_name(const char *name)
{
    for (int i = 0; i < ERR_COUNT; i++)
        if (!strcmp(infos[i].name, name))
            return (err_code_t)i;
    return ERR_INTERNAL;
}

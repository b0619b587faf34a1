/* access_log: one line of JSON for each HTTP request that is over, whatever it was. What it holds
 * is listed in docs/mcp.md: never a token, an argument or a result. */
#include "actors/gateway/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/json.h"
#include "proto/mp.h"

enum { NAME_MOST = 256 };

struct access_log {
    char *path; /* NULL: stderr */
    int fd;
    int64_t bytes, most_bytes;
};

static bool reopen(access_log_t *log)
{
    struct stat info;
    if (log->fd >= 0)
        close(log->fd);
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log->bytes = log->fd >= 0 && !fstat(log->fd, &info) ? info.st_size : 0;
    return log->fd >= 0;
}

err_t access_log_open(const gateway_settings_t *settings, arena_t *arena, access_log_t **out)
{
    *out = NULL;
    if (!strcmp(settings->access_log, "off"))
        return err_ok();
    access_log_t *log = calloc(1, sizeof(*log));
    if (!log)
        abort();
    *log = (access_log_t){.fd = STDERR_FILENO, .most_bytes = settings->access_log_bytes};
    *out = log;
    if (!strcmp(settings->access_log, "stderr"))
        return err_ok();
    log->fd = -1;
    if (!(log->path = strdup(settings->access_log)))
        abort();
    if (reopen(log))
        return err_ok();
    err_t err = err_make(arena, ERR_IO, "gateway.access_log: cannot write %s: %s", log->path,
                         strerror(errno));
    access_log_close(out);
    return err;
}

void access_log_close(access_log_t **handle)
{
    access_log_t *log = *handle;
    if (!log)
        return;
    if (log->path && log->fd >= 0)
        close(log->fd);
    free(log->path);
    free(log);
    *handle = NULL;
}

/* The file may have been moved away by somebody else, or is large enough now. */
static void look_after(access_log_t *log)
{
    struct stat there, ours;
    if (!log->path)
        return;
    if (log->bytes > log->most_bytes) {
        char old[4200];
        snprintf(old, sizeof(old), "%s.1", log->path);
        if (!stat(log->path, &there) && there.st_size > log->most_bytes) /* not another gateway */
            rename(log->path, old);
        reopen(log);
    } else if (log->fd < 0 || fstat(log->fd, &ours) || stat(log->path, &there) ||
               ours.st_ino != there.st_ino || ours.st_dev != there.st_dev) {
        reopen(log);
    }
}

/* Bytes of a client: what is not UTF-8 is not shown. */
static void put(buf_t *out, const char *name, const char *value)
{
    if (!value)
        return;
    size_t size = strnlen(value, NAME_MOST);
    while (size && size == NAME_MOST && ((unsigned char)value[size] & 0xc0) == 0x80)
        size--; /* not within a character */
    buf_printf(out, ",\"%s\":", name);
    if (mp_utf8(value, size))
        json_put_string(out, value, size);
    else
        buf_puts(out, "\"?\"");
}

void access_log_write(access_log_t *log, const http_done_t *done)
{
    arena_t *arena = arena_new();
    buf_t line;
    look_after(log);
    buf_open(&line, arena);
    buf_printf(&line, "{\"time\":\"%s\"", record_time_text(arena, done->ended_ms));
    put(&line, "peer", done->peer);
    put(&line, "http", done->method);
    put(&line, "path", done->path);
    buf_printf(&line, ",\"status\":%d,\"ms\":%.3f,\"bytes_in\":%llu,\"bytes_out\":%llu",
               done->status, (double)done->took_us / 1000, (unsigned long long)done->bytes_in,
               (unsigned long long)done->bytes_out);
    if (done->cut)
        buf_puts(&line, ",\"cut\":true");
    put(&line, "method", done->rpc_method);
    put(&line, "name", done->name);
    put(&line, "principal", done->principal);
    put(&line, "company", done->company);
    put(&line, "trace", done->trace);
    buf_puts(&line, "}\n");
    if (log->fd >= 0 && write(log->fd, line.data, line.size) == (ssize_t)line.size)
        log->bytes += (int64_t)line.size; /* else: a log is no reason to stop */
    arena_destroy(&arena);
}

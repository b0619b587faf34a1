#include "bus/log.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/json.h"
#include "proto/record.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void put_pair(buf_t *out, const char *key, const char *value)
{
    buf_printf(out, ",\"%s\":", key);
    json_put_string(out, value, strlen(value));
}

void log_line(int fd, log_level_t level, const char *actor, const char *text)
{
    arena_t *arena = arena_new();
    buf_t line;
    buf_open(&line, arena);
    const char *time = record_time_text(arena, now_ms());
    if (isatty(fd)) {
        buf_printf(&line, "%.8s %-5s %s: %s\n", time + 11, level_names[level], actor, text);
    } else {
        buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\"", time, level_names[level]);
        put_pair(&line, "actor", actor);
        put_pair(&line, "text", text);
        buf_puts(&line, "}\n");
    }
    /* A log that cannot be written is no reason to stop. */
    if (write(fd, line.data, line.size) < 0) {
    }
    arena_destroy(&arena);
}

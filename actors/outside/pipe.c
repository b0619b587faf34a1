/* pipe: a foreign server as our child process, one JSON-RPC message a line. It dies with us, and so
 * does everything below it (bus/child.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/outside/answer.h"
#include "actors/outside/wire.h"
#include "bus/child.h"

enum { LOG_LINE_LONGEST = 16 << 10 };

typedef struct pipe {
    wire_t wire; /* first */
    wire_owner_t owner;
    wire_limits_t limits;
    child_t *child; /* NULL: it has ended */
    lines_t *lines, *log;
    bool said; /* its end was told */
} pipe_t;

static void tell_end(pipe_t *pipe, const char *why)
{
    if (pipe->said)
        return;
    pipe->said = true;
    pipe->owner.on_end(pipe->owner.ctx, why);
}

static void on_message_line(void *ctx, const char *line, size_t size)
{
    const pipe_t *pipe = ctx;
    if (size && !pipe->said)
        pipe->owner.on_message(pipe->owner.ctx, line, size);
}

static void on_log_line(void *ctx, const char *line, size_t size)
{
    const pipe_t *pipe = ctx;
    if (size)
        pipe->owner.on_line(pipe->owner.ctx, line);
}

static void on_part(void *ctx, bool errors, bytes_t part)
{
    pipe_t *pipe = ctx;
    if (errors) {
        if (!lines_feed(pipe->log, part, on_log_line, pipe)) {
            lines_destroy(&pipe->log); /* one endless line: begin anew behind it */
            pipe->log = lines_new(LOG_LINE_LONGEST);
        }
        return;
    }
    if (lines_feed(pipe->lines, part, on_message_line, pipe))
        return;
    tell_end(pipe, "it sent a line larger than outside.message_bytes");
    if (pipe->child)
        child_kill(pipe->child);
}

static void pipe_free(pipe_t *pipe)
{
    lines_destroy(&pipe->lines);
    lines_destroy(&pipe->log);
    free(pipe);
}

static void on_child_end(void *ctx, const child_outcome_t *outcome)
{
    pipe_t *pipe = ctx;
    char why[160];
    pipe->child = NULL;
    if (err_is(outcome->err))
        snprintf(why, sizeof(why), "it could not be started: %s", err_what(outcome->err));
    else if (outcome->signal)
        snprintf(why, sizeof(why), "it was killed by signal %d", outcome->signal);
    else
        snprintf(why, sizeof(why), "it ended with status %d", outcome->exit_status);
    tell_end(pipe, why);
}

static bool pipe_send(wire_t *wire, const wire_message_t *message)
{
    pipe_t *pipe = (pipe_t *)wire;
    if (!pipe->child || pipe->said)
        return false;
    char *line = malloc(message->json.size + 1);
    if (!line)
        abort();
    memcpy(line, message->json.data, message->json.size);
    line[message->json.size] = '\n';
    bool taken = child_write(pipe->child, (bytes_t){(uint8_t *)line, message->json.size + 1},
                             (size_t)pipe->limits.queue_bytes);
    free(line);
    return taken;
}

static void pipe_forget(wire_t *wire, int64_t id)
{
    (void)wire;
    (void)id; /* an answer that comes all the same is passed over */
}

static void pipe_listen(wire_t *wire, const char *version)
{
    (void)wire;
    (void)version; /* it says what it likes anyway */
}

static int64_t pipe_tend(wire_t *wire, int64_t now_us)
{
    (void)wire;
    (void)now_us;
    return INT64_MAX;
}

static void pipe_close(wire_t **handle)
{
    pipe_t *pipe = (pipe_t *)*handle;
    *handle = NULL;
    if (pipe->child)
        child_forget(pipe->child);
    pipe_free(pipe);
}

/* The program, looked for in the PATH that it will see itself. */
static const char *find_program(const config_server_t *config, arena_t *arena)
{
    const char *path = "/usr/local/bin:/usr/bin:/bin";
    if (strchr(config->command, '/'))
        return config->command;
    for (const char *const *at = config->env; *at; at++)
        if (!strncmp(*at, "PATH=", 5)) {
            path = *at + 5;
            break;
        }
    while (*path) {
        size_t size = strcspn(path, ":");
        const char *file = arena_printf(arena, "%.*s/%s", (int)size, path, config->command);
        if (size && !access(file, X_OK))
            return file;
        path += size + (path[size] == ':');
    }
    return NULL;
}

err_t pipe_open(children_t *children, const config_server_t *config, const wire_limits_t *limits,
                const wire_owner_t *owner, arena_t *arena, wire_t **out)
{
    static const wire_ops_t ops = {.send = pipe_send,
                                   .forget = pipe_forget,
                                   .listen = pipe_listen,
                                   .tend = pipe_tend,
                                   .close = pipe_close};
    size_t count = 0;
    while (config->argv[count])
        count++;
    const char **argv = ARENA_ARRAY(arena, const char *, count + 1);
    memcpy(argv, config->argv, count * sizeof(*argv));
    argv[0] = find_program(config, arena);
    if (!argv[0])
        return err_make(arena, ERR_NOT_FOUND, "there is no program '%s' in its PATH",
                        config->command);
    pipe_t *pipe = calloc(1, sizeof(*pipe));
    if (!pipe)
        abort();
    *pipe = (pipe_t){.wire = {&ops},
                     .owner = *owner,
                     .limits = *limits,
                     .lines = lines_new((size_t)limits->message_bytes),
                     .log = lines_new(LOG_LINE_LONGEST)};
    child_request_t request = {.argv = argv, .env = config->env, .cwd = config->cwd};
    err_t err = child_talk(children, &request, on_part, on_child_end, pipe, &pipe->child);
    if (err_is(err))
        pipe_free(pipe);
    else
        *out = &pipe->wire;
    return err;
}

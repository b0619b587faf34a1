/* step_sh: a step that runs a shell script, in a workspace of its run, with an environment of only
 * what it was given. Its helper ends it and all its children; see bus/child.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/worker/slot.h"
#include "proto/mp.h"

enum { TAIL = 2000 };

/* Makes every folder of the path; false: errno says why. */
static bool make_dirs(call_t *call, const char *path)
{
    char *copy = arena_strdup(call_arena(call), path);
    for (char *at = copy + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(copy, 0700) && errno != EEXIST)
            return false;
        *at = '/';
    }
    return !mkdir(copy, 0700) || errno == EEXIST;
}

static const char *workspace(call_t *call, const step_t *step)
{
    const worker_t *worker = step->slot->worker;
    const char *root = worker->settings->workspace;
    char *real;
    if (!root)
        root = arena_printf(call_arena(call), "%s/work", actor_data_dir(worker->actor));
    const char *path =
        arena_printf(call_arena(call), "%s/%s/%s", root, step->slot->company, step->slot->id);
    if (!make_dirs(call, path) || !(real = realpath(path, NULL)))
        return NULL;
    path = arena_strdup(call_arena(call), real);
    free(real);
    return path;
}

static const char **environment(call_t *call, const step_t *step, const char *home)
{
    const perform_t *perform = &step->perform;
    arena_t *arena = call_arena(call);
    size_t most = perform->env.count + perform->env_pass.count + 8, count = 0;
    const char **list = ARENA_ARRAY(arena, const char *, most);
    list[count++] = "PATH=/usr/local/bin:/usr/bin:/bin";
    list[count++] = "LANG=C.UTF-8";
    list[count++] = arena_printf(arena, "HOME=%s", home);
    list[count++] = arena_printf(arena, "AGENCY_RUN=%s", step->slot->id);
    list[count++] = arena_printf(arena, "AGENCY_COMPANY=%s", step->slot->company);
    list[count++] = arena_printf(arena, "AGENCY_EFFECT=%s", perform->effect_id);
    for (size_t i = 0; i < perform->env_pass.count; i++) {
        const char *value = getenv(perform->env_pass.items[i]);
        if (value)
            list[count++] = arena_printf(arena, "%s=%s", perform->env_pass.items[i], value);
    }
    for (size_t i = 0; i < perform->env.count; i++)
        list[count++] =
            arena_printf(arena, "%s=%s", perform->env.items[i].name, perform->env.items[i].value);
    return list;
}

/* Output is text for people and for JSON: bytes that are no UTF-8 become '?'. */
static void put_output(buf_t *out, const char *key, bytes_t output, arena_t *arena)
{
    char *text = arena_strndup(arena, (const char *)output.data, output.size);
    size_t at = 0;
    while (at < output.size) {
        size_t step = 1;
        while (step <= 4 && at + step <= output.size && !mp_utf8(text + at, step))
            step++;
        if (step > 4 || at + step > output.size) {
            text[at++] = '?';
            continue;
        }
        if (!text[at])
            text[at] = '?';
        at += step;
    }
    mp_put_str(out, key);
    mp_put_strn(out, text, output.size);
}

static const char *tail(call_t *call, bytes_t output)
{
    size_t skip = output.size > TAIL ? output.size - TAIL : 0;
    buf_t out;
    buf_open(&out, call_arena(call));
    put_output(&out, "", (bytes_t){output.data + skip, output.size - skip}, call_arena(call));
    mp_reader_t reader = mp_reader(buf_bytes(&out));
    mp_value_t value;
    mp_read(&reader, &value);
    mp_read(&reader, &value);
    while (value.size && strchr(" \t\r\n", value.text[value.size - 1]))
        value.size--;
    return arena_strndup(call_arena(call), value.text, value.size);
}

static const char *failure(call_t *call, const step_t *step, const child_outcome_t *outcome)
{
    arena_t *arena = call_arena(call);
    const char *errors = tail(call, outcome->errors);
    const char *colon = *errors ? ": " : "";
    if (outcome->timed_out)
        return arena_printf(arena,
                            "the script took longer than %lld ms and was ended with all "
                            "its children%s%s",
                            (long long)step->perform.timeout_ms, colon, errors);
    if (outcome->signal)
        return arena_printf(arena, "the script was ended by signal %d%s%s", outcome->signal, colon,
                            errors);
    return arena_printf(arena, "the script ended with status %d%s%s", outcome->exit_status, colon,
                        errors);
}

static err_t on_child(void *self, call_t *call, void *reply, const child_outcome_t *outcome,
                      void *ctx)
{
    step_t *step = ctx;
    (void)self;
    (void)reply;
    if (err_is(outcome->err))
        return slot_step_error(
            call, step,
            arena_printf(call_arena(call), "the script did not start: %s", err_what(outcome->err)),
            false);
    if (outcome->exit_status != 0)
        return slot_step_error(call, step, failure(call, step, outcome), false);
    buf_t result;
    buf_open(&result, call_arena(call));
    mp_put_map(&result, 4);
    mp_put_str(&result, "exit");
    mp_put_int(&result, outcome->exit_status);
    put_output(&result, "stdout", outcome->output, call_arena(call));
    put_output(&result, "stderr", outcome->errors, call_arena(call));
    mp_put_str(&result, "truncated");
    mp_put_bool(&result, outcome->truncated);
    return slot_step_ok(call, step, buf_bytes(&result));
}

err_t step_sh_perform(call_t *call, step_t *step)
{
    const perform_t *perform = &step->perform;
    const worker_settings_t *settings = step->slot->worker->settings;
    const char *home = workspace(call, step);
    if (!home)
        return slot_step_error(
            call, step,
            arena_printf(call_arena(call), "the workspace cannot be made: %s", strerror(errno)),
            true);
    const char *cwd = home;
    if (perform->cwd && perform->cwd[0] == '/')
        cwd = perform->cwd;
    else if (perform->cwd)
        cwd = arena_printf(call_arena(call), "%s/%s", home, perform->cwd);
    const char **argv = ARENA_ARRAY(call_arena(call), const char *, 4);
    argv[0] = "/bin/sh";
    argv[1] = "-c";
    argv[2] = perform->script ? perform->script : "";
    child_request_t request = {.argv = argv,
                               .env = environment(call, step, home),
                               .cwd = cwd,
                               .timeout_ms = perform->timeout_ms,
                               .output_limit = perform->output_limit,
                               .memory_limit = settings->memory_limit,
                               .process_limit = settings->process_limit};
    call_child(call, &request, on_child, step);
    return call_park(call);
}

/* doctor_settings: what is set, and whether the endpoints that are named answer. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "actors/cli/doctor.h"
#include "bus/http_client.h"
#include "bus/settings.h"

enum { ENDPOINT_MS = 3000, ANSWER_LARGEST = 1 << 20, TOO_BIG = 413 };

extern char **environ;

typedef struct probe {
    bool done;
    int status;
    const char *error;
    arena_t *arena;
} probe_t;

static void on_answer(void *ctx, const http_call_outcome_t *outcome)
{
    probe_t *probe = ctx;
    probe->done = true;
    probe->status = outcome->status;
    if (err_is(outcome->err))
        probe->error = arena_strdup(probe->arena, err_what(outcome->err));
}

/* Any answer shows that somebody is there. */
static void look_at_endpoint(doctor_t *self, const char *name, const char *base)
{
    arena_t *arena = self->cli->arena;
    probe_t probe = {.arena = arena};
    http_client_t *client = http_client_new();
    size_t size = strlen(base);
    while (size && base[size - 1] == '/')
        size--;
    http_call_request_t request = {.method = "GET",
                                   .url = arena_printf(arena, "%.*s/models", (int)size, base),
                                   .timeout_ms = ENDPOINT_MS,
                                   .response_limit = ANSWER_LARGEST};
    http_start(client, &request, on_answer, &probe);
    while (!probe.done) {
        struct pollfd fd = {.fd = http_client_fd(client), .events = POLLIN};
        if (poll(&fd, 1, 2 * ENDPOINT_MS) <= 0)
            break;
        http_client_on_readable(client);
    }
    http_client_destroy(&client);
    if (!probe.done || (probe.error && !probe.status))
        doctor_say(self, FINDING_FAIL, name,
                   arena_printf(arena, "%s does not answer: %s", base,
                                probe.error ? probe.error : "no answer in time"),
                   "start it, or correct the address");
    else if (probe.status >= 500)
        doctor_say(self, FINDING_WARN, name,
                   arena_printf(arena, "%s answers with status %d", base, probe.status),
                   "look at its log");
    else
        doctor_say(self, FINDING_OK, name, arena_printf(arena, "%s answers", base), "");
}

static const char *text_of(arena_t *arena, bytes_t map, const char *key)
{
    bytes_t value;
    return mp_get(map, key, &value) ? mp_text(arena, value) : NULL;
}

/* Each pillar's settings as it would read them; false: it would not start. */
static bool look_at_actor(doctor_t *self, const actor_def_t *def)
{
    cli_t *cli = self->cli;
    buf_t out;
    if (!def->settings)
        return true;
    void *settings = arena_alloc(cli->arena, def->settings->size);
    int count;
    err_t err = settings_load(def->settings, def->name, cli_settings(cli, 0, &count),
                              (const char *const *)environ, cli->data_dir, cli->arena, settings);
    if (err_is(err)) {
        doctor_say(self, FINDING_FAIL, "settings", err_what(err),
                   "correct it in agency.conf or the environment");
        return false;
    }
    buf_open(&out, cli->arena);
    record_encode(def->settings, settings, &out);
    const char *llm = text_of(cli->arena, buf_bytes(&out), "llm_url");
    const char *embed = text_of(cli->arena, buf_bytes(&out), "embed_url");
    if (!llm && !strcmp(def->name, "worker")) {
        const char *given = getenv("AGENCY_LLM_URL");
        llm = given && *given ? given : NULL;
    }
    if (llm)
        look_at_endpoint(self, "language model", llm);
    if (embed)
        look_at_endpoint(self, "embeddings", embed);
    return true;
}

void doctor_settings(doctor_t *self)
{
    cli_t *cli = self->cli;
    bool sound = true;
    int count;
    err_t err = cli_check_settings(cli);
    if (!err_is(err))
        err = place_load(cli_settings(cli, 0, &count), (const char *const *)environ, cli->data_dir,
                         cli->arena, &self->place);
    if (err_is(err)) {
        doctor_say(self, FINDING_FAIL, "settings", err_what(err), "correct that line or variable");
        return;
    }
    for (const cli_actor_t *at = cli->house->actors; at->def; at++)
        sound &= look_at_actor(self, at->def);
    sound &= look_at_actor(self, cli->house->gateway);
    strs_t stray = cli_stray_variables(cli);
    for (size_t i = 0; i < stray.count; i++)
        doctor_say(self, FINDING_WARN, "settings", stray.items[i], "correct its name, or unset it");
    if (sound && !stray.count)
        doctor_say(self, FINDING_OK, "settings", "all names and values are such that can be", "");
}

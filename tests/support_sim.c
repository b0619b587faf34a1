#include "support_sim.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "house.h"

#ifdef AGENCY_FAULTS

void lab_open(lab_t *lab, uint64_t seed, bool faults,
              void (*http)(void *ctx, const http_call_request_t *request, uint64_t chance,
                           sim_http_t *out))
{
    bool memory = !access("/dev/shm", W_OK); /* nothing here is synced anyway */
    lab->arena = arena_new();
    snprintf(lab->dir, sizeof(lab->dir), "%s/agency-test-XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(lab->dir));
    sim_options_t options = {.seed = seed, .dir = lab->dir, .faults = faults, .http = http};
    lab->sim = sim_new(&options);
}

void lab_add(lab_t *lab, const actor_def_t *def, const char *name, bool mortal,
             const char *const *settings)
{
    err_t err = sim_add(lab->sim, def, name, mortal, settings, lab->arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
}

void lab_pass(lab_t *lab, int64_t ms)
{
    sim_run(lab->sim, sim_now_ms(lab->sim) + ms, NULL, NULL);
}

bool lab_said(const lab_t *lab, const char *words)
{
    size_t size;
    const char *log = sim_log(lab->sim, &size);
    return memmem(log, size, words, strlen(words)) != NULL;
}

void lab_show_log(const lab_t *lab)
{
    enum { SHOWN = 4000 };
    size_t size;
    const char *log = sim_log(lab->sim, &size);
    size_t skipped = size > SHOWN ? size - SHOWN : 0;
    fwrite(log + skipped, 1, size - skipped, stderr);
}

void lab_close(lab_t *lab)
{
    if (lab->sim)
        sim_destroy(&lab->sim);
    scratch_remove(lab->dir);
    arena_destroy(&lab->arena);
}

#endif

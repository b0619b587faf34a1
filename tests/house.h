/* house: what the tests of actors share: a data directory of their own, a host over one of the two
 * transports, a client, and calls written as JSON with ' for ". Every failure is a failed check.
 * Thread: one owner. */
#ifndef TESTS_HOUSE_H
#define TESTS_HOUSE_H

#include "bus/client.h"
#include "bus/host.h"

/* 1 where a sanitizer makes everything slow: what is only repetition may be less there. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW_BUILD 1
#endif
#endif
#ifndef SLOW_BUILD
#define SLOW_BUILD 0
#endif

typedef struct house {
    arena_t *arena; /* as long as the house */
    transport_t transport;
    host_t *host;
    client_t *client;
    char data[64];
    const char *const *settings;
    store_fault_t fault;
    const char *text; /* the sentence of the last answer; never NULL */
    err_t err;        /* of the last answer */
} house_t;

/* A directory of its own below /tmp. `path` holds at least 32 bytes. */
void scratch_make(char *path);
void scratch_remove(const char *path);
void write_file(const char *path, const char *text);
/* The whole file, or NULL when there is none. */
char *read_file(arena_t *arena, const char *path);
int64_t mono_ms(void);

/* Directory and host; nothing runs in it yet. */
void house_open(house_t *house, transport_t transport);
/* The host and the client again, after house_down. */
void house_up(house_t *house);
/* Everything stops; the data stays. */
void house_down(house_t *house);
void house_close(house_t *house);

void house_start(house_t *house, const actor_def_t *def);
/* Stops an actor and starts it again, with a fresh client: an inproc connection does not outlive
 * its peer. */
void house_restart(house_t *house, const actor_def_t *def);
/* A client of its own, for another thread or another life. */
client_t *house_client(house_t *house);

bytes_t house_pack(arena_t *arena, const char *json);
/* The reply as JSON with ' for ", or "ERR <name>" on error; house->text and house->err are set. */
const char *house_call(house_t *house, const char *peer, const char *method, const char *json);
/* The same with everything else of the call given; `call->args` is filled in. */
const char *house_call_as(house_t *house, client_call_t call, const char *json);
const char *house_reply_text(arena_t *arena, client_reply_t reply);

#endif

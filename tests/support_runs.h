/* support_runs: a real agent with a real store, and the test as its worker, so that it can die
 * between any two messages. The brain is an actor that only remembers what it was told. Everything
 * returned lives in house->arena. Thread: the test's. */
#ifndef TESTS_SUPPORT_RUNS_H
#define TESTS_SUPPORT_RUNS_H

#include <stdatomic.h>

#include "bus/client.h"
#include "bus/host.h"

typedef struct memory {
    atomic_int queries, experiences;
    _Atomic(bool) refuse;
    char last[512];
} memory_t;

/* Each test case is a process of its own. */
extern memory_t told;

typedef struct house {
    arena_t *arena;
    host_t *host;
    client_t *client;
    char data[64];
    const char *id; /* of the leased run */
    int64_t fence;
} house_t;

/* A host with brain and agent in house->data; settings may be NULL. */
void start_with(house_t *house, const char *setting, const char *another);
void start(house_t *house, const char *setting);
void stop(house_t *house);
void open_house(house_t *house, const char *setting);
void close_house(house_t *house);
/* Args as JSON with ' for ". */
client_reply_t ask(house_t *house, const char *method, const char *args);
bytes_t good(house_t *house, const char *method, const char *args);
/* It must fail with this code and a sentence with this part. */
void bad(house_t *house, const char *method, const char *args, err_code_t code, const char *part);
/* A field by path, as JSON text; "" when absent. */
const char *get(house_t *house, bytes_t body, const char *path);
void is(house_t *house, bytes_t body, const char *path, const char *want);
void has(house_t *house, bytes_t body, const char *path, const char *part);
/* Writes a procedure into the folder of the default company. */
void put_file(house_t *house, const char *name, const char *content);
const char *file_text(house_t *house, const char *path);
/* Takes the next run; waits for it at most so long. */
bool lease_within(house_t *house, int wait_ms);
void lease(house_t *house);
const char *leased(house_t *house, const char *more);
bytes_t next(house_t *house);
void begin(house_t *house, int step);
bytes_t done(house_t *house, int step, const char *result);
bytes_t broken(house_t *house, int step, const char *error, bool retryable);
/* Waits until the brain was told so often, at most 10 s. */
void until_told(house_t *house, int experiences);
const char *execute(house_t *house, const char *args);
bytes_t run_of(house_t *house, const char *id);

#endif

/* retrieval: sets of memories and questions, how the brain is asked them, and how well it answers.
 * For bench_retrieval, which prints figures, and test_brain_finds, which holds them to floors.
 *
 * A set is a directory with memories.jsonl (id, tenant, title, text; perhaps author, thread, time)
 * and queries.jsonl (id, tenant, question, evidence), or a file of tests/data/retrieval:
 *
 *     language german
 *     m ID | AUTHOR | THREAD | TIME | REQUEST | SOLUTION
 *     q QUESTION | ID ID ...
 */
#ifndef TESTS_SUPPORT_RETRIEVAL_H
#define TESTS_SUPPORT_RETRIEVAL_H

#include <stdbool.h>
#include <stddef.h>

#include "bus/client.h"
#include "bus/host.h"

typedef struct item {
    const char *id, *tenant, *title, *text;
    const char *author, *thread, *time; /* "" when the set has none */
} item_t;

typedef struct question {
    const char *tenant, *text;
    const char **evidence;
    size_t evidence_count;
} question_t;

typedef struct set {
    const char *name, *language;
    item_t *items;
    question_t *questions;
    size_t item_count, question_count;
} set_t;

/* NULL when it is not there; what cannot be read ends the process with a sentence. */
set_t *set_read_directory(arena_t *arena, const char *directory, const char *language);
set_t *set_read_file(arena_t *arena, const char *path, const char *name);

/* Places (in set->items) of what was found, best first. */
enum { FOUND_MOST = 100 };

/* A brain in a directory below /tmp that holds the set. */
typedef struct shelf {
    const set_t *set;
    arena_t *arena;
    host_t *host;
    client_t *client;
    char data[64];
} shelf_t;

void shelf_open(shelf_t *shelf, const set_t *set);
/* The same memories under other settings (NULL-terminated; NULL: none besides the language). */
void shelf_reopen(shelf_t *shelf, const char *const *settings);
void shelf_close(shelf_t *shelf);
size_t shelf_ask(shelf_t *shelf, arena_t *arena, const question_t *question, size_t *found);

/* Sums over questions; divide by `questions`. */
typedef struct measure {
    double recall, mrr, ndcg; /* recall and nDCG of the first 10 */
    size_t questions;
} measure_t;

void measure_add(measure_t *into, const set_t *set, const question_t *question, const size_t *found,
                 size_t count);
/* All questions of the shelf's set. */
measure_t measure_shelf(shelf_t *shelf);

#endif

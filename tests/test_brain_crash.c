/* The brain dies by SIGKILL, again and again, while it stores, deletes, links, imports, rebuilds,
 * merges, vacuums, changes its language and deletes what is past its time; each life continues on
 * what the one before left. Half of the deaths are inside a commit (in builds with fault switches).
 * After each, another process compares what is there with what was acknowledged, and brain_check
 * proves that rows, words and vectors agree.
 *
 * AGENCY_BRAIN_LIVES (6) and AGENCY_BRAIN_SEED (1) change how often and in which order.
 * ctest timeout: 300 */
#include <check.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "house.h"
#include "proto/mp.h"

extern const actor_def_t brain_actor;

enum { LIVES_MOST = 64, WRITERS = 4, THINGS = 4000, IMPORTED = 20 };

/* What is known of one thing that a writer made. Written by the process that dies, read by those
 * that come after: shared memory survives it. */
typedef enum known {
    NEVER,
    ASKED, /* for its making: may be there or not */
    KEPT,  /* acknowledged */
    DOUBT, /* asked to be deleted */
    GONE
} known_t;

typedef struct life {
    unsigned char memories[WRITERS][THINGS], nodes[WRITERS][THINGS];
    int counts[WRITERS];
    int care; /* maintenance calls that were answered */
    bool chosen;
    int acknowledged;
} life_t;

typedef struct writer {
    house_t *house;
    life_t *life;
    int number, life_number;
    int tell; /* a byte for each answer */
    uint64_t seed;
} writer_t;

static life_t *lives; /* shared */
static const char *const settings[] = {"brain.exact_max=300", "brain.dims=64",
                                       "brain.upkeep_ms=100", NULL};

static uint64_t chance(uint64_t *seed, uint64_t below)
{
    uint64_t x = *seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

static const char *id_of(arena_t *arena, char kind, int life, int writer, int thing)
{
    return arena_printf(arena, "%c-%d-%d-%d", kind, life, writer, thing);
}

/* ---- The process that dies ---- */

static bool tell(client_t *client, arena_t *arena, const char *method, const char *json)
{
    client_call_t call = {.peer = "brain",
                          .method = method,
                          .args = house_pack(arena, json),
                          .role = ROLE_ADMIN,
                          .timeout_ms = 30000};
    return !err_is(client_call(client, arena, &call).err);
}

static void make(writer_t *writer, client_t *client, arena_t *arena, int thing)
{
    life_t *life = writer->life;
    const char *id = id_of(arena, 'm', writer->life_number, writer->number, thing);
    const char *node = id_of(arena, 'n', writer->life_number, writer->number, thing);
    life->memories[writer->number][thing] = ASKED;
    if (tell(client, arena, "brain_store",
             arena_printf(arena,
                          "{'id':'%s','taskId':'t','request':'question %d of many','solution':"
                          "'answer %d','thread':'th%d'}",
                          id, thing % 50, thing, thing % 9)))
        life->memories[writer->number][thing] = KEPT;
    if (thing % 4)
        return;
    life->nodes[writer->number][thing] = ASKED;
    if (tell(client, arena, "brain_update_graph",
             arena_printf(arena, "{'operation':'add_node','args':{'id':'%s','type':'thing'}}",
                          node)))
        life->nodes[writer->number][thing] = KEPT;
    if (thing >= 4)
        tell(client, arena, "brain_update_graph",
             arena_printf(arena,
                          "{'operation':'add_edge','args':{'from':'%s','to':'%s','relation':'on'}}",
                          node, id_of(arena, 'n', writer->life_number, writer->number, thing - 4)));
}

static void take_away(writer_t *writer, client_t *client, arena_t *arena, int thing)
{
    unsigned char *known = &writer->life->memories[writer->number][thing];
    if (*known != KEPT)
        return;
    *known = DOUBT;
    if (tell(client, arena, "brain_delete_episode",
             arena_printf(arena, "{'id':'%s'}",
                          id_of(arena, 'm', writer->life_number, writer->number, thing))))
        *known = GONE;
}

/* Twenty lines; the last things of this writer. */
static void import(writer_t *writer, client_t *client, arena_t *arena, int first)
{
    buf_t lines;
    buf_open(&lines, arena);
    for (int i = 0; i < IMPORTED; i++) {
        writer->life->memories[writer->number][first + i] = ASKED;
        buf_printf(
            &lines,
            "{\\\"kind\\\":\\\"memory\\\",\\\"id\\\":\\\"%s\\\",\\\"timestamp\\\":1700000000000,"
            "\\\"request\\\":\\\"imported %d\\\"}\\n",
            id_of(arena, 'm', writer->life_number, writer->number, first + i), i);
    }
    if (tell(client, arena, "brain_import", arena_printf(arena, "{'lines':'%s'}", lines.data)))
        for (int i = 0; i < IMPORTED; i++)
            writer->life->memories[writer->number][first + i] = KEPT;
}

static void care(writer_t *writer, client_t *client, arena_t *arena)
{
    static const char *const actions[] = {"rebuild_indices", "optimize", "vacuum", "verify"};
    writer->life->care +=
        tell(client, arena, "brain_maintenance",
             arena_printf(arena, "{'action':'%s'}", actions[chance(&writer->seed, 4)]));
}

/* The language changes under everything else; what is of type log is past its time at once. */
static void choose(writer_t *writer, client_t *client, arena_t *arena)
{
    static const char *const languages[] = {"english", "german", "none", "dutch"};
    if (!writer->life->chosen || chance(&writer->seed, 2))
        writer->life->chosen |= tell(client, arena, "brain_configure",
                                     arena_printf(arena, "{'language':'%s','keep_days':{'log':1}}",
                                                  languages[chance(&writer->seed, 4)]));
    for (int i = 0; i < 5; i++)
        tell(client, arena, "brain_store",
             "{'taskId':'t','type':'log','request':'old line','solution':'past its time',"
             "'timestamp':1500000000000}");
}

static void *write_on(void *ctx)
{
    writer_t *writer = ctx;
    arena_t *arena = arena_new();
    client_t *client = house_client(writer->house);
    int thing = 0;
    while (thing < THINGS - IMPORTED) {
        uint64_t what = chance(&writer->seed, 20);
        if (what < 14)
            make(writer, client, arena, thing++);
        else if (what < 17 && thing)
            take_away(writer, client, arena, (int)chance(&writer->seed, (uint64_t)thing));
        else if (what == 17 && writer->number == 1) {
            import(writer, client, arena, thing);
            thing += IMPORTED;
        } else if (what == 18 && writer->number == 0)
            care(writer, client, arena);
        else if (what == 19 && writer->number == 2)
            choose(writer, client, arena);
        writer->life->counts[writer->number] = thing;
        if (write(writer->tell, "a", 1) != 1)
            abort();
        arena_reset(arena);
    }
    return NULL; /* nobody is killed so late */
}

static void open_brain(house_t *house, const char *data)
{
    *house = (house_t){
        .arena = arena_new(), .transport = TRANSPORT_INPROC, .settings = settings, .text = ""};
    snprintf(house->data, sizeof(house->data), "%s", data);
    house_up(house);
    house_start(house, &brain_actor);
}

static void live(const char *data, int number, uint64_t seed, int fd)
{
    house_t house;
    writer_t writers[WRITERS];
    pthread_t threads[WRITERS];
    open_brain(&house, data);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (writer_t){&house, &lives[number], i, number, fd, seed * 31 + (uint64_t)i};
        pthread_create(&threads[i], NULL, write_on, &writers[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    _exit(0);
}

/* ---- The one that looks afterwards ---- */

static void look_at(house_t *house, arena_t *arena, const char *method, const char *id, int known)
{
    house->arena = arena;
    const char *answer =
        house_call(house, "brain", method,
                   arena_printf(arena, "{'id':'%s'%s}", id, *id == 'n' ? ",'depth':1" : ""));
    if (known == KEPT)
        ck_assert_msg(!err_is(house->err), "%s was acknowledged: %s", id, answer);
    if (known == GONE)
        ck_assert_msg(house->err.code == ERR_NOT_FOUND, "%s was deleted: %s", id, answer);
    arena_reset(arena);
}

/* A change of language that was cut off goes on by itself, to its end. */
static void await_language(house_t *house)
{
    int64_t deadline = mono_ms() + 60000;
    arena_t *own = house->arena, *arena = arena_new();
    for (house->arena = arena;; arena_reset(arena)) {
        const char *answer = house_call(house, "brain", "brain_stat", "{}");
        if (!strstr(answer, "'next_"))
            break;
        ck_assert_msg(mono_ms() < deadline, "still %s", answer);
    }
    house->arena = own;
    arena_destroy(&arena);
}

static void judge(const char *data, int count)
{
    bool chosen = false;
    house_t house;
    open_brain(&house, data);
    arena_t *own = house.arena, *arena = arena_new();
    for (int l = 0; l < count; l++)
        for (int w = 0; w < WRITERS; w++)
            for (int t = 0; t < lives[l].counts[w] + IMPORTED + 1 && t < THINGS; t++) {
                look_at(&house, arena, "brain_get", id_of(own, 'm', l, w, t),
                        lives[l].memories[w][t]);
                if (lives[l].nodes[w][t] != NEVER)
                    look_at(&house, arena, "graph_neighbors", id_of(own, 'n', l, w, t),
                            lives[l].nodes[w][t]);
            }
    const char *answer = house_call(&house, "brain", "brain_check", "{}");
    ck_assert_msg(!err_is(house.err), "brain_check: %s %s", answer, house.text);
    answer = house_call(&house, "brain", "brain_query", "{'query':'question 7','limit':5}");
    ck_assert_msg(!err_is(house.err), "brain_query: %s", house.text);
    for (int l = 0; l < count; l++)
        chosen |= lives[l].chosen;
    answer = house_call(&house, "brain", "brain_query", "{'query':'old line','type':'log'}");
    ck_assert_msg(!chosen || strstr(answer, "'memories':[]"), "past its time: %s", answer);
    await_language(&house);
    answer = house_call(&house, "brain", "brain_check", "{}");
    ck_assert_msg(!err_is(house.err), "brain_check after the move: %s %s", answer, house.text);
    arena_destroy(&arena);
    house.arena = own;
    house_down(&house);
}

/* ---- Life after life ---- */

static int number_from(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

/* Until so many answers, or its death in a commit. */
static int wait_for(int fd, int target)
{
    char bytes[256];
    int got = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (got < target && poll(&ready, 1, 20000) > 0) {
        ssize_t size = read(fd, bytes, sizeof(bytes));
        if (size <= 0)
            break;
        got += (int)size;
    }
    return got;
}

static void die_once(const char *data, int number, uint64_t *seed)
{
    bool inside = number % 2;
    int target = 100 + (int)chance(seed, 500), status, fds[2];
    uint64_t own = chance(seed, UINT32_MAX);
    char fault[64];
    snprintf(fault, sizeof(fault), "kill@commit.%s:%d", number % 4 == 1 ? "before" : "after",
             20 + (int)chance(seed, 150));
    ck_assert_int_eq(pipe(fds), 0);
    pid_t child = fork();
    if (!child) {
        close(fds[0]);
        if (inside)
            setenv("AGENCY_FAULT", fault, 1);
        live(data, number, own, fds[1]);
    }
    close(fds[1]);
    lives[number].acknowledged = wait_for(fds[0], target);
    kill(child, SIGKILL);
    close(fds[0]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it ended by itself: %#x",
                  (unsigned)status);
}

START_TEST(nothing_acknowledged_is_lost)
{
    char data[32];
    int count = number_from("AGENCY_BRAIN_LIVES", 6), status, acknowledged = 0, cares = 0;
    uint64_t seed = (uint64_t)number_from("AGENCY_BRAIN_SEED", 1);
    ck_assert_int_le(count, LIVES_MOST);
    scratch_make(data);
    lives = mmap(NULL, sizeof(life_t) * LIVES_MOST, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(lives != MAP_FAILED);
    for (int number = 0; number < count; number++) {
        die_once(data, number, &seed);
        acknowledged += lives[number].acknowledged;
        cares += lives[number].care;
        pid_t child = fork();
        if (!child) {
            judge(data, number + 1);
            _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "life %d: see above (%#x)", number,
                      (unsigned)status);
    }
    printf("brain: %d deaths, %d calls of writers, %d of maintenance answered\n", count,
           acknowledged, cares);
    ck_assert_int_gt(cares, 0);
    scratch_remove(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("brain crash");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 280);
    tcase_add_test(all, nothing_acknowledged_is_lost);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

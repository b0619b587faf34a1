/* The simulation itself, with small actors of its own: a ledger that keeps numbers, a teller that
 * brings them, a smith who waits, starts commands and asks the network. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/sim.h"
#include "house.h"
#include "proto/mp.h"

#ifdef AGENCY_FAULTS

enum { NUMBERS = 40, PEOPLE = 3 };

/* What became of a number, as far as its teller knows. */
typedef struct known {
    bool heard; /* as an event */
    err_code_t code;
    int64_t kept; /* how often the ledger has it at the end */
} known_t;

typedef struct world {
    sim_t *sim;
    arena_t *arena;
    char dir[32];
    known_t numbers[NUMBERS];
    int answered, asked_back, heard;
    /* In the order of arrival: who brought which. */
    int arrived[PEOPLE * NUMBERS], arrived_count;
    /* The smith: */
    int64_t woke_ms, ended_ms, http_ms;
    child_outcome_t child;
    int http_status;
    err_code_t http_code;
    int effects, lives, child_ms, child_timeout_ms, http_delay_ms;
} world_t;

/* The actors of a test need to find its world; there is one at a time. */
static world_t *world;

/* ---- The ledger ---- */

#define ledger_put_ARGS(F) F(INT, number, must, 0, 0, "Which.")
#define ledger_put_REPLY(F) F(INT, number, must, 0, 0, "The same.")
#define ledger_count_ARGS(F) F(INT, number, must, 0, 0, "Which.")
#define ledger_count_REPLY(F) F(INT, times, must, 0, 0, "How often it is there.")
#define kept_FIELDS(F) F(INT, number, must, 0, 0, "Which.")
RECORD(kept, kept_FIELDS)
#define ledger_see_ARGS(F) F(INT, number, must, 0, 0, "Which.")
#define ledger_see_REPLY(F) F(BOOL, seen, must, 0, 0, "Yes.")
typedef struct ledger {
    int unused;
} ledger_t;
#define LEDGER_METHODS(M)                                                                          \
    M(ledger_t, ledger_put, WRITES, "Keeps a number, each time it is told.")                       \
    M(ledger_t, ledger_count, READS, "How often was it told?")                                     \
    M(ledger_t, ledger_see, READS | ANY_COMPANY, "Notes who came when.")
METHODS(ledger_methods, LEDGER_METHODS)

enum { TABLE_NUMBERS, TABLE_TIMES };
static const store_table_t ledger_tables[] = {{"numbers"}, {"times"}, {NULL}};

static bytes_t number_key(store_key_t *key, int64_t number)
{
    key_open(key);
    key_i64(key, number);
    return key_bytes(key);
}

static int64_t times(store_txn_t *txn, int table, int64_t number)
{
    store_key_t key;
    bytes_t value;
    int64_t count = 0;
    if (!err_is(store_get(txn, table, number_key(&key, number), &value)))
        ck_assert(mp_int(value, &count));
    return count;
}

static err_t raise_times(call_t *call, store_txn_t *txn, int table, int64_t number)
{
    store_key_t key;
    buf_t value;
    buf_open(&value, call_arena(call));
    mp_put_int(&value, times(txn, table, number) + 1);
    return store_put(txn, table, number_key(&key, number), buf_bytes(&value));
}

/* Two rows: what fails between them must leave none. */
static err_t ledger_put(ledger_t *self, call_t *call, const ledger_put_args_t *args,
                        ledger_put_reply_t *reply)
{
    store_txn_t *txn;
    (void)self;
    err_t err = call_write(call, call_company(call), &txn);
    if (!err_is(err))
        err = raise_times(call, txn, TABLE_NUMBERS, args->number);
    if (!err_is(err))
        err = raise_times(call, txn, TABLE_TIMES, args->number);
    reply->number = args->number;
    kept_t event = {.number = args->number};
    call_publish(call, "kept", &kept_record, &event);
    return err;
}

static err_t ledger_count(ledger_t *self, call_t *call, const ledger_count_args_t *args,
                          ledger_count_reply_t *reply)
{
    store_txn_t *txn;
    (void)self;
    err_t err = call_read(call, call_company(call), &txn);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    if (err_is(err))
        return err;
    reply->times = times(txn, TABLE_NUMBERS, args->number);
    ck_assert_int_eq(reply->times, times(txn, TABLE_TIMES, args->number));
    return err_ok();
}

static err_t ledger_see(ledger_t *self, call_t *call, const ledger_see_args_t *args,
                        ledger_see_reply_t *reply)
{
    (void)self;
    (void)call;
    ck_assert_int_lt(world->arrived_count, PEOPLE * NUMBERS);
    world->arrived[world->arrived_count++] = (int)args->number;
    reply->seen = true;
    return err_ok();
}

static const actor_def_t ledger = {.name = "ledger",
                                   .doc = "",
                                   .size = sizeof(ledger_t),
                                   .methods = ledger_methods,
                                   .tables = ledger_tables,
                                   .format = 1};

/* ---- Those who call ---- */

static const method_t no_methods[] = {{.name = NULL}};

static void ask(call_t *call, const char *method, int64_t number, answer_fn_t *fn, void *ctx)
{
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "number");
    mp_put_int(&args, number);
    peer_call_t request = {.peer = "ledger",
                           .method = method,
                           .args = buf_bytes(&args),
                           .company = "acme",
                           .timeout_ms = 60000};
    call_peer(call, &request, fn, ctx);
}

static err_t on_kept(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    known_t *known = ctx;
    (void)self, (void)call, (void)reply;
    known->code = got->err.code;
    world->answered++;
    return err_ok();
}

static err_t bring(void *self, call_t *call, void *ctx)
{
    known_t *known = ctx;
    (void)self;
    ask(call, "ledger_put", known - world->numbers, on_kept, known);
    return call_park(call);
}

static err_t teller_open(void *self, call_t *call)
{
    (void)self;
    for (int i = 0; i < NUMBERS; i++) {
        uint32_t delay;
        call_random(call, &delay, sizeof(delay));
        call_work(call, 1 + delay % 20000, bring, &world->numbers[i]);
    }
    return err_ok();
}

/* What was never kept is never published. */
static err_t on_event(void *self, call_t *call, const char *topic, bytes_t body)
{
    bytes_t value;
    int64_t number;
    (void)self, (void)call;
    ck_assert_str_eq(topic, "kept");
    ck_assert(mp_get(body, "number", &value) && mp_int(value, &number));
    ck_assert(number >= 0 && number < NUMBERS);
    world->numbers[number].heard = true;
    world->heard++;
    return err_ok();
}

static const hear_t teller_hears[] = {{"ledger", "kept", on_event}, {NULL, NULL, NULL}};
static const actor_def_t teller = {.name = "teller",
                                   .doc = "",
                                   .size = 1,
                                   .open = teller_open,
                                   .methods = no_methods,
                                   .hears = teller_hears};

static err_t count_back(void *self, call_t *call, void *ctx);

static err_t on_counted(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    known_t *known = ctx;
    bytes_t value;
    (void)self, (void)reply;
    if (err_is(got->err)) {
        call_work(call, 10, count_back, known);
        return err_ok();
    }
    ck_assert(mp_get(got->body, "times", &value) && mp_int(value, &known->kept));
    world->asked_back++;
    return err_ok();
}

static err_t count_back(void *self, call_t *call, void *ctx)
{
    known_t *known = ctx;
    (void)self;
    ask(call, "ledger_count", known - world->numbers, on_counted, known);
    return call_park(call);
}

static err_t auditor_open(void *self, call_t *call)
{
    (void)self;
    for (int i = 0; i < NUMBERS; i++)
        call_work(call, 1, count_back, &world->numbers[i]);
    return err_ok();
}

static const actor_def_t auditor = {
    .name = "auditor", .doc = "", .size = 1, .open = auditor_open, .methods = no_methods};

static err_t on_seen(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self, (void)reply, (void)ctx;
    ck_assert(!err_is(got->err));
    world->answered++;
    return call_park(call); /* the others are still to come */
}

static err_t queue_up(void *self, call_t *call, void *ctx)
{
    int who = actor_instance(call_actor(call))[strlen("person")] - '0';
    (void)self, (void)ctx;
    for (int i = 0; i < NUMBERS; i++)
        ask(call, "ledger_see", who * 1000 + i, on_seen, NULL);
    return call_park(call);
}

static err_t person_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 1, queue_up, NULL);
    return err_ok();
}

static const actor_def_t person = {
    .name = "person", .doc = "", .size = 1, .open = person_open, .methods = no_methods};

/* ---- The smith ---- */

static err_t on_child(void *self, call_t *call, void *reply, const child_outcome_t *outcome,
                      void *ctx)
{
    (void)self, (void)call, (void)reply, (void)ctx;
    world->child = *outcome;
    world->ended_ms = sim_now_ms(world->sim);
    return err_ok();
}

static err_t forge(void *self, call_t *call, void *ctx)
{
    static const char *const argv[] = {"forge", NULL};
    (void)self, (void)ctx;
    child_request_t request = {
        .argv = argv, .env = argv + 1, .timeout_ms = world->child_timeout_ms};
    call_child(call, &request, on_child, NULL);
    return call_park(call);
}

static err_t on_http(void *self, call_t *call, void *reply, const http_call_outcome_t *outcome,
                     void *ctx)
{
    (void)self, (void)call, (void)reply, (void)ctx;
    world->http_ms = sim_now_ms(world->sim);
    world->http_status = outcome->status;
    world->http_code = outcome->err.code;
    return err_ok();
}

static err_t write_home(void *self, call_t *call, void *ctx)
{
    (void)self, (void)ctx;
    http_call_request_t request = {.method = "GET", .url = "http://home/", .timeout_ms = 1000};
    call_http(call, &request, on_http, NULL);
    return call_park(call);
}

static err_t wake(void *self, call_t *call, void *ctx)
{
    (void)self, (void)call, (void)ctx;
    world->woke_ms = sim_now_ms(world->sim);
    return err_ok();
}

/* Only the first life works. */
static err_t smith_open(void *self, call_t *call)
{
    (void)self;
    if (world->lives++)
        return err_ok();
    call_work(call, 1000, forge, NULL);
    call_work(call, 2000, write_home, NULL);
    call_work(call, INT64_C(86400000), wake, NULL);
    return err_ok();
}

static const actor_def_t smith = {
    .name = "smith", .doc = "", .size = 1, .open = smith_open, .methods = no_methods};

static void strike(void *ctx, const char *what)
{
    world_t *in = ctx;
    ck_assert_str_eq(what, "iron");
    in->effects++;
}

static void child(void *ctx, const child_request_t *request, uint64_t chance, sim_child_t *out)
{
    const world_t *in = ctx;
    (void)chance;
    ck_assert_str_eq(request->argv[0], "forge");
    *out = (sim_child_t){.duration_ms = in->child_ms,
                         .effect_ms = in->child_ms - 1,
                         .effect = strike,
                         .what = "iron",
                         .exit_status = 3,
                         .output = "hot"};
}

static void http(void *ctx, const http_call_request_t *request, uint64_t chance, sim_http_t *out)
{
    const world_t *in = ctx;
    (void)chance;
    ck_assert_str_eq(request->url, "http://home/");
    out->duration_ms = in->http_delay_ms;
    out->outcome.status = 204;
}

/* ---- One world ---- */

static void add(world_t *in, const actor_def_t *def, const char *instance, bool mortal)
{
    err_t err = sim_add(in->sim, def, instance, mortal, NULL, in->arena);
    ck_assert_msg(!err_is(err), "%s: %s", instance, err_what(err));
}

static void open_world(world_t *in, sim_options_t options)
{
    *in = (world_t){.arena = arena_new(),
                    .woke_ms = -1,
                    .ended_ms = -1,
                    .http_ms = -1,
                    .child_ms = 5000,
                    .http_delay_ms = 250};
    world = in;
    scratch_make(in->dir);
    options.dir = in->dir;
    options.ctx = in;
    in->sim = sim_new(&options);
}

static void close_world(world_t *in)
{
    sim_destroy(&in->sim);
    scratch_remove(in->dir);
    arena_destroy(&in->arena);
}

static bool all_answered(void *ctx)
{
    return ((world_t *)ctx)->answered == NUMBERS;
}

static bool all_counted(void *ctx)
{
    return ((world_t *)ctx)->asked_back == NUMBERS;
}

static void run_ledger(world_t *in, uint64_t seed, bool faults, unsigned never)
{
    open_world(in, (sim_options_t){.seed = seed, .faults = faults, .never = never});
    add(in, &ledger, "ledger", true);
    add(in, &teller, "teller", false);
    ck_assert_msg(sim_run(in->sim, 200000, all_answered, in),
                  "seed %" PRIu64 ": only %d calls were answered", seed, in->answered);
    sim_calm(in->sim);
    add(in, &auditor, "auditor", false);
    ck_assert_msg(sim_run(in->sim, 400000, all_counted, in),
                  "seed %" PRIu64 ": only %d numbers were counted", seed, in->asked_back);
}

/* Acknowledged: once. Refused: never. Unknown: at most once. Where calls are sent again, a refusal
 * that may pass (a full disk) is unknown too: failures are not remembered, so the second sending
 * may have succeeded while the first answer was on its way (seed 83 of the mixed run). */
static void judge(const world_t *in, uint64_t seed, bool sent_again)
{
    for (int i = 0; i < NUMBERS; i++) {
        const known_t *known = &in->numbers[i];
        bool unknown = known->code == ERR_TIMEOUT || known->code == ERR_UNAVAILABLE ||
                       (sent_again && known->code != ERR_OK && err_info(known->code)->retry);
        bool right = known->code == ERR_OK ? known->kept == 1
                     : unknown             ? known->kept <= 1
                                           : known->kept == 0;
        ck_assert_msg(right, "seed %" PRIu64 ": number %d was answered %s and is there %d times",
                      seed, i, err_info(known->code)->name, (int)known->kept);
        ck_assert_msg(!known->heard || known->kept, "seed %" PRIu64 ": news of what is not", seed);
    }
}

/* ---- The tests ---- */

START_TEST(each_number_is_kept_once)
{
    int faults[SIM_FAULTS] = {0}, deaths = 0, heard = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        world_t in;
        run_ledger(&in, seed, true, 0);
        judge(&in, seed, true);
        deaths += sim_deaths(in.sim);
        heard += in.heard;
        for (int i = 0; i < SIM_FAULTS; i++)
            faults[i] += sim_fault_count(in.sim, (sim_fault_t)i);
        close_world(&in);
    }
    ck_assert_int_gt(deaths, 50);
    ck_assert_int_gt(heard, 50 * NUMBERS);
    for (int i = 0; i < SIM_FAULTS; i++)
        ck_assert_msg(faults[i], "%s never happened", sim_fault_name((sim_fault_t)i));
}
END_TEST

START_TEST(the_seed_is_the_run)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        world_t one, same, other;
        size_t one_size, same_size, other_size;
        run_ledger(&one, seed, true, 0);
        run_ledger(&same, seed, true, 0);
        run_ledger(&other, seed + 1000, true, 0);
        const char *one_log = sim_log(one.sim, &one_size);
        const char *same_log = sim_log(same.sim, &same_size);
        const char *other_log = sim_log(other.sim, &other_size);
        ck_assert_uint_gt(one_size, 1000);
        ck_assert_uint_eq(one_size, same_size);
        ck_assert(!memcmp(one_log, same_log, one_size));
        ck_assert(one_size != other_size || memcmp(one_log, other_log, one_size) != 0);
        close_world(&one);
        close_world(&same);
        close_world(&other);
    }
}
END_TEST

START_TEST(what_is_left_out_does_not_happen)
{
    unsigned all = (1u << SIM_FAULTS) - 1, never = all & ~(1u << SIM_DIE_AT_SEND);
    int deaths = 0, sends = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        world_t in;
        run_ledger(&in, seed, seed % 2, seed % 4 == 1 ? all : never);
        judge(&in, seed, true);
        for (int i = 0; i < SIM_FAULTS; i++)
            if (seed % 4 != 3 || i != SIM_DIE_AT_SEND)
                ck_assert_int_eq(sim_fault_count(in.sim, (sim_fault_t)i), 0);
        deaths += sim_deaths(in.sim);
        sends += sim_fault_count(in.sim, SIM_DIE_AT_SEND);
        close_world(&in);
    }
    ck_assert_int_gt(sends, 0);
    ck_assert_int_eq(deaths, sends);
}
END_TEST

/* Nobody dies and nothing is sent twice: who is told of a full disk left nothing behind. */
START_TEST(a_full_disk_keeps_nothing)
{
    unsigned never = ((1u << SIM_FAULTS) - 1) & ~(1u << SIM_FILL_DISK);
    int refused = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        world_t in;
        run_ledger(&in, seed, true, never);
        judge(&in, seed, false);
        ck_assert_int_eq(sim_deaths(in.sim), 0);
        for (int i = 0; i < NUMBERS; i++)
            refused += in.numbers[i].code == ERR_FULL;
        close_world(&in);
    }
    ck_assert_int_gt(refused, 10);
}
END_TEST

/* Of one caller all calls come in order; who comes between whom is chance. */
START_TEST(frames_of_a_pair_keep_their_order)
{
    static const char *const names[PEOPLE] = {"person0", "person1", "person2"};
    bool mixed = false;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        world_t in;
        int next[PEOPLE] = {0}, turns = 0;
        open_world(&in, (sim_options_t){.seed = seed});
        add(&in, &ledger, "ledger", false);
        for (int i = 0; i < PEOPLE; i++)
            add(&in, &person, names[i], false);
        sim_run(in.sim, 10000, NULL, NULL);
        ck_assert_int_eq(in.arrived_count, PEOPLE * NUMBERS);
        ck_assert_int_eq(in.answered, PEOPLE * NUMBERS);
        for (int i = 0; i < in.arrived_count; i++) {
            int who = in.arrived[i] / 1000;
            ck_assert_int_eq(in.arrived[i] % 1000, next[who]++);
            turns += i && in.arrived[i - 1] / 1000 != who;
        }
        mixed = mixed || turns >= PEOPLE;
        close_world(&in);
    }
    ck_assert(mixed);
}
END_TEST

START_TEST(time_jumps)
{
    world_t in;
    int64_t began = mono_ms();
    open_world(&in, (sim_options_t){.seed = 1, .child = child, .http = http});
    add(&in, &smith, "smith", false);
    sim_run(in.sim, INT64_C(90000000), NULL, NULL);
    ck_assert_int_lt(mono_ms() - began, 10000); /* a day passes */
    ck_assert_int_eq(in.woke_ms, 86400000);
    ck_assert_int_eq(in.ended_ms, 6000);
    ck_assert_int_eq(in.child.exit_status, 3);
    ck_assert_int_eq(in.child.duration_ms, 5000);
    ck_assert(!in.child.timed_out && in.effects == 1);
    ck_assert_int_eq(in.http_ms, 2250);
    ck_assert_int_eq(in.http_status, 204);
    close_world(&in);
}
END_TEST

START_TEST(what_takes_too_long_is_ended)
{
    world_t in;
    open_world(&in, (sim_options_t){.seed = 2, .child = child, .http = http});
    in.child_timeout_ms = 700;
    in.http_delay_ms = 5000;
    add(&in, &smith, "smith", false);
    sim_run(in.sim, 20000, NULL, NULL);
    ck_assert_int_eq(in.ended_ms, 1700);
    ck_assert(in.child.timed_out && in.child.exit_status == -1 && in.effects == 0);
    ck_assert_int_eq(in.http_ms, 3000);
    ck_assert_int_eq(in.http_code, ERR_TIMEOUT);
    close_world(&in);
}
END_TEST

START_TEST(an_empty_world)
{
    world_t in;
    open_world(&in, (sim_options_t){.seed = 3});
    add(&in, &smith, "smith", false);
    sim_run(in.sim, 20000, NULL, NULL);
    ck_assert_int_eq(in.child.exit_status, 127);
    ck_assert_int_eq(in.http_code, ERR_UNAVAILABLE);
    close_world(&in);
}
END_TEST

START_TEST(commands_die_with_their_node)
{
    world_t in;
    open_world(&in, (sim_options_t){.seed = 4, .child = child, .http = http});
    add(&in, &smith, "smith", true);
    ck_assert(!sim_run(in.sim, 3000, NULL, NULL));
    ck_assert_int_eq(in.http_ms, 2250);
    sim_kill(in.sim, "smith");
    sim_run(in.sim, 100000, NULL, NULL);
    ck_assert_int_eq(sim_deaths(in.sim), 1);
    ck_assert_int_eq(in.lives, 2);
    ck_assert_int_eq(in.effects, 0);
    ck_assert_int_eq(in.ended_ms, -1);
    ck_assert_int_eq(in.woke_ms, -1); /* its timers too */
    close_world(&in);
}
END_TEST

START_TEST(too_many_nodes)
{
    world_t in;
    err_t err = err_ok();
    open_world(&in, (sim_options_t){.seed = 5});
    for (int i = 0; i < 17 && !err_is(err); i++)
        err = sim_add(in.sim, &smith, "smith", false, NULL, in.arena);
    ck_assert_int_eq(err.code, ERR_QUOTA);
    close_world(&in);
}
END_TEST

static void add_tests(TCase *all)
{
    tcase_add_test(all, each_number_is_kept_once);
    tcase_add_test(all, the_seed_is_the_run);
    tcase_add_test(all, what_is_left_out_does_not_happen);
    tcase_add_test(all, a_full_disk_keeps_nothing);
    tcase_add_test(all, frames_of_a_pair_keep_their_order);
    tcase_add_test(all, time_jumps);
    tcase_add_test(all, what_takes_too_long_is_ended);
    tcase_add_test(all, an_empty_world);
    tcase_add_test(all, commands_die_with_their_node);
    tcase_add_test(all, too_many_nodes);
}

#else

/* The simulation is one of the fault switches: a build without them has none to test. */
static void add_tests(TCase *all)
{
    (void)all;
}

#endif

int main(void)
{
    Suite *suite = suite_create("simulation of small actors");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    add_tests(all);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

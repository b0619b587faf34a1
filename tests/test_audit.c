/* The audit log: what is recorded of which calls, that it is whole after whatever happened, and
 * that each way of changing it afterwards is found. An actor of the test's own. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus/audit.h"
#include "house.h"
#include "proto/mp.h"

enum { ROWS };
static const store_table_t keeper_tables[] = {{"rows"}, {NULL}};

typedef struct keeper {
    int nothing;
} keeper_t;

#define ITEM_ARGS(F)                                                                               \
    F(STR, item_id, must, 1, 200, "Which.")                                                        \
    F(STR, value, opt(), 0, 2000000, "What.")                                                      \
    COMPANY_ROW(F)
#define ITEM_REPLY(F) F(STR, id, must, 0, 0, "Which it became.")
#define item_put_ARGS ITEM_ARGS
#define item_put_REPLY ITEM_REPLY
#define item_fail_ARGS ITEM_ARGS
#define item_fail_REPLY ITEM_REPLY
#define item_late_ARGS ITEM_ARGS
#define item_late_REPLY ITEM_REPLY
#define item_look_ARGS ITEM_ARGS
#define item_look_REPLY ITEM_REPLY
#define item_quiet_ARGS ITEM_ARGS
#define item_quiet_REPLY ITEM_REPLY
#define item_get_ARGS ITEM_ARGS
#define item_get_REPLY ITEM_REPLY
#define KEEPER_METHODS(M)                                                                          \
    M(keeper_t, item_put, TOOL | WRITES, "Puts one.")                                              \
    M(keeper_t, item_fail, TOOL | WRITES, "Writes, and fails.")                                    \
    M(keeper_t, item_late, TOOL | WRITES, "Writes, waits, and is done.")                           \
    M(keeper_t, item_look, TOOL | WRITES, "Touches nothing, and finds nothing.")                   \
    M(keeper_t, item_quiet, WRITES, "No tool.")                                                    \
    M(keeper_t, item_get, TOOL | READS, "Reads.")
METHODS(keeper_methods, KEEPER_METHODS)

static err_t put(call_t *call, const char *company, const char *id, const char *value)
{
    store_txn_t *txn;
    err_t err = call_write(call, company, &txn);
    if (err_is(err))
        return err;
    value = value ? value : "";
    return store_put(txn, ROWS, (bytes_t){(const uint8_t *)id, strlen(id)},
                     (bytes_t){(const uint8_t *)value, strlen(value)});
}

static err_t item_put(keeper_t *self, call_t *call, const item_put_args_t *args,
                      item_put_reply_t *reply)
{
    (void)self;
    reply->id = arena_printf(call_arena(call), "made-%s", args->item_id);
    return put(call, args->company, args->item_id, args->value);
}

static err_t item_fail(keeper_t *self, call_t *call, const item_fail_args_t *args,
                       item_fail_reply_t *reply)
{
    (void)self, (void)reply;
    err_t err = put(call, args->company, "never", "half");
    return err_is(err) ? err : err_of(ERR_STATE, "as asked");
}

static err_t finish_late(void *self, call_t *call, void *reply, void *ctx)
{
    (void)self, (void)call;
    ((item_late_reply_t *)reply)->id = ctx;
    return err_ok();
}

static err_t item_late(keeper_t *self, call_t *call, const item_late_args_t *args,
                       item_late_reply_t *reply)
{
    (void)self, (void)reply;
    err_t err = put(call, args->company, args->item_id, args->value);
    if (err_is(err))
        return err;
    call_resume_after(call, 1, finish_late, arena_strdup(call_arena(call), args->item_id));
    return call_park(call);
}

static err_t item_look(keeper_t *self, call_t *call, const item_look_args_t *args,
                       item_look_reply_t *reply)
{
    (void)self, (void)call, (void)args, (void)reply;
    return err_of(ERR_NOT_FOUND, "nothing here");
}

static err_t item_quiet(keeper_t *self, call_t *call, const item_quiet_args_t *args,
                        item_quiet_reply_t *reply)
{
    (void)self;
    reply->id = args->item_id;
    return put(call, args->company, args->item_id, args->value);
}

static err_t item_get(keeper_t *self, call_t *call, const item_get_args_t *args,
                      item_get_reply_t *reply)
{
    store_txn_t *txn;
    bytes_t value;
    (void)self;
    err_t err = call_read(call, args->company, &txn);
    if (!err_is(err))
        err = store_get(txn, ROWS, (bytes_t){(const uint8_t *)args->item_id, strlen(args->item_id)},
                        &value);
    if (err_is(err))
        return err;
    reply->id = args->item_id;
    return err;
}

static const actor_def_t keeper = {.name = "keeper",
                                   .doc = "Keeps items.",
                                   .size = sizeof(keeper_t),
                                   .methods = keeper_methods,
                                   .tables = keeper_tables,
                                   .format = 1,
                                   .readers = 1};

/* ---- Looking ---- */

enum { LOG_MOST = 20000 };

typedef struct kept_log {
    audit_kept_t rows[LOG_MOST];
    size_t count;
} kept_log_t;

static kept_log_t *read_log(house_t *house, const char *company)
{
    store_pool_t *pool;
    kept_log_t *log = ARENA_NEW(house->arena, kept_log_t);
    audit_kept_list_t page;
    int64_t from = 0;
    err_t err = actor_store_open(&keeper, house->data, house->arena, &pool);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    for (;;) {
        err = audit_read(&keeper, pool, company, from, house->arena, &page);
        ck_assert_msg(!err_is(err) || err.code == ERR_NOT_FOUND, "%s", err_what(err));
        if (err_is(err) || !page.count)
            break;
        for (size_t i = 0; i < page.count; i++)
            log->rows[log->count++] = page.items[i];
        from = page.items[page.count - 1].number + 1;
    }
    store_pool_close(&pool);
    return log;
}

/* Every record as "tool outcome who ids…;", or what is wrong with the log. */
static const char *tell(house_t *house, const kept_log_t *log, audit_chain_t *chain)
{
    buf_t out;
    audit_chain_t own = {0};
    buf_open(&out, house->arena);
    chain = chain ? chain : &own;
    *chain = own;
    for (size_t i = 0; i < log->count; i++) {
        audit_row_t row;
        err_t err =
            audit_chain_take(chain, log->rows[i].number, log->rows[i].value, house->arena, &row);
        if (err_is(err)) {
            ck_assert_int_eq(err.code, ERR_CORRUPT);
            return err_what(err);
        }
        for (size_t j = 0; j < row.records.count; j++) {
            const audit_record_t *record = &row.records.items[j];
            buf_printf(&out, "%s %s %s", record->tool, record->outcome, record->who);
            for (size_t k = 0; k < record->ids.count; k++)
                buf_printf(&out, " %s", record->ids.items[k]);
            buf_puts(&out, ";");
        }
    }
    return out.data;
}

static int count_in(const char *text, const char *word)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, word)); at++)
        count++;
    return count;
}

static const char *as(house_t *house, const char *who, role_t role, const char *method,
                      const char *json)
{
    static const char *const mine[] = {"acme"};
    return house_call_as(house,
                         (client_call_t){.peer = "keeper",
                                         .method = method,
                                         .principal = who,
                                         .company = "acme",
                                         .companies = {mine, 1},
                                         .role = role},
                         json);
}

static void open_keeper(house_t *house, const char *const *settings)
{
    house_open(house, TRANSPORT_INPROC);
    if (settings) {
        house_down(house);
        house->settings = settings;
        house_up(house);
    }
    house_start(house, &keeper);
}

static bool on_disk(house_t *house, const char *company)
{
    struct stat info;
    return !stat(arena_printf(house->arena, "%s/keeper/%s", house->data, company), &info);
}

/* ---- What is recorded ---- */

START_TEST(changes_and_refusals_are_recorded)
{
    house_t house;
    open_keeper(&house, NULL);
    as(&house, "bob", ROLE_READER, "item_put", "{'item_id':'early'}"); /* makes no company */
    ck_assert_str_eq(as(&house, "ann", ROLE_OPERATOR, "item_put", "{'item_id':'a','value':'hush'}"),
                     "{'id':'made-a'}");
    as(&house, "ann", ROLE_OPERATOR, "item_get", "{'item_id':'a'}");
    as(&house, "ann", ROLE_OPERATOR, "item_quiet", "{'item_id':'q'}");
    ck_assert_str_eq(as(&house, "ann", ROLE_OPERATOR, "item_fail", "{'item_id':'f'}"), "ERR STATE");
    ck_assert_str_eq(as(&house, "ann", ROLE_OPERATOR, "item_look", "{'item_id':'n'}"),
                     "ERR NOT_FOUND");
    ck_assert_str_eq(as(&house, "ann", ROLE_OPERATOR, "item_late", "{'item_id':'l'}"),
                     "{'id':'l'}");
    ck_assert_str_eq(as(&house, "bob", ROLE_READER, "item_put", "{'item_id':'b'}"),
                     "ERR FORBIDDEN");
    ck_assert_str_eq(as(&house, "eve", ROLE_ADMIN, "item_get", "{'item_id':'a','company':'other'}"),
                     "ERR COMPANY");
    house_down(&house);
    ck_assert(!on_disk(&house, "other"));
    const char *told = tell(&house, read_log(&house, "acme"), NULL);
    static const char *const there[] = {"item_put ok ann a made-a;",    "item_fail STATE ann f;",
                                        "item_look NOT_FOUND ann n;",   "item_late begun ann l;",
                                        "item_late ok ann l;",          "item_put FORBIDDEN bob;",
                                        "item_get COMPANY eve a other;"};
    size_t size = 0;
    for (size_t i = 0; i < sizeof(there) / sizeof(*there) - 1; i++) {
        ck_assert_msg(strstr(told, there[i]) != NULL, "%s is not in %s", there[i], told);
        size += strlen(there[i]);
    }
    ck_assert_msg(strstr(told, "item_get COMPANY eve a;") != NULL, "%s", told);
    size += strlen("item_get COMPANY eve a;");
    ck_assert_msg(strlen(told) - size <= strlen("item_put FORBIDDEN bob;"), "more than that: %s",
                  told); /* of the early one, too, if it waited for the company */
    ck_assert(!strstr(told, "hush"));
    house_up(&house);
    house_close(&house);
}
END_TEST

/* Whoever is refused again and again fills no log, and whoever fails again and again loses none. */
START_TEST(refusals_alike_are_one_record)
{
    enum { CALLS = 2000 };
    house_t house;
    open_keeper(&house, NULL);
    as(&house, "ann", ROLE_ADMIN, "item_put", "{'item_id':'a'}");
    client_call_t call = {.peer = "keeper", .company = "acme", .timeout_ms = 30000};
    call.args = house_pack(house.arena, "{'item_id':'a'}");
    for (int sent = 0, got = 0; got < CALLS; got++) {
        uint64_t id;
        for (; sent < CALLS && sent < got + 200; sent++) {
            call.role = sent % 2 ? ROLE_READER : ROLE_ADMIN;
            call.method = sent % 2 ? "item_put" : "item_look";
            client_send(house.client, &call);
        }
        client_wait(house.client, house.arena, 30000, &id);
        ck_assert(id);
    }
    house_down(&house);
    kept_log_t *log = read_log(&house, "acme");
    int64_t refused = 0, rows = 0;
    audit_chain_t chain = {0};
    for (size_t i = 0; i < log->count; i++) {
        audit_row_t row;
        err_t err =
            audit_chain_take(&chain, log->rows[i].number, log->rows[i].value, house.arena, &row);
        ck_assert_msg(!err_is(err), "%s", err_what(err));
        for (size_t j = 0; j < row.records.count; j++)
            if (!strcmp(row.records.items[j].outcome, "FORBIDDEN")) {
                refused += row.records.items[j].times;
                rows++;
            }
    }
    ck_assert_int_eq(refused, CALLS / 2);
    ck_assert_int_lt(rows, CALLS / 20);
    ck_assert_int_eq(count_in(tell(&house, log, NULL), "item_look NOT_FOUND"), CALLS / 2);
    house_up(&house);
    house_close(&house);
}
END_TEST

START_TEST(a_repeated_call_is_recorded_once)
{
    house_t house;
    open_keeper(&house, NULL);
    client_call_t call = {
        .peer = "keeper", .method = "item_put", .role = ROLE_OPERATOR, .key = "effect-1"};
    for (int i = 0; i < 3; i++)
        ck_assert_str_eq(house_call_as(&house, call, "{'item_id':'k'}"), "{'id':'made-k'}");
    house_restart(&house, &keeper);
    house_call_as(&house, call, "{'item_id':'k'}");
    house_down(&house);
    ck_assert_str_eq(tell(&house, read_log(&house, "default"), NULL),
                     "item_put ok local k made-k;");
    house_up(&house);
    house_close(&house);
}
END_TEST

START_TEST(settings_switch_and_skip)
{
    static const char *const off[] = {"audit.on=false", NULL},
                             *const skip[] = {"audit.skip=item_fail, item_late", NULL},
                             *const wrong[] = {"audit.keep=3", NULL};
    house_t house;
    open_keeper(&house, off);
    as(&house, "ann", ROLE_ADMIN, "item_put", "{'item_id':'a'}");
    house_down(&house);
    ck_assert_uint_eq(read_log(&house, "acme")->count, 0);
    house.settings = skip;
    house_up(&house);
    house_start(&house, &keeper);
    as(&house, "ann", ROLE_ADMIN, "item_put", "{'item_id':'b'}");
    as(&house, "ann", ROLE_ADMIN, "item_fail", "{'item_id':'f'}");
    as(&house, "ann", ROLE_READER, "item_fail", "{'item_id':'f'}");
    house_down(&house);
    ck_assert_str_eq(tell(&house, read_log(&house, "acme"), NULL),
                     "item_put ok ann b made-b;item_fail FORBIDDEN ann;");
    house.settings = wrong;
    house_up(&house);
    err_t err = host_start(house.host, &keeper, NULL, house.arena);
    ck_assert_int_eq(err.code, ERR_ARGUMENT);
    ck_assert(strstr(err_what(err), "keep"));
    house_close(&house);
}
END_TEST

/* Many at once in several companies, with failures (the batches begin again, in children) and rows
 * that make maps grow (they are replayed). */
static void send_many(house_t *house, int calls)
{
    static const char *const methods[] = {"item_put", "item_put", "item_fail", "item_late"};
    client_call_t call = {.peer = "keeper", .role = ROLE_ADMIN, .timeout_ms = 30000};
    int waiting = 0;
    const char *big = arena_strdup(house->arena, "");
    char *text = arena_alloc(house->arena, 30001);
    memset(text, 'x', 30000);
    for (int i = 0; i < calls; i++) {
        call.method = methods[i % 4];
        call.args =
            house_pack(house->arena,
                       arena_printf(house->arena, "{'item_id':'i%d','company':'c%d','value':'%s'}",
                                    i, i % 3, i % 8 ? big : text));
        client_send(house->client, &call);
        waiting++;
        uint64_t id;
        for (; waiting > (i + 1 < calls ? 64 : 0); waiting--) {
            client_reply_t reply = client_wait(house->client, house->arena, 30000, &id);
            ck_assert(id && (!err_is(reply.err) || reply.err.code == ERR_STATE));
        }
    }
}

START_TEST(replayed_batches_are_recorded_once)
{
    enum { CALLS = 600 };
    house_t house;
    open_keeper(&house, NULL);
    send_many(&house, CALLS);
    house_down(&house);
    int puts = 0, fails = 0, begun = 0, lates = 0;
    for (int i = 0; i < 3; i++) {
        const char *told =
            tell(&house, read_log(&house, arena_printf(house.arena, "c%d", i)), NULL);
        puts += count_in(told, "item_put ok");
        fails += count_in(told, "item_fail STATE");
        begun += count_in(told, "item_late begun");
        lates += count_in(told, "item_late ok");
    }
    ck_assert_int_eq(puts, CALLS / 2);
    ck_assert_int_eq(fails, CALLS / 4);
    /* One that is done in an entry that writes nothing has no outcome to be remembered: when its
     * answer is slow and the call is sent again, it is done again, and recorded again. */
    ck_assert_int_ge(lates, CALLS / 4);
    ck_assert_int_eq(begun, lates);
    house_up(&house);
    house_close(&house);
}
END_TEST

START_TEST(old_records_go)
{
    static const char *const few[] = {"audit.keep=1000", NULL};
    house_t house;
    audit_chain_t chain;
    open_keeper(&house, few);
    client_call_t call = {.peer = "keeper", .method = "item_put", .role = ROLE_ADMIN};
    call.args = house_pack(house.arena, "{'item_id':'a'}");
    for (int sent = 0, got = 0; got < 2500; got++) {
        uint64_t id;
        for (; sent < 2500 && sent < got + 200; sent++)
            client_send(house.client, &call);
        client_wait(house.client, house.arena, 30000, &id);
        ck_assert(id);
    }
    house_down(&house);
    const char *told = tell(&house, read_log(&house, "default"), &chain);
    ck_assert_int_eq(chain.next, 2501);
    ck_assert_int_ge(count_in(told, "item_put ok"), 1000);
    ck_assert_int_gt(chain.first, 1);
    house_up(&house);
    house_close(&house);
}
END_TEST

/* ---- What is found ---- */

static void seal(arena_t *arena, audit_kept_t *row)
{
    uint8_t *copy = arena_copy(arena, row->value.data, row->value.size);
    bytes_t map = {copy, row->value.size - DIGEST_BYTES};
    digest_of(map, copy + map.size);
    row->value.data = copy;
}

START_TEST(changes_to_the_log_are_found)
{
    house_t house;
    open_keeper(&house, NULL);
    for (int i = 0; i < 6; i++) /* one after the other: six rows */
        as(&house, "ann", ROLE_ADMIN, "item_put",
           arena_printf(house.arena, "{'item_id':'item-%d'}", i));
    house_down(&house);
    kept_log_t *log = read_log(&house, "acme");
    ck_assert_uint_eq(log->count, 6);
    ck_assert_int_eq(count_in(tell(&house, log, NULL), "item_put ok ann"), 6);
    audit_kept_t whole[6];
    memcpy(whole, log->rows, sizeof(whole));

    /* Every bit of a row counts. */
    uint8_t *bytes = arena_copy(house.arena, whole[2].value.data, whole[2].value.size);
    log->rows[2].value.data = bytes;
    for (size_t i = 0; i < whole[2].value.size; i++) {
        bytes[i] ^= 4;
        ck_assert(strstr(tell(&house, log, NULL), "record 3, or one written together with it"));
        bytes[i] ^= 4;
    }
    /* Also when its own hash is made to fit. */
    uint8_t *name = memmem(bytes, whole[2].value.size, "ann", 3);
    ck_assert_ptr_nonnull(name);
    memcpy(name, "eve", 3);
    seal(house.arena, &log->rows[2]);
    ck_assert_str_eq(
        tell(&house, log, NULL),
        "record 4 does not follow record 3, whose hash it should hold: one of them was "
        "changed");
    /* The last one: only by a head that was kept elsewhere, and then by its hash. */
    audit_chain_t before, after;
    memcpy(log->rows, whole, sizeof(whole));
    tell(&house, log, &before);
    log->rows[5] = whole[2];
    ck_assert(strstr(tell(&house, log, NULL), "record 3 comes after record 5"));
    log->rows[5] = whole[5];
    uint8_t *last = arena_copy(house.arena, whole[5].value.data, whole[5].value.size);
    memcpy(memmem(last, whole[5].value.size, "ann", 3), "eve", 3);
    log->rows[5].value.data = last;
    seal(house.arena, &log->rows[5]);
    tell(&house, log, &after);
    ck_assert_int_eq(after.next, before.next);
    ck_assert(!digest_same(after.head, before.head));

    /* Taken out, moved, doubled, of another number. */
    memcpy(log->rows, whole, sizeof(whole));
    memmove(log->rows + 1, log->rows + 3, 3 * sizeof(*whole));
    log->count = 4;
    ck_assert_str_eq(tell(&house, log, NULL), "records 2 to 3 are missing");
    memcpy(log->rows, whole, sizeof(whole));
    log->count = 6;
    log->rows[1].value = whole[2].value;
    ck_assert_str_eq(tell(&house, log, NULL), "record 3 is kept as record 2");
    log->rows[1] = whole[0];
    ck_assert_str_eq(tell(&house, log, NULL), "record 1 comes after record 1");
    log->rows[1] = (audit_kept_t){.number = 2, .value = {whole[1].value.data, 20}};
    ck_assert_str_eq(tell(&house, log, NULL), "record 2 is not whole");
    house_up(&house);
    house_close(&house);
}
END_TEST

/* ---- What survives ---- */

static void write_until_killed(const char *data, int out)
{
    house_t house = {.arena = arena_new(), .transport = TRANSPORT_INPROC};
    snprintf(house.data, sizeof(house.data), "%s", data);
    house_up(&house);
    if (err_is(host_start(house.host, &keeper, NULL, house.arena)))
        _exit(1);
    client_call_t call = {.peer = "keeper", .role = ROLE_ADMIN, .timeout_ms = 20000};
    for (int i = 0; i < 4000; i++) {
        call.method = i % 5 ? "item_put" : "item_late";
        call.args = house_pack(house.arena, "{'item_id':'x'}");
        client_reply_t reply = client_call(house.client, house.arena, &call);
        if (!err_is(reply.err) && i % 5 && write(out, ".", 1) != 1)
            _exit(1);
        arena_reset(house.arena);
    }
    _exit(0);
}

START_TEST(a_killed_actor_leaves_a_whole_log)
{
#ifdef AGENCY_FAULTS
    static const char *const points[] = {"begin", "put", "commit.before", "commit.after"};
    house_t house = {.arena = arena_new()};
    scratch_make(house.data);
    int64_t acknowledged = 0;
    for (int round = 0; round < 16; round++) {
        int ends[2], status;
        char dot, fault[64];
        ck_assert(!pipe(ends));
        snprintf(fault, sizeof(fault), "kill@%s:%d", points[round % 4], 3 + round * 7 % 40);
        pid_t pid = fork();
        if (!pid) {
            setenv("AGENCY_FAULT", fault, 1);
            close(ends[0]);
            write_until_killed(house.data, ends[1]);
        }
        close(ends[1]);
        while (read(ends[0], &dot, 1) == 1)
            acknowledged++;
        close(ends[0]);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: %#x", fault,
                      (unsigned)status);
        /* What was acknowledged is recorded; what was on its way may be. */
        int64_t puts = count_in(tell(&house, read_log(&house, "default"), NULL), "item_put ok");
        ck_assert_int_ge(puts, acknowledged);
        ck_assert_int_le(puts, acknowledged + 1);
        acknowledged = puts;
    }
    ck_assert_int_gt(acknowledged, 16);
    scratch_remove(house.data);
    arena_destroy(&house.arena);
#endif
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("audit");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_test(all, changes_and_refusals_are_recorded);
    tcase_add_test(all, refusals_alike_are_one_record);
    tcase_add_test(all, a_repeated_call_is_recorded_once);
    tcase_add_test(all, settings_switch_and_skip);
    tcase_add_test(all, replayed_batches_are_recorded_once);
    tcase_add_test(all, old_records_go);
    tcase_add_test(all, changes_to_the_log_are_found);
    tcase_add_test(all, a_killed_actor_leaves_a_whole_log);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

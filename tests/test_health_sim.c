/* Health in virtual time: what expires, what is usual for an hour of the day, silences, a clock
 * that jumps; and with deaths, a disk that fills and receivers that fail: each point once, each
 * fire and each end told, in their order. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/health/health.h"
#include "house.h"
#include "proto/json.h"
#include "support_sim.h"

#ifdef AGENCY_FAULTS

enum { MINUTE = 60000, HOUR = 60 * MINUTE, DAY = 24 * HOUR, MOST_TOLD = 4096 };
enum { SEEDS = SLOW_BUILD ? 3 : 12 };

typedef struct told {
    bool firing;
    char url[32], agent[32];
} told_t;

typedef struct world {
    lab_t lab;
    /* The desk makes one call after the other: */
    const char *method, *args;
    const char *answer; /* NULL: none yet; an error begins with ERR */
    /* The receivers: */
    bool faults, dead_a, dead_b;
    told_t told[MOST_TOLD];
    int told_count;
} world_t;

/* The actors of a test need to find its world; there is one at a time. */
static world_t *world;

/* ---- The desk ---- */

static err_t on_answer(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self, (void)call, (void)reply, (void)ctx;
    client_reply_t plain = {.err = got->err, .body = got->body};
    world->answer = house_reply_text(world->lab.arena, plain);
    if (err_is(got->err))
        world->answer = arena_printf(world->lab.arena, "%s: %s", world->answer, err_what(got->err));
    return err_ok();
}

static err_t look(void *self, call_t *call, void *ctx)
{
    (void)self;
    call_work(call, 100, look, ctx);
    if (!world->method)
        return err_ok();
    peer_call_t request = {.peer = "health",
                           .method = world->method,
                           .args = house_pack(call_arena(call), world->args),
                           .company = "default",
                           .principal = "desk",
                           .role = ROLE_ADMIN,
                           .any_company = true,
                           .timeout_ms = 20000};
    world->method = NULL;
    call_peer(call, &request, on_answer, NULL);
    return call_park(call);
}

static err_t desk_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 1, look, NULL);
    return err_ok();
}

static const method_t no_methods[] = {{.name = NULL}};
static const actor_def_t desk = {
    .name = "desk", .doc = "Asks.", .size = 1, .open = desk_open, .methods = no_methods};

static bool answered(void *ctx)
{
    (void)ctx;
    return world->answer != NULL;
}

static const char *says(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *says(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(world->lab.arena, format, args);
    va_end(args);
    return text;
}

static const char *call(const char *method, const char *args)
{
    world->answer = NULL;
    world->args = args;
    world->method = method;
    ck_assert_msg(sim_run(world->lab.sim, sim_now_ms(world->lab.sim) + 5 * MINUTE, answered, NULL),
                  "%s is not answered", method);
    return world->answer;
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* ---- The receivers, and the house ---- */

static void http(void *ctx, const http_call_request_t *request, uint64_t chance, sim_http_t *out)
{
    static const char agent[] = "\"agent\":\"";
    bool to_a = has(request->url, "/a"), down = to_a ? world->dead_a : world->dead_b;
    const char *body = says("%.*s", (int)request->body.size, (const char *)request->body.data);
    (void)ctx;
    out->duration_ms = (int64_t)(chance % 200);
    if (down || (world->faults && chance % 3 == 0)) {
        out->outcome.err = err_of(ERR_UNAVAILABLE, "connection refused");
        return;
    }
    out->outcome.status = world->faults && chance % 5 == 0 ? 503 : 200;
    if (out->outcome.status != 200)
        return;
    ck_assert_int_lt(world->told_count, MOST_TOLD);
    told_t *told = &world->told[world->told_count++];
    *told = (told_t){.firing = has(body, "\"status\":\"firing\"")};
    snprintf(told->url, sizeof(told->url), "%s", strrchr(request->url, '/'));
    const char *at = strstr(body, agent);
    ck_assert_ptr_nonnull(at);
    snprintf(told->agent, sizeof(told->agent), "%.*s", (int)strcspn(at + sizeof(agent) - 1, "\""),
             at + sizeof(agent) - 1);
}

static const char *const settings[] = {"health.poll_ms=1000", "health.observe_ms=0",
                                       "health.webhook_url=http://hook/a",
                                       "health.webhook_backoff_ms=100", NULL};

static void begin(world_t *fresh, uint64_t seed, bool faults)
{
    world = fresh;
    *world = (world_t){.faults = faults};
    lab_open(&world->lab, seed, faults, http);
    lab_add(&world->lab, &health_actor, "health", faults, settings);
    lab_add(&world->lab, &desk, "desk", false, NULL);
}

static void end(void)
{
    lab_close(&world->lab);
}

/* The clock of the actors. */
static int64_t wall(void)
{
    return INT64_C(1767225600000) + sim_now_ms(world->lab.sim);
}

static const char *track(const char *agent, double value, int64_t back_ms)
{
    const char *when = back_ms ? says(",'timestamp':%" PRId64, wall() - back_ms) : "";
    return call("track_metric",
                says("{'agent':'%s','metric':'m','value':%g%s}", agent, value, when));
}

/* ---- What expires ---- */

static int64_t count_spans(void)
{
    store_pool_t *pool;
    store_txn_t *txn;
    err_t err = actor_store_open(&health_actor, world->lab.dir, world->lab.arena, &pool);
    if (!err_is(err))
        err = store_begin_read(pool, "default", &txn, world->lab.arena);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    int64_t count = store_count(txn, TABLE_spans);
    store_abort(&txn);
    store_pool_close(&pool);
    return count;
}

/* 10 s for a day, 1 min for a week, 1 h for a year. */
START_TEST(spans_expire)
{
    world_t place;
    const int64_t ages[] = {DAY, 7 * DAY, INT64_C(366) * DAY};
    for (int hours = 0; hours <= 3; hours += 3) {
        begin(&place, 1, false);
        lab_pass(&world->lab, MINUTE);
        for (int i = 0; i < 3; i++)
            ck_assert(has(track("a", i, ages[i] - HOUR), "timestamp"));
        const char *got = call("get_health_report", "{'timeframe':'last_day'}");
        ck_assert_msg(has(got, "'count':1,'min':0.0"), "%s", got);
        got = call("get_health_report", "{'timeframe':'last_week'}");
        ck_assert_msg(has(got, "'count':2,"), "%s", got);
        lab_pass(&world->lab, (int64_t)hours * HOUR);
        sim_destroy(&place.lab.sim);
        ck_assert_int_eq(count_spans(), hours ? 3 : 6);
        lab_close(&place.lab);
    }
}
END_TEST

/* ---- What is usual for an hour ---- */

/* Four weeks: 10 each hour, and 500 at three in the night. */
static void four_weeks(void)
{
    for (int64_t back = 28 * 24; back >= 1; back--) {
        int64_t hour = (wall() / HOUR - back) % 24;
        track("night", hour == 3 ? 500 + (double)(back % 5) : 10 + (double)(back % 3), back * HOUR);
    }
}

START_TEST(the_season_is_known)
{
    world_t place;
    begin(&place, 2, false);
    lab_pass(&world->lab, 3 * HOUR + 20 * MINUTE - 1000); /* twenty past three */
    four_weeks();
    for (int i = 14; i > 0; i--)
        track("night", 10 + i % 3, i * MINUTE + 20 * MINUTE);
    track("night", 502, 0);
    const char *got = call("detect_anomalies", "{}");
    ck_assert_msg(has(got, "'anomalies':[]") && has(got, "'looked_at':1"), "usual: %s", got);
    end();
    begin(&place, 3, false);
    lab_pass(&world->lab, 3 * HOUR + 20 * MINUTE - 1000);
    four_weeks();
    track("night", 11, 0); /* the nightly work did not run */
    got = call("detect_anomalies", "{}");
    ck_assert_msg(has(got, "'method':'seasonal'") && has(got, "'value':11.0"), "odd: %s", got);
    end();
    begin(&place, 4, false);
    lab_pass(&world->lab, 5 * HOUR + 20 * MINUTE - 1000);
    four_weeks();
    for (int i = 14; i > 0; i--)
        track("night", 10 + i % 3, i * MINUTE);
    track("night", 502, 0); /* at another hour */
    got = call("detect_anomalies", "{}");
    ck_assert_msg(has(got, "'metric':'m'") && has(got, "'method':'median'"), "odd: %s", got);
    end();
}
END_TEST

/* ---- Alerts over time ---- */

static void expect_told(int count, const char *url, bool firing)
{
    ck_assert_msg(world->told_count == count, "%d messages, not %d", world->told_count, count);
    ck_assert_str_eq(world->told[count - 1].url, url);
    ck_assert(world->told[count - 1].firing == firing);
}

START_TEST(durations_and_silences)
{
    world_t place;
    begin(&place, 5, false);
    call("alert_on_threshold",
         says("{'metric':'m','threshold':5,'operator':'>','id':'slow','for_ms':%d}", 10 * MINUTE));
    track("a", 9, 0);
    for (int i = 0; i < 9; i++) { /* fresh, but not for long enough */
        lab_pass(&world->lab, MINUTE);
        track("a", 9, 0);
    }
    ck_assert(has(call("check_alerts", "{}"), "'state':'pending'"));
    lab_pass(&world->lab, 2 * MINUTE); /* and nobody tracks any more */
    expect_told(1, "/a", true);
    track("a", 1, 0);
    lab_pass(&world->lab, MINUTE);
    expect_told(2, "/a", false);
    /* Silenced: not told while it lasts, then told when it still fires. */
    call("alert_on_threshold", "{'metric':'q','threshold':5,'operator':'>','id':'quiet'}");
    call("silence_alert", says("{'id':'quiet','for_ms':%d}", HOUR));
    call("track_metric", "{'agent':'b','metric':'q','value':9}");
    lab_pass(&world->lab, 30 * MINUTE);
    ck_assert_int_eq(place.told_count, 2);
    for (int i = 0; i < 31; i++) {
        lab_pass(&world->lab, MINUTE);
        call("track_metric", "{'agent':'b','metric':'q','value':9}");
    }
    expect_told(3, "/a", true);
    call("silence_alert", says("{'id':'quiet','for_ms':%d}", HOUR));
    call("track_metric", "{'agent':'b','metric':'q','value':1}");
    lab_pass(&world->lab, MINUTE);
    expect_told(4, "/a", false); /* whoever was told is told that it is over */
    call("track_metric", "{'agent':'b','metric':'q','value':9}");
    call("track_metric", "{'agent':'b','metric':'q','value':1}");
    lab_pass(&world->lab, 2 * HOUR);
    ck_assert_int_eq(place.told_count, 4); /* never told, so neither is its end */
    end();
}
END_TEST

START_TEST(a_dead_receiver_holds_up_no_other)
{
    world_t place;
    begin(&place, 6, false);
    place.dead_a = true;
    call("alert_on_threshold", "{'metric':'m','threshold':5,'operator':'>','id':'one'}");
    call("alert_on_threshold", "{'metric':'m','threshold':5,'operator':'>','id':'two',"
                               "'contact':'http://hook/b'}");
    track("a", 9, 0);
    track("a", 1, 0);
    track("a", 9, 0);
    lab_pass(&world->lab, MINUTE);
    ck_assert_int_eq(place.told_count, 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_str_eq(place.told[i].url, "/b");
        ck_assert(place.told[i].firing == (i != 1));
    }
    lab_pass(&world->lab, 20 * MINUTE);
    place.dead_a = false;
    lab_pass(&world->lab, 6 * MINUTE); /* the longest pause is five minutes */
    ck_assert_int_eq(place.told_count, 6);
    for (int i = 3; i < 6; i++) {
        ck_assert_str_eq(place.told[i].url, "/a");
        ck_assert(place.told[i].firing == (i != 4));
    }
    /* After a day nobody waits for it any more. */
    place.dead_a = true;
    track("a", 1, 0);
    lab_pass(&world->lab, 26 * (int64_t)HOUR);
    ck_assert(lab_said(&place.lab, "nobody at http://hook/a took an alert"));
    end();
}
END_TEST

/* A point of a clock that was ahead is not the last one for ever. */
START_TEST(a_clock_that_was_ahead)
{
    world_t place;
    begin(&place, 7, false);
    call("alert_on_threshold", "{'metric':'m','threshold':5,'operator':'>','id':'one'}");
    track("a", 1, -(HOUR - MINUTE));
    ck_assert(has(call("check_alerts", "{}"), "'state':'ok'"));
    track("a", 9, 0);
    ck_assert(has(call("check_alerts", "{}"), "'state':'firing'"));
    ck_assert(has(track("a", 1, -2 * HOUR), "ERR ARGUMENT"));
    end();
}
END_TEST

/* ---- Whatever dies ---- */

static void append_line(const char *agent, int number)
{
    char path[128];
    mkdir(says("%s/metrics", world->lab.dir), 0750);
    snprintf(path, sizeof(path), "%s/metrics/2026-01-01.ndjson", world->lab.dir);
    FILE *file = fopen(path, "ae");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "{\"timestamp\":%" PRId64 ",\"agent\":\"%s\",\"metric\":\"n\",\"value\":%d}\n",
            wall(), agent, number);
    fclose(file);
}

static int64_t count_in(const char *report, const char *key)
{
    const char *at = strstr(report, says("'%s':{'count':", key));
    return at ? strtoll(strchr(at, '{') + strlen("{'count':"), NULL, 10) : 0;
}

START_TEST(each_once_whatever_dies)
{
    world_t place;
    int deaths = 0, fires = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        int64_t asked = 0, kept = 0, lines = 0;
        begin(&place, seed, true);
        for (int i = 0; i < 20; i++) /* until it is set: this may die too */
            if (!has(call("alert_on_threshold",
                          "{'metric':'n','threshold':50,'operator':'>','id':'r'}"),
                     "ERR"))
                break;
        for (int i = 0; i < 120; i++) {
            uint64_t luck = sim_random(place.lab.sim);
            if (luck % 4 == 0) {
                append_line("outside", (int)(luck / 4 % 50));
                lines++;
            }
            asked++;
            kept += !has(call("track_metric", says("{'agent':'inside','metric':'n','value':%d}",
                                                   (int)(luck / 256 % 100))),
                         "ERR");
            if (luck / 65536 % 20 == 0)
                sim_kill(place.lab.sim, "health");
        }
        sim_calm(place.lab.sim);
        place.faults = false;
        lab_pass(&world->lab, 20 * MINUTE);
        const char *report = call("get_health_report", "{}");
        int64_t inside = count_in(report, "inside:n");
        ck_assert_msg(kept <= inside && inside <= asked,
                      "seed %" PRIu64 ": %" PRId64 " kept, %" PRId64 " counted, %" PRId64 " asked",
                      seed, kept, inside, asked);
        ck_assert_int_eq(count_in(report, "outside:n"), lines);
        const char *alerts = call("check_alerts", "{}");
        int64_t fired = strtoll(strstr(alerts, "'fired':") + 8, NULL, 10), heard = 0;
        for (int i = 0; i < place.told_count; i++) /* a message may come twice, in its place */
            if (!i || place.told[i].firing != place.told[i - 1].firing)
                heard += place.told[i].firing;
        ck_assert_msg(heard == fired, "seed %" PRIu64 ": fired %" PRId64 ", told %" PRId64, seed,
                      fired, heard);
        deaths += sim_deaths(place.lab.sim);
        fires += (int)fired;
        end();
    }
    printf("%d deaths, %d fires\n", deaths, fires);
    ck_assert_int_gt(deaths, 5 * SEEDS);
    ck_assert_int_gt(fires, 8 * SEEDS);
}
END_TEST

#endif

int main(void)
{
    Suite *suite = suite_create("health_sim");
#ifdef AGENCY_FAULTS
    TCase *tests = tcase_create("time");
    tcase_set_timeout(tests, 180);
    tcase_add_test(tests, spans_expire);
    tcase_add_test(tests, the_season_is_known);
    tcase_add_test(tests, durations_and_silences);
    tcase_add_test(tests, a_dead_receiver_holds_up_no_other);
    tcase_add_test(tests, a_clock_that_was_ahead);
    tcase_add_test(tests, each_once_whatever_dies);
    suite_add_tcase(suite, tests);
#endif
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

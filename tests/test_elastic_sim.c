/* Elastic in mode direct over hours of virtual time: the production actor, an API server that keeps
 * a Scale and a Lease as a real one does, an agent that says what work there is. What must be true
 * is looked at with each PATCH: only the holder of the Lease changes the number, never beyond the
 * bounds, never downwards while the last replica holds a lease. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/elastic/elastic.h"
#include "house.h"
#include "proto/json.h"
#include "proto/mp.h"
#include "support_sim.h"

#ifdef AGENCY_FAULTS

enum { SEEDS = SLOW_BUILD ? 3 : 12 };
enum { MINUTE = 60000, MOST_CHANGES = 256, LEAST = 1, MOST = 5 };

typedef struct change {
    int64_t at_ms, from, to;
} change_t;

typedef struct world {
    lab_t lab;
    char tokens[2][64];
    /* The agent: */
    int64_t queue, leases; /* leases: held by the last replica */
    int64_t cordoned_ms;   /* when it was last asked for */
    /* The API server: */
    bool away, missing, slow, refuses;
    const char *cut_off; /* the server is away for this one only */
    int64_t replicas, running, version, lease_writes, lease_s, requests, patches, too_early;
    int64_t asked_again_ms; /* nobody may ask before then */
    char holder[64], lease_version[32], acquired[64], renewed[64];
    int64_t transitions;
    change_t changes[MOST_CHANGES];
    int change_count;
    char wrong[256];
} world_t;

/* The actors of a test need to find its world; there is one at a time. */
static world_t *world;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...)
{
    va_list args;
    if (*world->wrong)
        return;
    va_start(args, format);
    vsnprintf(world->wrong, sizeof(world->wrong), format, args);
    va_end(args);
}

/* ---- The agent ---- */

#define scale_ARGS(F)                                                                              \
    F(INT, unlike, opt(), 0, 0, "Not waited for.")                                                 \
    F(INT, wait_ms, opt(0), 0, 60000, "Neither.")                                                  \
    F(INT, target_per_replica, opt(), 0, 0, "Policy.")                                             \
    F(INT, min_replicas, opt(), 0, 0, "Policy.")                                                   \
    F(INT, max_replicas, opt(), 0, 0, "Policy.")
#define scale_REPLY(F)                                                                             \
    F(INT, queue_length, must, 0, 0, "Work.")                                                      \
    F(REAL, oldest_ready_age_seconds, must, 0, 0, "Age.")
#define task_cordon_ARGS(F)                                                                        \
    F(STR, worker, must, 1, 64, "Whom.")                                                           \
    F(INT, for_ms, must, 0, 600000, "How long.")
#define task_cordon_REPLY(F) F(INT, leases, must, 0, 0, "What it holds.")

typedef struct plain {
    int unused;
} plain_t;

#define AGENT_METHODS(M)                                                                           \
    M(plain_t, scale, READS | ANY_COMPANY, "Demand.")                                              \
    M(plain_t, task_cordon, READS | ANY_COMPANY, "No more work for that one.")
METHODS(agent_methods, AGENT_METHODS)

static err_t scale(plain_t *self, call_t *call, const scale_args_t *args, scale_reply_t *reply)
{
    (void)self;
    (void)call;
    (void)args;
    reply->queue_length = world->queue;
    return err_ok();
}

static err_t task_cordon(plain_t *self, call_t *call, const task_cordon_args_t *args,
                         task_cordon_reply_t *reply)
{
    (void)self;
    (void)call;
    if (args->for_ms)
        world->cordoned_ms = sim_now_ms(world->lab.sim);
    reply->leases = world->leases;
    return err_ok();
}

static const actor_def_t test_agent = {
    .name = "agent", .doc = "Says.", .size = sizeof(plain_t), .methods = agent_methods};

/* ---- The API server ---- */

static void answer(sim_http_t *out, int status, const char *body)
{
    out->outcome.status = status;
    out->outcome.body = (bytes_t){(const uint8_t *)body, strlen(body)};
}

static void answer_status(sim_http_t *out, int code, const char *reason, const char *message)
{
    answer(out, code,
           arena_printf(world->lab.arena,
                        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":"
                        "\"Failure\",\"message\":\"%s\",\"reason\":\"%s\",\"code\":%d}",
                        message, reason, code));
}

static void answer_scale(sim_http_t *out)
{
    answer(out, 200,
           arena_printf(world->lab.arena,
                        "{\"kind\":\"Scale\",\"apiVersion\":\"autoscaling/v1\",\"metadata\":{"
                        "\"name\":\"agency\",\"resourceVersion\":\"%" PRId64
                        "\"},\"spec\":{\"replicas\":%" PRId64 "},\"status\":{\"replicas\":%" PRId64
                        ",\"selector\":\"app=agency\"}}",
                        world->version, world->replicas, world->running));
}

static void answer_lease(sim_http_t *out, int status)
{
    answer(out, status,
           arena_printf(world->lab.arena,
                        "{\"kind\":\"Lease\",\"apiVersion\":\"coordination.k8s.io/v1\","
                        "\"metadata\":{\"name\":\"agency-elastic\",\"resourceVersion\":\"%s\"},"
                        "\"spec\":{\"holderIdentity\":\"%s\",\"leaseDurationSeconds\":%" PRId64
                        ",\"acquireTime\":\"%s\",\"renewTime\":\"%s\",\"leaseTransitions\":%" PRId64
                        "}}",
                        world->lease_version, world->holder, world->lease_s, world->acquired,
                        world->renewed, world->transitions));
}

static const char *part(bytes_t value, const char *one, const char *two)
{
    bytes_t inner, field;
    const char *text = mp_get(value, one, &inner) && mp_get(inner, two, &field)
                           ? mp_text(world->lab.arena, field)
                           : NULL;
    return text ? text : "";
}

static int64_t count_of(bytes_t value, const char *one, const char *two)
{
    bytes_t inner, field;
    int64_t count = -1;
    if (mp_get(value, one, &inner) && mp_get(inner, two, &field))
        mp_int(field, &count);
    return count;
}

static void take_lease(const http_call_request_t *request, bytes_t body, sim_http_t *out)
{
    bool fresh = !strcmp(request->method, "POST");
    const char *renewed = part(body, "spec", "renewTime");
    int64_t transitions = count_of(body, "spec", "leaseTransitions");
    if (strlen(renewed) != 27 || renewed[19] != '.' || renewed[26] != 'Z') {
        answer_status(out, 400, "BadRequest", "renewTime is no MicroTime");
        complain("renewTime %s", renewed);
    } else if (fresh && *world->holder) {
        answer_status(out, 409, "AlreadyExists", "leases already exists");
    } else if (!fresh &&
               strcmp(part(body, "metadata", "resourceVersion"), world->lease_version) != 0) {
        answer_status(out, 409, "Conflict", "the object has been modified");
    } else {
        const char *holder = part(body, "spec", "holderIdentity");
        if (!fresh && transitions != world->transitions + (strcmp(holder, world->holder) != 0))
            complain("%" PRId64 " leaseTransitions after %" PRId64, transitions,
                     world->transitions);
        snprintf(world->holder, sizeof(world->holder), "%s", holder);
        snprintf(world->acquired, sizeof(world->acquired), "%s", part(body, "spec", "acquireTime"));
        snprintf(world->renewed, sizeof(world->renewed), "%s", renewed);
        snprintf(world->lease_version, sizeof(world->lease_version), "%" PRId64,
                 ++world->lease_writes);
        world->transitions = transitions;
        world->lease_s = count_of(body, "spec", "leaseDurationSeconds");
        answer_lease(out, fresh ? 201 : 200);
    }
}

/* Whose token is it? */
static const char *who(const http_call_request_t *request)
{
    for (const char *const *at = request->headers; at && *at; at++)
        if (!strncmp(*at, "Authorization: Bearer ", 22))
            return *at + 22;
    return "";
}

static void patch(const http_call_request_t *request, bytes_t body, sim_http_t *out)
{
    int64_t to = count_of(body, "spec", "replicas"), from = world->replicas;
    world->patches++;
    if (to < 0) {
        answer_status(out, 422, "Invalid", "spec.replicas: must be greater than or equal to 0");
        return;
    }
    if (strcmp(part(body, "metadata", "resourceVersion"),
               arena_printf(world->lab.arena, "%" PRId64, world->version)) != 0) {
        answer_status(out, 409, "Conflict", "the object has been modified");
        return;
    }
    if (strcmp(who(request), world->holder) != 0)
        complain("%s scales, %s holds the Lease", who(request), world->holder);
    if (to < LEAST || to > MOST)
        complain("%" PRId64 " replicas", to);
    if (to < from && (to != from - 1 || world->leases || !world->cordoned_ms))
        complain("from %" PRId64 " to %" PRId64 " with %" PRId64 " leases held", from, to,
                 world->leases);
    if (world->change_count < MOST_CHANGES)
        world->changes[world->change_count++] = (change_t){sim_now_ms(world->lab.sim), from, to};
    world->replicas = world->running = to;
    world->version++;
    answer_scale(out);
}

static void serve(const http_call_request_t *request, sim_http_t *out)
{
    bytes_t body = {0};
    bool get = !strcmp(request->method, "GET");
    if (request->body.size &&
        err_is(json_to_msgpack(world->lab.arena, (const char *)request->body.data,
                               request->body.size, NULL, &body)))
        complain("no JSON: %.*s", (int)request->body.size, (const char *)request->body.data);
    if (strstr(request->url, "/leases"))
        get && !*world->holder ? answer_status(out, 404, "NotFound", "leases not found")
        : get                  ? answer_lease(out, 200)
                               : take_lease(request, body, out);
    else if (strstr(request->url, "/horizontalpodautoscalers"))
        answer(out, 200, "{\"kind\":\"HorizontalPodAutoscalerList\",\"items\":[]}");
    else if (strstr(request->url, "/scaledobjects"))
        answer(out, 404, "404 page not found\n"); /* there is no KEDA */
    else if (world->missing)
        answer_status(out, 404, "NotFound", "statefulsets.apps \\\"agency\\\" not found");
    else if (get)
        answer_scale(out);
    else
        patch(request, body, out);
}

static void http(void *ctx, const http_call_request_t *request, uint64_t chance, sim_http_t *out)
{
    int64_t now = sim_now_ms(world->lab.sim);
    (void)ctx;
    world->requests++;
    out->duration_ms = 1 + (int64_t)(chance % 20);
    if (world->slow)
        out->duration_ms = (int64_t)(chance % 4000);
    if (now < world->asked_again_ms)
        world->too_early++;
    if (world->away || (world->cut_off && !strcmp(world->cut_off, who(request)))) {
        out->duration_ms = (int64_t)(chance % 10);
        out->outcome.err = err_of(ERR_UNAVAILABLE, "connection refused");
    } else if (world->refuses) {
        answer_status(out, 429, "TooManyRequests", "too many requests, please try again later");
        out->outcome.retry_after_ms = 20000;
        world->asked_again_ms = now + 20000;
    } else {
        serve(request, out);
        out->outcome.content_type = "application/json";
    }
}

/* ---- The house ---- */

static actor_def_t rival; /* a second elastic, on a volume of its own */

/* In a hurry: down after a minute, so that a short life gets there; and a Lease that slow answers
 * outlast. */
static const char *const *settings_of(const char *name, bool hurry)
{
    const char **list = ARENA_ARRAY(world->lab.arena, const char *, 9);
    int which = strcmp(name, "elastic") != 0;
    snprintf(world->tokens[which], sizeof(world->tokens[which]), "%s/%s.token", world->lab.dir,
             name);
    write_file(world->tokens[which], name);
    list[0] = arena_printf(world->lab.arena, "%s.mode=direct", name);
    list[1] = arena_printf(world->lab.arena, "%s.statefulset=agency", name);
    list[2] = arena_printf(world->lab.arena, "%s.namespace=ns", name);
    list[3] = arena_printf(world->lab.arena, "%s.api_url=http://api", name);
    list[4] = arena_printf(world->lab.arena, "%s.token_file=%s", name, world->tokens[which]);
    list[5] = arena_printf(world->lab.arena, "%s.identity=%s", name, name);
    list[6] = hurry ? arena_printf(world->lab.arena, "%s.down_stabilization_ms=60000", name) : NULL;
    list[7] = hurry ? arena_printf(world->lab.arena, "%s.lease_s=5", name) : NULL;
    return list;
}

static void begin(world_t *fresh, uint64_t seed, bool faults)
{
    world = fresh;
    *world = (world_t){.replicas = 1, .running = 1, .version = 100};
    lab_open(&world->lab, seed, faults, http);
    lab_add(&world->lab, &test_agent, "agent", false, NULL);
    lab_add(&world->lab, &elastic_actor, "elastic", faults, settings_of("elastic", faults));
}

static void end(void)
{
    if (*world->wrong)
        lab_show_log(&world->lab);
    ck_assert_msg(!*world->wrong, "%s", world->wrong);
    lab_close(&world->lab);
}

/* ---- The tests ---- */

/* The defaults: at once to five, after five minutes one fewer each minute. */
START_TEST(one_to_five_to_one)
{
    world_t place;
    begin(&place, 1, false);
    lab_pass(&world->lab, 10000);
    ck_assert_int_eq(place.replicas, 1);
    place.queue = 40;
    int64_t from = sim_now_ms(place.lab.sim);
    lab_pass(&world->lab, 5000);
    ck_assert_int_eq(place.replicas, 5);
    lab_pass(&world->lab, 2 * MINUTE);
    place.queue = 0;
    place.leases = 1;
    int64_t empty = sim_now_ms(place.lab.sim);
    lab_pass(&world->lab, 7 * MINUTE);
    ck_assert_msg(place.replicas == 5, "the last one holds a lease");
    ck_assert(place.cordoned_ms >= empty + 300000);
    place.leases = 0;
    lab_pass(&world->lab, 10 * MINUTE);
    ck_assert_int_eq(place.replicas, 1);
    ck_assert_int_eq(place.changes[0].to, 5);
    ck_assert_int_le(place.changes[0].at_ms - from, 4500); /* two looks of 2 s */
    ck_assert_int_eq(place.change_count, 5);
    for (int i = 1; i < place.change_count; i++) {
        ck_assert_int_ge(place.changes[i].at_ms - empty, 300000 + (i - 1) * MINUTE);
        ck_assert(i == 1 || place.changes[i].at_ms - place.changes[i - 1].at_ms >= MINUTE);
    }
    end();
}
END_TEST

START_TEST(the_api_server_is_away_for_ten_minutes)
{
    world_t place;
    begin(&place, 2, false);
    place.queue = 40;
    lab_pass(&world->lab, 10000);
    ck_assert_int_eq(place.replicas, 5);
    place.away = true;
    place.queue = 0;
    int64_t before = place.requests;
    lab_pass(&world->lab, 10 * MINUTE);
    ck_assert(lab_said(&world->lab, "no answer that can be read: connection refused"));
    ck_assert_int_gt(place.requests, before + 100); /* it goes on asking, */
    ck_assert_int_lt(place.requests, before + 400); /* not faster than before */
    place.away = false;
    int64_t back = sim_now_ms(place.lab.sim);
    lab_pass(&world->lab, 290000);
    ck_assert_int_eq(place.replicas, 5); /* what was wanted meanwhile, nobody knows */
    lab_pass(&world->lab, 6 * MINUTE);
    ck_assert_int_eq(place.replicas, 1);
    ck_assert_int_ge(place.changes[1].at_ms - back, 300000);
    ck_assert_str_eq(place.holder, "elastic");
    ck_assert_int_eq(place.transitions, 0);
    end();
}
END_TEST

START_TEST(a_statefulset_that_is_missing)
{
    world_t place;
    begin(&place, 3, false);
    place.missing = true;
    place.queue = 40;
    lab_pass(&world->lab, MINUTE);
    ck_assert_int_eq(place.patches, 0);
    ck_assert(lab_said(&world->lab,
                       "404; look at elastic.statefulset and elastic.namespace (it says: "
                       "statefulsets.apps"));
    place.missing = false;
    lab_pass(&world->lab, 10000);
    ck_assert_int_eq(place.replicas, 5);
    end();
}
END_TEST

START_TEST(a_server_with_too_much_to_do_is_left_alone)
{
    world_t place;
    begin(&place, 4, false);
    lab_pass(&world->lab, 10000);
    place.refuses = true;
    lab_pass(&world->lab, 10 * MINUTE);
    place.refuses = false;
    ck_assert(lab_said(&world->lab, "429; it has too much to do"));
    ck_assert_int_eq(place.too_early, 0);
    place.queue = 40;
    lab_pass(&world->lab, 30000);
    ck_assert_int_eq(place.replicas, 5);
    end();
}
END_TEST

/* Two that die at any moment, slow answers, conflicts: one leads, and each change is its own. */
START_TEST(two_at_once)
{
    world_t place;
    int deaths = 0, changes = 0, transitions = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(&place, seed, true);
        rival = elastic_actor;
        rival.name = "rival";
        lab_add(&place.lab, &rival, "rival", true, settings_of("rival", true));
        for (int i = 0; i < 40 && !*place.wrong; i++) {
            uint64_t luck = sim_random(place.lab.sim);
            place.queue = i % 13 < 3 ? (int64_t)(luck / 8 % 40) : 0; /* then it is quiet */
            place.leases = luck / 1024 % 4 == 0;
            place.slow = luck / 4096 % 3 == 0;
            place.away = luck / 16384 % 8 == 0;
            place.version += luck / 65536 % 2; /* its status changed */
            place.cut_off = luck / 1048576 % 3 ? NULL : luck / 4194304 % 2 ? "rival" : "elastic";
            if (luck / 131072 % 3 == 0)
                sim_kill(place.lab.sim, luck / 524288 % 2 ? "rival" : "elastic");
            lab_pass(&world->lab, MINUTE);
        }
        sim_calm(place.lab.sim);
        place.queue = 30;
        place.away = place.slow = false;
        place.cut_off = NULL;
        lab_pass(&world->lab, MINUTE);
        if (place.replicas != 5)
            complain("%" PRId64 " replicas for 30 tasks when all is calm", place.replicas);
        deaths += sim_deaths(place.lab.sim);
        changes += place.change_count;
        transitions += (int)place.transitions;
        end();
    }
    printf("%d deaths, %d changes, %d leaders followed\n", deaths, changes, transitions);
    ck_assert_int_gt(deaths, 4 * SEEDS);
    ck_assert_int_gt(changes, 4 * SEEDS);
    ck_assert_int_gt(transitions, SEEDS);
}
END_TEST

#endif

int main(void)
{
    Suite *suite = suite_create("elastic_sim");
#ifdef AGENCY_FAULTS
    TCase *tests = tcase_create("direct");
    tcase_set_timeout(tests, 180);
    tcase_add_test(tests, one_to_five_to_one);
    tcase_add_test(tests, the_api_server_is_away_for_ten_minutes);
    tcase_add_test(tests, a_statefulset_that_is_missing);
    tcase_add_test(tests, a_server_with_too_much_to_do_is_left_alone);
    tcase_add_test(tests, two_at_once);
    suite_add_tcase(suite, tests);
#endif
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

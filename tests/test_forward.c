/* Replicas of a cluster: where a pod stands, who may own what, and how the metrics of a replica's
 * own volume come to the owner, each line once. Two hosts in two directories stand for two pods;
 * they know each other by tcp only. */
#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bus/curve.h"
#include "bus/place.h"
#include "house.h"
#include "proto/mp.h"
#include "support_tcp.h"

extern const actor_def_t health_actor, feed_actor, agent_actor;

/* ---- Where a pod stands ---- */

static arena_t *arena;

static void begin(void)
{
    arena = arena_new();
}

static void end(void)
{
    arena_destroy(&arena);
}

static err_t load(place_t *place, const char *one, const char *two, const char *three)
{
    const char *list[] = {one, two, three, NULL};
    return place_load(list, NULL, NULL, arena, place);
}

static const char *address(const place_t *place, const char *pillar)
{
    const char *text = place_address(place, pillar);
    return text ? text : "here";
}

START_TEST(a_pod_knows_where_the_others_are)
{
    place_t place;
    const char *owner = "bus.owner=house-agent-0.house-agent-headless.client-a.svc";
    ck_assert(!err_is(load(&place, "bus.pod=house-agent-2", owner, "bus.port_offset=10")));
    ck_assert_int_eq(place.ordinal, 2);
    ck_assert_str_eq(address(&place, "agent"),
                     "tcp://house-agent-0.house-agent-headless.client-a.svc:5510");
    ck_assert_str_eq(address(&place, "elastic"),
                     "tcp://house-agent-0.house-agent-headless.client-a.svc:5516");
    ck_assert_str_eq(address(&place, "brain"), "here");
    ck_assert(place_forwards(&place, "health"));
    ck_assert(!place_forwards(&place, "brain"));
    ck_assert(!place_forwards(&place, "worker"));
    /* The owner itself. */
    ck_assert(!err_is(load(&place, "bus.pod=house-agent-0", owner, "bus.brain=tcp://b:5502")));
    ck_assert_int_eq(place.ordinal, 0);
    ck_assert_str_eq(address(&place, "agent"), "here");
    ck_assert_str_eq(address(&place, "brain"), "tcp://b:5502");
    ck_assert(!place_forwards(&place, "agent"));
    /* Beside the pods: the brain, and whoever looks from outside. */
    ck_assert(!err_is(load(&place, "bus.pod=", "bus.owner=127.0.0.1", NULL)));
    ck_assert_str_eq(address(&place, "swarm"), "tcp://127.0.0.1:5505");
    /* What is said of one pillar is stronger. */
    ck_assert(!err_is(load(&place, "bus.owner=a", "bus.agent=tcp://b:1", NULL)));
    ck_assert_str_eq(address(&place, "agent"), "tcp://b:1");
    ck_assert_str_eq(address(&place, "health"), "tcp://a:5504");
    ck_assert(!err_is(load(&place, NULL, NULL, NULL)));
    ck_assert(!place_any_away(&place));
}
END_TEST

START_TEST(names_that_cannot_be)
{
    static const char *const bad[] = {
        "bus.pod=house",     "bus.pod=house-agent-", "bus.pod=-1",         "bus.pod=a/b-1",
        "bus.pod=h-1234567", "bus.pod=..-1",         "bus.pod=h-2x",       "bus.owner=tcp://a:5500",
        "bus.owner=a b",     "bus.agent=tcp://a",    "bus.port_offset=-1", "bus.workers=65"};
    place_t place;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err_t err = load(&place, bad[i], NULL, NULL);
        ck_assert_msg(err.code == ERR_ARGUMENT, "%s was taken", bad[i]);
        ck_assert_msg(strstr(err_what(err), "bus.") || strstr(err_what(err), "AGENCY_BUS") ||
                          strstr(err_what(err), "for bus"),
                      "%s", err_what(err));
    }
    err_t err = load(&place, "bus.pod=house-agent-1", NULL, NULL);
    ck_assert_int_eq(err.code, ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err_what(err), "bus.owner"));
}
END_TEST

/* ---- Two pods ---- */

typedef struct cluster {
    char keys[32];
    int offset;
    house_t owner, replica;
} cluster_t;

static void pod_settings(cluster_t *self, house_t *house, const char *pod, bool listens)
{
    const char **list = ARENA_ARRAY(house->arena, const char *, 16);
    int count = 0;
    list[count++] = arena_printf(house->arena, "bus.pod=%s", pod);
    list[count++] = arena_printf(house->arena, "feed.pod=%s", pod);
    list[count++] = "bus.owner=127.0.0.1";
    list[count++] = "feed.poll_ms=50";
    list[count++] = "health.poll_ms=50";
    list[count++] = "health.observe_ms=0";
    list[count++] = arena_printf(house->arena, "bus.port_offset=%d", self->offset);
    list[count++] = arena_printf(house->arena, "bus.curve_key=%s/k/curve.key", self->keys);
    list[count++] = arena_printf(house->arena, "bus.curve_allow=%s/k/curve.pub", self->keys);
    list[count++] = arena_printf(house->arena, "bus.curve_servers=%s/k/curve.pub", self->keys);
    if (listens)
        list[count++] = "bus.listen=127.0.0.1";
    house->settings = list;
}

static void pod_make(cluster_t *self, house_t *house, const char *pod, bool listens)
{
    *house = (house_t){.arena = arena_new(), .transport = TRANSPORT_INPROC, .text = ""};
    scratch_make(house->data);
    pod_settings(self, house, pod, listens);
    house_up(house);
}

static void cluster_open(cluster_t *self)
{
    memset(self, 0, sizeof(*self));
    scratch_make(self->keys);
    make_curve_key(arena_printf(arena, "%s/k", self->keys), arena);
    self->offset = free_tcp_offset();
    pod_make(self, &self->owner, "house-agent-0", true);
    pod_make(self, &self->replica, "house-agent-1", false);
}

static void cluster_close(cluster_t *self)
{
    house_close(&self->replica);
    house_close(&self->owner);
    scratch_remove(self->keys);
}

START_TEST(a_replica_never_opens_the_store)
{
    cluster_t self;
    struct stat info;
    cluster_open(&self);
    err_t err = host_start(self.replica.host, &health_actor, NULL, arena);
    ck_assert_int_eq(err.code, ERR_OWNED);
    ck_assert_ptr_nonnull(strstr(err_what(err), "only ordinal 0"));
    ck_assert_int_ne(stat(arena_printf(arena, "%s/health", self.replica.data), &info), 0);
    /* And the store has one owner on ordinal 0. */
    house_start(&self.owner, &health_actor);
    host_t *second;
    host_options_t options = {.data_dir = self.owner.data, .transport = TRANSPORT_INPROC};
    ck_assert(!err_is(host_open(&options, arena, &second)));
    err = host_start(second, &health_actor, NULL, arena);
    ck_assert_int_eq(err.code, ERR_OWNED);
    ck_assert_ptr_nonnull(strstr(err_what(err), "another process owns"));
    host_close(&second, 0);
    cluster_close(&self);
}
END_TEST

/* ---- Metrics of the replica's volume ---- */

static const char *day_path(const house_t *house, const char *name)
{
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    mkdir(arena_printf(arena, "%s/metrics", house->data), 0750);
    return arena_printf(arena, "%s/metrics/%04d-%02d-%02d%s", house->data, utc.tm_year + 1900,
                        utc.tm_mon + 1, utc.tm_mday, name);
}

static int written; /* values are 1, 2, 3 …: the sum tells a lost one from a doubled one */

static void write_lines(const char *path, int count)
{
    FILE *file = fopen(path, "a");
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < count; i++)
        fprintf(file, "{\"timestamp\":%lld,\"agent\":\"w\",\"metric\":\"n\",\"value\":%d}\n",
                (long long)time(NULL) * 1000, ++written);
    fclose(file);
}

static bool all_there(house_t *owner)
{
    const char *report = house_call(owner, "health", "get_health_report", "{'agent':'w'}");
    int64_t n = written;
    return strstr(report, arena_printf(arena, "'count':%d,", written)) &&
           strstr(report, arena_printf(arena, "'sum':%" PRId64 ".0", n * (n + 1) / 2));
}

static void wait_for_all(house_t *owner)
{
    int64_t until = mono_ms() + 40000;
    while (!all_there(owner))
        ck_assert_msg(mono_ms() < until, "%d written: %s", written,
                      house_call(owner, "health", "get_health_report", "{'agent':'w'}"));
}

START_TEST(each_line_of_a_replica_once)
{
    cluster_t self;
    cluster_open(&self);
    written = 0;
    const char *path = day_path(&self.replica, ".ndjson");
    house_start(&self.owner, &health_actor);
    write_lines(path, 20000); /* several slices */
    house_start(&self.replica, &feed_actor);
    for (int i = 0; i < 4; i++) { /* ended in the middle, on either side */
        write_lines(path, 500);
        house_restart(&self.replica, &feed_actor);
        write_lines(path, 500);
        house_restart(&self.owner, &health_actor);
    }
    wait_for_all(&self.owner);
    /* Renamed, and a new one in its place; and a torn line that is ended later. */
    ck_assert(!rename(path, day_path(&self.replica, ".0.ndjson")));
    write_lines(path, 10);
    FILE *file = fopen(path, "a");
    fprintf(file, "{\"timestamp\":%lld,\"agent\":\"w\",", (long long)time(NULL) * 1000);
    fclose(file);
    wait_for_all(&self.owner);
    file = fopen(path, "a");
    fprintf(file, "\"metric\":\"n\",\"value\":%d}\n", ++written);
    fclose(file);
    wait_for_all(&self.owner);
    house_restart(&self.replica, &feed_actor);
    write_lines(path, 1);
    wait_for_all(&self.owner);
    cluster_close(&self);
}
END_TEST

/* Copied from a backup, a file has another inode. */
START_TEST(a_restored_volume_is_not_counted_again)
{
    cluster_t self;
    cluster_open(&self);
    written = 0;
    const char *path = day_path(&self.replica, ".ndjson"), *copy = day_path(&self.replica, ".copy");
    house_start(&self.owner, &health_actor);
    house_start(&self.replica, &feed_actor);
    write_lines(path, 100);
    wait_for_all(&self.owner);
    host_stop(self.replica.host, "feed", 1000);
    write_file(copy, read_file(arena, path));
    ck_assert(!unlink(path) && !rename(copy, path));
    write_lines(path, 5);
    house_start(&self.replica, &feed_actor);
    wait_for_all(&self.owner);
    cluster_close(&self);
}
END_TEST

START_TEST(a_shared_volume_is_read_by_the_owner_alone)
{
    cluster_t self;
    cluster_open(&self);
    written = 0;
    const char *path = day_path(&self.owner, ".ndjson");
    ck_assert(!symlink(arena_printf(arena, "%s/metrics", self.owner.data),
                       arena_printf(arena, "%s/metrics", self.replica.data)));
    house_start(&self.owner, &health_actor);
    house_start(&self.replica, &feed_actor);
    write_lines(path, 50);
    wait_for_all(&self.owner);
    int64_t until = mono_ms() + 20000; /* until it has asked, and found out */
    while (strstr(house_call(&self.owner, "health", "health.stats", "{}"),
                  "'metric_feed_begin','calls':1") == NULL)
        ck_assert_int_lt(mono_ms(), until);
    write_lines(path, 50);
    wait_for_all(&self.owner);
    ck_assert_ptr_null(
        strstr(house_call(&self.owner, "health", "health.stats", "{}"), "'metric_feed','calls'"));
    cluster_close(&self);
}
END_TEST

/* A slice that comes again, or late, finds that the file is known otherwise. */
START_TEST(a_slice_is_taken_once)
{
    cluster_t self;
    cluster_open(&self);
    written = 1;
    house_start(&self.owner, &health_actor);
    const char *line =
        arena_printf(arena, "{\"timestamp\":%lld,\"agent\":\"w\",\"metric\":\"n\",\"value\":1}\n",
                     (long long)time(NULL) * 1000);
    for (int i = 0; i < 3; i++) {
        buf_t args;
        buf_open(&args, arena);
        mp_put_map(&args, 5);
        mp_put_str(&args, "pod");
        mp_put_str(&args, "p-1");
        mp_put_str(&args, "inode");
        mp_put_int(&args, 7);
        mp_put_str(&args, "name");
        mp_put_str(&args, "x.ndjson");
        mp_put_str(&args, "next");
        mp_put_map(&args, 3);
        mp_put_str(&args, "offset");
        mp_put_int(&args, (int64_t)strlen(line));
        mp_put_str(&args, "head_size");
        mp_put_int(&args, 64);
        mp_put_str(&args, "head_hash");
        mp_put_int(&args, -5);
        mp_put_str(&args, "lines");
        mp_put_bin(&args, line, strlen(line));
        client_call_t call = {.peer = "health",
                              .method = "metric_feed",
                              .args = buf_bytes(&args),
                              .role = ROLE_ADMIN};
        const char *text = house_reply_text(arena, client_call(self.owner.client, arena, &call));
        ck_assert_msg(strstr(text, i ? "'taken':false" : "'taken':true") != NULL, "%s", text);
    }
    ck_assert(all_there(&self.owner));
    cluster_close(&self);
}
END_TEST

/* ---- From outside: the command line's way ---- */

START_TEST(a_client_by_tcp)
{
    cluster_t self;
    client_t *client;
    cluster_open(&self);
    house_start(&self.owner, &health_actor);
    const char *set[] = {"bus.owner=127.0.0.1",
                         arena_printf(arena, "bus.port_offset=%d", self.offset),
                         arena_printf(arena, "bus.curve_key=%s/k/curve.key", self.keys),
                         arena_printf(arena, "bus.curve_servers=%s/servers", self.keys), NULL};
    /* The second of two keys is the right one. */
    make_curve_key(arena_printf(arena, "%s/other", self.keys), arena);
    write_file(arena_printf(arena, "%s/servers", self.keys),
               arena_printf(arena, "%s%s",
                            read_file(arena, arena_printf(arena, "%s/other/curve.pub", self.keys)),
                            read_file(arena, arena_printf(arena, "%s/k/curve.pub", self.keys))));
    curve_options_t options = {.settings = set, .calls_only = true};
    err_t err = client_open_away(NULL, &options, arena, &client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    ck_assert(client_has_tcp(client));
    ck_assert(client_reaches(client, "health"));
    ck_assert(!client_reaches(client, "brain"));
    client_call_t call = {
        .peer = "health", .method = "health.ping", .role = ROLE_READER, .timeout_ms = 20000};
    ck_assert_ptr_nonnull(
        strstr(house_reply_text(arena, client_call(client, arena, &call)), "'name':'health'"));
    call.peer = "swarm"; /* nobody listens there */
    call.timeout_ms = 300;
    client_reply_t reply = client_call(client, arena, &call);
    ck_assert_int_eq(reply.err.code, ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err_what(reply.err), "tcp://127.0.0.1:"));
    client_close(&client);
    cluster_close(&self);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("forward");
    TCase *tcase = tcase_create("forward");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, begin, end);
    tcase_add_test(tcase, a_pod_knows_where_the_others_are);
    tcase_add_test(tcase, names_that_cannot_be);
    tcase_add_test(tcase, a_replica_never_opens_the_store);
    tcase_add_test(tcase, each_line_of_a_replica_once);
    tcase_add_test(tcase, a_restored_volume_is_not_counted_again);
    tcase_add_test(tcase, a_shared_volume_is_read_by_the_owner_alone);
    tcase_add_test(tcase, a_slice_is_taken_once);
    tcase_add_test(tcase, a_client_by_tcp);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

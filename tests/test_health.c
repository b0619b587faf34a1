/* Health as its clients and the shared volume meet it. */
#include <check.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "actors/health/bucket.h"
#include "actors/health/detect.h"
#include "actors/health/health.h"
#include "actors/health/series.h"
#include "house.h"

static house_t house;

static atomic_bool disk_full;

static store_fault_kind_t at_store(void *ctx, const char *point)
{
    (void)ctx;
    return atomic_load(&disk_full) && !strcmp(point, "put") ? STORE_FAIL_FULL : STORE_GO;
}

static void setup(void)
{
    static const char *const settings[] = {"health.poll_ms=50", "health.observe_ms=0",
                                           "health.max_series=50", NULL};
    house_open(&house, TRANSPORT_INPROC);
    house.settings = settings;
    house.fault = (store_fault_t){at_store, NULL};
    atomic_store(&disk_full, false);
    house_down(&house);
    house_up(&house);
    house_start(&house, &health_actor);
}

static void teardown(void)
{
    house_close(&house);
}

static const char *call(const char *method, const char *args)
{
    return house_call(&house, "health", method, args);
}

static const char *says(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *says(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(house.arena, format, args);
    va_end(args);
    return text;
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* Asks for the report of an agent until it holds this. */
static void wait_report(const char *company, const char *agent, const char *part)
{
    int64_t end = mono_ms() + 10000;
    const char *last = "";
    while (mono_ms() < end) {
        last = call("get_health_report", says("{'agent':'%s','company':'%s'}", agent, company));
        if (has(last, part))
            return;
    }
    ck_abort_msg("in vain: %s", last);
}

/* Until check_alerts says this; the company's own. */
static const char *wait_alerts(const char *company, const char *part)
{
    int64_t end = mono_ms() + 10000;
    const char *last = "";
    while (mono_ms() < end) {
        last = call("check_alerts", says("{'company':'%s'}", company));
        if (has(last, part))
            return last;
    }
    ck_abort_msg("no %s in: %s", part, last);
}

static const char *today(int64_t back_days)
{
    time_t now = time(NULL) - back_days * 86400;
    struct tm parts;
    char *text = arena_alloc(house.arena, 64);
    gmtime_r(&now, &parts);
    strftime(text, 64, "%Y-%m-%d", &parts);
    return text;
}

static const char *file_of(const char *company, const char *name)
{
    mkdir(says("%s/metrics", house.data), 0750);
    if (*company)
        mkdir(says("%s/metrics/%s", house.data, company), 0750);
    return *company ? says("%s/metrics/%s/%s", house.data, company, name)
                    : says("%s/metrics/%s", house.data, name);
}

static void append_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "ae");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static const char *line(const char *agent, double value)
{
    time_t now = time(NULL);
    return says("{\"timestamp\":%lld,\"agent\":\"%s\",\"metric\":\"m\",\"value\":%g}\n",
                (long long)now * 1000, agent, value);
}

/* ---- Pure parts ---- */

START_TEST(quantiles_are_near)
{
    arena_t *arena = arena_new();
    bucket_t one = {0}, other = {0}, back;
    buf_t bytes;
    for (int i = 1; i <= 10000; i++)
        bucket_add(i % 2 ? &one : &other, arena, i * 0.5, i);
    bucket_merge(&one, arena, &other);
    buf_open(&bytes, arena);
    bucket_write(&one, &bytes);
    ck_assert(bucket_read(buf_bytes(&bytes), arena, &back));
    ck_assert_int_eq(back.count, 10000);
    for (double part = 0.01; part < 1; part += 0.01)
        ck_assert_double_le(fabs(bucket_quantile(&back, part) - part * 5000), part * 5000 * 0.021);
    ck_assert_double_eq(back.min, 0.5);
    ck_assert_double_eq(back.max, 5000);
    ck_assert_double_eq(back.last, 5000);
    bytes.size--;
    ck_assert(!bucket_read(buf_bytes(&bytes), arena, &back));
    arena_destroy(&arena);
}
END_TEST

START_TEST(any_number_finds_a_bin)
{
    arena_t *arena = arena_new();
    bucket_t bucket = {0};
    const double values[] = {-1e300, -3, -1e-300, 0, 1e-300, 2, 1e300};
    for (int i = 0; i < 7; i++)
        bucket_add(&bucket, arena, values[i], i);
    ck_assert_double_eq(bucket_quantile(&bucket, 0.5), 0);
    ck_assert_double_eq(bucket_quantile(&bucket, 0), -1e300);
    ck_assert_double_eq(bucket_quantile(&bucket, 1), 1e300);
    for (int i = 0; i < 100000; i++)
        bucket_add(&bucket, arena, pow(1.1, i % 5000), i);
    ck_assert_uint_le(bucket.used, BUCKET_BINS);
    arena_destroy(&arena);
}
END_TEST

START_TEST(odd_values_are_found)
{
    double values[200], scratch[400];
    for (int i = 0; i < 60; i++)
        values[i] = 100 + i % 5;
    ck_assert(!detect(values, 60, scratch).odd);
    values[59] = 150;
    ck_assert(detect(values, 60, scratch).odd);
    ck_assert(!detect(values, 5, scratch).odd); /* too little to say */
    for (int i = 30; i < 60; i++)
        values[i] = 150 + i % 5; /* moved long ago: no news */
    ck_assert(!detect(values, 60, scratch).odd);
    for (int i = 0; i < 60; i++)
        values[i] = 7; /* never moved */
    ck_assert(!detect(values, 60, scratch).odd);
    values[59] = 8;
    ck_assert(detect(values, 60, scratch).odd);
    const double same[] = {500, 505, 498, 501, 507, 499};
    ck_assert(!detect_season(same, 6, 503, scratch).odd);
    ck_assert(detect_season(same, 6, 10, scratch).odd);
    ck_assert(!detect_season(same, 5, 10, scratch).odd); /* too few seasons */
}
END_TEST

START_TEST(lines_go_on)
{
    double xs[20], ys[20];
    forecast_t out;
    for (int i = 0; i < 20; i++) {
        xs[i] = i;
        ys[i] = 3 + 2 * i + (i % 2 ? 0.5 : -0.5);
    }
    ck_assert(predict(xs, ys, 20, 30, &out));
    ck_assert_double_le(fabs(out.value - 63), 1);
    ck_assert(out.low < 63 && 63 < out.high && out.high - out.low < 6);
    ck_assert(!predict(xs, ys, 4, 30, &out));
    for (int i = 0; i < 20; i++)
        xs[i] = 1;
    ck_assert(!predict(xs, ys, 20, 30, &out));
}
END_TEST

/* ---- Tracking and reading ---- */

START_TEST(tracked_values_are_reported)
{
    for (int i = 1; i <= 4; i++)
        ck_assert(has(call("track_metric", says("{'agent':'a','metric':'m','value':%d}", i)),
                      "timestamp"));
    const char *got = call("get_health_report", "{}");
    ck_assert_msg(has(got, "'a:m':{'count':4,'min':1.0,'max':4.0,'avg':2.5,'sum':10.0"), "%s", got);
    ck_assert(has(call("get_health_report", "{'company':'other'}"), "'metrics':{}"));
    house_restart(&house, &health_actor);
    wait_report("default", "a", "'count':4");
    ck_assert(has(call("get_company_metrics", "{}"), "'points':4"));
}
END_TEST

START_TEST(a_metric_over_time)
{
    for (int i = 0; i < 25; i++)
        call("track_metric",
             says("{'agent':'a%02d','metric':'m','value':%d,'company':'acme'}", i, i));
    call("track_metric", "{'agent':'a07','metric':'m','value':9,'company':'acme'}");
    const char *got = call("metric_series", "{'metric':'a07:m','company':'acme','points':1}");
    ck_assert_msg(has(got, "'count':2,'avg':8.0,'min':7.0,'max':9.0") &&
                      has(got, "'step_ms':3600000") && has(got, "'more':false"),
                  "%s", got);
    got = call("metric_series", "{'metric':'m','company':'acme','timeframe':'last_week'}");
    ck_assert_msg(has(got, "'agent':'a19'") && !has(got, "'agent':'a20'") &&
                      has(got, "'more':true") && has(got, "'step_ms':7200000"),
                  "%s", got);
    got = call("metric_series", "{'metric':'m','company':'beta'}");
    ck_assert_msg(has(got, "'lines':[]"), "%s", got);
    got = call("metric_series", "{'metric':'m','points':0}");
    ck_assert_msg(has(got, "ERR ARGUMENT"), "%s", got);
}
END_TEST

START_TEST(bad_values_are_refused)
{
    static const char *const bad[] = {
        "{'agent':'a','metric':'m','value':'nan'}",
        "{'agent':'a','metric':'m'}",
        "{'agent':'','metric':'m','value':1}",
        "{'agent':'a:b','metric':'m','value':1}",
        "{'agent':'a','metric':'m\\n','value':1}",
        "{'agent':'a','metric':'m','value':1,'tags':[1]}",
        "{'agent':'a','metric':'m','value':1,'timestamp':'2200-01-01'}",
        "{'agent':'a','metric':'m','value':1,'timestamp':1}",
        "{'agent':'a','metric':'m','value':1,'extra':1}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_msg(!strcmp(call("track_metric", bad[i]), "ERR ARGUMENT"), "%zu %s", i,
                      house.text);
    ck_assert(has(call("get_health_report", "{}"), "'metrics':{}"));
    ck_assert_str_eq(call("predict_metrics", "{'metric':'nobody'}"), "ERR NOT_FOUND");
    ck_assert_str_eq(call("alert_on_threshold", "{'metric':'m','threshold':1,'operator':'~'}"),
                     "ERR ARGUMENT");
    ck_assert_str_eq(call("silence_alert", "{'id':'nobody'}"), "ERR NOT_FOUND");
}
END_TEST

START_TEST(too_many_names_are_refused)
{
    for (int i = 0; i < 50; i++)
        call("track_metric", says("{'agent':'a','metric':'m%d','value':1}", i));
    ck_assert_str_eq(call("track_metric", "{'agent':'a','metric':'more','value':1}"), "ERR QUOTA");
    ck_assert(has(call("track_metric", "{'agent':'a','metric':'m7','value':1}"), "timestamp"));
}
END_TEST

START_TEST(files_are_read_once)
{
    const char *path = file_of("", says("%s.ndjson", today(0)));
    append_text(path, line("w1", 1));
    append_text(path, "no json\n\n{\"agent\":\"w1\"}\n");
    append_text(path, line("w2", 5));
    const char *torn = line("w1", 2);
    append_text(path, arena_strndup(house.arena, torn, 20));
    wait_report("default", "w2", "'count':1");
    wait_report("default", "w1", "'count':1,");
    append_text(path, torn + 20);
    wait_report("default", "w1", "'count':2,");
    call("track_metric", "{'agent':'w1','metric':'m','value':3}");
    wait_report("default", "w1", "'count':3,");
    house_restart(&house, &health_actor);
    append_text(path, line("w2", 6)); /* by then everything before it was looked at again */
    wait_report("default", "w2", "'count':2");
    wait_report("default", "w1", "'count':3,");
}
END_TEST

START_TEST(rotated_and_truncated_files)
{
    const char *path = file_of("", says("%s.ndjson", today(0)));
    append_text(path, line("r", 1));
    wait_report("default", "r", "'count':1");
    house_down(&house);
    append_text(path, line("r", 2)); /* nobody reads: then it is renamed */
    ck_assert_int_eq(rename(path, file_of("", says("%s.ndjson.1", today(0)))), 0);
    append_text(path, line("r", 3));
    house_up(&house);
    house_start(&house, &health_actor);
    wait_report("default", "r", "'count':3");
    ck_assert_int_eq(truncate(path, 0), 0);
    call("track_metric", "{'agent':'x','metric':'m','value':1}");
    wait_report("default", "x", "'count':1");
    ck_assert_int_eq(truncate(path, 0), 0);
    append_text(path, line("r", 4));
    wait_report("default", "r", "'count':4");
}
END_TEST

START_TEST(companies_stay_apart)
{
    append_text(file_of("acme", says("%s.ndjson", today(0))), line("secret", 1));
    wait_report("acme", "secret", "'count':1");
    ck_assert(has(call("get_health_report", "{}"), "'metrics':{}"));
    call("alert_on_threshold", "{'metric':'m','threshold':0,'operator':'>','company':'acme'}");
    ck_assert(has(call("check_alerts", "{'company':'acme'}"), "'firing':1"));
    ck_assert(has(call("check_alerts", "{}"), "'firing':0"));
    ck_assert(!has(call("daily_report", "{}"), "secret"));
}
END_TEST

START_TEST(a_volume_that_cannot_be_written)
{
    write_file(says("%s/metrics", house.data), "in the way");
    ck_assert_str_eq(call("track_metric", "{'agent':'a','metric':'m','value':1}"), "ERR IO");
    ck_assert(has(house.text, "metrics"));
    ck_assert(has(call("get_health_report", "{}"), "'metrics':{}"));
    unlink(says("%s/metrics", house.data));
    ck_assert(has(call("track_metric", "{'agent':'a','metric':'m','value':1}"), "timestamp"));
}
END_TEST

#ifdef AGENCY_FAULTS
/* Whoever tracks is told; lines of others wait in their file. */
START_TEST(a_disk_that_is_full)
{
    const char *path = file_of("", says("%s.ndjson", today(0)));
    call("track_metric", "{'agent':'a','metric':'m','value':1}");
    atomic_store(&disk_full, true);
    ck_assert_str_eq(call("track_metric", "{'agent':'a','metric':'m','value':2}"), "ERR FULL");
    ck_assert_msg(has(house.text, "disk"), "%s", house.text);
    ck_assert_str_eq(call("alert_on_threshold", "{'metric':'m','threshold':0,'operator':'>'}"),
                     "ERR FULL");
    append_text(path, line("w", 3));
    write_file(says("%s/alert_rules.json", house.data),
               "[{\"id\":\"f\",\"metric\":\"m\",\"operator\":\">\",\"threshold\":0}]");
    const char *got = call("get_health_report", "{}");
    ck_assert_msg(has(got, "'a:m':{'count':1,") && !has(got, "'w:m'"), "%s", got);
    ck_assert(has(call("check_alerts", "{}"), "'alerts':[]"));
    atomic_store(&disk_full, false);
    wait_report("default", "w", "'count':1,");
    wait_alerts("default", "'firing':1");
    ck_assert(has(call("track_metric", "{'agent':'a','metric':'m','value':4}"), "timestamp"));
    wait_report("default", "a", "'count':2,");
}
END_TEST
#endif

/* ---- Alerts ---- */

START_TEST(alerts_fire_once_and_resolve_once)
{
    call("alert_on_threshold", "{'metric':'a:m','threshold':10,'operator':'gte','id':'hot'}");
    for (int i = 0; i < 3; i++)
        call("track_metric", "{'agent':'b','metric':'m','value':50}"); /* another agent's */
    ck_assert(has(call("check_alerts", "{}"), "'firing':0"));
    for (int i = 0; i < 3; i++)
        call("track_metric", "{'agent':'a','metric':'m','value':11}");
    const char *got = call("check_alerts", "{}");
    ck_assert_msg(has(got, "'firing':1") && has(got, "'fired':1"), "%s", got);
    house_restart(&house, &health_actor);
    call("track_metric", "{'agent':'a','metric':'m','value':12}");
    ck_assert(has(call("check_alerts", "{}"), "'fired':1"));
    call("track_metric", "{'agent':'a','metric':'m','value':9}");
    ck_assert(has(call("check_alerts", "{}"), "'firing':0"));
    call("track_metric", "{'agent':'a','metric':'m','value':99}");
    ck_assert(has(call("check_alerts", "{}"), "'fired':2"));
    got = call("get_correlated_alerts", "{}");
    ck_assert_msg(has(got, "'agents':['a']"), "%s", got);
    ck_assert(has(call("alert_remove", "{'id':'hot'}"), "true"));
    ck_assert(has(call("check_alerts", "{}"), "'alerts':[]"));
}
END_TEST

/* A rule for any agent: it fires by one of them and resolves when no one passes, by its first name.
 */
START_TEST(rules_for_any_agent)
{
    call("alert_on_threshold", "{'metric':'m','threshold':10,'operator':'>','id':'any'}");
    call("track_metric", "{'agent':'a','metric':'m','value':1}");
    call("track_metric", "{'agent':'b','metric':'m','value':11}");
    call("track_metric", "{'agent':'c','metric':'m','value':12}");
    const char *got = call("check_alerts", "{}");
    ck_assert_msg(has(got, "'series':'b:m'") && has(got, "'fired':1"), "%s", got);
    call("track_metric", "{'agent':'b','metric':'m','value':2}"); /* c holds it up */
    call("track_metric", "{'agent':'a','metric':'m','value':2}");
    got = call("check_alerts", "{}");
    ck_assert_msg(has(got, "'firing':1") && has(got, "'by':'c:m'"), "%s", got);
    house_restart(&house, &health_actor);
    call("track_metric", "{'agent':'a','metric':'m','value':3}");
    ck_assert(has(call("check_alerts", "{}"), "'firing':1"));
    call("track_metric", "{'agent':'c','metric':'m','value':3}");
    got = call("check_alerts", "{}");
    ck_assert_msg(has(got, "'firing':0") && has(got, "'series':'b:m'"), "%s", got);
    /* A colon may part the agent, or be in the name. */
    call("alert_on_threshold", "{'metric':'x:y','threshold':0,'operator':'>','id':'colon'}");
    call("track_metric", "{'agent':'z','metric':'x:y','value':1}");
    ck_assert(has(call("check_alerts", "{}"), "'series':'z:x:y'"));
    call("track_metric", "{'agent':'z','metric':'x:y','value':0}");
    call("track_metric", "{'agent':'x','metric':'y','value':1}");
    ck_assert(has(call("check_alerts", "{}"), "'series':'x:y'"));
    /* Its metric is another one now: the old one is resolved and heard no more. */
    call("alert_on_threshold", "{'metric':'other','threshold':0,'operator':'>','id':'colon'}");
    call("track_metric", "{'agent':'x','metric':'y','value':1}");
    got = call("check_alerts", "{}");
    ck_assert_msg(has(got, "'firing':0"), "%s", got);
    ck_assert(has(call("track_metric", "{'agent':'q','metric':'other','value':5}"), "timestamp"));
    ck_assert(has(call("check_alerts", "{}"), "'series':'q:other'"));
}
END_TEST

static const char *rules_path(void)
{
    return says("%s/alert_rules.json", house.data);
}

/* The clock of the file system may be coarse: another size is another file. */
START_TEST(rules_of_the_file)
{
    call("track_metric", "{'agent':'a','metric':'m','value':7}");
    write_file(rules_path(),
               "[{\"id\":\"hot\",\"metric\":\"m\",\"operator\":\"gt\",\"threshold\":5},\n"
               " {\"metric\":\"m\",\"operator\":\"<\",\"threshold\":5,"
               "\"company\":\"acme\"}]");
    const char *got = wait_alerts("default", "'state':'firing'");
    ck_assert_msg(has(got, "'from_file':true") && !has(got, "m < 5"), "%s", got);
    wait_alerts("acme", "'id':'m < 5'");
    ck_assert_str_eq(call("alert_remove", "{'id':'hot'}"), "ERR STATE");
    ck_assert_str_eq(
        call("alert_on_threshold", "{'metric':'m','threshold':1,'operator':'>','id':'hot'}"),
        "ERR STATE");
    /* One that is wrong is named, and changes nothing. */
    write_file(rules_path(), "[\n\n{\"metric\":\"m\",\n\"operator\":\"~\",\"threshold\":5}]");
    got = wait_alerts("default", "line 4: rule 1: operator '~'");
    ck_assert(has(got, "'firing':1"));
    ck_assert(!has(call("check_alerts", "{'company':'acme'}"), "rules_error"));
    write_file(rules_path(), "[{\"metric\":\"m\",\"operator\":\">\",\"threshold\":5,"
                             "\"contact\":\"mailto:me\"}]");
    wait_alerts("default", "line 1: rule 1: contact must be a URL");
    write_file(rules_path(), "[{\"metric\":\"m\",\"operator\":\">\",\"threshold\":5,"
                             "\"company\":\"../evil\"}]");
    wait_alerts("default", "rule 1: company must");
    call("alert_on_threshold", "{'metric':'m','threshold':1,'operator':'<','id':'mine'}");
    write_file(rules_path(),
               "[{\"id\":\"mine\",\"metric\":\"m\",\"operator\":\">\",\"threshold\":5}]");
    wait_alerts("default", "rule 1: alert_on_threshold has set a rule 'mine'");
    write_file(rules_path(), "[{\"metric\":\"m\",\"operator\":\">\",\"threshold\":5},"
                             "{\"metric\":\"m\",\"operator\":\"gt\",\"threshold\":5}]");
    wait_alerts("default", "rules 1 and 2 have the same id");
    got = wait_alerts("default", "'firing':1");
    ck_assert(has(got, "'fired':1"));
    /* Gone while nobody looked: resolved and removed; the tool's own rule stays. */
    house_down(&house);
    ck_assert_int_eq(unlink(rules_path()), 0);
    house_up(&house);
    house_start(&house, &health_actor);
    got = wait_alerts("default", "'firing':0,'alerts':[{'id':'mine'");
    ck_assert_msg(!has(got, "rules_error"), "%s", got);
    wait_alerts("acme", "'alerts':[]");
    ck_assert(has(call("get_correlated_alerts", "{}"), "'id':'hot'"));
}
END_TEST

START_TEST(for_needs_its_time)
{
    call("alert_on_threshold",
         "{'metric':'m','threshold':1,'operator':'>','id':'slow','for_ms':300}");
    call("track_metric", "{'agent':'a','metric':'m','value':2}");
    ck_assert(has(call("check_alerts", "{}"), "'state':'pending'"));
    call("track_metric", "{'agent':'a','metric':'m','value':0}");
    ck_assert(has(call("check_alerts", "{}"), "'state':'ok'"));
    call("track_metric", "{'agent':'a','metric':'m','value':2}");
    int64_t began = mono_ms(), end = began + 10000; /* and nobody tracks any more */
    while (!has(call("check_alerts", "{}"), "'state':'firing'"))
        ck_assert(mono_ms() < end);
    ck_assert(mono_ms() - began >= 250);
}
END_TEST

START_TEST(predictions_need_history)
{
    int64_t now = (int64_t)time(NULL) * 1000;
    call("track_metric", "{'agent':'a','metric':'m','value':1}");
    ck_assert(has(call("predict_metrics", "{'metric':'m'}"), "'predictions':[],'too_short':1"));
    for (int i = 1; i <= 30; i++)
        call("track_metric", says("{'agent':'a','metric':'up','value':%d,'timestamp':%lld}",
                                  100 - i, (long long)(now - i * 60000)));
    const char *got = call("predict_metrics", "{'metric':'a:up','horizon_minutes':60}");
    ck_assert_msg(has(got, "'spans':30"), "%s", got);
    const char *value = strstr(got, "'value':");
    ck_assert_double_le(fabs(strtod(value + 8, NULL) - 160), 2);
    call("track_metric",
         says("{'agent':'a','metric':'up','value':5000,'timestamp':%lld}", (long long)now));
    got = call("detect_anomalies", "{}");
    ck_assert_msg(has(got, "'metric':'up'"), "%s", got);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("health");
    TCase *pure = tcase_create("pure");
    tcase_add_test(pure, quantiles_are_near);
    tcase_add_test(pure, any_number_finds_a_bin);
    tcase_add_test(pure, odd_values_are_found);
    tcase_add_test(pure, lines_go_on);
    suite_add_tcase(suite, pure);
    TCase *actor = tcase_create("actor");
    tcase_set_timeout(actor, 60);
    tcase_add_checked_fixture(actor, setup, teardown);
    tcase_add_test(actor, tracked_values_are_reported);
    tcase_add_test(actor, a_metric_over_time);
    tcase_add_test(actor, bad_values_are_refused);
    tcase_add_test(actor, too_many_names_are_refused);
    tcase_add_test(actor, files_are_read_once);
    tcase_add_test(actor, rotated_and_truncated_files);
    tcase_add_test(actor, companies_stay_apart);
    tcase_add_test(actor, a_volume_that_cannot_be_written);
#ifdef AGENCY_FAULTS
    tcase_add_test(actor, a_disk_that_is_full);
#endif
    tcase_add_test(actor, alerts_fire_once_and_resolve_once);
    tcase_add_test(actor, rules_for_any_agent);
    tcase_add_test(actor, rules_of_the_file);
    tcase_add_test(actor, for_needs_its_time);
    tcase_add_test(actor, predictions_need_history);
    suite_add_tcase(suite, actor);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

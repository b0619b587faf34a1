/* Crashes of the whole house: `agency up` is a real supervisor with real processes, and a seeded
 * killer ends them one after the other with SIGKILL while sixteen clients write tasks, memories,
 * graph nodes and runs of a procedure. What was acknowledged is written down here, and each step of
 * a run adds a line to a file outside; at the end both are compared with what the house knows.
 *
 * AGENCY_CRASH_KILLS (60) and AGENCY_CRASH_SEED (1) change how often and in which order. In builds
 * with fault switches the pillars also die inside their commits. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bus/client.h"
#include "house.h"
#include "proto/mp.h"

enum {
    CLIENTS = 16,
    KINDS = 4, /* of writers: tasks, memories, graph nodes, runs */
    READY_MS = 30000,
    GONE_MS = 10000,   /* children of a dead supervisor */
    ANSWER_MS = 10000, /* a killed pillar answers again; how fast it was is printed */
    SETTLE_MS = 90000,
    STEP_MS = 2000
};

static const char *const pillars[] = {"agent", "brain", "worker-1"};

/* One thing that the house said it has. */
typedef struct ack {
    struct ack *next;
    char id[80];
} ack_t;

typedef struct crash crash_t;

typedef struct writer {
    crash_t *crash;
    int number;
    pthread_t thread;
    ack_t *acks;
    int count, refused;
} writer_t;

struct crash {
    arena_t *arena;
    char data[32];
    const char *run_dir, *counter, *log;
    pid_t supervisor;
    uint64_t seed;
    int64_t answer_worst_ms, gone_worst_ms;
    int kills, supervisor_kills;
    int aimed; /* kills right after the effect of a step */
    writer_t writers[CLIENTS];
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t more;
    int acks; /* of all; guarded by mutex */
};

static uint64_t chance(crash_t *crash, uint64_t below)
{
    uint64_t x = crash->seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

static int number_from(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

/* ---- The house ---- */

static void become_agency(const crash_t *crash, const char *fault, int out)
{
    char offset[16];
    snprintf(offset, sizeof(offset), "%d", 20000 + (int)(getppid() % 9000));
    int log = open(crash->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || dup2(out, 1) < 0 || dup2(log, 2) < 0)
        _exit(1);
    if (*fault)
        setenv("AGENCY_FAULT", fault, 1);
    setenv("AGENCY_AGENT_LEASE_MS", "1000", 1);
    execl(AGENCY_BINARY, "agency", "up", "--data", crash->data, "--port-offset", offset, NULL);
    _exit(1);
}

/* In half of the lives the pillars kill themselves at some commit, again and again. */
static void choose_fault(crash_t *crash, char *fault, size_t size)
{
    static const char *const points[] = {"commit.before", "commit.after", "put"};
    *fault = '\0';
    if (chance(crash, 2))
        snprintf(fault, size, "kill@%s:%d", points[chance(crash, 3)], 80 + (int)chance(crash, 250));
}

static void until_ready(int fd)
{
    char line[256] = "";
    size_t size = 0;
    int64_t end = mono_ms() + READY_MS;
    while (!strstr(line, "agency is ready")) {
        struct pollfd item = {.fd = fd, .events = POLLIN};
        ck_assert_msg(mono_ms() < end && poll(&item, 1, (int)(end - mono_ms())) == 1,
                      "the agency does not come up");
        ssize_t got = read(fd, line + size, sizeof(line) - 1 - size);
        ck_assert_msg(got > 0, "the agency ended while it came up: %s", line);
        size += (size_t)got;
        line[size] = '\0';
    }
    /* The rest of what it says goes nowhere, but the pipe must stay open. */
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void start_agency(crash_t *crash, bool faults)
{
    int ends[2];
    char fault[64] = "";
    if (faults)
        choose_fault(crash, fault, sizeof(fault));
    ck_assert(!pipe2(ends, O_CLOEXEC));
    crash->supervisor = fork();
    if (crash->supervisor == 0)
        become_agency(crash, fault, ends[1]);
    close(ends[1]);
    until_ready(ends[0]);
    /* Kept open on purpose: until the end of the test. */
}

static pid_t pid_of(crash_t *crash, const char *instance)
{
    const char *text =
        read_file(crash->arena, arena_printf(crash->arena, "%s/%s.pid", crash->run_dir, instance));
    return text ? (pid_t)atol(text) : 0;
}

static int watch_process(pid_t pid)
{
    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

static bool gone_within(int pidfd, int64_t ms)
{
    struct pollfd item = {.fd = pidfd, .events = POLLIN};
    return poll(&item, 1, ms > 0 ? (int)ms : 0) == 1;
}

/* ---- Sixteen clients ---- */

static void remember(writer_t *writer, const char *id)
{
    crash_t *crash = writer->crash;
    ack_t *ack = calloc(1, sizeof(*ack));
    if (!ack)
        abort();
    snprintf(ack->id, sizeof(ack->id), "%s", id);
    ack->next = writer->acks;
    writer->acks = ack;
    writer->count++;
    pthread_mutex_lock(&crash->mutex);
    crash->acks++;
    pthread_cond_signal(&crash->more);
    pthread_mutex_unlock(&crash->mutex);
}

static client_call_t next_call(const writer_t *writer, int turn, arena_t *arena, const char **id)
{
    static const char *const methods[KINDS] = {"task_submit", "brain_store", "brain_update_graph",
                                               "sop_execute"};
    int kind = writer->number % KINDS;
    const char *args;
    *id = arena_printf(arena, "own-%d-%d", writer->number, turn);
    if (kind == 0)
        args = "{'kind':'note','labels':['nobody'],'input':{'text':'hello'}}";
    else if (kind == 1)
        args = arena_printf(arena, "{'id':'%s','taskId':'t','request':'who','solution':'me'}", *id);
    else if (kind == 2)
        args =
            arena_printf(arena, "{'operation':'add_node','args':{'id':'%s','type':'thing'}}", *id);
    else
        args = arena_printf(arena, "{'name':'count','wait_ms':%d,'input':{'file':'%s'}}",
                            turn % 2 * 300, writer->crash->counter);
    return (client_call_t){.peer = kind == 0 || kind == 3 ? "agent" : "brain",
                           .method = methods[kind],
                           .args = house_pack(arena, args),
                           .role = ROLE_OPERATOR,
                           .timeout_ms = 6000};
}

static bool in_progress(const char *state)
{
    return strcmp(state, "completed") != 0 && strcmp(state, "failed") != 0 &&
           strcmp(state, "input_required") != 0;
}

/* Looks at a run for a while, so that there are never many more runs than the worker can do. */
static void follow_run(writer_t *writer, client_t *client, arena_t *arena, const char *id)
{
    client_call_t call = {.peer = "agent",
                          .method = "run_get",
                          .args = house_pack(arena, arena_printf(arena, "{'id':'%s'}", id)),
                          .timeout_ms = 6000};
    for (int i = 0; i < 200 && !atomic_load(&writer->crash->stop); i++) {
        client_reply_t reply = client_call(client, arena, &call);
        bytes_t state;
        ck_assert_msg(reply.err.code != ERR_NOT_FOUND, "the run %s is lost", id);
        if (!err_is(reply.err) && mp_get(reply.body, "state", &state) &&
            !in_progress(mp_text(arena, state)))
            return;
    }
}

static void *write_on(void *ctx)
{
    writer_t *writer = ctx;
    arena_t *arena = arena_new();
    client_t *client;
    err_t err = client_open(writer->crash->run_dir, arena, &client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    arena_t *turn_arena = arena_new();
    for (int turn = 0; !atomic_load(&writer->crash->stop); turn++) {
        const char *id;
        client_call_t call = next_call(writer, turn, turn_arena, &id);
        client_reply_t reply = client_call(client, turn_arena, &call);
        bytes_t value;
        bool named = writer->number % KINDS == 1 || writer->number % KINDS == 2;
        if (err_is(reply.err))
            writer->refused++;
        else if (named)
            remember(writer, id);
        else if (mp_get(reply.body, "id", &value))
            remember(writer, id = mp_text(turn_arena, value));
        if (!err_is(reply.err) && writer->number % KINDS == 3)
            follow_run(writer, client, turn_arena, id);
        arena_reset(turn_arena);
    }
    arena_destroy(&turn_arena);
    client_close(&client);
    arena_destroy(&arena);
    return NULL;
}

/* Until so many more things were acknowledged. */
static void until_more(crash_t *crash, int more)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += READY_MS / 1000;
    pthread_mutex_lock(&crash->mutex);
    int target = crash->acks + more, failed = 0;
    while (crash->acks < target && !failed)
        failed = pthread_cond_timedwait(&crash->more, &crash->mutex, &end);
    pthread_mutex_unlock(&crash->mutex);
    ck_assert_msg(!failed, "nothing is acknowledged any more; see %s", crash->log);
}

/* ---- The killer ---- */

/* ms until the pillar answers a call that is made right after its death. */
static int64_t until_answer(crash_t *crash, const char *instance)
{
    arena_t *arena = arena_new();
    client_t *client;
    bool worker = !strncmp(instance, "worker", 6);
    err_t err = client_open(crash->run_dir, arena, &client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    client_call_t ping = {.peer = instance,
                          .method =
                              worker ? "worker.ping" : arena_printf(arena, "%s.ping", instance),
                          .timeout_ms = READY_MS};
    int64_t before = mono_ms();
    client_reply_t reply = client_call(client, arena, &ping);
    int64_t took = mono_ms() - before;
    ck_assert_msg(!err_is(reply.err), "%s: %s", instance, err_what(reply.err));
    client_close(&client);
    arena_destroy(&arena);
    return took;
}

static void kill_pillar(crash_t *crash, const char *instance)
{
    pid_t pid = pid_of(crash, instance);
    int pidfd = watch_process(pid);
    if (pidfd < 0)
        return; /* it just died by itself */
    kill(pid, SIGKILL);
    ck_assert(gone_within(pidfd, READY_MS));
    close(pidfd);
    crash->kills++;
    int64_t took = until_answer(crash, instance);
    if (took > crash->answer_worst_ms)
        crash->answer_worst_ms = took;
}

static void kill_supervisor(crash_t *crash, bool faults)
{
    int pidfds[3];
    for (int i = 0; i < 3; i++)
        pidfds[i] = watch_process(pid_of(crash, pillars[i]));
    int64_t before = mono_ms();
    kill(crash->supervisor, SIGKILL);
    waitpid(crash->supervisor, NULL, 0);
    for (int i = 0; i < 3; i++) {
        if (pidfds[i] < 0)
            continue;
        ck_assert_msg(gone_within(pidfds[i], before + GONE_MS - mono_ms()),
                      "%s outlives its supervisor", pillars[i]);
        close(pidfds[i]);
    }
    if (mono_ms() - before > crash->gone_worst_ms)
        crash->gone_worst_ms = mono_ms() - before;
    crash->kills++;
    crash->supervisor_kills++;
    start_agency(crash, faults);
}

/* Until a step adds its line: its effect has happened and is not yet written down as committed. */
static void until_a_step(crash_t *crash)
{
    char events[4096];
    struct pollfd changed = {.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), .events = POLLIN};
    ck_assert_int_ge(changed.fd, 0);
    ck_assert_int_ge(inotify_add_watch(changed.fd, crash->counter, IN_MODIFY), 0);
    if (poll(&changed, 1, STEP_MS) > 0 && read(changed.fd, events, sizeof(events)) > 0)
        crash->aimed++;
    close(changed.fd);
}

static void kill_somebody(crash_t *crash)
{
    uint64_t who = chance(crash, 10);
    if (chance(crash, 2))
        until_a_step(crash);
    if (who == 0)
        kill_supervisor(crash, true);
    else
        kill_pillar(crash, pillars[who < 4 ? 0 : who < 5 ? 1 : 2]);
}

/* ---- The reckoning ---- */

static const char procedure[] =
    "---\\ninputs: file\\n---\\n# Count\\n\\n"
    "1. **One**\\n\\n   ```sh\\n   i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\\n"
    "   echo {{run.id}} one >> {{input.file}}\\n"
    "   i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\\n   ```\\n\\n"
    "2. **Two**\\n\\n   ```sh\\n   echo {{run.id}} two >> {{input.file}}\\n   ```\\n\\n"
    "3. **Three**\\n\\n   ```sh\\n   echo {{run.id}} three >> {{input.file}}\\n   ```\\n";

typedef struct judge {
    crash_t *crash;
    client_t *client;
    arena_t *arena; /* of one question */
    char *lines;    /* the outside counter */
    int checked, runs_completed, runs_waiting, runs_failed, steps_unknown;
} judge_t;

static client_reply_t ask(judge_t *judge, const char *peer, const char *method, const char *json)
{
    client_call_t call = {.peer = peer,
                          .method = method,
                          .args = house_pack(judge->arena, json),
                          .role = ROLE_ADMIN,
                          .timeout_ms = READY_MS};
    return client_call(judge->client, judge->arena, &call);
}

static const char *text_of(judge_t *judge, bytes_t map, const char *key)
{
    bytes_t value;
    const char *text = mp_get(map, key, &value) ? mp_text(judge->arena, value) : NULL;
    return text ? text : "";
}

static int times(const judge_t *judge, const char *run, const char *step)
{
    char line[160];
    int count = 0;
    int size = snprintf(line, sizeof(line), "%s %s\n", run, step);
    for (const char *at = judge->lines; at && (at = strstr(at, line)); at += size)
        count++;
    return count;
}

/* A run comes to an end, or to a person, by itself. */
static client_reply_t until_settled(judge_t *judge, const char *run)
{
    int64_t end = mono_ms() + SETTLE_MS;
    for (;;) {
        client_reply_t reply =
            ask(judge, "agent", "run_get", arena_printf(judge->arena, "{'id':'%s'}", run));
        ck_assert_msg(!err_is(reply.err), "the acknowledged run %s is lost: %s", run,
                      err_what(reply.err));
        if (!in_progress(text_of(judge, reply.body, "state")))
            return reply;
        ck_assert_msg(mono_ms() < end, "run %s hangs: %s", run,
                      house_reply_text(judge->arena, reply));
    }
}

static void judge_run(judge_t *judge, const char *run)
{
    static const char *const names[] = {"one", "two", "three"};
    client_reply_t reply = until_settled(judge, run);
    judge->lines = read_file(judge->arena, judge->crash->counter);
    const char *whole = house_reply_text(judge->arena, reply);
    const char *state = text_of(judge, reply.body, "state");
    bytes_t steps, step;
    ck_assert(mp_get(reply.body, "steps", &steps));
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert(mp_at(steps, i, &step));
        const char *is = text_of(judge, step, "state");
        int done = times(judge, run, names[i]);
        ck_assert_msg(done <= 1, "step %s ran %d times: %s", names[i], done, whole);
        if (!strcmp(is, "completed"))
            ck_assert_msg(done == 1, "step %s did not run: %s", names[i], whole);
        else if (!strcmp(is, "pending"))
            ck_assert_msg(done == 0, "step %s ran unseen: %s", names[i], whole);
        else
            ck_assert_msg(!strcmp(is, "unknown"), "step %s is %s: %s", names[i], is, whole);
        judge->steps_unknown += !strcmp(is, "unknown");
    }
    judge->runs_completed += !strcmp(state, "completed");
    judge->runs_waiting += !strcmp(state, "input_required");
    judge->runs_failed += !strcmp(state, "failed");
}

static void judge_ack(judge_t *judge, int kind, const char *id)
{
    static const char *const peers[] = {"agent", "brain", "brain"};
    static const char *const methods[] = {"task_get", "brain_get", "graph_neighbors"};
    arena_reset(judge->arena);
    judge->checked++;
    if (kind == 3) {
        judge_run(judge, id);
        return;
    }
    client_reply_t reply =
        ask(judge, peers[kind], methods[kind], arena_printf(judge->arena, "{'id':'%s'}", id));
    ck_assert_msg(!err_is(reply.err), "%s was acknowledged and is lost: %s", id,
                  err_what(reply.err));
}

/* Tasks of a kind in the house. */
static int count_tasks(judge_t *judge, const char *kind)
{
    const char *cursor = "";
    int count = 0;
    bytes_t tasks, task;
    arena_reset(judge->arena);
    for (bool more = true; more; more = *cursor) {
        client_reply_t reply =
            ask(judge, "agent", "task_list",
                arena_printf(judge->arena, "{'kind':'%s','limit':1000%s%s%s}", kind,
                             *cursor ? ",'cursor':'" : "", cursor, *cursor ? "'" : ""));
        ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
        ck_assert(mp_get(reply.body, "tasks", &tasks));
        for (uint32_t i = 0; mp_at(tasks, i, &task); i++)
            count++;
        cursor = text_of(judge, reply.body, "cursor");
    }
    return count;
}

/* A call that was sent again after a crash is still one call. */
static void judge_repetitions(judge_t *judge)
{
    int calls[KINDS] = {0};
    for (int i = 0; i < CLIENTS; i++)
        calls[i % KINDS] += judge->crash->writers[i].count + judge->crash->writers[i].refused;
    int notes = count_tasks(judge, "note"), runs = count_tasks(judge, "sop");
    ck_assert_msg(notes <= calls[0], "%d tasks by %d calls", notes, calls[0]);
    ck_assert_msg(runs <= calls[3], "%d runs by %d calls", runs, calls[3]);
}

/* What `agency audit …` prints; its exit code must be 0. */
static const char *ask_audit(crash_t *crash, const char *words)
{
    char block[65536];
    buf_t out;
    buf_open(&out, crash->arena);
    FILE *pipe = popen(
        arena_printf(crash->arena, "%s audit %s --data %s 2>&1", AGENCY_BINARY, words, crash->data),
        "r");
    ck_assert_ptr_nonnull(pipe);
    for (size_t got; (got = fread(block, 1, sizeof(block), pipe)) > 0;)
        buf_put(&out, block, got);
    int status = pclose(pipe);
    ck_assert_msg(!status, "audit %s: %#x: %.2000s", words, (unsigned)status, out.data);
    return out.data;
}

/* Every task that was acknowledged is in the audit log of the running house. */
static void judge_audit(crash_t *crash)
{
    const char *list = ask_audit(crash, "list agent tool=task_submit outcome=ok limit=100000");
    int count = 0;
    for (int i = 0; i < CLIENTS; i += KINDS)
        for (const ack_t *ack = crash->writers[i].acks; ack; ack = ack->next, count++)
            ck_assert_msg(strstr(list, arena_printf(crash->arena, ": %s\n", ack->id)) != NULL,
                          "task %s is not in the audit log", ack->id);
    ck_assert_int_gt(count, 0);
    ask_audit(crash, "verify");
}

static void judge_all(crash_t *crash)
{
    judge_t judge = {.crash = crash, .arena = arena_new()};
    err_t err = client_open(crash->run_dir, crash->arena, &judge.client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    int refused = 0;
    int64_t began_ms = mono_ms();
    for (int i = 0; i < CLIENTS; i++) {
        refused += crash->writers[i].refused;
        while (crash->writers[i].acks) {
            ack_t *ack = crash->writers[i].acks;
            judge_ack(&judge, i % KINDS, ack->id);
            crash->writers[i].acks = ack->next;
            free(ack);
        }
    }
    printf("crash: %d kills (%d of the supervisor), %d acknowledgements all there, %d calls "
           "without one; runs: %d completed, %d ask a person (%d steps unknown), %d failed; "
           "answer after a kill at worst %lld ms, children gone at worst %lld ms\n",
           crash->kills, crash->supervisor_kills, judge.checked, refused, judge.runs_completed,
           judge.runs_waiting, judge.steps_unknown, judge.runs_failed,
           (long long)crash->answer_worst_ms, (long long)crash->gone_worst_ms);
    printf("crash: the reckoning took %lld ms\n", (long long)(mono_ms() - began_ms));
    fflush(stdout);
    judge_repetitions(&judge);
    ck_assert_int_gt(judge.runs_completed, 0);
    ck_assert_int_le(crash->answer_worst_ms, ANSWER_MS);
    client_close(&judge.client);
    arena_destroy(&judge.arena);
}

static int count_deaths(crash_t *crash)
{
    int count = 0;
    const char *log = read_file(crash->arena, crash->log);
    for (const char *at = log; at && (at = strstr(at, "was ended by signal 9")); at++)
        count++;
    return count;
}

static void write_procedure(crash_t *crash)
{
    judge_t judge = {.crash = crash, .arena = arena_new()};
    err_t err = client_open(crash->run_dir, crash->arena, &judge.client);
    ck_assert_msg(!err_is(err), "%s", err_what(err));
    client_reply_t reply =
        ask(&judge, "agent", "sop_create",
            arena_printf(judge.arena, "{'name':'count','content':'%s'}", procedure));
    ck_assert_msg(!err_is(reply.err), "%s", err_what(reply.err));
    client_close(&judge.client);
    arena_destroy(&judge.arena);
}

static void open_crash(crash_t *crash)
{
    *crash = (crash_t){.arena = arena_new(),
                       .seed = (uint64_t)number_from("AGENCY_CRASH_SEED", 1),
                       .mutex = PTHREAD_MUTEX_INITIALIZER,
                       .more = PTHREAD_COND_INITIALIZER};
    scratch_make(crash->data);
    crash->run_dir = arena_printf(crash->arena, "%s/run", crash->data);
    crash->counter = arena_printf(crash->arena, "%s/counter", crash->data);
    crash->log = arena_printf(crash->arena, "%s/log", crash->data);
    write_file(crash->counter, "");
}

static void stop_agency(crash_t *crash)
{
    int status = 0;
    kill(crash->supervisor, SIGTERM);
    waitpid(crash->supervisor, &status, 0);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "it did not stop in order: status %#x; %s", (unsigned)status,
                  read_file(crash->arena, crash->log));
}

START_TEST(no_crash_loses_or_repeats)
{
    crash_t crash;
    int kills = number_from("AGENCY_CRASH_KILLS", SLOW_BUILD ? 20 : 60);
    open_crash(&crash);
    printf("crash: seed %llu\n", (unsigned long long)crash.seed);
    start_agency(&crash, false);
    write_procedure(&crash);
    for (int i = 0; i < CLIENTS; i++) {
        crash.writers[i] = (writer_t){.crash = &crash, .number = i};
        ck_assert(!pthread_create(&crash.writers[i].thread, NULL, write_on, &crash.writers[i]));
    }
    int64_t began_ms = mono_ms();
    while (crash.kills < kills) {
        until_more(&crash, 1 + (int)chance(&crash, 400));
        kill_somebody(&crash);
    }
    kill_supervisor(&crash, false); /* from here on nobody dies */
    printf("crash: the killing took %lld ms\n", (long long)(mono_ms() - began_ms));
    fflush(stdout);
    atomic_store(&crash.stop, true);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(crash.writers[i].thread, NULL);
    int inside = count_deaths(&crash) - (crash.kills - crash.supervisor_kills);
    judge_audit(&crash);
    judge_all(&crash);
    printf("crash: %d kills right after an effect, and %d deaths inside commits\n", crash.aimed,
           inside > 0 ? inside : 0);
    if (kills >= 50)
        ck_assert_int_gt(crash.aimed, 5);
#ifdef AGENCY_FAULTS
    if (kills >= 50)
        ck_assert_int_gt(inside, 0);
#endif
    stop_agency(&crash);
    ck_assert(strstr(ask_audit(&crash, "verify"), "agent/default: ok, records 1 to "));
    scratch_remove(crash.data);
    arena_destroy(&crash.arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("crash");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 900);
    tcase_add_test(all, no_crash_loses_or_repeats);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The production agent, worker and brain in simulation, with a desk that gives them work and hands
 * that take tasks, and what must be true whatever dies when. Then each planted mistake must be
 * found.
 *
 *     sim_work                 the whole suite
 *     sim_work SEED [BUG]      one run, its log on standard output */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus/bug.h"
#include "bus/sim.h"
#include "proto/mp.h"

extern const actor_def_t agent_actor, brain_actor, worker_actor;

enum { TASKS = 60, RUNS = 8, STEPS = 6, CHILDREN = 4, WORK_MS = 40000, END_MS = 400000, HANDS = 2 };

/* ---- What the test knows, outside the agency ---- */

typedef struct known_task {
    char id[24];
    bool acknowledged, completed;
    int64_t fence; /* of whoever holds it now, as granted */
    int64_t until_ms, submitted_ms;
    int holder;
    int failures;
    bool delayed;
} known_task_t;

/* A run that a run began, as the last look saw it. */
typedef struct child {
    char parent[24];
    bool waits;
} child_t;

typedef struct house {
    sim_t *sim;
    child_t children[RUNS * CHILDREN * 4];
    int child_count;
    known_task_t tasks[TASKS];
    int asked, answered; /* submissions */
    int batches_refused;
    char runs[RUNS][24];
    int run_count, run_asked;
    int effects[RUNS][STEPS];
    char seen[512][24]; /* ids that a read showed */
    int64_t seen_created_ms[512];
    int seen_count;
    bool faults, quiet;
    int64_t slowest_ms;
    char wrong[256];
    int listed, open; /* of the last look */
    bool looked;
} house_t;

/* One at a time: the suite runs in one process and the actors of the test need to find it. */
static house_t *house;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...)
{
    va_list args;
    if (*house->wrong)
        return;
    va_start(args, format);
    vsnprintf(house->wrong, sizeof(house->wrong), format, args);
    va_end(args);
}

static known_task_t *known(const char *id)
{
    for (int i = 0; i < TASKS; i++)
        if (house->tasks[i].acknowledged && !strcmp(house->tasks[i].id, id))
            return &house->tasks[i];
    return NULL;
}

static bytes_t field(bytes_t map, const char *key)
{
    bytes_t value = {0};
    if (map.size)
        mp_get(map, key, &value);
    return value;
}

static int64_t number(bytes_t map, const char *key)
{
    int64_t value = 0;
    bytes_t bytes = field(map, key);
    if (bytes.size)
        mp_int(bytes, &value);
    return value;
}

static const char *text(call_t *call, bytes_t map, const char *key)
{
    bytes_t bytes = field(map, key);
    const char *found = bytes.size ? mp_text(call_arena(call), bytes) : NULL;
    return found ? found : "";
}

static void ask(call_t *call, const char *peer, const char *method, const buf_t *args,
                answer_fn_t *fn, void *ctx)
{
    peer_call_t request = {.peer = peer,
                           .method = method,
                           .args = buf_bytes(args),
                           .company = "acme",
                           .timeout_ms = 60000};
    call_peer(call, &request, fn, ctx);
}

static void put_text(buf_t *args, const char *key, const char *value)
{
    mp_put_str(args, key);
    mp_put_str(args, value);
}

static void put_number(buf_t *args, const char *key, int64_t value)
{
    mp_put_str(args, key);
    mp_put_int(args, value);
}

/* ---- The desk: submits, reads, starts runs ---- */

typedef struct desk {
    int unused;
} desk_t;

static uint64_t chance(call_t *call, uint64_t most)
{
    uint64_t value;
    call_random(call, &value, sizeof(value));
    return value % most;
}

static err_t on_submitted(void *self, call_t *call, void *reply, const peer_answer_t *got,
                          void *ctx)
{
    known_task_t *task = ctx;
    (void)self;
    (void)reply;
    house->answered++;
    if (err_is(got->err))
        return err_ok(); /* nobody knows; it may be there or not */
    snprintf(task->id, sizeof(task->id), "%s", text(call, got->body, "id"));
    task->acknowledged = true;
    return err_ok();
}

static err_t submit(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)ctx;
    if (house->asked == TASKS)
        return err_ok();
    known_task_t *task = &house->tasks[house->asked++];
    task->delayed = chance(call, 3) == 0;
    task->submitted_ms = sim_now_ms(house->sim);
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    put_text(&args, "kind", "chore");
    put_number(&args, "input", house->asked);
    put_number(&args, "delay_ms", task->delayed ? 3000 + (int64_t)chance(call, 30000) : 0);
    ask(call, "agent", "task_submit", &args, on_submitted, task);
    call_work(call, (int64_t)chance(call, WORK_MS / TASKS * 2), submit, NULL);
    return call_park(call);
}

static err_t ignore(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self;
    (void)call;
    (void)reply;
    (void)ctx;
    if (!err_is(got->err))
        complain("a batch with a bad task was accepted");
    return err_ok();
}

/* The second task of the batch is bad: nothing of it may stay. */
static err_t submit_bad(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)ctx;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    mp_put_str(&args, "tasks");
    mp_put_array(&args, 2);
    for (int i = 0; i < 2; i++) {
        mp_put_map(&args, 1);
        put_text(&args, "kind", i ? "sop" : "bad");
    }
    ask(call, "agent", "task_submit_batch", &args, ignore, NULL);
    if (house->asked < TASKS)
        call_work(call, 4000, submit_bad, NULL);
    return call_park(call);
}

static err_t on_list(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    bytes_t tasks = field(got->body, "tasks"), task;
    (void)self;
    (void)reply;
    (void)ctx;
    for (uint32_t i = 0; !err_is(got->err) && tasks.size && mp_at(tasks, i, &task); i++) {
        const char *id = text(call, task, "id");
        bool old = false;
        for (int j = 0; j < house->seen_count; j++)
            old = old || !strcmp(house->seen[j], id);
        if (!old && house->seen_count < 512) {
            house->seen_created_ms[house->seen_count] = number(task, "created_ms");
            snprintf(house->seen[house->seen_count++], 24, "%s", id);
        }
    }
    return err_ok();
}

static err_t look(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)ctx;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    put_number(&args, "limit", 20);
    ask(call, "agent", "task_list", &args, on_list, NULL);
    if (house->asked < TASKS)
        call_work(call, (int64_t)chance(call, 300), look, NULL);
    return call_park(call);
}

static err_t on_run(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self;
    (void)reply;
    (void)ctx;
    if (!err_is(got->err) && house->run_count < RUNS)
        snprintf(house->runs[house->run_count++], 24, "%s", text(call, got->body, "id"));
    return err_ok();
}

static err_t start_run(void *self, call_t *call, void *ctx)
{
    (void)self;
    (void)ctx;
    if (house->run_asked == RUNS)
        return err_ok();
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    put_text(&args, "name", "work");
    put_text(&args, "input", arena_printf(call_arena(call), "%d", house->run_asked++));
    put_number(&args, "wait_ms", 0);
    ask(call, "agent", "sop_execute", &args, on_run, NULL);
    call_work(call, (int64_t)chance(call, WORK_MS / RUNS), start_run, NULL);
    return call_park(call);
}

/* Parts 0 to 5 of a run are scripts, 1 to 4 of them in runs inside; then two memories are kept. */
static const char *const procedures[][2] = {
    {"part", "---\ninputs: run, part\n---\n# Part\n\n"
             "1. **Do**\n\n   ```sh\n   echo {{input.run}} {{input.part}}\n   ```\n"},
    {"work", "# Work\n\n"
             "1. **One**\n\n   ```sh\n   echo {{input}} 0\n   ```\n\n"
             "2. **Two**\n\n   ```sop\n   part\n   run: {{input}}\n   part: 1\n   ```\n\n"
             "3. **Three**\n\n   ```each parallel=2\n   [2, 3, 4]\n"
             "   sop: part {\"run\": \"{{input}}\", \"part\": \"{{item}}\"}\n   ```\n\n"
             "4. **Four**\n\n   ```each\n   [\"a\", \"b\"]\n   tool: brain_store\n"
             "   id: {{run.id}}-{{index}}\n   taskId: {{run.id}}\n   request: work\n"
             "   solution: {{item}}\n   ```\n\n"
             "5. **Five**\n\n   ```sh\n   echo {{input}} 5\n   ```\n"}};
enum { PROCEDURES = sizeof(procedures) / sizeof(procedures[0]) };

static err_t write_procedure(void *self, call_t *call, void *ctx);

static err_t on_written(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    uintptr_t at = (uintptr_t)ctx + !err_is(got->err);
    (void)self;
    (void)reply;
    call_work(call, 0, at < PROCEDURES ? write_procedure : start_run, (void *)at);
    return err_ok();
}

static err_t write_procedure(void *self, call_t *call, void *ctx)
{
    const char *const *procedure = procedures[(uintptr_t)ctx];
    (void)self;
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 2);
    put_text(&args, "name", procedure[0]);
    put_text(&args, "content", procedure[1]);
    ask(call, "agent", "sop_create", &args, on_written, ctx);
    return call_park(call);
}

static err_t desk_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 10, submit, NULL);
    call_work(call, 500, submit_bad, NULL);
    call_work(call, 100, look, NULL);
    call_work(call, 50, write_procedure, NULL);
    return err_ok();
}

static const method_t no_methods[] = {{.name = NULL}};
static const actor_def_t desk_actor = {
    .name = "desk", .doc = "", .size = sizeof(desk_t), .open = desk_open, .methods = no_methods};

/* ---- Hands: lease a task, dawdle, complete it ---- */

typedef struct hand {
    int unused;
} hand_t;

typedef struct held {
    int hand;
    char id[24];
    int64_t fence;
    bool stalled;
} held_t;

static err_t take(void *self, call_t *call, void *ctx);

static int hand_number(call_t *call)
{
    return actor_instance(call_actor(call))[4] - '0';
}

static err_t on_completed(void *self, call_t *call, void *reply, const peer_answer_t *got,
                          void *ctx)
{
    held_t *held = ctx;
    known_task_t *task = known(held->id);
    (void)self;
    (void)reply;
    if (!err_is(got->err) && task) {
        if (task->fence > held->fence)
            complain("task %s: the late result of an old lease was taken", held->id);
        if (task->completed)
            complain("task %s was completed twice", held->id);
        task->completed = true;
    }
    free(held);
    call_work(call, 0, take, NULL);
    return err_ok();
}

static err_t on_failed(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    (void)self;
    (void)reply;
    (void)got;
    free(ctx);
    call_work(call, 0, take, NULL);
    return err_ok();
}

static err_t finish(void *self, call_t *call, void *ctx)
{
    held_t *held = ctx;
    known_task_t *task = known(held->id);
    bool fails = task && task->failures == 0 && chance(call, 5) == 0;
    buf_t args;
    (void)self;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, fails ? 4 : 3);
    put_text(&args, "company", "acme");
    put_text(&args, "id", held->id);
    put_number(&args, "fence", held->fence);
    if (fails) {
        task->failures++;
        put_text(&args, "error", "not today");
    }
    ask(call, "agent", fails ? "task_fail" : "task_complete", &args,
        fails ? on_failed : on_completed, held);
    return call_park(call);
}

static void check_grant(const char *id, int64_t fence, int64_t until_ms, int hand)
{
    known_task_t *task = known(id);
    int64_t now = sim_now_ms(house->sim);
    if (!task)
        return;
    /* A restart of the agent forgets leases and raises the upper half of the fence. */
    if (task->fence && task->fence >> 32 == fence >> 32 && task->until_ms > now + 5 &&
        task->holder != hand && !task->completed && task->fence != fence && !task->failures)
        complain("task %s is leased to hand %d while hand %d holds it", id, hand, task->holder);
    if (task->fence >= fence)
        complain("task %s: fence %" PRId64 " does not grow", id, fence);
    if (!task->fence && !task->delayed && house->quiet &&
        now - task->submitted_ms > house->slowest_ms)
        house->slowest_ms = now - task->submitted_ms;
    task->fence = fence;
    task->until_ms = until_ms;
    task->holder = hand;
}

static err_t on_leased(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    bytes_t tasks = field(got->body, "tasks"), task;
    (void)self;
    (void)reply;
    (void)ctx;
    if (err_is(got->err) || !tasks.size || !mp_at(tasks, 0, &task)) {
        call_work(call, err_is(got->err) ? 200 : 0, take, NULL);
        return err_ok();
    }
    held_t *held = calloc(1, sizeof(*held));
    if (!held)
        abort();
    snprintf(held->id, sizeof(held->id), "%s", text(call, task, "id"));
    held->fence = number(task, "fence");
    held->hand = hand_number(call);
    int64_t wall = call_now_ms(call);
    check_grant(held->id, held->fence,
                number(task, "lease_until_ms") - wall + sim_now_ms(house->sim), held->hand);
    /* Now and then it dawdles beyond its lease. */
    held->stalled = chance(call, 8) == 0 && !house->quiet;
    call_work(call, held->stalled ? 9000 : (int64_t)chance(call, 400), finish, held);
    return err_ok();
}

static err_t take(void *self, call_t *call, void *ctx)
{
    buf_t args;
    (void)self;
    (void)ctx;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 3);
    put_text(&args, "worker", actor_instance(call_actor(call)));
    mp_put_str(&args, "kinds");
    mp_put_array(&args, 1);
    mp_put_str(&args, "chore");
    put_number(&args, "wait_ms", 20000);
    ask(call, "agent", "task_lease", &args, on_leased, NULL);
    return call_park(call);
}

static err_t hand_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 20, take, NULL);
    return err_ok();
}

static const actor_def_t hand_actor = {
    .name = "hand", .doc = "", .size = sizeof(hand_t), .open = hand_open, .methods = no_methods};

/* ---- The outside: what scripts do ---- */

static void effect(void *ctx, const char *what)
{
    house_t *in = ctx;
    int run, part;
    if (sscanf(what, "%d %d", &run, &part) == 2 && run >= 0 && run < RUNS && part >= 0 &&
        part < STEPS)
        in->effects[run][part]++;
}

/* The input comes in the environment, since values are never part of a script's text. */
static void child(void *ctx, const child_request_t *request, uint64_t random, sim_child_t *out)
{
    const char *script = request->argv[2], *run = "-1", *part = NULL;
    (void)ctx;
    for (const char *const *at = request->env; *at; at++) {
        run = strncmp(*at, "VALUE_1=", 8) ? run : *at + 8;
        part = strncmp(*at, "VALUE_2=", 8) ? part : *at + 8;
    }
    const char *end = script + strcspn(script, "\n");
    while (end > script && (end[-1] < '0' || end[-1] > '9'))
        end--;
    *out = (sim_child_t){.duration_ms = 20 + (int64_t)(random % 400),
                         .effect_ms = 10 + (int64_t)(random % 20),
                         .effect = effect,
                         .output = "done\n"};
    snprintf(out->what, sizeof(out->what), "%s %c", run,
             part           ? *part
             : end > script ? end[-1]
                            : '?');
}

/* ---- Looking at the end ---- */

typedef struct looker {
    int at;
} looker_t;

/* Does a run that this one began wait for a person? Then so does this one. */
static bool child_waits(const char *id)
{
    for (int i = 0; i < house->child_count; i++)
        if (!strcmp(house->children[i].parent, id) && house->children[i].waits)
            return true;
    return false;
}

static void count_child(call_t *call, bytes_t task)
{
    const char *parent = text(call, task, "parent"), *state = text(call, task, "state");
    int count = 0;
    if (!*parent || house->child_count == RUNS * CHILDREN * 4)
        return;
    child_t *child = &house->children[house->child_count++];
    snprintf(child->parent, sizeof(child->parent), "%s", parent);
    child->waits = !strcmp(state, "input_required");
    if (strcmp(state, "completed") != 0 && strcmp(state, "buried") != 0 && !child->waits)
        house->open++;
    for (int i = 0; i < house->child_count; i++)
        count += !strcmp(house->children[i].parent, parent);
    if (count > CHILDREN)
        complain("the run %s began %d runs, not %d", parent, count, CHILDREN);
}

static err_t look_at(void *self, call_t *call, void *ctx);
static err_t look_at_all(void *self, call_t *call, void *ctx);

static err_t on_state(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    int index = (int)(intptr_t)ctx;
    bytes_t task = field(got->body, "task");
    const char *state = text(call, task, "state");
    bool waits = !strcmp(state, "input_required") ||
                 (!strcmp(state, "waiting_child") && child_waits(text(call, task, "id")));
    (void)self;
    (void)reply;
    if (got->err.code == ERR_NOT_FOUND) {
        if (index < TASKS)
            complain("task %s was acknowledged and is lost", house->tasks[index].id);
        else if (index < TASKS + RUNS)
            complain("run %s was acknowledged and is lost", house->runs[index - TASKS]);
        else
            complain("task %s was shown by a read and does not exist",
                     house->seen[index - TASKS - RUNS]);
    } else if (!err_is(got->err) && index < TASKS + RUNS && strcmp(state, "completed") != 0 &&
               !waits && strcmp(state, "buried") != 0) {
        house->open++;
        if (house->quiet && !strcmp(state, "failed"))
            complain("task %s failed: %s", text(call, task, "id"), text(call, task, "error"));
    } else if (err_is(got->err)) {
        house->open++;
    } else if (index >= TASKS + RUNS &&
               house->seen_created_ms[index - TASKS - RUNS] != number(task, "created_ms")) {
        complain("a read showed a task %s that was never committed",
                 house->seen[index - TASKS - RUNS]);
    }
    call_work(call, 0, look_at, (void *)(intptr_t)(index + 1));
    return err_ok();
}

static err_t on_count(void *self, call_t *call, void *reply, const peer_answer_t *got, void *ctx)
{
    bytes_t tasks = field(got->body, "tasks"), task;
    (void)self;
    (void)reply;
    (void)ctx;
    if (err_is(got->err)) {
        call_work(call, 100, look_at_all, NULL);
        return err_ok();
    }
    int chores = 0, bad = 0;
    for (uint32_t i = 0; tasks.size && mp_at(tasks, i, &task); i++) {
        chores += !strcmp(text(call, task, "kind"), "chore");
        bad += !strcmp(text(call, task, "kind"), "bad");
        count_child(call, task);
    }
    if (chores > house->asked)
        complain("%d tasks were asked for and %d exist", house->asked, chores);
    if (bad)
        complain("%d tasks of refused batches stayed", bad);
    call_work(call, 0, look_at, NULL); /* now each of them */
    return err_ok();
}

static err_t look_at(void *self, call_t *call, void *ctx)
{
    int index = (int)(intptr_t)ctx;
    const char *id = NULL;
    (void)self;
    while (!id && index < TASKS + RUNS + house->seen_count) {
        if (index < TASKS)
            id = house->tasks[index].acknowledged ? house->tasks[index].id : NULL;
        else if (index < TASKS + RUNS)
            id = index - TASKS < house->run_count ? house->runs[index - TASKS] : NULL;
        else
            id = house->seen[index - TASKS - RUNS];
        if (!id)
            index++;
    }
    buf_t args;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    house->looked = !id;
    if (!id)
        return err_ok();
    put_text(&args, "id", id);
    ask(call, "agent", "task_get", &args, on_state, (void *)(intptr_t)index);
    return call_park(call);
}

static err_t look_at_all(void *self, call_t *call, void *ctx)
{
    buf_t args;
    (void)self;
    (void)ctx;
    buf_open(&args, call_arena(call));
    mp_put_map(&args, 1);
    put_number(&args, "limit", 1000);
    ask(call, "agent", "task_list", &args, on_count, NULL);
    return call_park(call);
}

static err_t looker_open(void *self, call_t *call)
{
    (void)self;
    call_work(call, 0, look_at_all, NULL);
    return err_ok();
}

static const actor_def_t looker_actor = {.name = "looker",
                                         .doc = "",
                                         .size = sizeof(looker_t),
                                         .open = looker_open,
                                         .methods = no_methods};

static bool has_looked(void *ctx)
{
    (void)ctx;
    return house->looked || *house->wrong;
}

static bool all_asked(void *ctx)
{
    (void)ctx;
    return *house->wrong || (house->answered == TASKS && house->run_asked == RUNS);
}

/* ---- One run ---- */

static const char *const agent_settings[] = {"agent.lease_ms=4000", "agent.backoff_ms=100",
                                             "agent.max_crashes=1000", NULL};
static const char *const worker_settings[] = {"worker.slots=1", "worker.wait_ms=5000", NULL};

static void clear(const char *dir)
{
    char command[256];
    snprintf(command, sizeof(command), "rm -rf %s && mkdir -p %s", dir, dir);
    if (system(command))
        abort();
}

static void add_all(sim_t *sim, arena_t *arena)
{
    err_t err = sim_add(sim, &agent_actor, "agent", true, agent_settings, arena);
    if (!err_is(err))
        err = sim_add(sim, &brain_actor, "brain", true, NULL, arena);
    if (!err_is(err))
        err = sim_add(sim, &worker_actor, "worker-1", true, worker_settings, arena);
    if (!err_is(err))
        err = sim_add(sim, &worker_actor, "worker-2", true, worker_settings, arena);
    if (!err_is(err))
        err = sim_add(sim, &desk_actor, "desk", false, NULL, arena);
    for (int i = 0; i < HANDS && !err_is(err); i++)
        err = sim_add(sim, &hand_actor, i ? "hand2" : "hand1", false, NULL, arena);
    if (err_is(err))
        complain("cannot start: %s", err_what(err));
}

static void judge(void)
{
    for (int run = 0; run < RUNS; run++)
        for (int part = 0; part < STEPS; part++)
            if (house->effects[run][part] > 1)
                complain("step %d of run %d happened %d times", part, run,
                         house->effects[run][part]);
    if (house->quiet && house->slowest_ms > 3000)
        complain("a ready task waited %" PRId64 " ms while hands were idle", house->slowest_ms);
}

typedef struct result {
    char wrong[256];
    uint64_t log_hash;
    size_t log_size;
    int deaths;
    int faults[SIM_FAULTS];
    int completed;
} result_t;

static uint64_t hash(const char *data, size_t size)
{
    uint64_t value = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        value = (value ^ (unsigned char)data[i]) * 1099511628211u;
    return value;
}

/* Every fourth seed has no faults: there nothing at all may go wrong, and nothing may be slow. */
static result_t run_seed(uint64_t seed, bool print)
{
    char dir[64];
    arena_t *arena = arena_new();
    house_t state = {.quiet = seed % 4 == 0};
    const char *shm = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    snprintf(dir, sizeof(dir), "%s/agency-sim-%07d", shm, (int)getpid());
    clear(dir);
    house = &state;
    sim_options_t options = {
        .seed = seed, .dir = dir, .faults = !state.quiet, .child = child, .ctx = &state};
    state.sim = sim_new(&options);
    add_all(state.sim, arena);
    sim_run(state.sim, WORK_MS * 3, all_asked, NULL);
    sim_calm(state.sim);
    /* Delays, leases of the dead and dawdlers run out; then everything is done. */
    sim_run(state.sim, sim_now_ms(state.sim) + 120000, NULL, NULL);
    if (!*state.wrong)
        sim_add(state.sim, &looker_actor, "looker", false, NULL, arena);
    if (!sim_run(state.sim, sim_now_ms(state.sim) + END_MS, has_looked, NULL))
        complain("the house does not answer any more");
    if (state.looked && state.open)
        complain("%d tasks are not done long after everything is calm", state.open);
    judge();
    result_t result = {.deaths = sim_deaths(state.sim)};
    for (int i = 0; i < SIM_FAULTS; i++)
        result.faults[i] = sim_fault_count(state.sim, (sim_fault_t)i);
    const char *log = sim_log(state.sim, &result.log_size);
    result.log_hash = hash(log, result.log_size);
    for (int i = 0; i < TASKS; i++)
        result.completed += state.tasks[i].completed;
    snprintf(result.wrong, sizeof(result.wrong), "%s", state.wrong);
    if (print)
        fwrite(log, 1, result.log_size, stdout);
    sim_destroy(&state.sim);
    arena_destroy(&arena);
    clear(dir);
    rmdir(dir);
    return result;
}

/* ---- The suite ---- */

START_TEST(nothing_is_lost_or_done_twice)
{
    int deaths = 0, completed = 0, faults[SIM_FAULTS] = {0};
    const char *many = getenv("SIM_SEEDS");
    uint64_t seeds = many ? strtoull(many, NULL, 10) : 120;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        result_t result = run_seed(seed, false);
        ck_assert_msg(!*result.wrong, "seed %" PRIu64 ": %s", seed, result.wrong);
        deaths += result.deaths;
        completed += result.completed;
        for (int i = 0; i < SIM_FAULTS; i++)
            faults[i] += result.faults[i];
    }
    printf("%" PRIu64 " seeds, %d deaths, %d tasks completed by hand\n", seeds, deaths, completed);
    for (int i = 0; i < SIM_FAULTS; i++) {
        printf("%s: %d\n", sim_fault_name((sim_fault_t)i), faults[i]);
        if (i != SIM_LOSE_EVENT) /* these actors listen to none */
            ck_assert_msg(faults[i], "%s never happened", sim_fault_name((sim_fault_t)i));
    }
    ck_assert_int_gt(deaths, (int)seeds);
    ck_assert_int_gt(completed, (int)seeds * TASKS / 2);
}
END_TEST

START_TEST(the_same_seed_is_the_same_run)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        result_t one = run_seed(seed, false), other = run_seed(seed, false);
        ck_assert_uint_eq(one.log_size, other.log_size);
        ck_assert_uint_eq(one.log_hash, other.log_hash);
        ck_assert_uint_ne(one.log_hash, run_seed(seed + 100, false).log_hash);
    }
}
END_TEST

#ifdef AGENCY_PLANTED_BUGS
START_TEST(a_planted_mistake_is_found)
{
    bug_t planted = (bug_t)_i;
    bug_plant(planted);
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        result_t result = run_seed(seed, false);
        if (!*result.wrong)
            continue;
        printf("%s: found by seed %" PRIu64 ": %s\n", bug_name(planted), seed, result.wrong);
        return;
    }
    ck_abort_msg("%s was not found within 1000 seeds", bug_name(planted));
}
END_TEST
#endif

int main(int argc, char **argv)
{
    if (argc > 1) {
#ifdef AGENCY_PLANTED_BUGS
        for (int i = 0; argc > 2 && i < BUG_COUNT; i++)
            if (!strcmp(bug_name((bug_t)i), argv[2]))
                bug_plant((bug_t)i);
#endif
        result_t result = run_seed(strtoull(argv[1], NULL, 10), true);
        fprintf(stderr, "%s\n", *result.wrong ? result.wrong : "nothing is wrong");
        return *result.wrong != 0;
    }
    Suite *suite = suite_create("simulation");
    TCase *tcase = tcase_create("work");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, the_same_seed_is_the_same_run);
    tcase_add_test(tcase, nothing_is_lost_or_done_twice);
#ifdef AGENCY_PLANTED_BUGS
    tcase_add_loop_test(tcase, a_planted_mistake_is_found, BUG_NONE + 1, BUG_COUNT);
#endif
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

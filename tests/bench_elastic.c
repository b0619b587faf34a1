/* bench_elastic: our policy and a plain HPA over the same synthetic demand, in virtual time.
 *
 * The world: a replica starts in START_MS, has SLOTS hands, a task takes 1 to 5 s. Ours looks each
 * 250 ms and drains before it takes away. The plain HPA has Kubernetes' defaults: it looks each
 * 15 s, may take everything away at once after 300 s, and a replica that is taken away loses what
 * it holds, which is done again from the start when its lease ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/elastic/decide.h"

enum {
    TICK_MS = 50,
    LENGTH_MS = 4 * 3600 * 1000,
    SLOTS = 2,
    START_MS = 2000,
    LEASE_MS = 30000,
    MOST_TASKS = 100000,
    MOST_REPLICAS = 16
};

typedef struct task {
    int64_t arrived_ms, takes_ms, waited_ms, ready_ms;
} task_t;

typedef struct hand {
    int task; /* -1: free */
    int64_t until_ms;
} hand_t;

typedef struct replica {
    bool up, draining;
    int64_t ready_ms;
    hand_t hands[SLOTS];
} replica_t;

typedef struct world {
    const char *name;
    bool plain;
    scale_policy_t policy;
    int64_t look_ms;
    history_t history;
    task_t *tasks;
    int task_count, arrived, finished;
    int *queue; /* ready tasks, oldest first; a lost one goes to the end of the list */
    int queue_first, queue_count;
    replica_t replicas[MOST_REPLICAS];
    double replica_s;
    int changes, lost;
} world_t;

/* ---- Demand: how likely a task arrives, by second ---- */

static double steady(int second)
{
    (void)second;
    return 0.6;
}

static double burst(int second)
{
    return second % 1200 < 10 ? 4 : 0.02;
}

static double diurnal(int second)
{
    int part = second % 7200; /* a day in two hours, as a triangle */
    return 0.05 + 2.0 * (part < 3600 ? part : 7200 - part) / 3600;
}

static double ramp(int second)
{
    return 2.5 * second / (LENGTH_MS / 1000.0);
}

static double flapping(int second)
{
    return second / 120 % 2 ? 0.0 : 1.6;
}

static unsigned chance_state;

static double chance(void)
{
    chance_state = chance_state * 1664525U + 1013904223U;
    return (chance_state >> 8) / 16777216.0;
}

static int make_tasks(double (*rate)(int second), task_t *tasks)
{
    int count = 0;
    chance_state = 7;
    for (int64_t at = 0; at < LENGTH_MS; at += TICK_MS)
        if (chance() < rate((int)(at / 1000)) * TICK_MS / 1000.0 && count < MOST_TASKS)
            tasks[count++] = (task_t){
                .arrived_ms = at, .takes_ms = 1000 + (int64_t)(chance() * 4000), .ready_ms = at};
    return count;
}

/* ---- The world goes on ---- */

static void finish(world_t *world, replica_t *replica, int64_t now)
{
    for (int i = 0; i < SLOTS; i++)
        if (replica->hands[i].task >= 0 && replica->hands[i].until_ms <= now) {
            replica->hands[i].task = -1;
            world->finished++;
        }
}

static int holds(const replica_t *replica)
{
    int count = 0;
    for (int i = 0; i < SLOTS; i++)
        count += replica->hands[i].task >= 0;
    return count;
}

static int next_ready(world_t *world, int64_t now)
{
    for (int i = world->queue_first; i < world->queue_count; i++) {
        int task = world->queue[i];
        if (world->tasks[task].ready_ms > now)
            continue;
        memmove(world->queue + world->queue_first + 1, world->queue + world->queue_first,
                (size_t)(i - world->queue_first) * sizeof(*world->queue));
        world->queue_first++;
        return task;
    }
    return -1;
}

static void take_work(world_t *world, replica_t *replica, int64_t now)
{
    for (int i = 0; i < SLOTS; i++) {
        hand_t *hand = &replica->hands[i];
        int task = hand->task >= 0 ? -1 : next_ready(world, now);
        if (task < 0)
            continue;
        task_t *of = &world->tasks[task];
        if (of->waited_ms < 0)
            of->waited_ms = now - of->arrived_ms;
        *hand = (hand_t){task, now + of->takes_ms};
    }
}

static void kill_replica(world_t *world, replica_t *replica, int64_t now)
{
    for (int i = 0; i < SLOTS; i++) {
        int task = replica->hands[i].task;
        if (task < 0)
            continue;
        world->lost++;
        world->tasks[task].ready_ms = now + LEASE_MS;
        world->queue[world->queue_count++] = task;
    }
    *replica = (replica_t){0};
}

static int current(const world_t *world)
{
    int count = 0;
    for (int i = 0; i < MOST_REPLICAS; i++)
        count += world->replicas[i].up && !world->replicas[i].draining;
    return count;
}

static void grow(world_t *world, int64_t now)
{
    for (int i = 0; i < MOST_REPLICAS; i++)
        if (!world->replicas[i].up) {
            world->replicas[i] = (replica_t){.up = true, .ready_ms = now + START_MS};
            for (int j = 0; j < SLOTS; j++)
                world->replicas[i].hands[j].task = -1;
            return;
        }
}

static void shrink(world_t *world, int64_t now)
{
    for (int i = MOST_REPLICAS - 1; i >= 0; i--) {
        replica_t *replica = &world->replicas[i];
        if (!replica->up || replica->draining)
            continue;
        if (world->plain)
            kill_replica(world, replica, now);
        else
            replica->draining = true;
        return;
    }
}

static void scale(world_t *world, int64_t now)
{
    int64_t oldest = world->queue_first < world->queue_count
                         ? now - world->tasks[world->queue[world->queue_first]].arrived_ms
                         : 0;
    observed_t seen = {.now_ms = now,
                       .current = current(world),
                       .has_metric = true,
                       .queue_length = world->arrived - world->finished,
                       .oldest_age_ms = oldest};
    decision_t out;
    decide(&world->policy, &seen, &world->history, &out);
    decide_scaled(&world->history, now, out.desired - seen.current);
    for (int64_t i = seen.current; i < out.desired; i++)
        grow(world, now);
    for (int64_t i = out.desired; i < seen.current; i++)
        shrink(world, now);
    world->changes += out.desired != seen.current;
}

static void tick(world_t *world, int64_t now)
{
    while (world->arrived < world->task_count && world->tasks[world->arrived].arrived_ms <= now) {
        world->tasks[world->arrived].waited_ms = -1;
        world->queue[world->queue_count++] = world->arrived++;
    }
    for (int i = 0; i < MOST_REPLICAS; i++) {
        replica_t *replica = &world->replicas[i];
        if (!replica->up)
            continue;
        world->replica_s += TICK_MS / 1000.0;
        finish(world, replica, now);
        if (replica->draining && !holds(replica))
            *replica = (replica_t){0};
        else if (!replica->draining && replica->ready_ms <= now)
            take_work(world, replica, now);
    }
    if (now % world->look_ms == 0)
        scale(world, now);
}

static int by_wait(const void *a, const void *b)
{
    int64_t left = ((const task_t *)a)->waited_ms, right = ((const task_t *)b)->waited_ms;
    return left < right ? -1 : left > right;
}

static void report(const char *demand, world_t *world)
{
    double sum = 0;
    int count = world->task_count;
    qsort(world->tasks, (size_t)count, sizeof(*world->tasks), by_wait);
    for (int i = 0; i < count; i++)
        sum += (double)world->tasks[i].waited_ms;
    printf("%-9s %-6s %6d %9.2f %9.2f %9.2f %12.0f %8d %6d\n", demand, world->name, count,
           sum / count / 1000, (double)world->tasks[count * 95 / 100].waited_ms / 1000,
           (double)world->tasks[count - 1].waited_ms / 1000, world->replica_s, world->changes,
           world->lost);
}

/* False: a task was never done. */
static bool play(const char *demand, double (*rate)(int second), bool plain)
{
    world_t *world = calloc(1, sizeof(*world));
    task_t *tasks = calloc(MOST_TASKS, sizeof(*tasks));
    int *queue = calloc(4 * MOST_TASKS, sizeof(*queue));
    if (!world || !tasks || !queue)
        abort();
    arena_t *arena = arena_new();
    *world = (world_t){.name = plain ? "HPA" : "ours", .plain = plain, .tasks = tasks};
    record_decode(&scale_policy_record, (bytes_t){0}, arena, "policy", &world->policy);
    world->queue = queue;
    world->look_ms = plain ? 15000 : 250;
    if (plain) {
        world->policy.age_ms = 0;
        world->policy.down_count = 1000;
        world->policy.down_period_ms = 15000;
    }
    world->task_count = make_tasks(rate, tasks);
    grow(world, -START_MS);
    int64_t now = 0;
    for (; now < LENGTH_MS || (world->finished < world->task_count && now < 2 * LENGTH_MS);
         now += TICK_MS)
        tick(world, now);
    bool all = world->finished == world->task_count;
    report(demand, world);
    arena_destroy(&arena);
    free(queue);
    free(tasks);
    free(world);
    return all;
}

int main(void)
{
    static const struct {
        const char *name;
        double (*rate)(int second);
    } demands[] = {{"steady", steady},
                   {"burst", burst},
                   {"diurnal", diurnal},
                   {"ramp", ramp},
                   {"flapping", flapping}};
    bool fine = true;
    puts("demand    policy  tasks  wait mean   wait 95  wait max    replica-s  changes   lost");
    for (size_t i = 0; i < sizeof(demands) / sizeof(*demands); i++)
        for (int plain = 0; plain < 2; plain++)
            fine = play(demands[i].name, demands[i].rate, plain) && fine;
    puts("waits in seconds; lost: taken away while at work, and done again");
    return !fine;
}

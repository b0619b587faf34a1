/* top: the agency at a glance, again each second; once when it is not written to a terminal. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "actors/cli/processes.h"

enum { REFRESH_MS = 1000, ASK_MS = 1000, MOST = 128, WORK_SHOWN = 8 };

/* What was counted at the last look; a rate needs two. */
typedef struct counted {
    char name[64];
    int pid;
    int64_t at_ms, cpu_ms, calls;
} counted_t;

typedef struct top {
    cli_t *cli; /* its arena lasts until the next look */
    client_t *client;
    buf_t out;
    counted_t before[MOST];
    size_t before_count;
    int asked; /* pillars, and those of them that answered */
    int answered;
} top_t;

static int64_t now_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Reading replies ---- */

static double real(bytes_t map, const char *key)
{
    double value = 0;
    bytes_t bytes = mp_member(map, key);
    return bytes.size && mp_real(bytes, &value) ? value : 0;
}

/* No control letters: what users wrote must not move the cursor. */
static const char *text(top_t *top, bytes_t map, const char *key)
{
    bytes_t bytes = mp_member(map, key);
    char *value = bytes.size ? (char *)mp_text(top->cli->arena, bytes) : NULL;
    if (!value)
        return "";
    value = arena_strdup(top->cli->arena, value);
    for (char *at = value; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    return value;
}

/* An empty body when nobody answers. */
static bytes_t ask(top_t *top, const char *pillar, const char *tool, const char *state)
{
    static const bytes_t nothing;
    buf_t args;
    buf_open(&args, top->cli->arena);
    mp_put_map(&args, state ? 2 : 0);
    if (state) {
        mp_put_str(&args, "state");
        mp_put_str(&args, state);
        mp_put_str(&args, "limit");
        mp_put_int(&args, WORK_SHOWN);
    }
    client_call_t call = {.peer = pillar,
                          .method = tool,
                          .args = buf_bytes(&args),
                          .company = top->cli->company,
                          .role = ROLE_ADMIN,
                          .timeout_ms = ASK_MS};
    client_reply_t reply = client_call(top->client, top->cli->arena, &call);
    if (err_is(reply.err))
        return nothing;
    return reply.body;
}

/* ---- The page ---- */

static void show_queue(top_t *top)
{
    bytes_t queue = ask(top, "agent", "queue_stats", NULL), paused = mp_member(queue, "paused");
    bool is_paused = false;
    if (!queue.size) {
        buf_puts(&top->out, "queue    the agent does not answer\n");
        return;
    }
    buf_printf(
        &top->out,
        "queue    %lld ready, %lld leased, %lld running, %lld delayed; the first in line has "
        "waited %.1f s%s\n",
        (long long)mp_member_int(queue, "ready"), (long long)mp_member_int(queue, "leased"),
        (long long)mp_member_int(queue, "running"), (long long)mp_member_int(queue, "delayed"),
        real(queue, "oldest_ready_age_seconds"),
        paused.size && mp_bool(paused, &is_paused) && is_paused ? "; paused" : "");
}

static void show_scale(top_t *top)
{
    bytes_t scale = ask(top, "elastic", "get_scaling_status", NULL), worker;
    bytes_t workers = mp_member(scale, "workers"),
            alerts = ask(top, "health", "check_alerts", NULL);
    int64_t slots = 0, busy = 0;
    for (uint32_t i = 0; workers.size && mp_at(workers, i, &worker); i++) {
        slots += mp_member_int(worker, "slots");
        busy += mp_member_int(worker, "busy");
    }
    if (scale.size)
        buf_printf(&top->out,
                   "workers  %lld of %lld to %lld, %lld wanted (%s); %lld of %lld slots busy\n",
                   (long long)mp_member_int(scale, "replicas"),
                   (long long)mp_member_int(scale, "min_replicas"),
                   (long long)mp_member_int(scale, "max_replicas"),
                   (long long)mp_member_int(scale, "desired_replicas"), text(top, scale, "why"),
                   (long long)busy, (long long)slots);
    else
        buf_puts(&top->out, "workers  elastic does not answer\n");
    if (alerts.size)
        buf_printf(&top->out, "alerts   %lld firing\n", (long long)mp_member_int(alerts, "firing"));
    else
        buf_puts(&top->out, "alerts   health does not answer\n");
}

static counted_t *before(top_t *top, const process_t *process)
{
    for (size_t i = 0; i < top->before_count; i++)
        if (top->before[i].pid == process->pid && !strcmp(top->before[i].name, process->name))
            return &top->before[i];
    return NULL;
}

static void show_process(top_t *top, const process_t *process, counted_t *now)
{
    cli_t *cli = top->cli;
    client_reply_t reply = process_stats(cli, top->client, process);
    const char *where = process->pid ? arena_printf(cli->arena, "%d", process->pid) : "tcp";
    top->asked++;
    if (err_is(reply.err)) {
        buf_printf(&top->out, "%-20s %8s  does not answer\n", process->name, where);
        return;
    }
    top->answered++;
    const counted_t *old = before(top, process);
    *now = (counted_t){.pid = process->pid,
                       .at_ms = now_ms(CLOCK_MONOTONIC),
                       .cpu_ms = process->pid ? process_cpu_ms(process->pid) : 0,
                       .calls = process_total(reply.body, "calls")};
    snprintf(now->name, sizeof(now->name), "%s", process->name);
    double passed = old ? (double)(now->at_ms - old->at_ms) : 0;
    const char *cpu = "-", *rate = "-", *resident = "-";
    if (passed > 0 && process->pid)
        cpu = arena_printf(cli->arena, "%.1f", 100 * (double)(now->cpu_ms - old->cpu_ms) / passed);
    if (passed > 0)
        rate = arena_printf(cli->arena, "%.1f", 1000 * (double)(now->calls - old->calls) / passed);
    if (process->pid)
        resident =
            arena_printf(cli->arena, "%.1f", (double)process_resident_kib(process->pid) / 1024);
    buf_printf(&top->out, "%-20s %8s %9s %6s %9s %9s %7lld %7.1f %6lld\n", process->name, where,
               process_duration(cli->arena, mp_member_int(reply.body, "uptime_ms")), cpu, resident,
               rate, (long long)process_total(reply.body, "errors"),
               (double)mp_member_int(reply.body, "lag_us") / 1000,
               (long long)mp_member_int(reply.body, "inbox"));
}

static void show_processes(top_t *top)
{
    const char *run_dir;
    counted_t now[MOST] = {{.pid = 0}};
    size_t count, kept = 0;
    if (err_is(cli_run_dir(top->cli, &run_dir)))
        run_dir = NULL;
    const process_t *list = processes_list(top->cli, run_dir, &count);
    buf_printf(&top->out, "\n%-20s %8s %9s %6s %9s %9s %7s %7s %6s\n", "process", "pid", "up",
               "cpu %", "MiB", "calls/s", "errors", "lag ms", "inbox");
    for (size_t i = 0; i < count && kept < MOST; i++) {
        now[kept].name[0] = '\0';
        show_process(top, &list[i], &now[kept]);
        kept += now[kept].name[0] != '\0';
    }
    memcpy(top->before, now, kept * sizeof(*now));
    top->before_count = kept;
}

static void show_work(top_t *top)
{
    static const char *const states[] = {"input_required", "running", "leased", "ready"};
    int shown = 0;
    for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
        bytes_t tasks = mp_member(ask(top, "agent", "task_list", states[i]), "tasks"), task;
        for (uint32_t at = 0; shown < WORK_SHOWN && tasks.size && mp_at(tasks, at, &task); at++) {
            if (!shown++)
                buf_printf(&top->out, "\n%-14s %-16s %-15s %-10s %9s  %s\n", "task", "kind",
                           "state", "worker", "since", "waits for");
            const char *sop = text(top, task, "sop");
            int64_t since = now_ms(CLOCK_REALTIME) - mp_member_int(task, "updated_ms");
            buf_printf(
                &top->out, "%-14s %-16.16s %-15s %-10.10s %9s  %.60s\n", text(top, task, "id"),
                *sop ? sop : text(top, task, "kind"), states[i], text(top, task, "worker"),
                process_duration(top->cli->arena, since > 0 ? since : 0), text(top, task, "why"));
        }
    }
}

static void look(top_t *top)
{
    char clock[16];
    time_t now = time(NULL);
    struct tm local;
    buf_open(&top->out, top->cli->arena);
    top->asked = top->answered = 0;
    strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &local));
    buf_printf(&top->out, "agency %s  %s  data %s  company %s\n\n", top->cli->house->version, clock,
               top->cli->data_dir, top->cli->company ? top->cli->company : "default");
    show_queue(top);
    show_scale(top);
    show_processes(top);
    show_work(top);
}

/* ---- The terminal ---- */

/* As many lines and columns as there are; a line that is cut ends at a letter. */
static void draw(const char *page)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_row || !size.ws_col)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    fputs("\033[H", stdout);
    for (int row = 0; *page && row + 1 < size.ws_row; row++) {
        int column = 0;
        for (; *page && *page != '\n'; page++) {
            column += ((unsigned char)*page & 0xc0) != 0x80;
            if (column <= size.ws_col)
                putchar(*page);
        }
        page += *page == '\n';
        fputs("\033[K\n", stdout);
    }
    fputs("\033[Jq or Ctrl-C ends this", stdout);
    fflush(stdout);
}

/* False: the person has seen enough. */
static bool wait_for_next(int signals)
{
    struct pollfd polls[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = signals, .events = POLLIN}};
    char key = 0;
    if (poll(polls, 2, REFRESH_MS) <= 0)
        return true;
    if (polls[1].revents)
        return false;
    return read(STDIN_FILENO, &key, 1) == 1 && key != 'q' && key != 'Q';
}

static void watch(top_t *top)
{
    struct termios old, raw;
    arena_t *lasting = top->cli->arena;
    int signals = cli_stop_signals();
    bool keys = !tcgetattr(STDIN_FILENO, &old);
    if (keys) {
        raw = old;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs("\033[?1049h\033[?25l\033[2J", stdout);
    do {
        top->cli->arena = arena_new();
        look(top);
        draw(top->out.data);
        arena_destroy(&top->cli->arena);
    } while (wait_for_next(signals));
    top->cli->arena = lasting;
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &old);
}

int cli_top(cli_t *cli)
{
    top_t top = {.cli = cli};
    err_t err = cli_client(cli, &top.client);
    if (err_is(err))
        return cli_fail(err);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        watch(&top);
    } else {
        look(&top);
        fputs(top.out.data, stdout);
    }
    client_close(&top.client);
    if (!top.answered)
        fputs("agency: nothing is up; try: agency up\n", stderr);
    return top.answered ? EXIT_DONE : EXIT_UNREACHABLE;
}

/* child_helper: the process between the agency and a command; see child.h. It is single-threaded,
 * holds no lock and no secret, and outlives nothing: when it ends, all below it have ended. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bus/child.h"
#include "bus/child_status.h"

enum { FIRST_ARGUMENT = 6, CANNOT_START = 127, USUAL_FILES = 1024 };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void limit(int what, long long value)
{
    struct rlimit bounds = {.rlim_cur = (rlim_t)value, .rlim_max = (rlim_t)value};
    setrlimit(what, &bounds);
}

/* Programs that count on few descriptors are not surprised; they may raise it again. */
static void usual_files(void)
{
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur > USUAL_FILES) {
        files.rlim_cur = USUAL_FILES;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* In the grandchild: becomes the command, or tells why not through `report`. */
static void become(char **argv, int report)
{
    long long memory = atoll(argv[3]), processes = atoll(argv[4]);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    limit(RLIMIT_CORE, 0);
    usual_files();
    if (memory > 0)
        limit(RLIMIT_AS, memory);
    if (processes > 0)
        limit(RLIMIT_NPROC, processes);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!*argv[5] || !chdir(argv[5]))
        execv(argv[FIRST_ARGUMENT], argv + FIRST_ARGUMENT);
    int32_t code = errno;
    if (write(report, &code, sizeof(code)) < 0)
        _exit(CANNOT_START - 1);
    _exit(CANNOT_START);
}

/* Every process whose parent we are; orphans below us become such. */
static int kill_children(void)
{
    int killed = 0;
    char line[512];
    DIR *dir = opendir("/proc");
    if (!dir)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[300];
        int pid = atoi(entry->d_name), parent = 0;
        if (pid <= 0)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        size_t size = fread(line, 1, sizeof(line) - 1, file);
        fclose(file);
        line[size] = '\0';
        char *after_name = strrchr(line, ')');
        char state = 0;
        if (after_name && sscanf(after_name + 1, " %c %d", &state, &parent) == 2 &&
            parent == getpid() && state != 'Z') {
            kill(pid, SIGKILL);
            killed++;
        }
    }
    closedir(dir);
    return killed;
}

/* Until nobody is left: each round the orphans of the killed become our children. */
static void kill_all(pid_t command)
{
    kill(-command, SIGKILL);
    for (;;) {
        kill_children();
        pid_t got = waitpid(-1, NULL, 0);
        if (got < 0 && errno == ECHILD)
            return;
    }
}

typedef struct watching {
    pid_t command;
    int signals;
    int64_t end_ms; /* INT64_MAX: no limit */
    child_status_t status;
} watching_t;

/* Reaps what has ended; true when the command itself has. */
static bool reap(watching_t *in)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != in->command)
            continue;
        in->status.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        in->status.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        return true;
    }
    return false;
}

static void watch(watching_t *in)
{
    struct pollfd polls[] = {{.fd = in->signals, .events = POLLIN},
                             {.fd = CHILD_CONTROL_FD, .events = POLLIN}};
    while (!reap(in)) {
        int64_t left = in->end_ms == INT64_MAX ? -1 : in->end_ms - now_ms();
        if (in->end_ms != INT64_MAX && left <= 0) {
            in->status.timed_out = true;
            in->status.signal = SIGKILL;
            return;
        }
        poll(polls, 2, left > 1000000 ? 1000000 : (int)left);
        if (polls[1].revents) { /* whoever started us is gone, or wants it ended */
            in->status.signal = SIGKILL;
            return;
        }
        struct signalfd_siginfo info;
        while (read(in->signals, &info, sizeof(info)) > 0) {
        }
    }
}

static int block_child_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int child_helper_main(int argc, char **argv)
{
    if (argc <= FIRST_ARGUMENT)
        return CANNOT_START;
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "agency-exec", 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    fcntl(CHILD_CONTROL_FD, F_SETFD, FD_CLOEXEC);
    syscall(SYS_close_range, CHILD_CONTROL_FD + 1, ~0U, 0);
    int report[2];
    if (pipe2(report, O_CLOEXEC))
        return CANNOT_START;
    long long timeout_ms = atoll(argv[2]);
    watching_t in = {.signals = block_child_signal(),
                     .end_ms = timeout_ms > 0 ? now_ms() + timeout_ms : INT64_MAX,
                     .status = {.exit_status = -1}};
    in.command = fork();
    if (in.command == 0) {
        setpgid(0, 0);
        become(argv, report[1]);
    }
    close(report[1]);
    close(0);
    close(1);
    close(2);
    if (in.command > 0) {
        watch(&in);
        kill_all(in.command);
    } else {
        in.status.failed = errno;
    }
    int32_t code;
    if (read(report[0], &code, sizeof(code)) == (ssize_t)sizeof(code))
        in.status.failed = code;
    return write(CHILD_CONTROL_FD, &in.status, sizeof(in.status)) == (ssize_t)sizeof(in.status)
               ? 0
               : CANNOT_START;
}

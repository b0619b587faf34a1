#include "bus/child.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bus/child_status.h"

enum { EVENTS = 32, CHUNK = 65536 };

/* One of the two outputs. */
typedef struct stream {
    child_t *child;
    int fd;
    char *data;
    size_t size, capacity;
} stream_t;

struct child {
    child_t *next;
    children_t *set;
    pid_t pid;
    int control; /* EOF for the helper: kill all. From the helper: the status. */
    stream_t streams[2];
    stream_t control_tag; /* tells the control descriptor from the streams in epoll */
    /* Of one that is talked to: */
    child_part_t *part;
    stream_t input; /* what it has not read yet; fd -1: it does not read */
    bool input_armed;
    size_t limit;
    bool truncated, done_control;
    child_status_t status;
    bool has_status;
    int64_t started_ms;
    child_done_t *done;
    void *ctx;
};

struct children {
    int epoll;
    child_t *first;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

children_t *children_new(void)
{
    children_t *set = calloc(1, sizeof(*set));
    if (!set)
        abort();
    set->epoll = epoll_create1(EPOLL_CLOEXEC);
    return set;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void child_free(child_t *child)
{
    child_t **at = &child->set->first;
    while (*at != child)
        at = &(*at)->next;
    *at = child->next;
    close_fd(&child->control);
    for (int i = 0; i < 2; i++) {
        close_fd(&child->streams[i].fd);
        free(child->streams[i].data);
    }
    close_fd(&child->input.fd);
    free(child->input.data);
    free(child);
}

void children_destroy(children_t **handle)
{
    children_t *set = *handle;
    if (!set)
        return;
    while (set->first) {
        child_t *child = set->first;
        close_fd(&child->control); /* the helper sees the end and kills */
        waitpid(child->pid, NULL, 0);
        child_free(child);
    }
    close(set->epoll);
    free(set);
    *handle = NULL;
}

int children_fd(const children_t *children)
{
    return children->epoll;
}

void child_kill(child_t *child)
{
    shutdown(child->control, SHUT_WR);
}

void child_forget(child_t *child)
{
    child->part = NULL;
    child->done = NULL;
    child_kill(child);
}

/* ---- Starting ---- */

typedef struct pipes {
    int input, feed, out[2], err[2], control[2];
} pipes_t;

/* Input is a file in memory: nothing to feed, and the command may seek in it. */
static int input_file(bytes_t input)
{
    int fd = memfd_create("input", MFD_CLOEXEC);
    if (fd < 0 || (input.size && write(fd, input.data, input.size) != (ssize_t)input.size) ||
        lseek(fd, 0, SEEK_SET)) {
        close_fd(&fd);
        return -1;
    }
    return fd;
}

static void close_pipes(pipes_t *pipes)
{
    close_fd(&pipes->input);
    close_fd(&pipes->feed);
    for (int i = 0; i < 2; i++) {
        close_fd(&pipes->out[i]);
        close_fd(&pipes->err[i]);
        close_fd(&pipes->control[i]);
    }
}

/* For a command that is talked to. */
static void open_feed(pipes_t *pipes)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return;
    pipes->input = ends[0];
    pipes->feed = ends[1];
}

static bool open_pipes(pipes_t *pipes, bytes_t input, bool talks)
{
    *pipes = (pipes_t){-1, -1, {-1, -1}, {-1, -1}, {-1, -1}};
    if (talks)
        open_feed(pipes);
    else
        pipes->input = input_file(input);
    return pipes->input >= 0 && !pipe2(pipes->out, O_CLOEXEC) && !pipe2(pipes->err, O_CLOEXEC) &&
           !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipes->control);
}

static size_t count_of(const char *const *list)
{
    size_t count = 0;
    while (list && list[count])
        count++;
    return count;
}

static const char *number(arena_t *arena, int64_t value)
{
    return arena_printf(arena, "%lld", (long long)value);
}

/* exec-helper TIMEOUT MEMORY PROCESSES CWD COMMAND… */
static const char **helper_arguments(const child_request_t *request, arena_t *arena)
{
    size_t count = count_of(request->argv), at = 0;
    const char **argv = ARENA_ARRAY(arena, const char *, count + 8);
    argv[at++] = "agency";
    argv[at++] = "exec-helper";
    argv[at++] = number(arena, request->timeout_ms);
    argv[at++] = number(arena, request->memory_limit);
    argv[at++] = number(arena, request->process_limit);
    argv[at++] = request->cwd ? request->cwd : "";
    memcpy(argv + at, request->argv, count * sizeof(*argv));
    return argv;
}

static int spawn_helper(const child_request_t *request, const pipes_t *pipes, pid_t *pid)
{
    static const char *const nothing[] = {NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, pipes->input, 0);
    posix_spawn_file_actions_adddup2(&files, pipes->out[1], 1);
    posix_spawn_file_actions_adddup2(&files, pipes->err[1], 2);
    posix_spawn_file_actions_adddup2(&files, pipes->control[1], CHILD_CONTROL_FD);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    arena_t *arena = arena_new();
    const char **argv = helper_arguments(request, arena);
    int failed = posix_spawn(pid, "/proc/self/exe", &files, &attributes, (char *const *)argv,
                             (char *const *)(request->env ? request->env : nothing));
    arena_destroy(&arena);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static void watch(children_t *set, int fd, stream_t *tag)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = tag};
    fcntl(fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(set->epoll, EPOLL_CTL_ADD, fd, &event);
}

err_t child_start(children_t *set, const child_request_t *request, child_done_t *done, void *ctx,
                  child_t **out)
{
    return child_talk(set, request, NULL, done, ctx, out);
}

err_t child_talk(children_t *set, const child_request_t *request, child_part_t *part,
                 child_done_t *done, void *ctx, child_t **out)
{
    pipes_t pipes;
    pid_t pid;
    *out = NULL;
    int failed =
        open_pipes(&pipes, request->input, part) ? spawn_helper(request, &pipes, &pid) : errno;
    if (failed) {
        close_pipes(&pipes);
        return err_of(ERR_IO, strerror(failed));
    }
    child_t *child = calloc(1, sizeof(*child));
    if (!child)
        abort();
    *child = (child_t){
        .next = set->first,
        .set = set,
        .pid = pid,
        .control = pipes.control[0],
        .streams = {{.child = child, .fd = pipes.out[0]}, {.child = child, .fd = pipes.err[0]}},
        .control_tag = {.child = child, .fd = -1},
        .input = {.child = child, .fd = pipes.feed},
        .part = part,
        .limit = request->output_limit > 0 ? (size_t)request->output_limit : 65536,
        .started_ms = now_ms(),
        .done = done,
        .ctx = ctx};
    set->first = child;
    pipes.control[0] = pipes.out[0] = pipes.err[0] = pipes.feed = -1; /* the child's now */
    close_pipes(&pipes);
    watch(set, child->streams[0].fd, &child->streams[0]);
    watch(set, child->streams[1].fd, &child->streams[1]);
    watch(set, child->control, &child->control_tag);
    if (part)
        fcntl(child->input.fd, F_SETFL, O_NONBLOCK);
    *out = child;
    return err_ok();
}

/* ---- Talking ---- */

/* Its input is watched only while something waits for it. */
static void arm_input(child_t *child, bool on)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = &child->input};
    if (on != child->input_armed)
        epoll_ctl(child->set->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, child->input.fd, &event);
    child->input_armed = on;
}

static void feed(child_t *child)
{
    stream_t *input = &child->input;
    ssize_t sent = input->size ? write(input->fd, input->data, input->size) : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) { /* it has closed it, or is gone */
        arm_input(child, false);
        close_fd(&input->fd);
        input->size = 0;
        return;
    }
    if (sent > 0) {
        input->size -= (size_t)sent;
        memmove(input->data, input->data + sent, input->size);
    }
    arm_input(child, input->size > 0);
}

bool child_write(child_t *child, bytes_t bytes, size_t most)
{
    stream_t *input = &child->input;
    if (input->fd < 0 || bytes.size > most || input->size > most - bytes.size)
        return false;
    if (input->size + bytes.size > input->capacity) {
        input->capacity = (input->size + bytes.size) * 2;
        input->data = realloc(input->data, input->capacity);
        if (!input->data)
            abort();
    }
    memcpy(input->data + input->size, bytes.data, bytes.size);
    input->size += bytes.size;
    if (!child->input_armed)
        feed(child);
    return true;
}

/* ---- Listening ---- */

/* Beyond the limit it is read and dropped, so that the command is not blocked. */
static void keep(stream_t *stream, const char *data, size_t size)
{
    child_t *child = stream->child;
    size_t room = child->limit - stream->size;
    if (size > room) {
        child->truncated = true;
        size = room;
    }
    if (stream->size + size > stream->capacity) {
        stream->capacity = (stream->size + size) * 2;
        stream->data = realloc(stream->data, stream->capacity);
        if (!stream->data)
            abort();
    }
    if (size)
        memcpy(stream->data + stream->size, data, size);
    stream->size += size;
}

static void read_stream(stream_t *stream)
{
    char chunk[CHUNK];
    ssize_t got = read(stream->fd, chunk, sizeof(chunk));
    if (got > 0 && stream->child->part)
        stream->child->part(stream->child->ctx, stream == &stream->child->streams[1],
                            (bytes_t){(const uint8_t *)chunk, (size_t)got});
    else if (got > 0)
        keep(stream, chunk, (size_t)got);
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        /* A process that another thread spawns right now holds a copy of it, so close alone would
         * leave it in the set. */
        epoll_ctl(stream->child->set->epoll, EPOLL_CTL_DEL, stream->fd, NULL);
        close_fd(&stream->fd);
    }
}

static void read_control(child_t *child)
{
    child_status_t status;
    ssize_t got = read(child->control, &status, sizeof(status));
    if (got == (ssize_t)sizeof(status)) {
        child->status = status;
        child->has_status = true;
    } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    epoll_ctl(child->set->epoll, EPOLL_CTL_DEL, child->control, NULL);
    child->done_control = true;
}

static void finish(child_t *child)
{
    int status = 0;
    waitpid(child->pid, &status, 0);
    child_outcome_t outcome = {
        .exit_status = -1,
        .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        .truncated = child->truncated,
        .duration_ms = now_ms() - child->started_ms,
        .output = {(const uint8_t *)child->streams[0].data, child->streams[0].size},
        .errors = {(const uint8_t *)child->streams[1].data, child->streams[1].size}};
    if (child->has_status) {
        outcome.exit_status = child->status.exit_status;
        outcome.signal = child->status.signal;
        outcome.timed_out = child->status.timed_out;
        if (child->status.failed)
            outcome.err = err_of(ERR_IO, strerror(child->status.failed));
    } else {
        outcome.err = err_of(ERR_IO, "the helper of the command was killed");
    }
    if (child->done)
        child->done(child->ctx, &outcome);
    child_free(child);
}

void children_on_readable(children_t *set)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(set->epoll, events, EVENTS, 0);
    for (int i = 0; i < count; i++) {
        stream_t *stream = events[i].data.ptr;
        if (stream == &stream->child->control_tag)
            read_control(stream->child);
        else if (stream == &stream->child->input && stream->fd >= 0)
            feed(stream->child);
        else if (stream->fd >= 0)
            read_stream(stream);
    }
    for (child_t *child = set->first, *next; child; child = next) {
        next = child->next;
        if (child->done_control && child->streams[0].fd < 0 && child->streams[1].fd < 0)
            finish(child);
    }
}

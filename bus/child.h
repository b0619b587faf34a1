/* child: commands run in processes of their own, watched from a foreign event loop.
 *
 * Between us and the command stands a helper, the same binary as `exec-helper`: single-threaded,
 * leader of a new session, reaper of every orphan below it. When the command ends, when its time
 * is up or when we die (however suddenly), the helper kills every descendant, also those that left
 * the process group, and only then reports. Thread: one owner.
 */
#ifndef BUS_CHILD_H
#define BUS_CHILD_H

#include "bus/env.h"

typedef struct children children_t;
typedef struct child child_t;

/* Called once per started child, from children_on_readable. The bytes live during the call. */
typedef void child_done_t(void *ctx, const child_outcome_t *outcome);

children_t *children_new(void);
/* Kills what is left; nobody is called. */
void children_destroy(children_t **children);

/* Readable when children_on_readable has something to do. */
int children_fd(const children_t *children);
void children_on_readable(children_t *children);

/* ERR_IO when it cannot be started; then `done` is not called. The request is copied. */
err_t child_start(children_t *children, const child_request_t *request, child_done_t *done,
                  void *ctx, child_t **out);
/* Ends it and all its descendants now; `done` is still called. */
void child_kill(child_t *child);
/* The same, and nobody is called any more: the child is no longer the caller's. */
void child_forget(child_t *child);

/* What a child that is talked to says, as it comes; `errors`: on its standard error. The bytes live
 * during the call, from which the child must not be ended otherwise than by child_kill. */
typedef void child_part_t(void *ctx, bool errors, bytes_t part);

/* The same for a command that is talked to: its outputs go to `part` and are not kept, and its
 * standard input is what child_write gives it (request->input is not used). */
err_t child_talk(children_t *children, const child_request_t *request, child_part_t *part,
                 child_done_t *done, void *ctx, child_t **out);
/* For its standard input, as soon as it reads. False: more than `most` bytes would be waiting, or
 * it does not read any more; nothing was taken. */
bool child_write(child_t *child, bytes_t bytes, size_t most);

/* main of the helper: argv[1] is "exec-helper". */
int child_helper_main(int argc, char **argv);

#endif

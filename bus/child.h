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

/* main of the helper: argv[1] is "exec-helper". */
int child_helper_main(int argc, char **argv);

#endif

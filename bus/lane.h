/* lane: a thread that does one job at a time for the thread that owns it. The store begins, commits
 * and aborts on lanes, since LMDB ties a write transaction to the thread that began it, while
 * several companies are to be synced at once. Everything the job touches is handed over and back:
 * between lane_start and lane_wait it belongs to the lane. Thread: all functions on the owner's. */
#ifndef BUS_LANE_H
#define BUS_LANE_H

typedef struct lane lane_t;
typedef void lane_fn_t(void *ctx);

/* NULL when the system gives no more threads. */
lane_t *lane_open(void);
/* After lane_wait of whatever was started. */
void lane_close(lane_t **lane);
/* Waits for the job before it. */
void lane_start(lane_t *lane, lane_fn_t *fn, void *ctx);
/* Returns when the job is done; at once when there is none. */
void lane_wait(lane_t *lane);

#endif

/* watchdog: a thread that looks whether the loops of this process still turn. A loop that does not
 * is told of in the log; probes see it by watchdog_lag_us; after `stuck_ms` the process ends by
 * abort, since everything acknowledged is on disk and its supervisor starts it again.
 * Thread: any, except that begin, end and worst of one loop belong to that loop's thread. */
#ifndef BUS_WATCHDOG_H
#define BUS_WATCHDOG_H

#include <stdint.h>

typedef struct watchdog watchdog_t;
typedef struct watched watched_t;

/* Looks four times within lag_ms. stuck_ms 0: never ends the process. NULL: no thread could be
 * made; everything below does nothing then. */
watchdog_t *watchdog_start(int64_t lag_ms, int64_t stuck_ms);
void watchdog_stop(watchdog_t **watchdog);

/* A loop named so; NULL without a watchdog. */
watched_t *watchdog_add(watchdog_t *watchdog, const char *name);
void watchdog_remove(watchdog_t *watchdog, watched_t **watched);

/* Around whatever a loop does between two waits. */
void watched_begin(watched_t *watched);
void watched_end(watched_t *watched);

/* For how long the slowest loop of the process has not turned by now; 0: all wait for work. */
int64_t watchdog_lag_us(watchdog_t *watchdog);
/* The longest turn of the last one to two minutes. */
int64_t watched_worst_us(const watched_t *watched);
/* The lag at which a probe should say that the process is not well. */
int64_t watchdog_limit_us(const watchdog_t *watchdog);

#endif

/* begun: the effects that this life has begun. The bus sends a call again when a connection broke,
 * and the answer to the first may be lost: the call must not be made twice. Bounded; what has been
 * forgotten counts as begun. Thread: the actor's. */
#ifndef ACTORS_OUTSIDE_BEGUN_H
#define ACTORS_OUTSIDE_BEGUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BEGUN_MOST = 4096 };

/* All zero: nothing has begun. */
typedef struct begun {
    struct {
        uint64_t key;
        int64_t at_us;
    } rows[BEGUN_MOST];
    size_t count, next;
    int64_t forgotten_us; /* all that began later is known still; 0: all is */
} begun_t;

void begun_note(begun_t *begun, const char *company, const char *effect, int64_t now_us);
/* Of a call that was sent first at `first_us`, by the same clock: may it have begun? */
bool begun_maybe(const begun_t *begun, const char *company, const char *effect, int64_t first_us);

#endif

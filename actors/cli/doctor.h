/* doctor: looks at the machine, the files and the pillars, and says what to do. Reads only: it
 * takes no lock and no port, so that it never stands in the way of a start. */
#ifndef ACTORS_CLI_DOCTOR_H
#define ACTORS_CLI_DOCTOR_H

#include "actors/cli/cli.h"
#include "bus/place.h"

typedef enum finding { FINDING_OK, FINDING_WARN, FINDING_FAIL } finding_t;

typedef struct doctor {
    cli_t *cli;
    place_t place;
    buf_t rows;
    uint32_t count;
    finding_t worst;
    size_t answering;
} doctor_t;

/* `what` is a fact; `advice` is what to do about it, "" when nothing. */
void doctor_say(doctor_t *self, finding_t finding, const char *name, const char *what,
                const char *advice);
/* The process that holds a lock on this file, by the kernel's list; 0: nobody. */
int doctor_lock_holder(const char *path);

/* The data directory and what lies in it; false: it is not there, or no use. */
bool doctor_data(doctor_t *self);
/* Keys and tokens, wherever they are. */
void doctor_secrets(doctor_t *self);
/* Settings of every pillar, and the endpoints that they name. */
void doctor_settings(doctor_t *self);

#endif

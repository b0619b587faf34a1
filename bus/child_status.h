/* child_status: what the helper of a command (child_helper.c) reports to child.c. */
#ifndef BUS_CHILD_STATUS_H
#define BUS_CHILD_STATUS_H

#include <stdbool.h>
#include <stdint.h>

enum { CHILD_CONTROL_FD = 3 };

typedef struct child_status {
    int32_t exit_status; /* -1: ended by a signal */
    int32_t signal;
    int32_t failed; /* errno: the command could not be started */
    bool timed_out;
} child_status_t;

#endif

/* log: one line for each thing worth knowing: JSON where nobody watches, readable text on a
 * terminal. Thread: any; a line is one write. */
#ifndef BUS_LOG_H
#define BUS_LOG_H

#include "bus/env.h"

void log_line(int fd, log_level_t level, const char *actor, const char *text);

#endif

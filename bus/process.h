/* process: what this process uses of the machine, from /proc. What cannot be read is 0.
 * Thread: any. */
#ifndef BUS_PROCESS_H
#define BUS_PROCESS_H

#include <stdint.h>

typedef struct process_usage {
    double cpu_seconds, start_seconds; /* since 1970 */
    int64_t resident_bytes, virtual_bytes, open_fds, max_fds;
} process_usage_t;

void process_usage(process_usage_t *out);

/* As many open files as the system lets us have: thousands of streams need more than shells give.
 * Commands that we start get the usual number again (bus/child.h). */
void process_raise_files(void);
/* Once the process is up: gives back the pages of program and libraries that only its start touched
 * (symbols and relocations of some forty libraries, a few MiB). What is wanted again comes from the
 * system's cache of files. */
void process_settle(void);

#endif

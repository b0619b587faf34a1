/* The floor of durable work: a bare LMDB that commits one row for each who waits, again and again.
 */
#ifndef TESTS_SUPPORT_FLOOR_H
#define TESTS_SUPPORT_FLOOR_H

/* Rows a second. `dir` is made when it is not there. */
double floor_rows(const char *dir, int waiting, int row_bytes, double seconds);

#endif

/* settings: a record filled from, strongest first: what was given on the command line
 * ("actor.key=value"), the environment (AGENCY_<ACTOR>_<KEY>), the file <data>/agency.conf
 * (`actor.key = value`, # for comments), the defaults of the rows. Types and ranges are the rows'.
 * An unknown key of this actor is an error. */
#ifndef BUS_SETTINGS_H
#define BUS_SETTINGS_H

#include "proto/record.h"

/* `given` and `environment` end with NULL and may be NULL. ERR_ARGUMENT names setting and source.
 */
err_t settings_load(const record_t *record, const char *actor, const char *const *given,
                    const char *const *environment, const char *data_dir, arena_t *arena,
                    void *out);

/* AGENCY_<ACTOR>_<KEY>, in the arena. */
const char *settings_variable(arena_t *arena, const char *actor, const char *key);

/* Each line of <data>/agency.conf must begin with one of these names (which end with NULL).
 * ERR_ARGUMENT with the line and the nearest name, ERR_IO. */
err_t settings_check_file(const char *data_dir, const char *const *actors, arena_t *arena);
/* The same of "actor.key=value" from a command line. */
err_t settings_check_given(const char *const *given, const char *const *actors, arena_t *arena);

#endif

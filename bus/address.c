#include "bus/address.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *door(const char *where, transport_t transport, const char *actor,
                        const char *kind, arena_t *arena)
{
    if (transport == TRANSPORT_INPROC)
        return arena_printf(arena, "inproc://%s/%s.%s", where, actor, kind);
    return arena_printf(arena, "ipc://%s/%s.%s", where, actor, kind);
}

const char *address_call(const char *where, transport_t transport, const char *actor,
                         arena_t *arena)
{
    return door(where, transport, actor, "call", arena);
}

const char *address_event(const char *where, transport_t transport, const char *actor,
                          arena_t *arena)
{
    return door(where, transport, actor, "event", arena);
}

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ : only to tell directories apart. */
static uint64_t hash(const char *text)
{
    uint64_t value = 14695981039346656037u;
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 1099511628211u;
    return value;
}

static err_t private_dir(const char *path, arena_t *arena)
{
    struct stat info;
    if (mkdir(path, 0700) && errno != EEXIST)
        return err_make(arena, ERR_IO, "cannot make the directory %s: %s", path, strerror(errno));
    if (stat(path, &info) || !S_ISDIR(info.st_mode) || info.st_uid != geteuid())
        return err_make(arena, ERR_IO, "%s must be a directory of yours", path);
    return err_ok();
}

err_t host_default_run_dir(const char *data_dir, arena_t *arena, const char **out)
{
    /* Containers of a pod share their sockets through a volume beside the data. */
    const char *given = getenv("AGENCY_RUN");
    enum { LONGEST_NAME = 40 }; /* "/<instance>.event" */
    if (given && *given) {
        if (strlen(given) + LONGEST_NAME > ADDRESS_IPC_LONGEST)
            return err_make(arena, ERR_ARGUMENT, "AGENCY_RUN: use at most %d characters",
                            ADDRESS_IPC_LONGEST - LONGEST_NAME);
        *out = arena_strdup(arena, given);
        return private_dir(given, arena);
    }
    char real[PATH_MAX];
    if (!realpath(data_dir, real))
        return err_make(arena, ERR_UNAVAILABLE,
                        "there is no data directory %s; start with `agency up`, or name it with "
                        "--data",
                        data_dir);
    const char *run = arena_printf(arena, "%s/run", real);
    if (strlen(run) + LONGEST_NAME > ADDRESS_IPC_LONGEST)
        run = arena_printf(arena, "/tmp/agency-%u-%016" PRIx64, (unsigned)geteuid(), hash(real));
    *out = run;
    return private_dir(run, arena);
}

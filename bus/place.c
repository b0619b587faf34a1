#include "bus/place.h"

#include <stdlib.h>
#include <string.h>

#include "bus/settings.h"

RECORD_DEFINE(bus, bus_FIELDS)

typedef struct pillar {
    const char *name;
    int port;
    bool owned; /* by ordinal 0 */
} pillar_t;

static const pillar_t pillars[PLACE_PILLARS] = {{"agent", 5500, true},   {"brain", 5502, false},
                                                {"health", 5504, true},  {"swarm", 5505, true},
                                                {"elastic", 5506, true}, {"outside", 5507, true}};

const char *place_pillar(int index)
{
    return index >= 0 && index < PLACE_PILLARS ? pillars[index].name : NULL;
}

int place_index(const char *name)
{
    for (int i = 0; i < PLACE_PILLARS; i++)
        if (!strcmp(pillars[i].name, name))
            return i;
    return -1;
}

int place_port(const place_t *place, const char *pillar)
{
    int index = place_index(pillar);
    return index < 0 ? 0 : pillars[index].port + (int)place->settings.port_offset;
}

const char *place_address(const place_t *place, const char *pillar)
{
    int index = place_index(pillar);
    return index < 0 ? NULL : place->addresses[index];
}

bool place_forwards(const place_t *place, const char *pillar)
{
    int index = place_index(pillar);
    return place->ordinal > 0 && index >= 0 && pillars[index].owned;
}

bool place_any_away(const place_t *place)
{
    for (int i = 0; i < PLACE_PILLARS; i++)
        if (place->addresses[i])
            return true;
    return false;
}

/* ---- Names and addresses ---- */

/* It becomes the name of a worker, of a file and of a socket. */
static err_t read_pod(place_t *place, arena_t *arena)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    enum { DIGITS_MOST = 6 };
    const char *pod = place->settings.pod;
    if (!pod || !*pod) {
        place->settings.pod = NULL;
        return err_ok();
    }
    const char *dash = strrchr(pod, '-');
    size_t digits = dash ? strspn(dash + 1, "0123456789") : 0;
    if (digits && digits <= DIGITS_MOST && !dash[1 + digits] && dash > pod && *pod != '.' &&
        strspn(pod, fine) == strlen(pod)) {
        place->ordinal = (int)strtol(dash + 1, NULL, 10);
        return err_ok();
    }
    return err_make(arena, ERR_ARGUMENT,
                    "bus.pod must be the name of a pod of a StatefulSet and end with its ordinal, "
                    "e.g. house-agent-2, not '%.63s'",
                    pod);
}

/* "tcp://host:port" with a port that leaves room for the event door. */
static err_t check_address(const char *name, const char *address, arena_t *arena)
{
    const char *colon = strrchr(address, ':');
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!strncmp(address, "tcp://", 6) && colon > address + 6 && end && !*end && port > 0 &&
        port <= 65535 - PLACE_EVENT_PORT)
        return err_ok();
    return err_make(arena, ERR_ARGUMENT,
                    "bus.%s must be tcp://host:port with a port from 1 to %d, not '%.100s'", name,
                    65535 - PLACE_EVENT_PORT, address);
}

static err_t check_owner(const place_t *place, arena_t *arena)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    const char *owner = place->settings.owner;
    if (owner && strspn(owner, fine) != strlen(owner))
        return err_make(arena, ERR_ARGUMENT,
                        "bus.owner is a host name or an IPv4 address, without tcp:// and port, not "
                        "'%.100s'",
                        owner);
    if (!owner && place->ordinal > 0)
        return err_make(arena, ERR_ARGUMENT,
                        "%s is replica %d: bus.owner must name the host of ordinal 0, which owns "
                        "the queue",
                        place->settings.pod, place->ordinal);
    return err_ok();
}

err_t place_load(const char *const *settings, const char *const *environment, const char *data_dir,
                 arena_t *arena, place_t *out)
{
    *out = (place_t){0};
    err_t err =
        settings_load(&bus_record, "bus", settings, environment, data_dir, arena, &out->settings);
    if (!err_is(err))
        err = read_pod(out, arena);
    if (!err_is(err))
        err = check_owner(out, arena);
    const bus_t *set = &out->settings;
    const char *given[PLACE_PILLARS] = {set->agent, set->brain,   set->health,
                                        set->swarm, set->elastic, set->outside};
    bool at_home = set->pod && out->ordinal == 0;
    for (int i = 0; i < PLACE_PILLARS && !err_is(err); i++) {
        if (!given[i] && set->owner && pillars[i].owned && !at_home)
            given[i] =
                arena_printf(arena, "tcp://%s:%d", set->owner, place_port(out, pillars[i].name));
        out->addresses[i] = given[i];
        if (given[i])
            err = check_address(pillars[i].name, given[i], arena);
    }
    return err;
}

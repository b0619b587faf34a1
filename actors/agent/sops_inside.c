/* What validate_sop finds out about the procedures that a procedure runs: are they there, do they
 * take the input, and does none of them lead back to one further up. Each problem is the line of
 * the call. They are looked at as they are now; a run takes them as they are then. */
#include <string.h>

#include "actors/agent/papers.h"
#include "proto/mp.h"

enum { DEEPEST = 32 };

/* The procedures on the way down to the present one, and those that are known to lead nowhere bad.
 */
typedef struct walk {
    call_t *call;
    store_txn_t *txn;
    const char *path[DEEPEST + 1];
    size_t depth;
    names_t harmless;
} walk_t;

static unsigned line_of(const sop_step_t *step)
{
    unsigned line = step->body_line;
    for (size_t i = 0; step->kind == SOP_EACH && i < sop_call_at(step); i++)
        line += step->body[i] == '\n';
    return line;
}

static bool is_among(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

static void remember(walk_t *walk, const char *name)
{
    names_t *names = &walk->harmless;
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? names->capacity * 2 : 16;
        const char **grown = ARENA_ARRAY(call_arena(walk->call), const char *, capacity);
        if (names->count)
            memcpy(grown, names->items, names->count * sizeof(*grown));
        *names = (names_t){grown, names->count, capacity};
    }
    names->items[names->count++] = name;
}

static const char *path_to(const walk_t *walk, const char *name)
{
    arena_t *arena = call_arena(walk->call);
    const char *text = "";
    for (size_t i = 0; i < walk->depth; i++)
        text = arena_printf(arena, "%s%s → ", text, walk->path[i]);
    return arena_printf(arena, "%s%s", text, name);
}

/* The way back to a procedure that is on the path, or NULL. */
static const char *way_back(walk_t *walk, const char *name)
{
    found_t found;
    sops_version_t version;
    const char *way = NULL;
    if (is_among(walk->path, walk->depth, name))
        return path_to(walk, name);
    if (walk->depth == DEEPEST || is_among(walk->harmless.items, walk->harmless.count, name))
        return NULL;
    err_t err = papers_effective(walk->call, walk->txn, PAPER_SOP, name, &found, &version);
    if (err_is(err) || !version.sop)
        return NULL;
    walk->path[walk->depth++] = name;
    for (size_t i = 0; i < version.sop->step_count && !way; i++)
        if (version.sop->steps[i].procedure)
            way = way_back(walk, version.sop->steps[i].procedure);
    walk->depth--;
    if (!way)
        remember(walk, name);
    return way;
}

static const char *missing(walk_t *walk, const char *name)
{
    names_t names;
    arena_t *arena = call_arena(walk->call);
    err_t err = papers_names(walk->call, walk->txn, &names);
    if (!err_is(err)) {
        const char **all = ARENA_ARRAY(arena, const char *, names.count + 1);
        if (names.count)
            memcpy(all, names.items, names.count * sizeof(*all));
        all[names.count] = NULL;
        const char *near = record_nearest(name, all);
        if (near && *near)
            return arena_printf(arena, "there is no procedure '%s': did you mean '%s'?", name,
                                near);
    }
    return arena_printf(arena, "there is no procedure '%s'", name);
}

/* What is wrong with the call, or NULL. */
static const char *problem_of(walk_t *walk, const sop_step_t *step)
{
    arena_t *arena = call_arena(walk->call);
    found_t found;
    sops_version_t inner;
    bytes_t input;
    mp_type_t type;
    const char *way = way_back(walk, step->procedure);
    if (way)
        return arena_printf(arena, "a procedure cannot be inside itself: %s", way);
    err_t err = papers_effective(walk->call, walk->txn, PAPER_SOP, step->procedure, &found, &inner);
    if (err_is(err))
        return missing(walk, step->procedure);
    if (!inner.sop)
        return arena_printf(arena, "the procedure '%s' cannot run: %s", step->procedure,
                            err_what(inner.err));
    bool known = mp_type_of(step->args, &type) && type == MP_MAP; /* else it is a reference */
    err = known ? sop_input(arena, inner.sop, step->args, &input) : err_ok();
    return err_is(err)
               ? arena_printf(arena, "the procedure '%s': %s", step->procedure, err_what(err))
               : NULL;
}

size_t sops_check_inside(call_t *call, store_txn_t *txn, const sops_version_t *version,
                         sop_problem_t *problems)
{
    walk_t walk = {.call = call, .txn = txn, .path = {version->name}, .depth = 1};
    size_t count = 0;
    for (size_t i = 0; i < version->sop->step_count; i++) {
        const sop_step_t *step = &version->sop->steps[i];
        const char *what = step->procedure ? problem_of(&walk, step) : NULL;
        if (what)
            problems[count++] = (sop_problem_t){.line = line_of(step), .what = what};
    }
    return count;
}

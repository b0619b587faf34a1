#include "bus/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"

/* The raw value of each row and where it came from. */
typedef struct source {
    const char *value;
    const char *where;
} source_t;

typedef struct loader {
    const record_t *record;
    const char *actor;
    arena_t *arena;
    source_t *sources; /* by row */
    size_t count;
    const char *const *actors; /* all that there are, when names are to be checked */
} loader_t;

static int row_of(const loader_t *in, const char *key)
{
    for (size_t i = 0; i < in->count; i++)
        if (!strcmp(in->record->fields()[i].name, key))
            return (int)i;
    return -1;
}

static err_t unknown(const loader_t *in, const char *key, const char *where)
{
    const char **names = ARENA_ARRAY(in->arena, const char *, in->count + 1);
    for (size_t i = 0; i < in->count; i++)
        names[i] = in->record->fields()[i].name;
    const char *near = record_nearest(key, names);
    return err_make(in->arena, ERR_ARGUMENT, "%s: there is no setting '%s.%s'%s%s%s", where,
                    in->actor, key, near ? "; did you mean '" : "", near ? near : "",
                    near ? "'?" : "");
}

/* The weaker sources come first and are overwritten. */
static err_t take(loader_t *in, const char *key, const char *value, const char *where)
{
    int row = row_of(in, key);
    if (row < 0)
        return unknown(in, key, where);
    in->sources[row] = (source_t){value, where};
    return err_ok();
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t size = strlen(text);
    while (size && isspace((unsigned char)text[size - 1]))
        text[--size] = '\0';
    return text;
}

/* Splits "actor.key"; NULL when it is another actor's. */
static const char *own_key(const loader_t *in, const char *name)
{
    size_t size = strlen(in->actor);
    return !strncmp(name, in->actor, size) && name[size] == '.' ? name + size + 1 : NULL;
}

/* `name` begins with the name of an actor that exists. */
static err_t known_actor(const loader_t *in, const char *name, const char *where)
{
    const char *actor = arena_strndup(in->arena, name, strcspn(name, "."));
    for (const char *const *at = in->actors; *at; at++)
        if (!strcmp(*at, actor))
            return err_ok();
    const char *near = record_nearest(actor, in->actors);
    return err_make(in->arena, ERR_ARGUMENT, "%s: nothing is named '%s'%s%s%s", where, actor,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static err_t read_line(loader_t *in, char *line, const char *where)
{
    char *text = trim(line);
    if (!*text || *text == '#')
        return err_ok();
    char *equals = strchr(text, '=');
    if (!equals || !memchr(text, '.', (size_t)(equals - text)))
        return err_make(in->arena, ERR_ARGUMENT, "%s: write `actor.key = value`, not '%.60s'",
                        where, text);
    *equals = '\0';
    const char *key = own_key(in, trim(text));
    if (!key)
        return in->actors ? known_actor(in, text, where) : err_ok();
    return take(in, arena_strdup(in->arena, key), arena_strdup(in->arena, trim(equals + 1)), where);
}

static err_t read_file(loader_t *in, const char *data_dir)
{
    const char *path = arena_printf(in->arena, "%s/agency.conf", data_dir);
    FILE *file = fopen(path, "r");
    if (!file)
        return errno == ENOENT
                   ? err_ok()
                   : err_make(in->arena, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    char line[4096];
    err_t err = err_ok();
    for (int number = 1; !err_is(err) && fgets(line, sizeof(line), file); number++)
        err = read_line(in, line, arena_printf(in->arena, "%s, line %d", path, number));
    if (!err_is(err) && ferror(file))
        err = err_make(in->arena, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    fclose(file);
    return err;
}

const char *settings_variable(arena_t *arena, const char *actor, const char *key)
{
    char *name = arena_printf(arena, "AGENCY_%s_%s", actor, key);
    for (char *at = name; *at; at++)
        *at = (char)toupper((unsigned char)*at);
    return name;
}

static err_t read_environment(loader_t *in, const char *const *environment)
{
    for (size_t i = 0; environment && i < in->count; i++) {
        const char *key = in->record->fields()[i].name;
        const char *name = settings_variable(in->arena, in->actor, key);
        size_t size = strlen(name);
        for (const char *const *at = environment; *at; at++)
            if (!strncmp(*at, name, size) && (*at)[size] == '=')
                in->sources[i] = (source_t){*at + size + 1, name};
    }
    return err_ok();
}

static err_t read_given(loader_t *in, const char *const *given)
{
    for (; given && *given; given++) {
        const char *key = own_key(in, *given), *equals = strchr(*given, '=');
        if (!key || !equals)
            continue;
        err_t err = take(in, arena_strndup(in->arena, key, (size_t)(equals - key)), equals + 1,
                         "command line");
        if (err_is(err))
            return err;
    }
    return err_ok();
}

/* Text to the type of the row; what does not fit stays text, and decoding says what is wrong. */
static void put_value(const field_t *field, const char *text, buf_t *out)
{
    char *end;
    errno = 0;
    if (field->type == FIELD_INT) {
        long long number = strtoll(text, &end, 10);
        if (*text && !*end && !errno) {
            mp_put_int(out, number);
            return;
        }
    } else if (field->type == FIELD_REAL) {
        double number = strtod(text, &end);
        if (*text && !*end) {
            mp_put_real(out, number);
            return;
        }
    } else if (field->type == FIELD_BOOL) {
        if (!strcmp(text, "true") || !strcmp(text, "false")) {
            mp_put_bool(out, !strcmp(text, "true"));
            return;
        }
    }
    mp_put_str(out, text);
}

/* "a, b,c" */
static void put_list(const char *text, buf_t *out)
{
    uint32_t count = *text ? 1 : 0;
    for (const char *at = text; *at; at++)
        count += *at == ',';
    mp_put_array(out, count);
    for (const char *at = text; count--; at++) {
        while (*at == ' ')
            at++;
        size_t size = strcspn(at, ",");
        mp_put_strn(out, at, size);
        at += size;
    }
}

static err_t decode(loader_t *in, void *out)
{
    buf_t map;
    uint32_t count = 0;
    buf_open(&map, in->arena);
    for (size_t i = 0; i < in->count; i++)
        count += in->sources[i].value != NULL;
    mp_put_map(&map, count);
    for (size_t i = 0; i < in->count; i++) {
        const field_t *field = &in->record->fields()[i];
        if (!in->sources[i].value)
            continue;
        mp_put_str(&map, field->name);
        if (field->type == FIELD_STRS)
            put_list(in->sources[i].value, &map);
        else
            put_value(field, in->sources[i].value, &map);
    }
    return record_decode(in->record, buf_bytes(&map), in->arena, "setting", out);
}

/* Which source had the value that was refused? The sentence names the row in quotes. */
static err_t with_source(const loader_t *in, err_t err)
{
    for (size_t i = 0; i < in->count; i++) {
        const char *quoted = arena_printf(in->arena, "'%s'", in->record->fields()[i].name);
        if (in->sources[i].value && strstr(err_what(err), quoted))
            return err_make(in->arena, err.code, "%s (from %s, for %s)", err_what(err),
                            in->sources[i].where, in->actor);
    }
    return err;
}

err_t settings_load(const record_t *record, const char *actor, const char *const *given,
                    const char *const *environment, const char *data_dir, arena_t *arena, void *out)
{
    loader_t in = {.record = record, .actor = actor, .arena = arena};
    while (record->fields()[in.count].name)
        in.count++;
    in.sources = ARENA_ARRAY(arena, source_t, in.count + 1);
    err_t err = data_dir ? read_file(&in, data_dir) : err_ok();
    if (!err_is(err))
        err = read_environment(&in, environment);
    if (!err_is(err))
        err = read_given(&in, given);
    if (err_is(err))
        return err;
    err = decode(&in, out);
    return err_is(err) ? with_source(&in, err) : err;
}

err_t settings_check_file(const char *data_dir, const char *const *actors, arena_t *arena)
{
    /* No record and an actor without a name: every line is somebody else's. */
    loader_t in = {.actor = "", .arena = arena, .actors = actors};
    return read_file(&in, data_dir);
}

err_t settings_check_given(const char *const *given, const char *const *actors, arena_t *arena)
{
    loader_t in = {.actor = "", .arena = arena, .actors = actors};
    err_t err = err_ok();
    for (; given && *given && !err_is(err); given++) {
        const char *equals = strchr(*given, '='), *dot = strchr(*given, '.');
        if (!equals || !dot || dot > equals)
            err =
                err_make(arena, ERR_ARGUMENT, "--set: write actor.key=value, not '%.60s'", *given);
        else
            err = known_actor(&in, *given, "--set");
    }
    return err;
}

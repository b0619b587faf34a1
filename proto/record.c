#include "proto/record.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mp.h"
#include "proto/record_parts.h"

/* ---- Defaults ---- */

static bool default_number(const field_t *field, void *at)
{
    char *end;
    errno = 0;
    if (field->type == FIELD_INT)
        *(int64_t *)at = strtoll(field->def, &end, 10);
    else
        *(double *)at = strtod(field->def, &end);
    return !*end && !errno && (field->type == FIELD_INT || isfinite(*(double *)at));
}

static bool default_word(const field_t *field, int *out)
{
    for (int i = 0; field->names[i]; i++)
        if (!strcmp(field->names[i], field->def)) {
            *out = i;
            return true;
        }
    return false;
}

static bool read_default(const field_t *field, void *at)
{
    switch (field->type) {
    case FIELD_INT:
    case FIELD_REAL:
        return default_number(field, at);
    case FIELD_TIME:
        return record_time(field->def, at);
    case FIELD_BOOL:
        *(bool *)at = !strcmp(field->def, "true");
        return *(bool *)at || !strcmp(field->def, "false");
    case FIELD_STR:
        *(const char **)at = field->def;
        return true;
    case FIELD_ENUM:
        return default_word(field, at);
    default:
        return false;
    }
}

bool record_set_default(const field_t *field, void *out)
{
    if (!read_default(field, record_member(field, out)))
        return false;
    *record_has(field, out) = true;
    return true;
}

/* ---- Encoding ---- */

static bool present(const field_t *field, const void *in)
{
    if (field->must || *record_has(field, in))
        return true;
    const void *at = record_member(field, in);
    switch (field->type) {
    case FIELD_STR:
    case FIELD_COMPANY:
    case FIELD_REC:
        return *(void *const *)at != NULL;
    case FIELD_BYTES:
    case FIELD_ANY:
    case FIELD_JSON:
        return ((const bytes_t *)at)->size > 0;
    case FIELD_VEC:
    case FIELD_STRS:
    case FIELD_LIST:
        return ((const record_list_t *)at)->count > 0;
    default:
        return false;
    }
}

static void encode_vec(const vec_t *vec, buf_t *out)
{
    mp_put_array(out, (uint32_t)vec->count);
    for (size_t i = 0; i < vec->count; i++)
        mp_put_real(out, (double)vec->items[i]);
}

static void encode_strs(const strs_t *strs, buf_t *out)
{
    mp_put_array(out, (uint32_t)strs->count);
    for (size_t i = 0; i < strs->count; i++)
        mp_put_str(out, strs->items[i] ? strs->items[i] : "");
}

static void encode_list(const field_t *field, const record_list_t *list, buf_t *out)
{
    mp_put_array(out, (uint32_t)list->count);
    for (size_t i = 0; i < list->count; i++)
        record_encode(field->sub, (const char *)list->items + i * field->sub->size, out);
}

static void encode_field(const field_t *field, const void *at, buf_t *out)
{
    const bytes_t *bytes = at;
    switch (field->type) {
    case FIELD_STR:
    case FIELD_COMPANY:
        mp_put_str(out, *(const char *const *)at ? *(const char *const *)at : "");
        break;
    case FIELD_BYTES:
        mp_put_bin(out, bytes->data, bytes->size);
        break;
    case FIELD_INT:
    case FIELD_TIME:
        mp_put_int(out, *(const int64_t *)at);
        break;
    case FIELD_REAL:
        mp_put_real(out, *(const double *)at);
        break;
    case FIELD_BOOL:
        mp_put_bool(out, *(const bool *)at);
        break;
    case FIELD_ENUM:
        mp_put_str(out, field->names[*(const int *)at]);
        break;
    case FIELD_VEC:
        encode_vec(at, out);
        break;
    case FIELD_STRS:
        encode_strs(at, out);
        break;
    case FIELD_LIST:
        encode_list(field, at, out);
        break;
    case FIELD_REC:
        if (*(void *const *)at)
            record_encode(field->sub, *(void *const *)at, out);
        else
            mp_put_nil(out);
        break;
    case FIELD_ANY:
    case FIELD_JSON:
        mp_put_raw(out, *bytes);
        break;
    }
}

void record_encode(const record_t *record, const void *in, buf_t *out)
{
    uint32_t count = 0;
    for (const field_t *field = record->fields(); field->name; field++)
        count += present(field, in);
    mp_put_map(out, count);
    for (const field_t *field = record->fields(); field->name; field++) {
        if (!present(field, in))
            continue;
        mp_put_strn(out, field->name, strlen(field->name));
        encode_field(field, record_member(field, in), out);
    }
}

/* ---- Checking the rows themselves ---- */

static bool default_in_limits(const field_t *field, const void *at)
{
    switch (field->type) {
    case FIELD_INT:
    case FIELD_TIME:
        return record_within(field, *(const int64_t *)at);
    case FIELD_REAL:
        return record_within_real(field, *(const double *)at);
    case FIELD_STR:
        return (int64_t)strlen(field->def) >= field->min &&
               (int64_t)strlen(field->def) <= record_largest(field, RECORD_STR_LARGEST);
    default:
        return true;
    }
}

static err_t check_field(const record_t *record, const field_t *field, arena_t *arena)
{
    const char *wrong_is = NULL;
    void *value = arena_alloc(arena, record->size);
    if (field->min > field->max && !record_endless(field))
        wrong_is = "smallest is above largest";
    else if (!*field->doc)
        wrong_is = "it has no doc";
    else if (*field->def && !record_set_default(field, value))
        wrong_is = "its default is not readable";
    else if (*field->def && !default_in_limits(field, record_member(field, value)))
        wrong_is = "its default is out of range";
    for (const field_t *other = record->fields(); other != field; other++)
        if (!strcmp(other->name, field->name))
            wrong_is = "it stands twice";
    return wrong_is
               ? err_make(arena, ERR_INTERNAL, "%s.%s: %s", record->name, field->name, wrong_is)
               : err_ok();
}

err_t record_check(const record_t *record, arena_t *arena)
{
    for (const field_t *field = record->fields(); field->name; field++) {
        err_t err = check_field(record, field, arena);
        if (!err_is(err) && field->sub)
            err = record_check(field->sub, arena);
        if (err_is(err))
            return err;
    }
    return err_ok();
}

/* ---- Copying ---- */

static strs_t copy_strs(const strs_t *strs, arena_t *arena)
{
    const char **items = ARENA_ARRAY(arena, const char *, strs->count + 1);
    for (size_t i = 0; i < strs->count; i++)
        items[i] = arena_strdup(arena, strs->items[i]);
    return (strs_t){items, strs->count};
}

static void *copy_items(const record_t *record, const void *items, size_t count, arena_t *arena)
{
    char *copy = arena_alloc(arena, record->size * (count + 1));
    for (size_t i = 0; i < count; i++)
        record_copy(record, (const char *)items + i * record->size, arena, copy + i * record->size);
    return copy;
}

/* `at` holds a shallow copy. */
static void copy_field(const field_t *field, arena_t *arena, void *at)
{
    const char **text = at;
    bytes_t *bytes = at;
    vec_t *vec = at;
    void **inner = at;
    record_list_t *list = at;
    switch (field->type) {
    case FIELD_STR:
    case FIELD_COMPANY:
        *text = arena_strdup(arena, *text);
        break;
    case FIELD_BYTES:
    case FIELD_ANY:
    case FIELD_JSON:
        bytes->data = arena_copy(arena, bytes->data, bytes->size);
        break;
    case FIELD_VEC:
        vec->items = arena_copy(arena, vec->items, vec->count * sizeof(*vec->items));
        break;
    case FIELD_STRS:
        *(strs_t *)at = copy_strs(at, arena);
        break;
    case FIELD_REC:
        *inner = *inner ? copy_items(field->sub, *inner, 1, arena) : NULL;
        break;
    case FIELD_LIST:
        list->items = copy_items(field->sub, list->items, list->count, arena);
        break;
    case FIELD_INT:
    case FIELD_TIME:
    case FIELD_REAL:
    case FIELD_BOOL:
    case FIELD_ENUM:
        break;
    }
}

void record_copy(const record_t *record, const void *in, arena_t *arena, void *out)
{
    memcpy(out, in, record->size);
    for (const field_t *field = record->fields(); field->name; field++)
        copy_field(field, arena, record_member(field, out));
}

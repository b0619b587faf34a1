/* record_parts: what the files of records give each other: where a field lies in its struct, and
 * which values it takes. Inside record only; users include record.h. Thread: pure. */
#ifndef PROTO_RECORD_PARTS_H
#define PROTO_RECORD_PARTS_H

#include "proto/record.h"

static inline void *record_member(const field_t *field, const void *record)
{
    return (char *)record + field->offset;
}

static inline bool *record_has(const field_t *field, const void *record)
{
    return (bool *)((char *)record + field->has_offset);
}

/* 0, 0 are no limits, and a largest of 0 below the smallest is none either. */
static inline bool record_limited(const field_t *field)
{
    return field->min || field->max;
}

static inline bool record_endless(const field_t *field)
{
    return !field->max && field->min >= 0;
}

static inline bool record_within(const field_t *field, int64_t value)
{
    return !record_limited(field) ||
           (value >= field->min && (record_endless(field) || value <= field->max));
}

static inline bool record_within_real(const field_t *field, double value)
{
    return !record_limited(field) ||
           (value >= (double)field->min && (record_endless(field) || value <= (double)field->max));
}

static inline int64_t record_largest(const field_t *field, int64_t otherwise)
{
    return field->max ? field->max : otherwise;
}

/* Puts the default of the row into the struct; false when it cannot be read. */
bool record_set_default(const field_t *field, void *out);

#endif

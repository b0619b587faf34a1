/* record: rows that become a C struct, its decoder with validation, its encoder and its schema.
 *
 * A record is declared once, as a list of rows:
 *
 *     #define memory_FIELDS(F)                                                              \
 *         F(STR,  id,    must,    1, 128, "The id of the memory.")                          \
 *         F(INT,  limit, opt(3),  1, 100, "How many to return.")                            \
 *         F(REAL, score, opt(),   0, 0,   "How well it fits; absent when not searched for.")
 *     RECORD(memory, memory_FIELDS)
 *
 * That makes memory_t, memory_list_t {items, count} and the constant memory_record. Columns: type,
 * name, presence, smallest, largest, doc. Presence is must, opt() or opt(default). Smallest and
 * largest bound the number itself, or bytes of text, or the count of items; 0, 0 means the limits
 * of the type, and so does a largest of 0 after a smallest above it. On the wire a record is a
 * msgpack map; absent and nil mean the same; a key that is no field is ERR_ARGUMENT.
 *
 *   type         C                          on the wire
 *   STR          const char *               str, UTF-8, no NUL inside; NULL when absent
 *   BYTES        bytes_t                    bin
 *   INT          int64_t  + has_<name>      int (or a real without fraction)
 *   TIME         int64_t  + has_<name>      int, ms since 1970, or RFC 3339 text; written as int
 *   REAL         double   + has_<name>      real or int; never NaN or infinite
 *   BOOL         bool     + has_<name>      bool
 *   ENUM(e)      int      + has_<name>      str, one of the names of e (see RECORD_ENUM)
 *   VEC          vec_t                      array of numbers
 *   STRS         strs_t                     array of str
 *   REC(r)       const r_t *                map
 *   LIST(r)      r_list_t                   array of maps
 *   COMPANY      const char *               str; the skeleton authorises and fills it in
 *   ANY          bytes_t                    any msgpack value
 *   JSON         bytes_t                    any msgpack value; a str that holds a JSON array or
 *                                           object counts as that array or object
 *
 * Decoded text and lists live in the given arena; BYTES and ANY point into the decoded bytes.
 * Thread: pure.
 */
#ifndef PROTO_RECORD_H
#define PROTO_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/arena.h"
#include "proto/err.h"

typedef enum field_type {
    FIELD_STR,
    FIELD_BYTES,
    FIELD_INT,
    FIELD_TIME,
    FIELD_REAL,
    FIELD_BOOL,
    FIELD_ENUM,
    FIELD_VEC,
    FIELD_STRS,
    FIELD_REC,
    FIELD_LIST,
    FIELD_COMPANY,
    FIELD_ANY,
    FIELD_JSON
} field_type_t;

typedef struct vec {
    const float *items;
    size_t count;
} vec_t;

typedef struct strs {
    const char *const *items;
    size_t count;
} strs_t;

typedef struct record record_t;

typedef struct field {
    const char *name;
    const char *doc;
    const char *def; /* default as text; "" none */
    int64_t min, max;
    const record_t *sub;      /* REC, LIST */
    const char *const *names; /* ENUM; NULL-terminated */
    field_type_t type;
    bool must;
    uint32_t offset, has_offset;
} field_t;

struct record {
    const char *name;
    const field_t *(*fields)(void); /* the last one has no name */
    size_t size;                    /* of the C struct */
};

/* What a list of records looks like whatever the record. */
typedef struct record_list {
    void *items;
    size_t count;
} record_list_t;

/* Limits of the types where a row says 0, 0. */
enum { RECORD_STR_LARGEST = 1 << 20, RECORD_LIST_LARGEST = 100000, RECORD_ANY_LARGEST = 16 << 20 };

/* ANY and JSON nest at most so deep. Lists of one decode take at most so much memory: an item of
 * one byte on the wire can be a struct of hundreds. */
enum { RECORD_ANY_DEEPEST = 96, RECORD_MEMORY_LARGEST = 256 << 20 };

/* Decodes a map into `out` (record->size bytes), filling defaults and checking every row. No bytes
 * at all count as an empty map. `what` names the thing in sentences, e.g. "argument".
 * ERR_ARGUMENT, ERR_PARSE when it is no msgpack, ERR_TOO_LARGE. */
err_t record_decode(const record_t *record, bytes_t bytes, arena_t *arena, const char *what,
                    void *out);

/* Appends the record as a map; optional fields that are absent are left out. */
void record_encode(const record_t *record, const void *in, buf_t *out);

/* Are the rows sound: unique names, smallest <= largest, defaults readable and within the limits?
 * For tests and start-up. ERR_INTERNAL. */
err_t record_check(const record_t *record, arena_t *arena);

/* A copy of the record whose text, lists and bytes all live in `arena`. Nothing is checked. */
void record_copy(const record_t *record, const void *in, arena_t *arena, void *out);

/* The name nearest to `text` (edit distance at most 3 and under half its length), or NULL.
 * `names` ends with NULL. */
const char *record_nearest(const char *text, const char *const *names);

/* RFC 3339 text (a date alone is midnight, no offset is UTC) or a whole number of ms as text, which
 * does not have four digits since that is a year, to ms since 1970. */
bool record_time(const char *text, int64_t *ms);
/* ms since 1970 as RFC 3339 in UTC with ms; beyond the years 0 to 9999 the number itself. */
const char *record_time_text(arena_t *arena, int64_t ms);

/* An enum with names on the wire: rows V(CONSTANT, "text"). Makes <name>_t and <name>_names. */
#define RECORD_ENUM(name, VALUES)                                                                  \
    typedef enum name { VALUES(RECORD_ENUM_CONSTANT_) name##_COUNT } name##_t;                     \
    static const char *const name##_names[] = {VALUES(RECORD_ENUM_TEXT_) NULL};
#define RECORD_ENUM_CONSTANT_(constant, text) constant,
#define RECORD_ENUM_TEXT_(constant, text) text,

/* A record used in one file. */
#define RECORD(name, FIELDS)                                                                       \
    RECORD_STRUCT(name, FIELDS)                                                                    \
    RECORD_ROWS_(name, FIELDS)                                                                     \
    static const record_t name##_record = {#name, name##_rows, sizeof(name##_t)};

/* A record shared by several files: RECORD_STRUCT and `extern const record_t <name>_record;` in
 * the header, RECORD_DEFINE in one file. */
#define RECORD_DEFINE(name, FIELDS)                                                                \
    RECORD_ROWS_(name, FIELDS)                                                                     \
    const record_t name##_record = {#name, name##_rows, sizeof(name##_t)};

#define RECORD_STRUCT(name, FIELDS)                                                                \
    typedef struct name {                                                                          \
        FIELDS(RECORD_MEMBER_)                                                                     \
        char end_of_record;                                                                        \
    } name##_t;                                                                                    \
    typedef struct name##_list {                                                                   \
        name##_t *items;                                                                           \
        size_t count;                                                                              \
    } name##_list_t;

/* The rows sit in a function so that each row can name its struct as record_self_t. */
#define RECORD_ROWS_(id, FIELDS)                                                                   \
    static const field_t *id##_rows(void)                                                          \
    {                                                                                              \
        typedef id##_t record_self_t;                                                              \
        static const field_t rows[] = {FIELDS(RECORD_ROW_){                                        \
            .name = NULL, .offset = (uint32_t)offsetof(record_self_t, end_of_record)}};            \
        return rows;                                                                               \
    }

#define RECORD_MEMBER_(type, field, presence, smallest, largest, sentence)                         \
    RECORD_C_##type field;                                                                         \
    bool has_##field;
#define RECORD_C_STR const char *
#define RECORD_C_BYTES bytes_t
#define RECORD_C_INT int64_t
#define RECORD_C_TIME int64_t
#define RECORD_C_REAL double
#define RECORD_C_BOOL bool
#define RECORD_C_ENUM(e) int
#define RECORD_C_VEC vec_t
#define RECORD_C_STRS strs_t
#define RECORD_C_REC(r) const r##_t *
#define RECORD_C_LIST(r) r##_list_t
#define RECORD_C_COMPANY const char *
#define RECORD_C_ANY bytes_t
#define RECORD_C_JSON bytes_t

#define RECORD_ROW_(kind, field, presence, smallest, largest, sentence)                            \
    {.name = #field,                                                                               \
     .doc = sentence,                                                                              \
     RECORD_TYPE_##kind,                                                                           \
     RECORD_PRESENCE_##presence,                                                                   \
     .min = smallest,                                                                              \
     .max = largest,                                                                               \
     .offset = (uint32_t)offsetof(record_self_t, field),                                           \
     .has_offset = (uint32_t)offsetof(record_self_t, has_##field)},
#define RECORD_PRESENCE_must .must = true, .def = ""
#define RECORD_PRESENCE_opt(value) .must = false, .def = #value
#define RECORD_TYPE_STR .type = FIELD_STR
#define RECORD_TYPE_BYTES .type = FIELD_BYTES
#define RECORD_TYPE_INT .type = FIELD_INT
#define RECORD_TYPE_TIME .type = FIELD_TIME
#define RECORD_TYPE_REAL .type = FIELD_REAL
#define RECORD_TYPE_BOOL .type = FIELD_BOOL
#define RECORD_TYPE_ENUM(e) .type = FIELD_ENUM, .names = e##_names
#define RECORD_TYPE_VEC .type = FIELD_VEC
#define RECORD_TYPE_STRS .type = FIELD_STRS
#define RECORD_TYPE_REC(r) .type = FIELD_REC, .sub = &r##_record
#define RECORD_TYPE_LIST(r) .type = FIELD_LIST, .sub = &r##_record
#define RECORD_TYPE_COMPANY .type = FIELD_COMPANY
#define RECORD_TYPE_ANY .type = FIELD_ANY
#define RECORD_TYPE_JSON .type = FIELD_JSON

#endif

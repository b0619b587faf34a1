/* describe: what an actor can do, made from its rows: JSON Schema 2020-12, a manual in Markdown.
 * Thread: pure. */
#ifndef PROTO_DESCRIBE_H
#define PROTO_DESCRIBE_H

#include "proto/record.h"

/* Appends the record's JSON Schema as a msgpack map: type object, properties with description,
 * limits and defaults, required, additionalProperties false. Nested records are written in place.
 */
void describe_schema(const record_t *record, buf_t *msgpack);

/* Appends the fields as a Markdown table: name, type, default or "required", limits, doc. */
void describe_markdown(const record_t *record, buf_t *text);

/* One word or phrase for the type of a field, e.g. "integer", "list of memory". */
const char *describe_type(const field_t *field, arena_t *arena);

#endif

/* Any bytes as a condition: no crash, and what is good without values has no fault of form. */
#include <stdlib.h>
#include <string.h>

#include "actors/agent/condition.h"
#include "proto/json.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char json[] = "{\"n\":3,\"s\":\"42\",\"l\":[1,\"two\"],\"m\":{\"a\":null}}";
    arena_t *arena = arena_new();
    const char *text = arena_strndup(arena, (const char *)data, size);
    bool holds;
    size_t at;
    values_t values = {.run_id = "run", .company = "acme"};
    if (err_is(json_to_msgpack(arena, json, sizeof(json) - 1, NULL, &values.input)))
        abort();
    err_t form = condition_holds(arena, NULL, text, size, &at, &holds);
    if (at > size || holds)
        abort();
    err_t err = condition_holds(arena, &values, text, size, &at, &holds);
    if (at > size || (err_is(form) && !err_is(err)) || (err_is(err) && holds))
        abort();
    arena_destroy(&arena);
    return 0;
}

/* json_parse: the door to RapidJSON: JSON text as a row of events, without a tree. C and C++.
 * Thread: pure. */
#ifndef PROTO_JSON_PARSE_H
#define PROTO_JSON_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each returns false to stop. `at` is where in the text the event ended, in bytes. Texts are of
 * `size` bytes, unescaped, and live during the call; they are UTF-8 but for \uDC00 to \uDFFF that
 * stands alone, which RapidJSON 1.1.0 lets pass. */
typedef struct json_events {
    bool (*nil)(void *ctx);
    bool (*boolean)(void *ctx, bool value);
    bool (*number)(void *ctx, const char *text, size_t at); /* as written, with a NUL behind */
    bool (*string)(void *ctx, const char *text, size_t size, size_t at);
    bool (*key)(void *ctx, const char *text, size_t size, size_t at);
    bool (*begin)(void *ctx, bool object, size_t at);
    bool (*end)(void *ctx, bool object, size_t count); /* members or items */
} json_events_t;

/* `what` is NULL when the text is JSON, "" when an event stopped it; else a sentence without a full
 * stop about what is wrong at `at`. */
typedef struct json_fault {
    const char *what;
    size_t at;
} json_fault_t;

/* `utf8`: the text is known to be; else the first place where it is not is a fault. */
json_fault_t json_parse(const char *text, size_t size, bool utf8, const json_events_t *events,
                        void *ctx);

#ifdef __cplusplus
}
#endif

#endif

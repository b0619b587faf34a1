#include "actors/agent/span.h"

#include <ctype.h>
#include <string.h>

span_t span_of(const char *text)
{
    return (span_t){text, strlen(text)};
}

span_t span_trim(span_t span)
{
    while (span.size && isspace((unsigned char)*span.text))
        span = span_skip(span, 1);
    while (span.size && isspace((unsigned char)span.text[span.size - 1]))
        span.size--;
    return span;
}

span_t span_skip(span_t span, size_t count)
{
    return (span_t){span.text + count, span.size - count};
}

span_t span_split(span_t *rest, char stop)
{
    const char *end = rest->size ? memchr(rest->text, stop, rest->size) : NULL;
    span_t part = {rest->text, end ? (size_t)(end - rest->text) : rest->size};
    *rest = span_skip(*rest, part.size + (end != NULL));
    return part;
}

span_t span_word(span_t *rest)
{
    span_t word = {rest->text, 0};
    while (word.size < rest->size && !isspace((unsigned char)rest->text[word.size]))
        word.size++;
    *rest = span_skip(*rest, word.size);
    return word;
}

bool span_is(span_t span, const char *text)
{
    return strlen(text) == span.size && !memcmp(text, span.text, span.size);
}

char *span_copy(arena_t *arena, span_t span)
{
    return arena_strndup(arena, span.text, span.size);
}

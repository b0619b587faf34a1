#include "actors/brain/endpoint.h"

#include <math.h>
#include <string.h>

#include "actors/brain/index.h"
#include "bus/secret.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { ANSWER_LARGEST = 16 << 20 };

static const char prefix[] = "endpoint:";

const char *endpoint_model(arena_t *arena, const char *model)
{
    return arena_printf(arena, "%s%s", prefix, model);
}

bool endpoint_makes(const char *model)
{
    return strncmp(model, prefix, sizeof prefix - 1) == 0;
}

/* ---- asking ---- */

err_t endpoint_request(const brain_settings_t *settings, arena_t *arena, const char *const *texts,
                       size_t count, http_call_request_t *out)
{
    const char **headers = ARENA_ARRAY(arena, const char *, 3), *key;
    buf_t body;

    headers[0] = "Content-Type: application/json";
    if (settings->embed_key_file) {
        err_t err = secret_read(arena, "brain.embed_key_file", settings->embed_key_file, &key);
        if (err_is(err))
            return err;
        headers[1] = arena_printf(arena, "Authorization: Bearer %s", key);
    }
    buf_open(&body, arena);
    buf_puts(&body, "{\"model\":");
    json_put_string(&body, settings->embed_model, strlen(settings->embed_model));
    buf_puts(&body, ",\"encoding_format\":\"float\",\"input\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_puts(&body, ",");
        json_put_string(&body, texts[i], strlen(texts[i]));
    }
    buf_puts(&body, "]}");
    *out = (http_call_request_t){.method = "POST",
                                 .url = settings->embed_url,
                                 .headers = headers,
                                 .body = buf_bytes(&body),
                                 .timeout_ms = settings->embed_timeout_ms,
                                 .response_limit = ANSWER_LARGEST};
    return err_ok();
}

/* ---- hearing ---- */

typedef struct hearing {
    arena_t *arena;
    size_t count;
    uint32_t dims; /* 0: no vector seen yet */
    float *vectors;
    bool *seen;
} hearing_t;

static err_t bad(hearing_t *in, const char *what)
{
    return err_make(in->arena, ERR_PARSE, "the embedding endpoint's answer %s", what);
}

/* Numbers as JSON has them. */
static err_t hear_numbers(hearing_t *in, mp_reader_t *reader, uint32_t count, float *out)
{
    bytes_t item;
    double value;

    for (uint32_t i = 0; i < count; i++) {
        if (!mp_slice(reader, &item) || !mp_real(item, &value))
            return bad(in, "has something in a vector that is no number");
        out[i] = (float)value;
    }
    return err_ok();
}

static int sextet(char c)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(letters, c) : NULL;

    return at ? (int)(at - letters) : -1;
}

/* Little-endian floats in Base64, which some servers send whatever they were asked for. `out` has
 * room for size / 4 * 3 bytes. */
static bool hear_base64(const char *text, size_t size, uint8_t *out, size_t *bytes)
{
    uint32_t bits = 0;
    size_t pad = 0;

    *bytes = 0;
    for (; size && pad < 2 && text[size - 1] == '='; pad++)
        size--;
    if (!size || (size + pad) % 4)
        return false;
    for (size_t i = 0; i < size; i++) {
        int value = sextet(text[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4)
            out[(*bytes)++] = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    return *bytes % sizeof(float) == 0;
}

/* The numbers of one embedding, whichever way they are written. */
static err_t hear_embedding(hearing_t *in, bytes_t list, float **out, uint32_t *count)
{
    mp_reader_t reader = mp_reader(list);
    mp_value_t head;
    size_t bytes;

    *count = 0;
    if (!mp_read(&reader, &head))
        return bad(in, "has no embedding in an entry of data");
    if (head.type == MP_ARRAY && head.count && head.count <= INDEX_DIMS_MAX) {
        *out = ARENA_ARRAY(in->arena, float, head.count);
        *count = head.count;
        return hear_numbers(in, &reader, head.count, *out);
    }
    if (head.type == MP_STR && head.size && head.size < INDEX_DIMS_MAX * 6) {
        *out = ARENA_ARRAY(in->arena, float, head.size / 4 + 1);
        if (!hear_base64(head.text, head.size, (uint8_t *)*out, &bytes))
            return bad(in, "has an embedding that is no Base64 of floats");
        *count = (uint32_t)(bytes / sizeof(float));
    }
    if (!*count || *count > INDEX_DIMS_MAX)
        return bad(in, "has an embedding that is no list of 1 to 8192 numbers");
    return err_ok();
}

static err_t normalise(hearing_t *in, const float *values, float *vector)
{
    double sum = 0;

    for (uint32_t i = 0; i < in->dims; i++) {
        if (!isfinite(values[i]))
            return bad(in, "has something in a vector that is no finite number");
        sum += (double)values[i] * values[i];
    }
    if (!(sum > 0) || !isfinite(sum))
        return bad(in, "has a vector without length");
    for (uint32_t i = 0; i < in->dims; i++)
        vector[i] = (float)(values[i] / sqrt(sum));
    return err_ok();
}

static err_t hear_one(hearing_t *in, size_t place, bytes_t item)
{
    bytes_t list, at;
    float *values = NULL;
    uint32_t count;
    int64_t index = (int64_t)place;

    if (mp_get(item, "index", &at) && !mp_int(at, &index))
        return bad(in, "has an index that is no number");
    if (index < 0 || (uint64_t)index >= in->count || in->seen[index])
        return bad(in, "has an index twice, or one that was not asked for");
    if (!mp_get(item, "embedding", &list))
        return bad(in, "has no embedding in an entry of data");
    err_t err = hear_embedding(in, list, &values, &count);
    if (err_is(err))
        return err;
    if (!in->dims) {
        in->dims = count;
        in->vectors = ARENA_ARRAY(in->arena, float, in->count * in->dims);
    }
    if (count != in->dims)
        return bad(in, "has vectors of several dimensions");
    in->seen[index] = true;
    return normalise(in, values, in->vectors + (size_t)index * in->dims);
}

err_t endpoint_read(arena_t *arena, bytes_t body, size_t count, float **vectors, uint32_t *dims)
{
    hearing_t in = {.arena = arena, .count = count, .seen = ARENA_ARRAY(arena, bool, count + 1)};
    bytes_t map, data, item;
    mp_value_t head;
    err_t err = json_to_msgpack(arena, (const char *)body.data, body.size, NULL, &map);

    if (err_is(err))
        return err_make(arena, ERR_PARSE, "the embedding endpoint's answer is no JSON: %s",
                        err_what(err));
    if (!mp_get(map, "data", &data))
        return bad(&in, "has no data");
    mp_reader_t reader = mp_reader(data);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY || head.count != count)
        return bad(&in, "has not one vector for each text");
    for (size_t i = 0; i < count && !err_is(err); i++)
        err = mp_slice(&reader, &item) ? hear_one(&in, i, item) : bad(&in, "is cut off");
    *vectors = in.vectors;
    *dims = in.dims;
    return err;
}

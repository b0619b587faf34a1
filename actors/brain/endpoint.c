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

static err_t hear_numbers(hearing_t *in, bytes_t list, float *vector)
{
    mp_reader_t reader = mp_reader(list);
    mp_value_t head;
    bytes_t item;
    double sum = 0, value;

    if (!mp_read(&reader, &head))
        return bad(in, "has no numbers");
    for (uint32_t i = 0; i < in->dims; i++) {
        if (!mp_slice(&reader, &item) || !mp_real(item, &value) || !isfinite((float)value))
            return bad(in, "has something in a vector that is no finite number");
        vector[i] = (float)value;
        sum += value * value;
    }
    if (!(sum > 0) || !isfinite(sum))
        return bad(in, "has a vector without length");
    for (uint32_t i = 0; i < in->dims; i++)
        vector[i] = (float)(vector[i] / sqrt(sum));
    return err_ok();
}

static err_t hear_one(hearing_t *in, size_t place, bytes_t item)
{
    bytes_t list, at;
    mp_reader_t reader;
    mp_value_t head;
    int64_t index = (int64_t)place;

    if (mp_get(item, "index", &at) && !mp_int(at, &index))
        return bad(in, "has an index that is no number");
    if (index < 0 || (uint64_t)index >= in->count || in->seen[index])
        return bad(in, "has an index twice, or one that was not asked for");
    if (!mp_get(item, "embedding", &list))
        return bad(in, "has no embedding in an entry of data");
    reader = mp_reader(list);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY || !head.count ||
        head.count > INDEX_DIMS_MAX)
        return bad(in, "has an embedding that is no list of 1 to 8192 numbers");
    if (!in->dims) {
        in->dims = head.count;
        in->vectors = ARENA_ARRAY(in->arena, float, in->count * in->dims);
    }
    if (head.count != in->dims)
        return bad(in, "has vectors of several dimensions");
    in->seen[index] = true;
    return hear_numbers(in, list, in->vectors + (size_t)index * in->dims);
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

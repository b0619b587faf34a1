#include "actors/brain/meta.h"

#include <stdio.h>
#include <string.h>

#include "actors/brain/embedder.h"
#include "actors/brain/endpoint.h"
#include "actors/brain/words.h"

RECORD_DEFINE(meta_config, meta_config_FIELDS)

static bytes_t key_of(const char *name)
{
    return (bytes_t){(const uint8_t *)name, strlen(name)};
}

err_t meta_config(brain_t *self, store_txn_t *txn, arena_t *arena, meta_config_t *out)
{
    bytes_t value;
    err_t err = store_get(txn, TABLE_meta, key_of("config"), &value);

    (void)self;
    if (err_is(err))
        return err;
    value.data = arena_copy(arena, value.data, value.size);
    err = record_decode(&meta_config_record, value, arena, "stored field", out);
    if (!err_is(err) && out->words_version != WORDS_VERSION)
        return err_of(ERR_VERSION, "the words index is being made anew by this version's rules: "
                                   "try again in a while; brain_stat says how far it is");
    return err;
}

err_t meta_put_config(store_txn_t *txn, arena_t *arena, const meta_config_t *config)
{
    buf_t out;

    buf_open(&out, arena);
    record_encode(&meta_config_record, config, &out);
    return store_put(txn, TABLE_meta, key_of("config"), buf_bytes(&out));
}

err_t meta_open(brain_t *self, store_txn_t *txn, arena_t *arena, meta_config_t *out)
{
    err_t err = meta_config(self, txn, arena, out);

    if (err.code != ERR_NOT_FOUND)
        return err;
    const char *language = self->settings->language;
    uint32_t dims = (uint32_t)self->settings->dims;
    *out = (meta_config_t){.words_version = WORDS_VERSION,
                           .language = language,
                           .model = embedder_name(arena, dims, language),
                           .model_number = 1,
                           .dims = dims};
    err = meta_put_config(txn, arena, out);
    if (err_is(err) || !self->settings->embed_url)
        return err;
    meta_fill_t fill = meta_fill_wanted(self, arena, language);
    fill.number = 2;
    return meta_put_fill(txn, &fill);
}

bool meta_fill(store_txn_t *txn, meta_fill_t *out)
{
    bytes_t value;

    if (err_is(store_get(txn, TABLE_meta, key_of("fill"), &value)) || value.size != sizeof *out)
        return false;
    memcpy(out, value.data, sizeof *out);
    return true;
}

err_t meta_put_fill(store_txn_t *txn, const meta_fill_t *fill)
{
    if (fill)
        return store_put(txn, TABLE_meta, key_of("fill"),
                         (bytes_t){(const uint8_t *)fill, sizeof *fill});
    err_t err = store_del(txn, TABLE_meta, key_of("fill"));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

meta_fill_t meta_fill_wanted(brain_t *self, arena_t *arena, const char *language)
{
    meta_fill_t fill;
    bool endpoint = self->settings->embed_url != NULL;
    uint32_t dims = endpoint ? 0 : (uint32_t)self->settings->dims;

    memset(&fill, 0, sizeof fill); /* also what lies between the fields: it is stored */
    fill.dims = dims;
    snprintf(fill.model, sizeof fill.model, "%s",
             endpoint ? endpoint_model(arena, self->settings->embed_model)
                      : embedder_name(arena, dims, language));
    return fill;
}

void meta_counts(store_txn_t *txn, meta_counts_t *out)
{
    bytes_t value;

    *out = (meta_counts_t){.next_number = 1};
    if (!err_is(store_get(txn, TABLE_meta, key_of("counts"), &value)) && value.size == sizeof *out)
        memcpy(out, value.data, sizeof *out);
}

err_t meta_put_counts(store_txn_t *txn, const meta_counts_t *counts)
{
    return store_put(txn, TABLE_meta, key_of("counts"),
                     (bytes_t){(const uint8_t *)counts, sizeof *counts});
}

bool meta_rebuild(store_txn_t *txn, meta_rebuild_t *out)
{
    bytes_t value;

    if (err_is(store_get(txn, TABLE_meta, key_of("rebuild"), &value)) || value.size != sizeof *out)
        return false;
    memcpy(out, value.data, sizeof *out);
    return true;
}

err_t meta_put_rebuild(store_txn_t *txn, const meta_rebuild_t *rebuild)
{
    if (rebuild)
        return store_put(txn, TABLE_meta, key_of("rebuild"),
                         (bytes_t){(const uint8_t *)rebuild, sizeof *rebuild});
    err_t err = store_del(txn, TABLE_meta, key_of("rebuild"));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

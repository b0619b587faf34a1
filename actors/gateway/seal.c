#include "actors/gateway/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "bus/digest.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

enum { SEAL_TEXT_MOST = 1 << 20, TAG_TEXT = 43 };

/* ---- The key ---- */

static err_t read_key(const char *path, arena_t *arena, seal_t *out, bool *absent)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *absent = fd < 0 && errno == ENOENT;
    if (fd < 0)
        return err_make(arena, ERR_IO, "cannot read the key %s: %s", path, strerror(errno));
    ssize_t size = read(fd, out->key, SEAL_KEY);
    close(fd);
    if (size == SEAL_KEY)
        return err_ok();
    return err_make(arena, ERR_ARGUMENT, "%s is no key: it must hold %d random bytes", path,
                    SEAL_KEY);
}

/* The whole file appears at once under its name, or somebody else's does. */
static err_t make_key(const char *path, const uint8_t *fresh, arena_t *arena)
{
    const char *draft =
        arena_printf(arena, "%s.%02x%02x%02x%02x", path, fresh[0], fresh[1], fresh[2], fresh[3]);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool fine = fd >= 0 && write(fd, fresh, SEAL_KEY) == SEAL_KEY && !fsync(fd);
    if (fd >= 0)
        close(fd);
    if (fine && link(draft, path) && errno != EEXIST)
        fine = false;
    int error = errno;
    unlink(draft);
    return fine ? err_ok()
                : err_make(arena, ERR_IO, "cannot make the key %s: %s", path, strerror(error));
}

err_t seal_open(const char *path, const uint8_t fresh[SEAL_KEY], arena_t *arena, seal_t *out)
{
    bool absent;
    err_t err = read_key(path, arena, out, &absent);
    if (!absent)
        return err;
    err = make_key(path, fresh, arena);
    return err_is(err) ? err : read_key(path, arena, out, &absent);
}

/* ---- Base64url without padding, RFC 4648 §5 ---- */

static void put_base64(buf_t *out, bytes_t bytes)
{
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t bits = (uint32_t)bytes.data[i] << 16;
        if (left > 1)
            bits |= (uint32_t)bytes.data[i + 1] << 8;
        if (left > 2)
            bits |= bytes.data[i + 2];
        char four[4];
        for (int j = 0; j < 4; j++)
            four[j] = alphabet[bits >> (18 - 6 * j) & 63];
        buf_put(out, four, left > 2 ? 4 : left + 1);
    }
}

bool seal_base64(arena_t *arena, const char *text, size_t size, bytes_t *out)
{
    uint8_t *data = arena_alloc(arena, size / 4 * 3 + 4);
    size_t at = 0;
    uint32_t bits = 0;
    if (size % 4 == 1)
        return false;
    for (size_t i = 0; i < size; i++) {
        const char *digit = text[i] ? strchr(alphabet, text[i]) : NULL;
        if (!digit)
            return false;
        bits = bits << 6 | (uint32_t)(digit - alphabet);
        if (i % 4 == 3) {
            data[at++] = (uint8_t)(bits >> 16);
            data[at++] = (uint8_t)(bits >> 8);
            data[at++] = (uint8_t)bits;
            bits = 0;
        }
    }
    if (size % 4 == 2)
        data[at++] = (uint8_t)(bits >> 4);
    if (size % 4 == 3) {
        data[at++] = (uint8_t)(bits >> 10);
        data[at++] = (uint8_t)(bits >> 2);
    }
    /* One text for each payload: the bits that are left over are zero. */
    if ((size % 4 == 2 && bits & 15) || (size % 4 == 3 && bits & 3))
        return false;
    *out = (bytes_t){data, at};
    return true;
}

/* ---- Sealing ---- */

static void tag_of(const seal_t *seal, arena_t *arena, const char *purpose, bytes_t payload,
                   uint8_t tag[DIGEST_BYTES])
{
    buf_t all;
    buf_open(&all, arena);
    buf_put(&all, purpose, strlen(purpose) + 1); /* the NUL parts them */
    buf_put(&all, payload.data, payload.size);
    digest_keyed((bytes_t){seal->key, SEAL_KEY}, buf_bytes(&all), tag);
}

const char *seal_put(const seal_t *seal, arena_t *arena, const char *purpose, bytes_t payload)
{
    uint8_t tag[DIGEST_BYTES];
    buf_t out;
    tag_of(seal, arena, purpose, payload, tag);
    buf_open(&out, arena);
    put_base64(&out, payload);
    buf_puts(&out, ".");
    put_base64(&out, (bytes_t){tag, sizeof(tag)});
    return out.data;
}

bool seal_get(const seal_t *seal, arena_t *arena, const char *purpose, const char *text,
              bytes_t *payload)
{
    uint8_t tag[DIGEST_BYTES];
    bytes_t claimed;
    size_t size = strnlen(text, SEAL_TEXT_MOST + 1);
    const char *dot = size <= SEAL_TEXT_MOST ? strchr(text, '.') : NULL;
    if (!dot || strlen(dot + 1) != TAG_TEXT ||
        !seal_base64(arena, text, (size_t)(dot - text), payload) ||
        !seal_base64(arena, dot + 1, TAG_TEXT, &claimed) || claimed.size != DIGEST_BYTES)
        return false;
    tag_of(seal, arena, purpose, *payload, tag);
    return digest_same(tag, claimed.data);
}

#include "actors/gateway/jwt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/gateway/seal.h"
#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { FILE_LARGEST = 1 << 20, SLACK_S = 30, KEYS_MOST = 64 };

struct jwt {
    char *path, *issuer, *audience;
    struct timespec changed;
    arena_t *arena;
    bytes_t keys; /* msgpack array of JWKs */
};

/* ---- The set of keys ---- */

bool jwt_take_keys(jwt_t *jwt, bytes_t json)
{
    arena_t *arena = arena_new();
    bytes_t value, keys = {0};
    mp_type_t type;
    if (!err_is(json_to_msgpack(arena, (const char *)json.data, json.size, NULL, &value)))
        keys = mp_member(value, "keys");
    bool fine = keys.size && mp_type_of(keys, &type) && type == MP_ARRAY;
    if (fine) {
        arena_reset(jwt->arena);
        jwt->keys = (bytes_t){arena_copy(jwt->arena, keys.data, keys.size), keys.size};
    }
    arena_destroy(&arena);
    return fine;
}

static err_t load(jwt_t *jwt, arena_t *arena)
{
    struct stat info;
    char *text = arena_alloc(arena, FILE_LARGEST + 1);
    FILE *file = fopen(jwt->path, "r");
    if (!file || fstat(fileno(file), &info)) {
        if (file)
            fclose(file);
        return err_make(arena, ERR_ARGUMENT, "cannot read the keys in %s: %s", jwt->path,
                        strerror(errno));
    }
    size_t size = fread(text, 1, FILE_LARGEST + 1, file);
    fclose(file);
    if (!jwt_take_keys(jwt, (bytes_t){(const uint8_t *)text, size}))
        return err_make(arena, ERR_ARGUMENT, "%s is no set of keys: {\"keys\":[…]} is wanted",
                        jwt->path);
    jwt->changed = info.st_mtim;
    return err_ok();
}

/* A file that makes no sense just now leaves the keys as they were. */
static void reload(jwt_t *jwt)
{
    struct stat info;
    if (!jwt->path || stat(jwt->path, &info) ||
        (info.st_mtim.tv_sec == jwt->changed.tv_sec &&
         info.st_mtim.tv_nsec == jwt->changed.tv_nsec))
        return;
    arena_t *arena = arena_new();
    load(jwt, arena);
    arena_destroy(&arena);
}

err_t jwt_open(const char *path, const char *issuer, const char *audience, arena_t *arena,
               jwt_t **out)
{
    jwt_t *jwt = calloc(1, sizeof(*jwt));
    if (!jwt || (path && !(jwt->path = strdup(path))) || !(jwt->issuer = strdup(issuer)) ||
        !(jwt->audience = strdup(audience)))
        abort();
    jwt->arena = arena_new();
    *out = jwt;
    err_t err = path ? load(jwt, arena) : err_ok();
    if (err_is(err))
        jwt_close(out);
    return err;
}

void jwt_close(jwt_t **handle)
{
    jwt_t *jwt = *handle;
    if (!jwt)
        return;
    arena_destroy(&jwt->arena);
    free(jwt->path);
    free(jwt->issuer);
    free(jwt->audience);
    free(jwt);
    *handle = NULL;
}

/* ---- The signature ---- */

static bool number_of(arena_t *arena, bytes_t key, const char *name, bytes_t *out)
{
    const char *text = mp_member_text(arena, key, name);
    return text && seal_base64(arena, text, strlen(text), out);
}

/* The kind of the key says how; what the token claims must agree. */
static bool signed_by(arena_t *arena, bytes_t key, const char *algorithm, bytes_t message,
                      bytes_t signature)
{
    bytes_t one, two;
    const char *kind = mp_member_text(arena, key, "kty"), *use = mp_member_text(arena, key, "use");
    const char *only = mp_member_text(arena, key, "alg");
    if (!kind || (use && strcmp(use, "sig") != 0) || (only && strcmp(only, algorithm) != 0))
        return false;
    if (!strcmp(kind, "RSA") && !strcmp(algorithm, "RS256"))
        return number_of(arena, key, "n", &one) && number_of(arena, key, "e", &two) &&
               digest_signed_rsa(one, two, message, signature);
    const char *curve = mp_member_text(arena, key, "crv");
    return !strcmp(kind, "EC") && !strcmp(algorithm, "ES256") && curve && !strcmp(curve, "P-256") &&
           number_of(arena, key, "x", &one) && number_of(arena, key, "y", &two) &&
           digest_signed_p256(one, two, message, signature);
}

static bool knows_key(const jwt_t *jwt, const char *id)
{
    bytes_t key;
    for (uint32_t i = 0; i < KEYS_MOST && mp_at(jwt->keys, i, &key); i++)
        if (mp_equals(mp_member(key, "kid"), id))
            return true;
    return false;
}

static bool signed_by_any(const jwt_t *jwt, arena_t *arena, bytes_t head, bytes_t message,
                          bytes_t signature)
{
    const char *algorithm = mp_member_text(arena, head, "alg"),
               *id = mp_member_text(arena, head, "kid");
    bytes_t key;
    if (!algorithm || mp_member(head, "crit").size)
        return false;
    for (uint32_t i = 0; i < KEYS_MOST && mp_at(jwt->keys, i, &key); i++) {
        const char *name = mp_member_text(arena, key, "kid");
        if (id && name && strcmp(id, name) != 0)
            continue;
        if (signed_by(arena, key, algorithm, message, signature))
            return true;
    }
    return false;
}

/* ---- The claims ---- */

static bool is_for(bytes_t audience, const char *wanted)
{
    bytes_t item;
    if (!audience.size)
        return false;
    if (mp_equals(audience, wanted))
        return true;
    for (uint32_t i = 0; mp_at(audience, i, &item); i++)
        if (mp_equals(item, wanted))
            return true;
    return false;
}

static const char *claims_wrong(const jwt_t *jwt, bytes_t claims, int64_t now_s)
{
    double until, from;
    if (!mp_equals(mp_member(claims, "iss"), jwt->issuer))
        return "the token is of another issuer";
    if (!is_for(mp_member(claims, "aud"), jwt->audience))
        return "the token is for another audience";
    if (!mp_real(mp_member(claims, "exp"), &until) || (double)now_s > until + SLACK_S)
        return "the token has expired";
    if (mp_member(claims, "nbf").size &&
        (!mp_real(mp_member(claims, "nbf"), &from) || (double)now_s < from - SLACK_S))
        return "the token is not valid yet";
    return NULL;
}

static bool has_scope(const char *scopes, const char *wanted)
{
    size_t size = strlen(wanted);
    for (const char *at = scopes; (at = strstr(at, wanted)); at += size)
        if ((at == scopes || at[-1] == ' ') && (!at[size] || at[size] == ' '))
            return true;
    return false;
}

static bool role_of(const char *scopes, role_t *out)
{
    static const struct {
        const char *scope;
        role_t role;
    } rows[] = {{"agency:admin", ROLE_ADMIN},
                {"agency:operate", ROLE_OPERATOR},
                {"agency:read", ROLE_READER}};
    for (int i = 0; scopes && i < 3; i++)
        if (has_scope(scopes, rows[i].scope)) {
            *out = rows[i].role;
            return true;
        }
    return false;
}

/* A claim that is a list of names, or a single one. */
static strs_t names_of(arena_t *arena, bytes_t list)
{
    enum { MOST = 256 };
    bytes_t item;
    const char **names = ARENA_ARRAY(arena, const char *, MOST);
    strs_t out = {names, 0};
    if (!list.size)
        return out;
    if ((names[0] = mp_text(arena, list)))
        return (strs_t){names, 1};
    for (uint32_t i = 0; i < MOST && mp_at(list, i, &item); i++)
        if ((names[out.count] = mp_text(arena, item)))
            out.count++;
    return out;
}

static void read_companies(arena_t *arena, bytes_t claims, principal_t *out)
{
    bytes_t list = mp_member(claims, "companies"), toolsets = mp_member(claims, "toolsets");
    out->any_company = list.size && mp_equals(list, "*");
    if (!out->any_company)
        out->companies = names_of(arena, list);
    out->has_toolsets = toolsets.size > 0;
    out->toolsets = names_of(arena, toolsets);
}

/* ---- Checking ---- */

static bool part(arena_t *arena, const char *text, size_t size, bytes_t *out)
{
    bytes_t json;
    return seal_base64(arena, text, size, &json) &&
           !err_is(json_to_msgpack(arena, (const char *)json.data, json.size, NULL, out));
}

jwt_verdict_t jwt_check(jwt_t *jwt, arena_t *arena, const char *token, int64_t now_ms,
                        principal_t *out, const char **why)
{
    bytes_t head, claims, signature;
    double until = 0;
    *out = (principal_t){0};
    *why = "the bearer token is not known";
    reload(jwt);
    size_t size = strnlen(token, JWT_LARGEST + 1);
    const char *one = strchr(token, '.'), *two = one ? strchr(one + 1, '.') : NULL;
    if (size > JWT_LARGEST || !two || !part(arena, token, (size_t)(one - token), &head) ||
        !seal_base64(arena, two + 1, strlen(two + 1), &signature))
        return JWT_REFUSED;
    bytes_t message = {(const uint8_t *)token, (size_t)(two - token)};
    if (!signed_by_any(jwt, arena, head, message, signature)) {
        const char *id = mp_member_text(arena, head, "kid");
        bool unknown = (!jwt->keys.size || (id && !knows_key(jwt, id))) &&
                       part(arena, one + 1, (size_t)(two - one - 1), &claims) &&
                       mp_equals(mp_member(claims, "iss"), jwt->issuer);
        *why = "the token is not signed by a key that is known here";
        return unknown ? JWT_NO_KEY : JWT_REFUSED;
    }
    if (!part(arena, one + 1, (size_t)(two - one - 1), &claims))
        return JWT_REFUSED;
    *why = claims_wrong(jwt, claims, now_ms / 1000);
    if (*why)
        return JWT_REFUSED;
    const char *subject = mp_member_text(arena, claims, "sub");
    if (!subject || !*subject || strlen(subject) > 120) {
        *why = "the token names no subject";
        return JWT_REFUSED;
    }
    mp_real(mp_member(claims, "exp"), &until);
    out->expires_ms = until + SLACK_S < 9e12 ? (int64_t)((until + SLACK_S) * 1000) : 0;
    /* Never the same name as a token of the file or the local user. */
    out->name = arena_printf(arena, "oauth:%s", subject);
    read_companies(arena, claims, out);
    if (!out->any_company && !out->companies.count) {
        *why = "the token names no company: the claim companies is a list of names, or \"*\"";
        return JWT_REFUSED;
    }
    if (role_of(mp_member_text(arena, claims, "scope"), &out->role))
        return JWT_FINE;
    *why = "the token has none of the scopes agency:read, agency:operate, agency:admin";
    return JWT_NO_SCOPE;
}

/* jwt: bearer tokens of an authorisation server (RFC 7519), checked against its public keys.
 *
 * A token is let in when it is signed with RS256 or ES256 by a key of the set, is of this issuer,
 * for this audience, and neither too old nor too young (half a minute of slack). Nothing in the
 * token chooses how it is checked: the kind of the key does. Claims: sub names the principal;
 * scope holds agency:read, agency:operate or agency:admin; companies is a list of names, or "*".
 * The set (RFC 7517) is a file, read again when it changes, or given by jwt_take_keys. Thread: one
 * owner. */
#ifndef ACTORS_GATEWAY_JWT_H
#define ACTORS_GATEWAY_JWT_H

#include "actors/gateway/tokens.h"

enum { JWT_LARGEST = 16384 };

typedef struct jwt jwt_t;

/* `path` NULL: keys come by jwt_take_keys. ERR_ARGUMENT names the file and what is wrong with it.
 */
err_t jwt_open(const char *path, const char *issuer, const char *audience, arena_t *arena,
               jwt_t **out);
void jwt_close(jwt_t **jwt);

/* A set of keys as JSON; false: it is none, and what was known stays. */
bool jwt_take_keys(jwt_t *jwt, bytes_t json);

/* JWT_NO_KEY: of this issuer, but it names a key that is not in the set. */
typedef enum jwt_verdict { JWT_FINE, JWT_REFUSED, JWT_NO_SCOPE, JWT_NO_KEY } jwt_verdict_t;

/* `out` and the sentence `why` live in the arena. */
jwt_verdict_t jwt_check(jwt_t *jwt, arena_t *arena, const char *token, int64_t now_ms,
                        principal_t *out, const char **why);

#endif

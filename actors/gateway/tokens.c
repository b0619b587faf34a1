#include "actors/gateway/tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bus/digest.h"

enum { HEX = 64, TROUBLE = 1024 };

typedef struct token {
    char digest[HEX + 1];
    principal_t principal;
} token_t;

struct tokens {
    char *path;
    arena_t *arena;
    token_t *list;
    size_t count, capacity;
    struct timespec changed;
    const char *const *pillars;
    size_t pillar_count;
    uint64_t version;
    char trouble[TROUBLE]; /* with the file as it was last read; "": none */
    bool told;
};

static strs_t copy_list(arena_t *arena, strs_t list)
{
    const char **items = ARENA_ARRAY(arena, const char *, list.count + 1);
    for (size_t i = 0; i < list.count; i++)
        items[i] = arena_strdup(arena, list.items[i]);
    return (strs_t){items, list.count};
}

principal_t principal_copy(arena_t *arena, const principal_t *principal)
{
    principal_t copy = *principal;
    copy.name = arena_strdup(arena, principal->name);
    copy.companies = copy_list(arena, principal->companies);
    copy.toolsets = copy_list(arena, principal->toolsets);
    copy.digest = principal->digest ? arena_strdup(arena, principal->digest) : NULL;
    return copy;
}

bool principal_may(const principal_t *principal, const char *company)
{
    if (principal->any_company)
        return frame_company_name(company);
    for (size_t i = 0; i < principal->companies.count; i++)
        if (!strcmp(principal->companies.items[i], company))
            return true;
    return false;
}

static err_t bad(arena_t *arena, const tokens_t *tokens, int line, const char *what)
{
    return err_make(arena, ERR_ARGUMENT,
                    "%s, line %d: %s; write: sha256:<64 hex digits> companies=a,b|* "
                    "role=reader|operator|admin name=NAME, and perhaps toolsets=PILLAR,...",
                    tokens->path, line, what);
}

static bool parse_role(const char *text, role_t *role)
{
    for (int i = 0; role_names[i]; i++)
        if (!strcmp(role_names[i], text)) {
            *role = (role_t)i;
            return true;
        }
    return false;
}

static const char *parse_companies(tokens_t *tokens, char *text, principal_t *principal)
{
    if (!strcmp(text, "*")) {
        principal->any_company = true;
        return NULL;
    }
    size_t count = 1;
    for (const char *at = text; *at; at++)
        count += *at == ',';
    const char **items = ARENA_ARRAY(tokens->arena, const char *, count);
    char *state;
    count = 0;
    for (char *name = strtok_r(text, ",", &state); name; name = strtok_r(NULL, ",", &state)) {
        if (!frame_company_name(name))
            return "a company name is not valid";
        items[count++] = arena_strdup(tokens->arena, name);
    }
    principal->companies = (strs_t){items, count};
    return count ? NULL : "companies= names none";
}

static bool is_pillar(const tokens_t *tokens, const char *name)
{
    for (size_t i = 0; i < tokens->pillar_count; i++)
        if (!strcmp(tokens->pillars[i], name))
            return true;
    return false;
}

static const char *parse_toolsets(tokens_t *tokens, char *text, principal_t *principal)
{
    char *state;
    const char **items = ARENA_ARRAY(tokens->arena, const char *, tokens->pillar_count + 1);
    size_t count = 0;
    for (char *name = strtok_r(text, ",", &state); name; name = strtok_r(NULL, ",", &state)) {
        if (!is_pillar(tokens, name))
            return arena_printf(tokens->arena, "toolsets= names '%.40s', which is no pillar", name);
        if (count == tokens->pillar_count)
            return "toolsets= names one twice";
        items[count++] = arena_strdup(tokens->arena, name);
    }
    principal->has_toolsets = true;
    principal->toolsets = (strs_t){items, count};
    return count ? NULL : "toolsets= names none";
}

static const char *parse_word(tokens_t *tokens, char *word, token_t *token)
{
    principal_t *principal = &token->principal;
    if (!strncmp(word, "sha256:", 7)) {
        if (strlen(word + 7) != HEX || strspn(word + 7, "0123456789abcdef") != HEX)
            return "sha256: needs 64 lower-case hex digits";
        memcpy(token->digest, word + 7, HEX + 1);
        return NULL;
    }
    if (!strncmp(word, "companies=", 10))
        return parse_companies(tokens, word + 10, principal);
    if (!strncmp(word, "toolsets=", 9))
        return parse_toolsets(tokens, word + 9, principal);
    if (!strncmp(word, "role=", 5))
        return parse_role(word + 5, &principal->role) ? NULL
                                                      : "role= must be reader, operator or admin";
    if (!strncmp(word, "name=", 5) && word[5]) {
        principal->name = arena_strdup(tokens->arena, word + 5);
        return NULL;
    }
    return "a word is not understood";
}

static err_t parse_line(tokens_t *tokens, char *line, int number, arena_t *arena)
{
    line[strcspn(line, "#\r\n")] = '\0';
    char *state, *word = strtok_r(line, " \t", &state);
    if (!word)
        return err_ok();
    token_t token = {.digest = ""};
    for (; word; word = strtok_r(NULL, " \t", &state)) {
        const char *wrong = parse_word(tokens, word, &token);
        if (wrong)
            return bad(arena, tokens, number, wrong);
    }
    if (!*token.digest || !token.principal.name ||
        (!token.principal.any_company && !token.principal.companies.count))
        return bad(arena, tokens, number, "sha256:, companies= and name= are needed");
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? tokens->capacity * 2 : 16;
        token_t *grown = ARENA_ARRAY(tokens->arena, token_t, capacity);
        if (tokens->count)
            memcpy(grown, tokens->list, tokens->count * sizeof(token_t));
        tokens->list = grown;
        tokens->capacity = capacity;
    }
    tokens->list[tokens->count++] = token;
    return err_ok();
}

static err_t load(tokens_t *tokens, arena_t *arena)
{
    struct stat info;
    FILE *file = fopen(tokens->path, "r");
    if (!file || fstat(fileno(file), &info)) {
        if (file)
            fclose(file);
        return err_make(arena, ERR_ARGUMENT, "cannot read the tokens in %s: %s", tokens->path,
                        strerror(errno));
    }
    tokens->changed = info.st_mtim;
    tokens->list = NULL;
    tokens->count = tokens->capacity = 0;
    arena_reset(tokens->arena);
    char line[4096];
    err_t err = err_ok();
    for (int number = 1; !err_is(err) && fgets(line, sizeof(line), file); number++)
        err = parse_line(tokens, line, number, arena);
    fclose(file);
    if (err_is(err))
        tokens->count = 0; /* half a file lets nobody in */
    for (size_t i = 0; i < tokens->count; i++)
        tokens->list[i].principal.digest = tokens->list[i].digest;
    tokens->version++;
    return err;
}

err_t tokens_open(const char *path, const char *const *pillars, size_t pillar_count, arena_t *arena,
                  tokens_t **out)
{
    tokens_t *tokens = calloc(1, sizeof(*tokens));
    if (!tokens || !(tokens->path = strdup(path)))
        abort();
    tokens->arena = arena_new();
    tokens->pillars = pillars;
    tokens->pillar_count = pillar_count;
    *out = tokens;
    err_t err = load(tokens, arena);
    if (err_is(err))
        tokens_close(out);
    return err;
}

void tokens_close(tokens_t **handle)
{
    tokens_t *tokens = *handle;
    if (!tokens)
        return;
    arena_destroy(&tokens->arena);
    free(tokens->path);
    free(tokens);
    *handle = NULL;
}

static void reload(tokens_t *tokens)
{
    struct stat info;
    if (stat(tokens->path, &info) || (info.st_mtim.tv_sec == tokens->changed.tv_sec &&
                                      info.st_mtim.tv_nsec == tokens->changed.tv_nsec))
        return;
    arena_t *arena = arena_new();
    err_t err = load(tokens, arena);
    const char *what = !err_is(err) ? ""
                                    : arena_printf(arena, "%s; until it is right %s", err_what(err),
                                                   tokens->count ? "the tokens stay as they were"
                                                                 : "nobody is let in by this file");
    tokens->told = tokens->told && !strncmp(what, tokens->trouble, TROUBLE - 1);
    snprintf(tokens->trouble, TROUBLE, "%s", what);
    arena_destroy(&arena);
}

const char *tokens_trouble(tokens_t *tokens)
{
    if (!*tokens->trouble || tokens->told)
        return NULL;
    tokens->told = true;
    return tokens->trouble;
}

const principal_t *tokens_find(tokens_t *tokens, const char *token)
{
    reload(tokens);
    arena_t *arena = arena_new();
    const char *digest = digest_hex(arena, (bytes_t){(const uint8_t *)token, strlen(token)});
    const principal_t *found = NULL;
    for (size_t i = 0; i < tokens->count; i++) {
        unsigned differs = 0;
        for (int j = 0; j < HEX; j++)
            differs |= (unsigned)(digest[j] ^ tokens->list[i].digest[j]);
        if (!differs)
            found = &tokens->list[i].principal;
    }
    arena_destroy(&arena);
    return found;
}

uint64_t tokens_version(tokens_t *tokens)
{
    reload(tokens);
    return tokens->version;
}

static bool same_list(strs_t one, strs_t other)
{
    bool same = one.count == other.count;
    for (size_t i = 0; same && i < one.count; i++)
        same = !strcmp(one.items[i], other.items[i]);
    return same;
}

bool tokens_stand(const tokens_t *tokens, const principal_t *then)
{
    for (size_t i = 0; i < tokens->count; i++) {
        const principal_t *now = &tokens->list[i].principal;
        if (!strcmp(now->digest, then->digest))
            return !strcmp(now->name, then->name) && now->role == then->role &&
                   now->any_company == then->any_company &&
                   now->has_toolsets == then->has_toolsets &&
                   same_list(now->companies, then->companies) &&
                   same_list(now->toolsets, then->toolsets);
    }
    return false;
}

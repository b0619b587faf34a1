#include "bus/listfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/json.h"
#include "proto/mp.h"

enum { FILE_BYTES = 1 << 20 };

struct listfile {
    const listfile_kind_t *kind;
    char *path;
    bool looked, seen;
    struct timespec changed;
    off_t size;
    ino_t inode;
    char error[1024];
};

/* ---- Where in the text ---- */

static int line_of(const char *text, const char *at)
{
    int line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

static const char *past_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\' && at + 1 < end)
            at++;
    return at;
}

/* The object of rule `index`: the text is sound JSON, its rules lie at `depth` brackets. */
static const char *find_rule(const char *text, const char *end, int depth, size_t index,
                             const char **rule_end)
{
    const char *begin = text;
    size_t seen = 0;
    int open = 0;
    for (const char *at = text; at < end; at++) {
        if (*at == '"') {
            at = past_string(at, end);
        } else if (*at == '{' || *at == '[') {
            if (++open == depth)
                begin = at;
        } else if ((*at == '}' || *at == ']') && open-- == depth && seen++ == index) {
            *rule_end = at;
            return begin;
        }
    }
    *rule_end = end;
    return text;
}

/* Of the key that the sentence names first, or else of the rule. */
static int error_line(const record_t *record, const char *text, size_t size, int depth,
                      size_t index, const char *sentence)
{
    const char *end, *named = NULL, *place = NULL;
    const char *begin = find_rule(text, text + size, depth, index, &end);
    for (const field_t *field = record->fields(); field->name; field++) {
        char key[64];
        size_t length = (size_t)snprintf(key, sizeof(key), "\"%s\"", field->name);
        const char *said = strstr(sentence, field->name);
        const char *at = memmem(begin, (size_t)(end - begin), key, length);
        if (!said || !at || (named && said >= named))
            continue;
        named = said;
        place = at;
    }
    return line_of(text, place ? place : begin);
}

/* ---- Parsing ---- */

static err_t read_item(const listfile_kind_t *kind, const char *text, size_t size, int depth,
                       size_t index, bytes_t item, arena_t *arena, void *out)
{
    err_t err = record_decode(kind->record, item, arena, "member", out);
    if (!err_is(err) && kind->check)
        err = kind->check(out, arena);
    if (!err_is(err))
        return err;
    return err_make(arena, ERR_ARGUMENT, "line %d: rule %zu: %s",
                    error_line(kind->record, text, size, depth, index, err_what(err)), index + 1,
                    err_what(err));
}

err_t listfile_parse(const listfile_kind_t *kind, const char *text, size_t size, arena_t *arena,
                     record_list_t *out)
{
    bytes_t root, list, item;
    mp_type_t type;
    uint32_t count = 0;
    *out = (record_list_t){0};
    err_t err = json_to_msgpack(arena, text, size, NULL, &root);
    if (err_is(err))
        return err;
    bool wrapped = mp_get(root, "rules", &list);
    if (!wrapped)
        list = root;
    if (!mp_type_of(list, &type) || type != MP_ARRAY)
        return err_of(ERR_ARGUMENT, "line 1: this is no list of rules: write [{\"metric\": …}, …]");
    while (mp_at(list, count, &item))
        count++;
    if (count > kind->most)
        return err_make(arena, ERR_ARGUMENT, "there are more than %zu rules", kind->most);
    char *items = arena_alloc(arena, (count + 1) * kind->record->size);
    out->items = items;
    for (; out->count < count && !err_is(err); out->count++) {
        mp_at(list, (uint32_t)out->count, &item);
        err = read_item(kind, text, size, wrapped ? 3 : 2, out->count, item, arena,
                        items + out->count * kind->record->size);
    }
    return err;
}

/* ---- The file ---- */

listfile_t *listfile_new(const listfile_kind_t *kind, const char *path)
{
    listfile_t *file = calloc(1, sizeof(*file));
    if (!file || !(file->path = strdup(path)))
        abort();
    file->kind = kind;
    return file;
}

void listfile_destroy(listfile_t **handle)
{
    listfile_t *file = *handle;
    if (!file)
        return;
    free(file->path);
    free(file);
    *handle = NULL;
}

void listfile_refuse(listfile_t *file, const char *why)
{
    snprintf(file->error, sizeof(file->error), "%s: %s", file->path, why);
}

const char *listfile_error(const listfile_t *file)
{
    return *file->error ? file->error : NULL;
}

static err_t read_list(listfile_t *file, arena_t *arena, record_list_t *out)
{
    char *text = arena_alloc(arena, FILE_BYTES + 1);
    FILE *stream = fopen(file->path, "re");
    if (!stream)
        return err_make(arena, ERR_IO, "%s", strerror(errno));
    size_t size = fread(text, 1, FILE_BYTES + 1, stream);
    bool failed = ferror(stream);
    fclose(stream);
    if (failed)
        return err_of(ERR_IO, "it cannot be read");
    return size > FILE_BYTES ? err_of(ERR_TOO_LARGE, "the file is larger than 1 MiB")
                             : listfile_parse(file->kind, text, size, arena, out);
}

/* Is it another file than at the last look? */
static bool has_changed(listfile_t *file, const struct stat *now)
{
    if (file->seen && file->size == now->st_size && file->inode == now->st_ino &&
        !memcmp(&file->changed, &now->st_mtim, sizeof(file->changed)))
        return false;
    file->seen = true;
    file->size = now->st_size;
    file->inode = now->st_ino;
    file->changed = now->st_mtim;
    return true;
}

bool listfile_look(listfile_t *file, arena_t **arena, record_list_t *out)
{
    struct stat now;
    bool first = !file->looked;
    *out = (record_list_t){0};
    file->looked = true;
    if (stat(file->path, &now)) {
        bool gone = (file->seen || first) && errno == ENOENT;
        if (gone) {
            *arena = arena_new();
            *file->error = '\0';
        } else if (errno != ENOENT) {
            listfile_refuse(file, strerror(errno));
        }
        file->seen = false;
        return gone;
    }
    if (!has_changed(file, &now))
        return false;
    *arena = arena_new();
    err_t err = read_list(file, *arena, out);
    if (!err_is(err)) {
        *file->error = '\0';
        return true;
    }
    listfile_refuse(file, err_what(err));
    arena_destroy(arena);
    return false;
}

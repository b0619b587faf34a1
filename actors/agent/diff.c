#include "actors/agent/diff.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { CONTEXT = 3, CELLS_MOST = 1 << 20 };

/* Lines with their line ends; only the last one may lack it. */
typedef struct lines {
    const char **at;
    size_t *size;
    size_t count;
} lines_t;

static lines_t split(arena_t *arena, const char *text)
{
    lines_t lines = {0};
    size_t count = 1;
    for (const char *c = text; *c; c++)
        count += *c == '\n';
    lines.at = ARENA_ARRAY(arena, const char *, count);
    lines.size = ARENA_ARRAY(arena, size_t, count);
    while (*text) {
        size_t size = strcspn(text, "\n");
        size += text[size] == '\n';
        lines.at[lines.count] = text;
        lines.size[lines.count++] = size;
        text += size;
    }
    return lines;
}

static bool same(const lines_t *one, size_t i, const lines_t *other, size_t j)
{
    return one->size[i] == other->size[j] && !memcmp(one->at[i], other->at[j], one->size[i]);
}

/* ' ' in both, '-' only before, '+' only after. */
typedef struct op {
    char sign;
    size_t line; /* of before, or of after for '+' */
} op_t;

typedef struct script {
    const lines_t *a, *b;
    op_t *ops;
    size_t count;
} script_t;

static void add(script_t *script, char sign, size_t line)
{
    script->ops[script->count++] = (op_t){sign, line};
}

/* The part between the common beginning and end, by longest common subsequence. */
static void middle(arena_t *arena, script_t *script, size_t from, size_t a_end, size_t b_end)
{
    size_t n = a_end - from, m = b_end - from, i = 0, j = 0;
    if ((n + 1) * (m + 1) <= CELLS_MOST && n && m) {
        uint32_t *best = ARENA_ARRAY(arena, uint32_t, (n + 1) * (m + 1));
#define BEST(i, j) best[(i) * (m + 1) + (j)]
        for (size_t x = n; x-- > 0;)
            for (size_t y = m; y-- > 0;)
                BEST(x, y) = same(script->a, from + x, script->b, from + y) ? BEST(x + 1, y + 1) + 1
                             : BEST(x + 1, y) >= BEST(x, y + 1)             ? BEST(x + 1, y)
                                                                            : BEST(x, y + 1);
        while (i < n && j < m) {
            if (same(script->a, from + i, script->b, from + j)) {
                add(script, ' ', from + i++);
                j++;
            } else if (BEST(i + 1, j) >= BEST(i, j + 1)) {
                add(script, '-', from + i++);
            } else {
                add(script, '+', from + j++);
            }
        }
#undef BEST
    }
    while (i < n)
        add(script, '-', from + i++);
    while (j < m)
        add(script, '+', from + j++);
}

static void put_line(buf_t *out, char sign, const char *at, size_t size)
{
    buf_put(out, &sign, 1);
    buf_put(out, at, size);
    if (!size || at[size - 1] != '\n')
        buf_puts(out, "\n\\ No newline at end of file\n");
}

/* Ops from..to as one hunk; a and b are the lines before it. */
static void put_hunk(buf_t *out, const script_t *script, size_t from, size_t to, size_t a, size_t b)
{
    size_t old = 0, new = 0;
    for (size_t i = from; i < to; i++) {
        old += script->ops[i].sign != '+';
        new += script->ops[i].sign != '-';
    }
    buf_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", a + (old > 0), old, b + (new > 0), new);
    for (size_t i = from; i < to; i++) {
        const op_t *op = &script->ops[i];
        const lines_t *lines = op->sign == '+' ? script->b : script->a;
        put_line(out, op->sign, lines->at[op->line], lines->size[op->line]);
    }
}

static void put_hunks(buf_t *out, const script_t *script)
{
    size_t a = 0, b = 0, at = 0; /* lines before ops[at] */
    for (size_t i = 0; i < script->count;) {
        if (script->ops[i].sign == ' ') {
            i++;
            continue;
        }
        size_t from = i > at + CONTEXT ? i - CONTEXT : at, to = i, quiet = 0;
        for (; to < script->count && quiet <= 2 * CONTEXT; to++)
            quiet = script->ops[to].sign == ' ' ? quiet + 1 : 0;
        to -= quiet > CONTEXT ? quiet - CONTEXT : 0;
        for (; at < from; at++, a++, b++)
            ;
        put_hunk(out, script, from, to, a, b);
        for (; at < to; at++) {
            a += script->ops[at].sign != '+';
            b += script->ops[at].sign != '-';
        }
        i = to;
    }
}

const char *diff_make(arena_t *arena, const char *before, const char *after, const char *from,
                      const char *to)
{
    lines_t a = split(arena, before), b = split(arena, after);
    size_t head = 0, a_end = a.count, b_end = b.count;
    if (!strcmp(before, after))
        return "";
    script_t script = {.a = &a, .b = &b, .ops = ARENA_ARRAY(arena, op_t, a.count + b.count + 1)};
    while (head < a_end && head < b_end && same(&a, head, &b, head))
        head++;
    while (a_end > head && b_end > head && same(&a, a_end - 1, &b, b_end - 1))
        a_end--, b_end--;
    for (size_t i = 0; i < head; i++)
        add(&script, ' ', i);
    middle(arena, &script, head, a_end, b_end);
    for (size_t i = a_end; i < a.count; i++)
        add(&script, ' ', i);
    buf_t out;
    buf_open(&out, arena);
    buf_printf(&out, "--- %s\n+++ %s\n", from, to);
    put_hunks(&out, &script);
    return out.data;
}

/* ---- patches ------------------------------------------------------------------------------ */

static const char *path_of(arena_t *arena, const char *line, size_t size)
{
    size_t end = 4;
    while (end < size && line[end] != '\n' && line[end] != '\t' && line[end] != '\r')
        end++;
    const char *path = arena_strndup(arena, line + 4, end - 4);
    return !strncmp(path, "a/", 2) || !strncmp(path, "b/", 2) ? path + 2 : path;
}

err_t diff_split(arena_t *arena, const char *patch, diff_file_t *files, size_t most, size_t *count)
{
    lines_t lines = split(arena, patch);
    buf_t hunks;
    *count = 0;
    for (size_t i = 0; i < lines.count; i++) {
        bool head = lines.size[i] > 4 && !strncmp(lines.at[i], "--- ", 4) && i + 1 < lines.count &&
                    lines.size[i + 1] > 4 && !strncmp(lines.at[i + 1], "+++ ", 4);
        if (head && *count == most)
            return err_make(arena, ERR_ARGUMENT, "a patch has at most %zu files", most);
        if (head) {
            buf_open(&hunks, arena);
            i++;
            files[(*count)++] = (diff_file_t){path_of(arena, lines.at[i], lines.size[i]), ""};
        } else if (*count) {
            buf_put(&hunks, lines.at[i], lines.size[i]);
            files[*count - 1].hunks = hunks.data;
        }
    }
    return *count ? err_ok()
                  : err_of(ERR_ARGUMENT, "patch is no unified diff: it needs lines --- FILE, +++ "
                                         "FILE and @@ -1,2 +1,3 @@");
}

/* One hunk: the lines it wants and those it gives. */
typedef struct hunk {
    lines_t old, new;
    size_t at; /* where it says it begins, from 0 */
} hunk_t;

static bool no_end(const lines_t *lines, size_t i)
{
    return i < lines->count && lines->at[i][0] == '\\';
}

static void keep(lines_t *to, const lines_t *from, size_t i)
{
    bool cut = no_end(from, i + 1) && from->at[i][from->size[i] - 1] == '\n';
    bool blank = from->at[i][0] == '\n'; /* a context line whose space was lost */
    to->at[to->count] = from->at[i] + !blank;
    to->size[to->count++] = from->size[i] - !blank - cut;
}

static bool read_hunk(arena_t *arena, const lines_t *lines, size_t *i, hunk_t *hunk)
{
    unsigned long at;
    if (sscanf(lines->at[*i], "@@ -%lu", &at) != 1)
        return false;
    hunk->at = at ? at - 1 : 0;
    hunk->old = (lines_t){ARENA_ARRAY(arena, const char *, lines->count),
                          ARENA_ARRAY(arena, size_t, lines->count), 0};
    hunk->new = (lines_t){ARENA_ARRAY(arena, const char *, lines->count),
                          ARENA_ARRAY(arena, size_t, lines->count), 0};
    for ((*i)++; *i < lines->count && lines->at[*i][0] != '@'; (*i)++) {
        char sign = lines->at[*i][0];
        if (sign == '\\')
            continue;
        if (!strchr(" -+\n", sign))
            return false;
        if (sign != '+')
            keep(&hunk->old, lines, *i);
        if (sign != '-')
            keep(&hunk->new, lines, *i);
    }
    return hunk->old.count + hunk->new.count > 0;
}

static bool fits(const lines_t *base, size_t at, const lines_t *old)
{
    if (at + old->count > base->count)
        return false;
    for (size_t i = 0; i < old->count; i++)
        if (!same(base, at + i, old, i))
            return false;
    return true;
}

/* The place nearest to where it says, not before `from`. */
static bool find(const lines_t *base, const hunk_t *hunk, size_t from, size_t *at)
{
    for (size_t away = 0; away <= base->count; away++) {
        if (hunk->at + away <= base->count && hunk->at + away >= from &&
            fits(base, hunk->at + away, &hunk->old))
            return *at = hunk->at + away, true;
        if (hunk->at >= from + away && fits(base, hunk->at - away, &hunk->old))
            return *at = hunk->at - away, true;
    }
    return false;
}

err_t diff_apply(arena_t *arena, const char *base, const char *hunks, const char **out)
{
    lines_t have = split(arena, base), lines = split(arena, hunks);
    size_t done = 0, i = 0, at;
    buf_t text;
    buf_open(&text, arena);
    while (i < lines.count) {
        hunk_t hunk;
        size_t began = i;
        if (!read_hunk(arena, &lines, &i, &hunk))
            return err_make(arena, ERR_ARGUMENT, "line %zu of the patch cannot be read", began + 1);
        if (!find(&have, &hunk, done, &at))
            return err_make(arena, ERR_ARGUMENT,
                            "the change at line %zu of the patch does not fit the text as it is "
                            "now: make it anew from the current version",
                            began + 1);
        for (; done < at; done++)
            buf_put(&text, have.at[done], have.size[done]);
        for (size_t k = 0; k < hunk.new.count; k++)
            buf_put(&text, hunk.new.at[k], hunk.new.size[k]);
        done += hunk.old.count;
    }
    for (; done < have.count; done++)
        buf_put(&text, have.at[done], have.size[done]);
    *out = text.data ? text.data : "";
    return err_ok();
}

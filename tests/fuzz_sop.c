/* Any bytes as a procedure: no crash, an error or steps, and every step can be filled in. */
#include <stdlib.h>
#include <string.h>

#include "actors/agent/sop.h"
#include "actors/agent/values.h"
#include "proto/mp.h"

/* The input of the run: the text itself, so that references find odd values. */
static values_t some_values(arena_t *arena, const char *text, size_t size)
{
    buf_t input;
    buf_open(&input, arena);
    mp_put_map(&input, 1);
    mp_put_str(&input, "x");
    mp_put_strn(&input, text, size < 1000 ? size : 1000);
    bytes_t *item = ARENA_NEW(arena, bytes_t);
    *item = buf_bytes(&input);
    return (values_t){.input = *item, .run_id = "run", .company = "acme", .item = item};
}

static void fill(arena_t *arena, const values_t *values, const sop_step_t *step)
{
    value_script_t script;
    buf_t text, tree;
    buf_open(&text, arena);
    values_text(arena, values, step->prose, strlen(step->prose), &text);
    values_script(arena, values, step->body, step->body_size, &script);
    const bytes_t templates[] = {step->args, step->list};
    for (int i = 0; i < 2; i++) {
        buf_open(&tree, arena);
        err_t err = templates[i].size ? values_tree(arena, values, templates[i], &tree)
                                      : err_of(ERR_NOT_FOUND, NULL);
        if (!err_is(err) && err_is(mp_check(buf_bytes(&tree))))
            abort();
    }
    if ((step->kind == SOP_EACH) != (step->list.size > 0) || sop_call_at(step) > step->body_size)
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    arena_t *arena = arena_new();
    const sop_t *sop;
    const sop_problem_t *problems;
    size_t count;
    const char *text = (const char *)data;
    err_t err = sop_parse(arena, text, size, NULL, &sop, &problems, &count);
    if (err_is(err) != (sop == NULL) || (err_is(err) && !count))
        abort();
    values_t values = some_values(arena, text, size);
    for (size_t i = 0; sop && i < sop->step_count; i++)
        fill(arena, &values, &sop->steps[i]);
    arena_destroy(&arena);
    return 0;
}

/* Scripts with references: each value travels as a variable of the environment, never as text that
 * the shell would read as code. */
#include <string.h>

#include "actors/agent/shell.h"
#include "actors/agent/values.h"

/* What is known of a script while it is rewritten. */
typedef struct script {
    arena_t *arena;
    const values_t *values;
    shell_t shell;
    buf_t out;
    value_variable_t *variables;
    size_t count;
    size_t capacity;
    size_t bytes;
} script_t;

static err_t variable_value(script_t *script, const value_ref_t *ref, const char **text)
{
    bytes_t value;
    buf_t out;
    err_t err = value_get(script->arena, script->values, ref, &value);
    buf_open(&out, script->arena);
    if (!err_is(err))
        err = value_put_text(value, &out);
    if (err_is(err))
        return err;
    if (memchr(out.data, '\0', out.size))
        return err_make(script->arena, ERR_ARGUMENT,
                        "{{%s}}: the value holds a NUL character, which no command can take",
                        ref->text);
    script->bytes += out.size;
    if (out.size > VALUE_VARIABLE_LARGEST || script->bytes > VALUE_VARIABLES_LARGEST)
        return err_make(script->arena, ERR_TOO_LARGE,
                        "{{%s}}: the value of %zu bytes is too large for a script (%d each, %d in "
                        "all): write it to a file and pass the name",
                        ref->text, out.size, VALUE_VARIABLE_LARGEST, VALUE_VARIABLES_LARGEST);
    *text = out.data;
    return err_ok();
}

static const char *add_variable(script_t *script, const char *text)
{
    if (script->count == script->capacity) {
        size_t capacity = script->capacity ? script->capacity * 2 : 8;
        value_variable_t *grown = ARENA_ARRAY(script->arena, value_variable_t, capacity);
        if (script->count)
            memcpy(grown, script->variables, script->count * sizeof(*grown));
        script->variables = grown;
        script->capacity = capacity;
    }
    const char *name = arena_printf(script->arena, "VALUE_%zu", script->count + 1);
    script->variables[script->count++] = (value_variable_t){name, text};
    return name;
}

/* Where no variable is expanded a reference cannot work: say so, do not run something else. */
static err_t check_place(const script_t *script, const value_ref_t *ref, shell_place_t place)
{
    if (place == SHELL_HEREDOC)
        return err_make(script->arena, ERR_ARGUMENT,
                        "{{%s}}: inside a here document with a quoted word nothing is replaced: "
                        "write <<WORD without quotes",
                        ref->text);
    if (place == SHELL_QUOTED)
        return err_make(script->arena, ERR_ARGUMENT,
                        "{{%s}}: inside single quotes nothing is replaced: use double quotes, or "
                        "none (a value is always one word)",
                        ref->text);
    return err_ok();
}

/* `shell` stands on the reference. */
static err_t put_reference(script_t *script, const value_ref_t *ref)
{
    shell_place_t place = shell_place(&script->shell);
    if (place == SHELL_COMMENT) {
        buf_put(&script->out, script->shell.text + ref->start, ref->end - ref->start);
        return err_ok();
    }
    err_t err = check_place(script, ref, place);
    if (err_is(err) || !script->values)
        return err;
    const char *text = "";
    err = variable_value(script, ref, &text);
    if (err_is(err))
        return err;
    const char *name = add_variable(script, text);
    buf_printf(&script->out, place == SHELL_TEXT ? "${%s}" : "\"${%s}\"", name);
    return err_ok();
}

err_t values_script(arena_t *arena, const values_t *values, const char *text, size_t size,
                    value_script_t *out)
{
    script_t script = {.arena = arena, .values = values};
    shell_open(&script.shell, text, size);
    buf_open(&script.out, arena);
    size_t done = 0, at = 0;
    for (;;) {
        value_ref_t ref;
        bool found;
        out->at = at;
        err_t err = value_next(arena, text, size, &at, &ref, &found);
        if (err_is(err))
            return err;
        size_t until = found ? ref.start : size;
        out->at = until;
        value_put_literal(&script.out, text + done, until - done);
        if (!found)
            break;
        shell_walk(&script.shell, until);
        err = put_reference(&script, &ref);
        if (err_is(err))
            return err;
        done = ref.end;
        shell_skip(&script.shell, ref.end);
    }
    *out = (value_script_t){script.out.data, script.variables, script.count, size};
    return err_ok();
}

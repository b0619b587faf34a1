/* What a step is given: the values of input and earlier steps in its text, the conversation so far,
 * and how long it may take. */
#include <string.h>

#include "actors/agent/run_drive.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { EARLIER_LARGEST = 4000 /* bytes of each earlier result in a prompt */ };

RECORD_DEFINE(run_variable, run_variable_FIELDS)

err_t run_values(run_t *run, size_t self, values_t *values)
{
    value_step_t *steps = ARENA_ARRAY(run->arena, value_step_t, self);
    for (size_t i = 0; i < self; i++) {
        step_row_t row;
        err_t err = step_load(run, i, &row);
        if (err_is(err))
            return err;
        steps[i] = (value_step_t){run->sop->steps[i].name, row.result, row.state == STEP_REFUSED};
    }
    *values = (values_t){.input = run->row.input,
                         .run_id = run->id,
                         .company = call_company(run->call),
                         .steps = steps,
                         .step_count = self};
    return err_ok();
}

err_t run_filled(run_t *run, const values_t *values, const char *text, const char **out)
{
    buf_t buf;
    buf_open(&buf, run->arena);
    err_t err = values_text(run->arena, values, text, strlen(text), &buf);
    *out = buf.data;
    return err;
}

static strs_t joined_names(arena_t *arena, const sop_names_t *one, const sop_names_t *other)
{
    const char **items = ARENA_ARRAY(arena, const char *, one->count + other->count);
    if (one->count)
        memcpy(items, one->items, one->count * sizeof(*items));
    if (other->count)
        memcpy(items + one->count, other->items, other->count * sizeof(*items));
    return (strs_t){items, one->count + other->count};
}

err_t run_fill_tool(run_t *run, const sop_step_t *step, const values_t *values,
                    run_perform_t *reply)
{
    buf_t args;
    buf_open(&args, run->arena);
    err_t err = values_tree(run->arena, values, step->args, &args);
    reply->tool = step->tool;
    reply->args = buf_bytes(&args);
    reply->timeout_ms = step->timeout_ms          ? step->timeout_ms
                        : strchr(step->tool, '/') ? 0 /* mcp.json says it */
                                                  : run->agent->settings->step_tool_ms;
    return err;
}

static err_t fill_script(run_t *run, const sop_step_t *step, const values_t *values,
                         run_perform_t *reply)
{
    value_script_t script;
    err_t err = values_script(run->arena, values, step->body, step->body_size, &script);
    if (err_is(err))
        return err;
    run_variable_t *env = ARENA_ARRAY(run->arena, run_variable_t, script.count);
    for (size_t i = 0; i < script.count; i++)
        env[i] =
            (run_variable_t){.name = script.variables[i].name, .value = script.variables[i].value};
    reply->script = script.text;
    reply->env = (run_variable_list_t){env, script.count};
    reply->env_pass = joined_names(run->arena, &run->sop->env, &step->env);
    reply->has_env_pass = reply->env_pass.count > 0;
    reply->output_limit =
        step->output_bytes ? step->output_bytes : run->agent->settings->step_output_bytes;
    reply->has_output_limit = true;
    reply->cwd = run->sop->cwd;
    reply->timeout_ms = step->timeout_ms ? step->timeout_ms : run->agent->settings->step_sh_ms;
    return err;
}

static void put_earlier(run_t *run, size_t self, const values_t *values, buf_t *out)
{
    for (size_t i = 0; i < self; i++) {
        buf_t json;
        buf_open(&json, run->arena);
        bytes_t result = values->steps[i].result;
        err_t err = result.size ? json_from_msgpack(result, JSON_COMPACT, &json) : err_ok();
        size_t size = err_is(err) ? 0 : json.size;
        bool cut = size > EARLIER_LARGEST;
        for (size = cut ? EARLIER_LARGEST : size; size && !mp_utf8(json.data, size);)
            size--;
        buf_printf(out, "%zu. %s: ", i + 1, run->sop->steps[i].title);
        buf_put(out, json.data, size);
        buf_puts(out, cut ? " ... (cut)\n" : "\n");
    }
}

/* Souls are any text, and what a proposal adds to them counts from the next step on. */
static err_t fill_soul(run_t *run, run_perform_t *reply)
{
    sops_version_t soul;
    err_t err = run->row.soul ? papers_read(run->call, PAPER_SOUL, run->row.soul, NULL, &soul)
                              : err_of(ERR_NOT_FOUND, NULL);
    if (err.code == ERR_NOT_FOUND)
        err = papers_read(run->call, PAPER_SOUL, "sop_engine", NULL, &soul);
    if (err.code == ERR_NOT_FOUND || err.code == ERR_ARGUMENT)
        return err_ok();
    if (!err_is(err) && mp_utf8(soul.content, soul.size) && !memchr(soul.content, 0, soul.size))
        reply->soul = soul.content;
    return err;
}

static err_t fill_prompt(run_t *run, size_t index, const values_t *values, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    const char *text = "";
    buf_t out;
    buf_open(&out, run->arena);
    err_t err = run_filled(run, values, step->prose, &text);
    if (err_is(err))
        return err;
    buf_printf(&out, "You carry out one step of a procedure.\n\n# %s\n\n", run->sop->title);
    buf_printf(&out, "%s\n\nInput of the run: ", run->sop->description);
    if (run->row.input.size)
        err = json_from_msgpack(run->row.input, JSON_COMPACT, &out);
    if (index)
        buf_puts(&out, "\n\nResults of the earlier steps:\n");
    put_earlier(run, index, values, &out);
    if (run->row.experience.size && !err_is(err)) {
        buf_puts(&out, "\n\nMemories of earlier work that may help:\n");
        err = json_from_msgpack(run->row.experience, JSON_COMPACT, &out);
    }
    buf_printf(&out, "\n\nYour step, number %zu of %zu: %s\n\n", index + 1, run->sop->step_count,
               step->title);
    buf_puts(&out, text);
    if (run->row.simulate)
        buf_puts(&out, "\n\nThis run is simulated: tools that change anything are refused. Call "
                       "them all the same where the step needs them, it is kept what you wanted; "
                       "then complete the step with what would have come of it.");
    buf_puts(&out, "\n\nWhen it is done call complete_step with what came of it; if it cannot be "
                   "done call fail_step and say why. Do only this step, and never claim what you "
                   "did not do.\n");
    reply->prompt = out.data;
    reply->timeout_ms = run->agent->settings->step_llm_ms;
    reply->has_tokens_left = run_tokens_left(run, &reply->tokens_left);
    if (!err_is(err))
        err = fill_soul(run, reply);
    reply->tools = (strs_t){run->sop->tools.items, run->sop->tools.count};
    reply->has_tools = reply->tools.count > 0;
    return err_is(err) ? err : note_load(run, index, &reply->transcript);
}

err_t run_fill(run_t *run, size_t index, run_perform_t *reply)
{
    const sop_step_t *step = &run->sop->steps[index];
    values_t values;
    err_t err = run_values(run, index, &values);
    if (err_is(err))
        return err;
    reply->has_timeout_ms = true;
    if (step->kind == SOP_TOOL)
        return run_fill_tool(run, step, &values, reply);
    if (step->kind == SOP_SH)
        return fill_script(run, step, &values, reply);
    return fill_prompt(run, index, &values, reply);
}

bytes_t run_given(run_t *run, const run_perform_t *perform)
{
    buf_t out;
    if (perform->tool)
        return perform->args;
    if (perform->prompt)
        return mp_str(run->arena, perform->prompt);
    buf_open(&out, run->arena);
    mp_put_map(&out, 1 + (uint32_t)perform->env.count);
    mp_put_str(&out, "script");
    mp_put_str(&out, perform->script);
    for (size_t i = 0; i < perform->env.count; i++) {
        mp_put_str(&out, perform->env.items[i].name);
        mp_put_str(&out, perform->env.items[i].value);
    }
    return buf_bytes(&out);
}

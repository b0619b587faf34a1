#include "actors/agent/run_state.h"

#include <stdio.h>
#include <string.h>

#include "actors/agent/rows.h"
#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

RECORD_ROWS_(run_row, run_row_FIELDS)
static const record_t run_row_record = {"run", run_row_rows, sizeof(run_row_t)};
RECORD_ROWS_(step_row, step_row_FIELDS)
static const record_t step_row_record = {"step", step_row_rows, sizeof(step_row_t)};
RECORD_ROWS_(effect_row, effect_row_FIELDS)
static const record_t effect_row_record = {"effect", effect_row_rows, sizeof(effect_row_t)};
RECORD_DEFINE(run_step, run_step_FIELDS)
RECORD_DEFINE(run_refusal, run_refusal_FIELDS)

static store_key_t run_key(const char *id)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return key;
}

static store_key_t step_key(const run_t *run, size_t index)
{
    store_key_t key;
    key_open(&key);
    key_str(&key, run->id);
    key_u64(&key, index);
    return key;
}

static store_key_t effect_key(const run_t *run, size_t step, int64_t attempt, int64_t index)
{
    store_key_t key = step_key(run, step);
    key_i64(&key, attempt);
    key_i64(&key, index);
    return key;
}

static err_t no_such_run(call_t *call, const char *id)
{
    return err_make(call_arena(call), ERR_NOT_FOUND, "there is no run '%.100s'", id);
}

static err_t load_sop(run_t *run)
{
    sops_version_t version;
    err_t err = sops_by_hash(run->call, run->txn, run->row.hash, &version);
    if (err_is(err))
        return err;
    run->sop = version.sop;
    return version.err; /* was valid when it came in; a newer program may see it otherwise */
}

err_t run_load(agent_t *agent, call_t *call, const char *id, bool write, run_t *run)
{
    const char *company = call_company(call);
    *run = (run_t){.agent = agent, .call = call, .arena = call_arena(call), .id = id};
    err_t err = write ? call_write(call, company, &run->txn) : call_read(call, company, &run->txn);
    if (err.code == ERR_NOT_FOUND)
        return no_such_run(call, id);
    if (err_is(err))
        return err;
    store_key_t key = run_key(id);
    err = key.overflow
              ? err_of(ERR_NOT_FOUND, NULL)
              : rows_get(run->txn, TABLE_runs, &key, &run_row_record, run->arena, &run->row);
    if (err.code == ERR_NOT_FOUND)
        return no_such_run(call, id);
    if (!err_is(err))
        err = tasks_get(agent->tasks, call, id, &run->task);
    return err_is(err) ? err : load_sop(run);
}

err_t run_row_load(call_t *call, store_txn_t *txn, const char *id, run_row_t *row)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return rows_get(txn, TABLE_runs, &key, &run_row_record, call_arena(call), row);
}

err_t run_save(run_t *run)
{
    store_key_t key = run_key(run->id);
    run_row_t *row = &run->row;
    row->has_created_ms = row->has_at = row->has_started = row->has_tokens = row->has_calls = true;
    row->has_finishes = row->has_asked = row->has_simulate = true;
    row->has_finished_ms = row->finished_ms > 0;
    return rows_put(run->txn, TABLE_runs, &key, &run_row_record, run->arena, row);
}

err_t step_load(run_t *run, size_t index, step_row_t *row)
{
    store_key_t key = step_key(run, index);
    *row = (step_row_t){.state = STEP_PENDING};
    err_t err = rows_get(run->txn, TABLE_run_steps, &key, &step_row_record, run->arena, row);
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

err_t step_save(run_t *run, size_t index, const step_row_t *row)
{
    store_key_t key = step_key(run, index);
    step_row_t copy = *row;
    copy.has_state = copy.has_attempt = copy.has_failures = true;
    copy.has_tokens = copy.has_duration_ms = true;
    copy.has_started_ms = copy.started_ms > 0;
    copy.has_finished_ms = copy.finished_ms > 0;
    copy.has_until_ms = copy.until_ms > 0;
    return rows_put(run->txn, TABLE_run_steps, &key, &step_row_record, run->arena, &copy);
}

err_t effect_load(run_t *run, size_t step, int64_t attempt, int64_t index, effect_row_t *row)
{
    store_key_t key = effect_key(run, step, attempt, index);
    return rows_get(run->txn, TABLE_effects, &key, &effect_row_record, run->arena, row);
}

err_t effect_save(run_t *run, size_t step, int64_t attempt, int64_t index, const effect_row_t *row)
{
    store_key_t key = effect_key(run, step, attempt, index);
    effect_row_t copy = *row;
    copy.has_state = copy.has_intended_ms = true;
    counts_effect(run->call, row->state);
    copy.has_finished_ms = copy.finished_ms > 0;
    return rows_put(run->txn, TABLE_effects, &key, &effect_row_record, run->arena, &copy);
}

const char *effect_name(run_t *run, size_t step, int64_t attempt, int64_t index)
{
    const char *path =
        arena_printf(run->arena, "%s#%lld", run->sop->steps[step].name, (long long)attempt);
    const char *number = arena_printf(run->arena, "%lld", (long long)index);
    return digest_texts(run->arena, call_company(run->call), run->id, path, number, NULL);
}

err_t note_load(run_t *run, size_t step, bytes_t *note)
{
    store_key_t key = step_key(run, step);
    err_t err = store_get(run->txn, TABLE_run_notes, key_bytes(&key), note);
    if (err.code == ERR_NOT_FOUND) {
        *note = (bytes_t){0};
        return err_ok();
    }
    note->data = err_is(err) ? NULL : arena_copy(run->arena, note->data, note->size);
    return err;
}

err_t note_save(run_t *run, size_t step, bytes_t note)
{
    store_key_t key = step_key(run, step);
    return store_put(run->txn, TABLE_run_notes, key_bytes(&key), note);
}

err_t note_drop(run_t *run, size_t step)
{
    store_key_t key = step_key(run, step);
    err_t err = store_del(run->txn, TABLE_run_notes, key_bytes(&key));
    return err.code == ERR_NOT_FOUND ? err_ok() : err;
}

/* ---- how it looks ------------------------------------------------------------------------- */

static const char *text_in(arena_t *arena, bytes_t map, const char *key)
{
    bytes_t value;
    const char *text = mp_get(map, key, &value) ? mp_text(arena, value) : NULL;
    return text && *text ? text : NULL;
}

const char *run_words(arena_t *arena, bytes_t value)
{
    enum { LONGEST = 200 };
    static const char *const keys[] = {"summary", "stdout", "answer", "text", NULL};
    buf_t out;
    if (!value.size)
        return "";
    const char *text = mp_text(arena, value);
    for (size_t i = 0; keys[i] && !text; i++)
        text = text_in(arena, value, keys[i]);
    if (!text) {
        buf_open(&out, arena);
        err_t err = json_from_msgpack(value, JSON_COMPACT, &out);
        text = err_is(err) ? "" : out.data;
    }
    size_t size = strlen(text);
    if (size <= LONGEST)
        return text;
    for (size = LONGEST; size && !mp_utf8(text, size);)
        size--;
    return arena_printf(arena, "%.*s ...", (int)size, text);
}

static err_t show_step(run_t *run, size_t index, run_step_t *out)
{
    const sop_step_t *step = &run->sop->steps[index];
    step_row_t row;
    effect_row_t effect;
    err_t err = step_load(run, index, &row);
    if (err_is(err))
        return err;
    *out = (run_step_t){.number = (int64_t)index + 1,
                        .has_number = true,
                        .name = step->name,
                        .title = step->title,
                        .kind = sop_kind_info(step->kind)->name,
                        .state = run_step_state_names[row.state],
                        .attempt = row.attempt,
                        .has_attempt = true,
                        .input = row.input,
                        .result = row.result,
                        .error = row.error,
                        .why = row.why,
                        .by = row.by,
                        .started_ms = row.started_ms,
                        .has_started_ms = row.has_started_ms,
                        .finished_ms = row.finished_ms,
                        .has_finished_ms = row.has_finished_ms,
                        .until_ms = row.until_ms,
                        .has_until_ms = row.has_until_ms,
                        .duration_ms = row.duration_ms,
                        .has_duration_ms = true,
                        .tokens = row.tokens,
                        .has_tokens = true};
    if (!row.attempt)
        return err_ok();
    err = effect_load(run, index, row.attempt, 0, &effect);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    out->effect_id = err_is(err) ? NULL : effect.effect_id;
    out->effect = err_is(err) ? NULL : effect_state_names[effect.state];
    return err;
}

/* ---- what a simulated run refused ---------------------------------------------------------- */

enum { REFUSALS_MOST = 1000 };

static void add_refusal(run_t *run, run_refusal_list_t *list, size_t index, run_refusal_t refusal)
{
    run_refusal_t *items = (run_refusal_t *)list->items;
    const sop_step_t *step = &run->sop->steps[index];
    if (list->count == REFUSALS_MOST)
        return;
    refusal.number = (int64_t)index + 1;
    refusal.has_number = true;
    refusal.name = step->name;
    refusal.kind = sop_kind_info(step->kind)->name;
    items[list->count++] = refusal;
}

/* The tools that a model was refused in a step of prose. */
static err_t add_inner(run_t *run, run_refusal_list_t *list, size_t index, int64_t attempt)
{
    for (int64_t i = 1; attempt; i++) {
        effect_row_t effect;
        err_t err = effect_load(run, index, attempt, i, &effect);
        if (err.code == ERR_NOT_FOUND)
            break;
        if (err_is(err))
            return err;
        if (effect.state == EFFECT_REFUSED)
            add_refusal(
                run, list, index,
                (run_refusal_t){.tool = effect.tool, .args = effect.result, .why = effect.error});
    }
    return err_ok();
}

err_t run_refusals(run_t *run, run_refusal_list_t *out)
{
    *out = (run_refusal_list_t){ARENA_ARRAY(run->arena, run_refusal_t, REFUSALS_MOST), 0};
    for (size_t i = 0; i < run->sop->step_count; i++) {
        const sop_step_t *step = &run->sop->steps[i];
        step_row_t row;
        err_t err = step_load(run, i, &row);
        if (!err_is(err) && step->kind == SOP_LLM)
            err = add_inner(run, out, i, row.attempt);
        if (err_is(err))
            return err;
        if (row.state == STEP_REFUSED)
            add_refusal(run, out, i,
                        (run_refusal_t){.tool = step->tool, .args = row.input, .why = row.why});
    }
    return err_ok();
}

err_t run_result(run_t *run, bytes_t *result)
{
    *result = (bytes_t){0};
    for (size_t i = run->sop->step_count; i > 0; i--) {
        step_row_t row;
        err_t err = step_load(run, i - 1, &row);
        if (err_is(err))
            return err;
        bool branch = run->sop->steps[i - 1].kind == SOP_IF;
        if (row.state == STEP_COMPLETED && !branch) {
            *result = row.result;
            return err;
        }
    }
    return err_ok();
}

err_t run_show(run_t *run, run_view_t *view)
{
    const run_row_t *row = &run->row;
    run_step_t *steps = ARENA_ARRAY(run->arena, run_step_t, run->sop->step_count);
    for (size_t i = 0; i < run->sop->step_count; i++) {
        err_t err = show_step(run, i, &steps[i]);
        if (err_is(err))
            return err;
    }
    bool done = row->outcome && !strcmp(row->outcome, "completed");
    *view = (run_view_t){.id = run->id,
                         .state = task_state_names[run->task.state],
                         .sop = row->sop,
                         .title = row->title,
                         .hash = row->hash,
                         .input = row->input,
                         .error = row->error ? row->error : run->task.error,
                         .created_ms = row->created_ms,
                         .has_created_ms = true,
                         .finished_ms = row->finished_ms,
                         .has_finished_ms = row->has_finished_ms,
                         .tokens = row->tokens,
                         .has_tokens = true,
                         .calls = row->calls,
                         .has_calls = true,
                         .experience = row->experience,
                         .simulated = row->simulate,
                         .has_simulated = true};
    view->steps = (run_step_list_t){steps, run->sop->step_count};
    err_t err = done ? run_result(run, &view->result) : err_ok();
    if (err_is(err))
        return err;
    if (!row->outcome)
        view->why = run->task.why;
    return row->simulate ? run_refusals(run, &view->refused) : err_ok();
}

#include "actors/agent/run_state.h"

#include <stdio.h>
#include <stdlib.h>
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
RECORD_DEFINE(run_item, run_item_FIELDS)
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

void run_budgets(run_row_t *row, const sop_t *sop)
{
    row->max_steps = sop->max_steps;
    row->max_calls = sop->max_calls;
    row->max_tokens = sop->max_tokens;
    row->max_wall_ms = sop->max_wall_ms;
}

static err_t load_sop(run_t *run)
{
    sops_version_t version;
    err_t err = sops_by_hash(run->call, run->txn, run->row.hash, &version);
    if (err_is(err))
        return err;
    run->sop = version.sop;
    if (version.sop) /* runs of an older program did not keep them */
        run_budgets(&run->row, version.sop);
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
    run->charged.started = run->row.started;
    run->charged.tokens = run->row.tokens;
    run->charged.calls = run->row.calls;
    return err_is(err) ? err : load_sop(run);
}

err_t run_row_load(call_t *call, store_txn_t *txn, const char *id, run_row_t *row)
{
    store_key_t key;
    key_open(&key);
    key_raw(&key, id, strlen(id));
    return rows_get(txn, TABLE_runs, &key, &run_row_record, call_arena(call), row);
}

static err_t put_row(run_t *run, const char *id, run_row_t *row)
{
    store_key_t key = run_key(id);
    row->has_created_ms = row->has_at = row->has_started = row->has_tokens = row->has_calls = true;
    row->has_finishes = row->has_asked = row->has_simulate = true;
    row->has_finished_ms = row->finished_ms > 0;
    row->has_outcome = row->outcome != NULL; /* what was there when it was read may be gone */
    row->has_error = row->error != NULL;
    row->has_depth = row->depth > 0;
    row->has_max_steps = row->max_steps > 0;
    row->has_max_calls = row->max_calls > 0;
    row->has_max_tokens = row->max_tokens > 0;
    row->has_max_wall_ms = row->max_wall_ms > 0;
    return rows_put(run->txn, TABLE_runs, &key, &run_row_record, run->arena, row);
}

/* What a run uses is used by those that it is inside of. */
static err_t charge(run_t *run)
{
    const run_row_t *row = &run->row;
    int64_t started = row->started - run->charged.started;
    int64_t tokens = row->tokens - run->charged.tokens, calls = row->calls - run->charged.calls;
    run_row_t above;
    err_t err = err_ok();
    run->charged.started = row->started;
    run->charged.tokens = row->tokens;
    run->charged.calls = row->calls;
    bool used = started || tokens || calls;
    for (const char *id = row->parent; used && id && !err_is(err); id = above.parent) {
        err = run_row_load(run->call, run->txn, id, &above);
        if (err_is(err)) /* forgotten: it was over long ago */
            return err.code == ERR_NOT_FOUND ? err_ok() : err;
        above.started += started;
        above.tokens += tokens;
        above.calls += calls;
        err = put_row(run, id, &above);
    }
    return err;
}

err_t run_save(run_t *run)
{
    err_t err = put_row(run, run->id, &run->row);
    return err_is(err) ? err : charge(run);
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
    copy.has_items = copy.items > 0;
    copy.has_next = copy.next > 0;
    copy.has_bytes = copy.bytes > 0;
    copy.has_input = copy.input.size > 0; /* what was there when it was read may be gone */
    copy.has_result = copy.result.size > 0;
    copy.has_open = copy.open.size > 0;
    copy.has_error = copy.error != NULL;
    copy.has_why = copy.why != NULL;
    copy.has_by = copy.by != NULL;
    copy.has_version = copy.version != NULL;
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
    copy.has_tries = copy.tries > 0;
    copy.has_args = copy.args.size > 0;
    copy.has_result = copy.result.size > 0;
    copy.has_error = copy.error != NULL;
    copy.has_child = copy.child != NULL;
    return rows_put(run->txn, TABLE_effects, &key, &effect_row_record, run->arena, &copy);
}

static const char *name_of(run_t *run, size_t step, int64_t attempt, const char *number)
{
    const char *path =
        arena_printf(run->arena, "%s#%lld", run->sop->steps[step].name, (long long)attempt);
    return digest_texts(run->arena, call_company(run->call), run->id, path, number, NULL);
}

const char *effect_name(run_t *run, size_t step, int64_t attempt, int64_t index)
{
    return name_of(run, step, attempt, arena_printf(run->arena, "%lld", (long long)index));
}

const char *item_name(run_t *run, size_t step, int64_t attempt, int64_t index, int64_t tries)
{
    return name_of(run, step, attempt,
                   arena_printf(run->arena, "%lld#%lld", (long long)index, (long long)tries));
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

enum { ITEMS_SHOWN = 100 };

static const char *item_state(int effect)
{
    return effect == EFFECT_COMMITTED                                 ? "completed"
           : effect == EFFECT_INTENDED || effect == EFFECT_DISPATCHED ? "running"
                                                                      : effect_state_names[effect];
}

/* Those that are completed, or those that are not, as long as there is room. */
static err_t add_items(run_t *run, size_t index, const step_row_t *row, bool completed, size_t room,
                       run_step_t *out)
{
    run_item_t *items = (run_item_t *)out->items.items;
    for (int64_t at = 1; at <= row->items; at++) {
        effect_row_t effect;
        err_t err = effect_load(run, index, row->attempt, at, &effect);
        if (err.code == ERR_NOT_FOUND)
            break;
        if (err_is(err))
            return err;
        bool done = effect.state == EFFECT_COMMITTED;
        out->finished +=
            completed && (done || effect.state == EFFECT_FAILED || effect.state == EFFECT_REFUSED);
        if (done != completed || out->items.count == room)
            continue;
        items[out->items.count++] = (run_item_t){.index = at - 1,
                                                 .has_index = true,
                                                 .state = item_state(effect.state),
                                                 .effect_id = effect.effect_id,
                                                 .child = effect.child,
                                                 .words = run_words(run->arena, effect.result),
                                                 .error = effect.error};
    }
    return err_ok();
}

static int by_place(const void *left, const void *right)
{
    const run_item_t *one = left, *other = right;
    return (one->index > other->index) - (one->index < other->index);
}

static err_t show_items(run_t *run, size_t index, const step_row_t *row, run_step_t *out)
{
    run_item_t *items = ARENA_ARRAY(run->arena, run_item_t, ITEMS_SHOWN);
    out->items = (run_item_list_t){items, 0};
    out->total = row->items;
    out->has_total = out->has_finished = out->has_items = true;
    err_t err = add_items(run, index, row, false, ITEMS_SHOWN, out);
    if (!err_is(err))
        err = add_items(run, index, row, true, ITEMS_SHOWN, out);
    if (row->items <= ITEMS_SHOWN)
        qsort(items, out->items.count, sizeof(*items), by_place);
    return err;
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
    if (step->kind == SOP_EACH)
        return show_items(run, index, &row, out);
    err = effect_load(run, index, row.attempt, 0, &effect);
    if (err.code == ERR_NOT_FOUND)
        return err_ok();
    out->child = err_is(err) ? NULL : effect.child;
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
    refusal.name =
        refusal.name ? arena_printf(run->arena, "%s/%s", step->name, refusal.name) : step->name;
    refusal.kind = refusal.kind ? refusal.kind : sop_kind_info(step->kind)->name;
    items[list->count++] = refusal;
}

typedef struct refusing {
    run_refusal_list_t *list;
    size_t index;
} refusing_t;

/* What was refused in the run that a step began. */
static err_t add_child(run_t *run, const effect_row_t *effect, int64_t at, void *ctx)
{
    const refusing_t *refusing = ctx;
    run_t child;
    run_refusal_list_t inner;
    (void)at;
    err_t err = run_load(run->agent, run->call, effect->child, false, &child);
    if (!err_is(err))
        err = run_refusals(&child, &inner);
    if (err_is(err))
        return err.code == ERR_NOT_FOUND ? err_ok() : err;
    for (size_t i = 0; i < inner.count; i++)
        add_refusal(run, refusing->list, refusing->index, inner.items[i]);
    return err_ok();
}

/* The tools that a model was refused in a step of prose, or the items of an each. */
static err_t add_inner(run_t *run, run_refusal_list_t *list, size_t index, int64_t attempt)
{
    for (int64_t i = 1; attempt; i++) {
        effect_row_t effect;
        err_t err = effect_load(run, index, attempt, i, &effect);
        if (err.code == ERR_NOT_FOUND)
            break;
        if (err_is(err))
            return err;
        if (effect.state == EFFECT_REFUSED && !effect.child)
            add_refusal(
                run, list, index,
                (run_refusal_t){.tool = effect.tool, .args = effect.result, .why = effect.error});
    }
    return err_ok();
}

static err_t refusals_of(run_t *run, size_t index, run_refusal_list_t *out)
{
    const sop_step_t *step = &run->sop->steps[index];
    refusing_t refusing = {out, index};
    size_t before = out->count;
    step_row_t row;
    err_t err = step_load(run, index, &row);
    if (!err_is(err) && (step->kind == SOP_LLM || step->kind == SOP_EACH))
        err = add_inner(run, out, index, row.attempt);
    if (!err_is(err))
        err = run_children(run, index, &row, add_child, &refusing);
    bool told = out->count > before && step->kind != SOP_LLM;
    if (!err_is(err) && row.state == STEP_REFUSED && !told)
        add_refusal(run, out, index,
                    (run_refusal_t){.tool = step->tool, .args = row.input, .why = row.why});
    return err;
}

err_t run_refusals(run_t *run, run_refusal_list_t *out)
{
    *out = (run_refusal_list_t){ARENA_ARRAY(run->arena, run_refusal_t, REFUSALS_MOST), 0};
    err_t err = err_ok();
    for (size_t i = 0; i < run->sop->step_count && !err_is(err); i++)
        err = refusals_of(run, i, out);
    return err;
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
                         .parent = row->parent,
                         .simulated = row->simulate,
                         .has_simulated = true};
    view->steps = (run_step_list_t){steps, run->sop->step_count};
    err_t err = done ? run_result(run, &view->result) : err_ok();
    if (err_is(err))
        return err;
    const char *needs = run_needs(run, &view->asks);
    if (!row->outcome)
        view->why = needs ? needs : run->task.why;
    return row->simulate ? run_refusals(run, &view->refused) : err_ok();
}

/* The same for each item of a list. An item is an effect of the step, from index 1 on, and is
 * journalled on its own: a call of a tool that a worker performs, one after the other, or the run
 * of a procedure, several side by side. What is done is never done again, also when a person
 * repeats the step; the list is looked up anew each time, since what it is made of does not change.
 *
 *   row.next    all items before it are done or under way
 *   row.open    those of them whose runs are under way */
#include <inttypes.h>
#include <string.h>

#include "actors/agent/run_drive.h"
#include "actors/agent/span.h"
#include "bus/digest.h"
#include "proto/json.h"
#include "proto/mp.h"

enum { ARGS_KEPT = 16 * 1024, LIST_SHOWN = 500 };

/* An each in the hands of one entry. */
typedef struct each {
    run_t *run;
    size_t index;
    step_row_t *row;
    const sop_step_t *step;
    values_t values;
    bytes_t list, item;
    uint32_t count;
    sops_version_t version; /* looked up when it is needed first */
    int64_t open[SOP_PARALLEL_MOST];
    size_t open_count;
    const char *stop; /* why the step fails */
} each_t;

/* ---- the list ----------------------------------------------------------------------------- */

/* A text that reads as a JSON list is that list: scripts print text. */
static bytes_t opened(arena_t *arena, bytes_t value)
{
    bytes_t list;
    mp_type_t type;
    const char *text = mp_text(arena, value);
    if (!text)
        return value;
    err_t err = json_to_msgpack(arena, text, strlen(text), NULL, &list);
    return !err_is(err) && mp_type_of(list, &type) && type == MP_ARRAY ? list : value;
}

static const char *type_name(bytes_t value)
{
    mp_type_t type;
    if (!mp_type_of(value, &type) || type == MP_NIL)
        return "null";
    return type == MP_STR ? "a text" : type == MP_MAP ? "an object" : "a single value";
}

static err_t look_up_list(each_t *each)
{
    run_t *run = each->run;
    int64_t most = run->agent->settings->each_items;
    mp_value_t head;
    buf_t out;
    buf_open(&out, run->arena);
    err_t err = run_values(run, each->index, &each->values);
    if (!err_is(err))
        err = values_tree(run->arena, &each->values, each->step->list, &out);
    if (err_is(err))
        return err;
    each->list = opened(run->arena, buf_bytes(&out));
    mp_reader_t reader = mp_reader(each->list);
    if (!mp_read(&reader, &head) || head.type != MP_ARRAY)
        return err_make(run->arena, ERR_ARGUMENT,
                        "the list is %s, not a list (the lines of a text: {{... | lines}})",
                        type_name(each->list));
    if (head.count > most)
        return err_make(run->arena, ERR_TOO_LARGE,
                        "the list has %" PRIu32 " items and agent.each_items allows %" PRId64,
                        head.count, most);
    each->count = head.count;
    return err_ok();
}

static err_t open_each(each_t *each, run_t *run, size_t index, step_row_t *row)
{
    bytes_t at;
    *each = (each_t){.run = run, .index = index, .row = row, .step = &run->sop->steps[index]};
    for (uint32_t i = 0; i < SOP_PARALLEL_MOST && row->open.size && mp_at(row->open, i, &at); i++)
        mp_int(at, &each->open[each->open_count++]);
    return look_up_list(each);
}

static void keep_open(each_t *each)
{
    buf_t out;
    buf_open(&out, each->run->arena);
    mp_put_array(&out, (uint32_t)each->open_count);
    for (size_t i = 0; i < each->open_count; i++)
        mp_put_int(&out, each->open[i]);
    each->row->open = each->open_count ? buf_bytes(&out) : (bytes_t){0};
}

static err_t look_up_version(each_t *each)
{
    if (each->version.sop)
        return err_ok();
    err_t err = run_procedure(each->run, each->step->procedure, each->row->version, &each->version);
    if (!err_is(err))
        each->row->version = each->version.hash;
    return err;
}

/* ---- the end of an item ------------------------------------------------------------------- */

static bool is_over(int state)
{
    return state == EFFECT_COMMITTED || state == EFFECT_FAILED || state == EFFECT_REFUSED;
}

/* The item's outcome is on disk with this commit. *stop: why the step fails because of it. */
static err_t end_item(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                      const char **stop)
{
    int64_t largest = run->agent->settings->step_result_bytes;
    bool failed = effect->state == EFFECT_FAILED;
    effect->finished_ms = call_now_ms(run->call);
    row->failures = 0;
    row->bytes += failed ? (int64_t)strlen(effect->error) + 16 : (int64_t)effect->result.size;
    if (failed && !run->sop->steps[index].goes_on)
        *stop = arena_printf(run->arena, "item [%" PRId64 "]: %s", at - 1, effect->error);
    else if (row->bytes > largest && effect->state != EFFECT_REFUSED)
        *stop = arena_printf(run->arena,
                             "item [%" PRId64 "]: the results are larger than %" PRId64
                             " bytes together: let the items write files, or raise "
                             "agent.step_result_bytes",
                             at - 1, largest);
    err_t err = effect_save(run, index, row->attempt, at, effect);
    return err_is(err) ? err : run_log_item(run, index, row->items, at, effect);
}

static err_t fail_item(each_t *each, int64_t at, effect_row_t *effect, const char *error)
{
    effect->state = EFFECT_FAILED;
    effect->error = error;
    each->row->next = at;
    return end_item(each->run, each->index, each->row, at, effect, &each->stop);
}

/* Of a simulated run. `args`: what it would have been given. */
static err_t refuse_item(each_t *each, int64_t at, effect_row_t *effect, bytes_t args,
                         const char *why)
{
    effect->state = EFFECT_REFUSED;
    effect->result = args;
    effect->error = why;
    each->row->next = at;
    return end_item(each->run, each->index, each->row, at, effect, &each->stop);
}

/* Its values do not fit. */
static err_t misfit_item(each_t *each, int64_t at, effect_row_t *effect, err_t problem)
{
    if (problem.code == ERR_STATE)
        return refuse_item(each, at, effect, each->step->args, err_what(problem));
    return fail_item(each, at, effect, err_what(problem));
}

/* ---- the next item ------------------------------------------------------------------------ */

static effect_row_t new_effect(each_t *each, int64_t at)
{
    run_t *run = each->run;
    return (effect_row_t){
        .state = EFFECT_INTENDED,
        .replay = each->step->procedure || run->row.simulate ? "safe" : run_replay_of(each->step),
        .tool = each->step->procedure ? each->step->procedure : each->step->tool,
        .effect_id = item_name(run, each->index, each->row->attempt, at, 0),
        .args_hash = "",
        .intended_ms = call_now_ms(run->call)};
}

static void keep_args(each_t *each, effect_row_t *effect, bytes_t args)
{
    effect->args_hash = digest_hex(each->run->arena, args);
    effect->args = args.size <= ARGS_KEPT ? args : (bytes_t){0};
}

/* A worker is to perform the call. */
static err_t next_call(each_t *each, int64_t at, effect_row_t *effect, bool fresh,
                       run_perform_t *reply)
{
    run_t *run = each->run;
    run_perform_t perform = {
        .kind = "tool", .has_timeout_ms = true, .index = at, .has_index = true};
    err_t err = run_fill_tool(run, each->step, &each->values, &perform);
    if (run_misfit(run, err))
        return misfit_item(each, at, effect, err);
    if (err_is(err))
        return err;
    keep_args(each, effect, perform.args);
    if (run->row.simulate && strchr(each->step->tool, '/'))
        return refuse_item(each, at, effect, perform.args, "a tool outside of Agency");
    if (effect->state == EFFECT_DISPATCHED && !run_repeatable(effect, call_now_ms(run->call)))
        return run_ask_about(run, each->index, each->row, at, effect, RUN_WORKER_LOST, reply);
    effect->state = EFFECT_INTENDED;
    run->row.calls += fresh;
    each->row->state = STEP_RUNNING;
    err = effect_save(run, each->index, each->row->attempt, at, effect);
    if (!err_is(err))
        err = step_save(run, each->index, each->row);
    if (!err_is(err))
        err = run_save(run);
    if (!err_is(err))
        err = run_journal(run);
    *reply = perform;
    run_describe(run, each->index, each->row, effect, reply);
    reply->kind = perform.kind;
    return err;
}

/* Its run begins. */
static err_t next_run(each_t *each, int64_t at, effect_row_t *effect)
{
    run_t *run = each->run;
    buf_t args;
    buf_open(&args, run->arena);
    err_t err = values_tree(run->arena, &each->values, each->step->args, &args);
    if (!err_is(err))
        err = run_begin_child(run, &each->version, buf_bytes(&args), effect);
    if (run_misfit(run, err))
        return misfit_item(each, at, effect, err);
    if (err_is(err))
        return err;
    keep_args(each, effect, buf_bytes(&args));
    each->open[each->open_count++] = at - 1;
    each->row->next = at;
    return effect_save(run, each->index, each->row->attempt, at, effect);
}

static err_t next_item(each_t *each, run_perform_t *reply)
{
    run_t *run = each->run;
    int64_t at = each->row->next + 1;
    effect_row_t effect;
    err_t err = effect_load(run, each->index, each->row->attempt, at, &effect);
    bool fresh = err.code == ERR_NOT_FOUND;
    if (err_is(err) && !fresh)
        return err;
    if (!fresh && is_over(effect.state)) {
        each->row->next = at;
        return err_ok();
    }
    each->stop = run_over_budget(run, fresh && each->step->tool ? BUDGET_CALL : 0);
    if (each->stop)
        return err_ok();
    if (!mp_at(each->list, (uint32_t)at - 1, &each->item))
        return err_of(ERR_CORRUPT, "the list of the step is shorter than it was");
    each->values.item = &each->item;
    each->values.index = at - 1;
    if (fresh)
        effect = new_effect(each, at);
    return each->step->tool ? next_call(each, at, &effect, fresh, reply)
                            : next_run(each, at, &effect);
}

/* ---- going on ----------------------------------------------------------------------------- */

static err_t end_of_run(each_t *each, int64_t at, bool *over)
{
    effect_row_t effect;
    run_end_t end = {.over = false};
    err_t err = effect_load(each->run, each->index, each->row->attempt, at, &effect);
    if (!err_is(err))
        err = run_child_end(each->run, effect.child, &end);
    *over = !err_is(err) && end.over;
    if (!*over)
        return err;
    effect.state = end.error ? EFFECT_FAILED : end.unknown ? EFFECT_REFUSED : EFFECT_COMMITTED;
    if (effect.state == EFFECT_COMMITTED)
        effect.result = end.result;
    effect.error = end.error;
    each->row->tokens += end.tokens;
    each->row->duration_ms += end.duration_ms;
    return end_item(each->run, each->index, each->row, at, &effect, &each->stop);
}

/* What came of the runs that are over. */
static err_t collect(each_t *each)
{
    size_t kept = 0;
    err_t err = err_ok();
    for (size_t i = 0; i < each->open_count && !err_is(err); i++) {
        bool over = false;
        if (!each->stop)
            err = end_of_run(each, each->open[i] + 1, &over);
        if (!over)
            each->open[kept++] = each->open[i];
    }
    each->open_count = kept;
    return err;
}

static void put_outcome(const effect_row_t *effect, buf_t *out)
{
    if (effect->state == EFFECT_FAILED) {
        mp_put_map(out, 1);
        mp_put_str(out, "error");
        mp_put_str(out, effect->error);
    } else if (effect->result.size) {
        mp_put_raw(out, effect->result);
    } else {
        mp_put_nil(out);
    }
}

/* All items are over. */
static err_t finish(each_t *each)
{
    run_t *run = each->run;
    int64_t refused = 0, count = each->row->items;
    buf_t out;
    buf_open(&out, run->arena);
    mp_put_array(&out, (uint32_t)count);
    for (int64_t at = 1; at <= count; at++) {
        effect_row_t effect;
        err_t err = effect_load(run, each->index, each->row->attempt, at, &effect);
        if (err_is(err))
            return err.code == ERR_NOT_FOUND ? err_of(ERR_CORRUPT, "an item without its effect")
                                             : err;
        refused += effect.state == EFFECT_REFUSED;
        put_outcome(&effect, &out);
    }
    if (refused)
        return run_step_refused(run, each->index, each->row, each->row->input,
                                arena_printf(run->arena,
                                             "%" PRId64 " of %" PRId64 " items were refused",
                                             refused, count));
    return run_step_completed(run, each->index, each->row, buf_bytes(&out));
}

static err_t wait_for(each_t *each, run_perform_t *reply)
{
    const step_row_t *row = each->row;
    return run_wait_child(
        each->run, each->index, each->row,
        arena_printf(each->run->arena,
                     "waits for %zu run%s of '%s' (%" PRId64 " of %" PRId64 " items are over)",
                     each->open_count, each->open_count == 1 ? "" : "s", each->step->procedure,
                     row->next - (int64_t)each->open_count, row->items),
        reply);
}

static err_t go_on(each_t *each, run_perform_t *reply)
{
    step_row_t *row = each->row;
    size_t most = each->step->parallel ? (size_t)each->step->parallel : 1;
    err_t err = collect(each), full = err_ok();
    while (!err_is(err) && !each->stop && row->next < row->items && each->open_count < most) {
        if (each->step->procedure)
            err = look_up_version(each);
        if (run_misfit(each->run, err)) {
            each->stop = err_what(err);
            err = err_ok();
            break;
        }
        if (!err_is(err))
            err = next_item(each, reply);
        if (err.code == ERR_QUOTA) {
            full = err;
            err = err_ok();
            break;
        }
        if (reply->action)
            return err;
    }
    if (err_is(err))
        return err;
    keep_open(each);
    if (each->stop)
        return run_step_failed(each->run, each->index, row, each->stop, reply);
    if (each->open_count)
        return wait_for(each, reply);
    if (err_is(full))
        return run_no_room(each->run, each->index, row, err_what(full), reply);
    return finish(each);
}

err_t run_each_go_on(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    each_t each;
    if (row->until_ms > call_now_ms(run->call))
        return run_sleep(run, index, row, "pauses before it tries again", reply);
    row->until_ms = 0;
    err_t err = open_each(&each, run, index, row);
    if (run_misfit(run, err))
        return run_fail_misfit(run, index, row, err, reply);
    return err_is(err) ? err : go_on(&each, reply);
}

/* The list as it is written, and how long it is. */
static bytes_t shown(const each_t *each)
{
    buf_t out;
    size_t size = sop_call_at(each->step);
    span_t list = span_trim((span_t){each->step->body, size});
    bool cut = list.size > LIST_SHOWN;
    for (list.size = cut ? LIST_SHOWN : list.size; !mp_utf8(list.text, list.size);)
        list.size--;
    buf_open(&out, each->run->arena);
    mp_put_map(&out, 2);
    mp_put_str(&out, "list");
    mp_put_str(&out, arena_printf(each->run->arena, "%.*s%s", (int)list.size, list.text,
                                  cut ? " ..." : ""));
    mp_put_str(&out, "items");
    mp_put_int(&out, each->count);
    return buf_bytes(&out);
}

err_t run_each_begin(run_t *run, size_t index, step_row_t *row, run_perform_t *reply)
{
    each_t each;
    row->items = 0;
    row->open = (bytes_t){0};
    row->version = NULL;
    err_t err = open_each(&each, run, index, row);
    if (!err_is(err) && each.step->procedure)
        err = look_up_version(&each);
    if (run_misfit(run, err))
        return run_fail_misfit(run, index, row, err, reply);
    if (err_is(err))
        return err;
    row->state = STEP_RUNNING;
    row->attempt++;
    row->started_ms = call_now_ms(run->call);
    row->until_ms = row->finished_ms = row->next = row->bytes = row->failures = 0;
    row->items = each.count;
    row->input = shown(&each);
    row->why = row->by = NULL;
    run->row.started++;
    return go_on(&each, reply);
}

/* ---- the outcome of a call ---------------------------------------------------------------- */

/* The same item after a pause, with another effect id: it failed, so it is no repetition. */
static err_t try_again(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                       const char *error, run_perform_t *reply)
{
    row->failures++;
    row->error = error;
    row->until_ms = call_now_ms(run->call) + run_pause_ms(run, row->failures);
    run->row.calls++;
    effect->state = EFFECT_INTENDED;
    effect->tries++;
    effect->effect_id = item_name(run, index, row->attempt, at, effect->tries);
    effect->intended_ms = call_now_ms(run->call);
    effect->error = error;
    err_t err = effect_save(run, index, row->attempt, at, effect);
    if (err_is(err))
        return err;
    return run_sleep(run, index, row,
                     arena_printf(run->arena,
                                  "item [%" PRId64 "] of step %zu (%s) failed and is tried again: "
                                  "%s",
                                  at - 1, index + 1, run->sop->steps[index].name, error),
                     reply);
}

static bool may_try(run_t *run, size_t index, const step_row_t *row, bool retryable)
{
    const sop_step_t *step = &run->sop->steps[index];
    int64_t unsaid = retryable ? run->agent->settings->step_retries : 0;
    return row->failures < (step->retries >= 0 ? step->retries : unsaid) &&
           !run_over_budget(run, BUDGET_CALL);
}

static void fill_outcome(effect_row_t *effect, const run_outcome_of_t *outcome)
{
    effect->state = outcome->good      ? EFFECT_COMMITTED
                    : outcome->refused ? EFFECT_REFUSED
                                       : EFFECT_FAILED;
    effect->result = outcome->good      ? outcome->result
                     : outcome->refused ? effect->args
                                        : (bytes_t){0};
    effect->error = outcome->good ? NULL : outcome->error;
}

err_t run_each_outcome(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect,
                       const run_outcome_of_t *outcome, run_perform_t *reply)
{
    run_outcome_of_t now = *outcome;
    const char *stop = NULL;
    if (now.unknown && !run_repeatable(effect, call_now_ms(run->call)))
        return run_ask_about(run, index, row, at, effect, now.error, reply);
    err_t fits = now.good ? run_check_result(run, now.result) : err_ok();
    row->duration_ms += now.duration_ms;
    if (!now.good && !now.refused && may_try(run, index, row, now.retryable || now.unknown))
        return try_again(run, index, row, at, effect, now.error, reply);
    if (err_is(fits))
        now = (run_outcome_of_t){.error = err_what(fits)};
    fill_outcome(effect, &now);
    run->row.calls -= now.refused; /* begun, and not made */
    row->next = at;
    row->error = NULL;
    err_t err = end_item(run, index, row, at, effect, &stop);
    if (err_is(err))
        return err;
    return stop ? run_step_failed(run, index, row, stop, reply)
                : run_each_go_on(run, index, row, reply);
}

err_t run_each_settle(run_t *run, size_t index, step_row_t *row, const run_outcome_of_t *outcome,
                      const char **stop)
{
    effect_row_t effect;
    int64_t at = row->next + 1;
    err_t err = effect_load(run, index, row->attempt, at, &effect);
    if (err_is(err))
        return err;
    fill_outcome(&effect, outcome);
    row->next = at;
    row->state = STEP_RUNNING;
    row->why = NULL;
    err = end_item(run, index, row, at, &effect, stop);
    return err_is(err) ? err : step_save(run, index, row);
}

/* ---- once more ---------------------------------------------------------------------------- */

bool run_each_keeps(const run_t *run, size_t index, const step_row_t *row)
{
    return run->sop->steps[index].kind == SOP_EACH && row->items > 0 &&
           (row->state == STEP_RUNNING || row->state == STEP_WAITING ||
            row->state == STEP_UNKNOWN || row->state == STEP_FAILED);
}

static err_t reset_item(run_t *run, size_t index, step_row_t *row, int64_t at, effect_row_t *effect)
{
    if (effect->state == EFFECT_COMMITTED) {
        row->bytes += (int64_t)effect->result.size;
        return err_ok();
    }
    if (run->sop->steps[index].tool && effect->state != EFFECT_INTENDED)
        run->row.calls++;
    effect->state = EFFECT_INTENDED;
    effect->tries++;
    effect->effect_id = item_name(run, index, row->attempt, at, effect->tries);
    effect->intended_ms = call_now_ms(run->call);
    effect->finished_ms = 0;
    effect->child = effect->error = NULL;
    effect->result = (bytes_t){0};
    return effect_save(run, index, row->attempt, at, effect);
}

err_t run_each_again(run_t *run, size_t index, step_row_t *row)
{
    err_t err = err_ok();
    row->bytes = row->next = row->failures = row->until_ms = row->finished_ms = 0;
    row->open = (bytes_t){0};
    row->version = row->error = row->why = row->by = NULL; /* what was wrong may be mended */
    row->state = STEP_RUNNING;
    for (int64_t at = 1; at <= row->items && !err_is(err); at++) {
        effect_row_t effect;
        err = effect_load(run, index, row->attempt, at, &effect);
        if (err.code == ERR_NOT_FOUND) /* they are begun in order */
            break;
        if (!err_is(err))
            err = reset_item(run, index, row, at, &effect);
    }
    return err_is(err) && err.code != ERR_NOT_FOUND ? err : step_save(run, index, row);
}

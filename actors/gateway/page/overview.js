// The first view: is everything up, is there work, does anything wait for a person?
import { h, card, pill, when, span, number, plural, table, empty, trouble, mono, cut } from './dom.js';
import { use, has, link } from './data.js';
import { chart, lineOf } from './chart.js';
import { runRows, runHeads } from './work.js';

const reasons = {
  steady: 'demand and workers agree', no_metric: 'the demand is not known: it holds', within_tolerance: 'the demand is close enough',
  queue: 'the queue calls for it', oldest_age: 'the oldest task waits too long', floor: 'asked for by hand or by a rule',
  stabilizing: 'it waits before it goes down', rate_limit: 'it goes only so fast', min_replicas: 'the least allowed', max_replicas: 'the most allowed',
};

const tile = (name, main, note, { tone, href } = {}) => h(href ? 'a' : 'div', { class: `tile ${tone ?? ''}`, href },
  h('span', { class: 'label' }, name), h('strong', {}, main), h('span', { class: 'note' }, note));

const wait = (entry) => (entry.error ? trouble(entry.error.message) : h('p', { class: 'loading' }, 'Loading…'));

function tiles() {
  const health = use('get_ecosystem_health', {}, { every: 5000 }).value;
  const queue = has('queue_stats') ? use('queue_stats', {}, { on: ['queue'], every: 10000 }).value : health?.scale;
  const scale = has('get_scaling_status') ? use('get_scaling_status', {}, { on: ['queue'], every: 5000 }).value : null;
  const open = has('task_list') ? use('task_list', { state: 'input_required', limit: 50 }, { on: ['queue', 'log'] }).value : null;
  const proposals = has('list_pending_proposals') ? use('list_pending_proposals', {}, { on: ['proposals'] }).value : null;
  const down = health?.pillars.filter((pillar) => !pillar.up) ?? [];
  const toDecide = (open?.tasks.length ?? 0) + (proposals?.proposals.length ?? 0);
  const oldest = queue?.oldest_ready_age_seconds ?? 0;
  return h('div', { class: 'tiles' },
    health && tile('Agency', health.status, down.length ? `${down.map((pillar) => pillar.name).join(', ')} away` : health.alerts_firing ? 'all pillars up, but an alert fires' : `${plural(health.pillars.length, 'pillar')} up`,
      { tone: health.status === 'healthy' ? 'good' : health.status === 'down' ? 'bad' : 'warn' }),
    queue && tile('Queue', number(queue.queue_length), queue.paused ? 'paused: no work is given out'
      : `${number(queue.ready)} ready · ${number(queue.leased + (queue.running ?? 0))} at work · ${number(queue.due_soon)} due soon`,
    { tone: queue.paused ? 'warn' : null, href: has('task_list') ? link('tasks') : null }),
    queue && tile('Oldest waits', oldest ? span(oldest) : 'none', oldest ? 'first in line' : 'nobody is kept waiting'),
    scale && tile('Workers', h('span', {}, scale.replicas === undefined ? number(scale.desired_replicas) : number(scale.replicas),
      h('small', {}, ` of ${number(scale.desired_replicas)}`)), scale.problem ?? reasons[scale.why] ?? scale.why,
    { tone: scale.problem || scale.status !== 'Running' ? 'warn' : null }),
    open && tile('To decide', number(toDecide), toDecide ? 'somebody waits for you' : 'nothing waits for you',
      { tone: toDecide ? 'warn' : null, href: link('decisions') }),
    health && tile('Alerts', number(health.alerts_firing), health.alerts_firing ? 'firing' : 'none fires',
      { tone: health.alerts_firing ? 'bad' : null, href: has('check_alerts') ? link('alerts') : null }));
}

function pillars() {
  const entry = use('get_ecosystem_health', {}, { every: 5000 });
  if (!entry.value) return card('Pillars', null, wait(entry));
  return card('Pillars', null, table(['Pillar', 'State', 'Up since', 'Version', '#Loop lag', '#Inbox', '#Calls', '#Errors'],
    entry.value.pillars.map((one) => [h('strong', {}, one.name),
      one.up ? pill(one.draining ? 'draining' : 'up') : h('span', {}, pill('down'), ' ', one.problem),
      one.since ? when(one.since) : '–', one.version ?? '–', one.lag_ms === undefined ? '–' : span(one.lag_ms / 1000),
      number(one.inbox), number(one.calls), h('span', { class: one.errors ? 'bad-text' : null }, number(one.errors))]),
    { label: 'Pillars', keys: entry.value.pillars.map((one) => one.name) }));
}

function workers() {
  const scaling = use('get_scaling_status', {}, { on: ['queue'], every: 5000 }), why = use('scale_explain', { limit: 5 }, { on: ['queue'], every: 10000 });
  const scale = scaling.value, told = why.value;
  if (!scale) return card('Workers', null, wait(scaling));
  return card('Workers', `${scale.mode} · ${scale.min_replicas} to ${scale.max_replicas}`,
    h('p', { class: 'lead' }, `${plural(scale.replicas ?? scale.desired_replicas, 'worker')}, wanted ${number(scale.desired_replicas)}: ${reasons[scale.why] ?? scale.why}.`,
      told ? h('span', { class: 'note' }, ` The queue calls for ${number(told.by_queue)}${told.by_age ? `, its age for ${number(told.by_age)}` : ''}${told.at_least ? `, a wish for ${number(told.at_least)}` : ''}.`) : null),
    scale.workers.length ? table(['Worker', 'State', '#At work'], scale.workers.map((one) => [mono(one.name), pill(one.state, one.state, one.state === 'ready' ? 'good' : undefined),
      `${number(one.busy)} of ${number(one.slots)}`]), { label: 'Workers' }) : null,
    told?.changes.length ? [h('h3', {}, 'Last changes'), h('ul', { class: 'plain' }, told.changes.map((change) =>
      h('li', {}, `${change.from} → ${change.to} `, h('span', { class: 'note' }, `${reasons[change.why] ?? change.why}, queue ${number(change.queue_length)}, `, when(change.at))))) ] : null);
}

function lines() {
  const shown = [['agent:queue_length', 'Queue length', { whole: true }], ['agent:task_transitions_completed', 'Tasks completed per minute', { rate: true }],
    ['elastic:scale_replicas', 'Workers', { whole: true }]];
  const drawn = shown.map(([metric, title, how]) => {
    const entry = use('metric_series', { metric, timeframe: 'last_hour', points: 120 }, { every: 15000 });
    if (!entry.value?.lines.length) return null;
    return chart({ title, whole: how.whole, ...lineOf(entry.value, metric.split(':')[0], how) });
  }).filter(Boolean);
  return drawn.length ? card('Last hour', has('get_health_report') ? h('a', { href: link('charts') }, 'All charts') : null, h('div', { class: 'charts three' }, drawn)) : null;
}

function recent() {
  const entry = use('task_list', { limit: 8 }, { on: ['queue', 'log'] });
  const body = !entry.value ? wait(entry) : entry.value.tasks.length
    ? table(runHeads, runRows(entry.value.tasks), { label: 'Latest tasks', keys: entry.value.tasks.map((task) => task.id) })
    : empty('Nothing has run yet. Teach it a procedure and run it:',
      'agency sop create examples/sops/workspace-report.md\nagency sop run workspace-report input=$PWD');
  return card('Latest tasks', h('a', { href: link('tasks') }, 'All tasks'), body);
}

function fleet() {
  const entry = use('list_agents', { limit: 20 }, { on: ['queue'], every: 10000 });
  if (!entry.value?.agents.length) return null;
  return card('Subagents', null, table(['Subagent', 'Role', 'State', 'Task', 'Run'], entry.value.agents.map((one) => [mono(one.agent_id),
    one.role, pill(one.state), cut(one.task, 90), one.run_id ? h('a', { href: link('runs', one.run_id) }, pill(one.run_state ?? 'pending')) : '–']), { label: 'Subagents' }));
}

export function overview() {
  return [h('h1', {}, 'Overview'), tiles(),
    has('metric_series') ? lines() : null,
    h('div', { class: 'columns' }, pillars(), has('get_scaling_status') ? workers() : null),
    has('task_list') ? recent() : null, has('list_agents') ? fleet() : null];
}

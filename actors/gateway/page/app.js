// The dashboard: who is asking, what is looked at, what changed.
import { h, show, trouble } from './dom.js';
import { seat, tools, companies, listen } from './client.js';
import { use, onData, beginView, refresh, changed, forgetAll, old, line, page, has, link } from './data.js';
import { overview } from './overview.js';
import { tasks, runs } from './work.js';
import { decisions } from './decisions.js';
import { alerts, charts } from './health.js';
import { memory } from './memory.js';
import { procedures } from './procedures.js';

// A view is there when the port and the token offer the tool it needs.
const views = {
  overview: { title: 'Overview', needs: 'get_ecosystem_health', draw: overview },
  decisions: { title: 'Decisions', needs: 'approve', draw: decisions },
  runs: { title: 'Runs', needs: 'run_get', draw: runs },
  tasks: { title: 'Tasks', needs: 'task_list', draw: tasks },
  procedures: { title: 'Procedures', needs: 'sop_list', draw: procedures },
  alerts: { title: 'Alerts', needs: 'check_alerts', draw: alerts },
  charts: { title: 'Charts', needs: 'metric_series', draw: charts },
  memory: { title: 'Memory', needs: 'brain_query', draw: memory },
};
const ports = { health: 4, brain: 2, swarm: 5, elastic: 6 };
const listened = ['queue/now', 'log/steps', 'report/last_hour', 'alerts/now', 'proposals/pending'];
let stage = 'opening', why = '', known = [], stop = null, drawing = false, lineState = 'opening';

// ---- Drawing ----

function counts() {
  const open = has('task_list') && has('approve') ? use('task_list', { state: 'input_required', limit: 50 }, { on: ['queue', 'log'] }).value?.tasks.length ?? 0 : 0;
  const proposals = has('list_pending_proposals') ? use('list_pending_proposals', {}, { on: ['proposals'] }).value?.proposals.length ?? 0 : 0;
  const firing = has('check_alerts') ? use('check_alerts', {}, { on: ['alerts', 'report'], every: 10000 }).value?.firing ?? 0 : 0;
  return { decisions: open + proposals, alerts: firing };
}

function bar() {
  const lamp = line.offline || lineState === 'lost' ? ['warn', 'Reconnecting…'] : lineState === 'live' ? ['good', 'Live'] : ['dim', 'Connecting…'];
  return h('header', { class: 'bar-top' }, h('a', { class: 'brand', href: link('overview') }, h('img', { src: '/icon.svg', alt: '', width: 24, height: 24 }), 'Agency'),
    h('span', { class: `lamp ${lamp[0]}`, role: 'status' }, h('i', {}), lamp[1]),
    h('div', { class: 'side' },
      known.length > 1 ? h('label', { class: 'inline' }, h('span', {}, 'Company '), h('select', { id: 'company', onchange: (event) => choose(event.target.value) },
        known.map((name) => h('option', { value: name, selected: name === seat.company }, name)))) : known.length ? h('span', { class: 'note' }, `Company ${known[0]}`) : null,
      seat.token ? h('button', { type: 'button', onclick: leave }, 'Sign out') : null));
}

function nav(count) {
  return h('nav', { 'aria-label': 'Views' }, Object.entries(views).filter(([, view]) => has(view.needs)).map(([name, view]) =>
    h('a', { href: link(name), 'aria-current': page.route[0] === name ? 'page' : null }, view.title, count[name] ? h('span', { class: `count ${name === 'alerts' ? 'bad' : ''}` }, count[name]) : null)));
}

function elsewhere() {
  const away = ports[page.pillar];
  return away ? h('p', { class: 'hint' }, `This port has the tools of ${page.pillar} only. The whole agency: `,
    h('a', { href: `${location.protocol}//${location.hostname}:${Number(location.port) - away}/` }, `port ${Number(location.port) - away}`), '.') : null;
}

function signIn() {
  const enter = (event) => {
    event.preventDefault();
    seat.token = event.currentTarget.elements.token.value.trim();
    open();
  };
  return h('main', { id: 'main', class: 'door' }, h('form', { class: 'card', 'data-key': 'door', onsubmit: enter }, h('h1', {}, 'Agency'),
    h('p', {}, 'This agency is open to bearers of a token only.'), why ? trouble(why) : null,
    h('label', { class: 'field' }, h('span', {}, 'Token'), h('input', { name: 'token', type: 'password', required: true, autocomplete: 'off', autofocus: true })),
    h('p', { class: 'note' }, 'It stays in this tab until you close it or sign out. Whoever runs the agency gives out tokens with the file of ', h('code', {}, 'agency up --tokens FILE'), '.'),
    h('div', { class: 'actions' }, h('button', { class: 'primary' }, 'Enter'))));
}

function draw() {
  drawing = false;
  const root = document.getElementById('app');
  if (stage === 'door') { show(root, signIn()); return; }
  if (stage === 'opening') { show(root, h('main', { id: 'main', class: 'door' }, why ? trouble(why) : h('p', { class: 'loading' }, 'Opening…'))); return; }
  beginView();
  page.company = seat.company || known[0];
  const [name, ...rest] = page.route, view = views[name] && has(views[name].needs) ? views[name] : views.overview;
  const count = counts();
  let body;
  try {
    body = has(view.needs) ? view.draw(...rest) : [h('h1', {}, 'Agency'), h('p', {}, 'The tools of this port have no view here.')];
  } catch (error) { // never a blank page
    body = [h('h1', {}, view.title), trouble(`This view cannot be shown: ${error.message}`)];
  }
  const stale = old();
  show(root, bar(), h('div', { class: 'frame' }, nav(count), h('main', { id: 'main', tabindex: -1, 'data-key': page.route.join('/') }, elsewhere(),
    stale ? h('p', { class: 'hint warn', role: 'status' }, `Some of this is old: ${stale}`) : null, body)));
  document.title = `${count.decisions + count.alerts ? `(${count.decisions + count.alerts}) ` : ''}${view.title} · Agency`;
  refresh();
}

function redraw() {
  if (drawing) return;
  drawing = true;
  if (document.hidden) setTimeout(draw, 0); // the title still counts what waits
  else requestAnimationFrame(draw);
}

// ---- Coming, choosing, leaving ----

function pillarOf(names) {
  const signs = { agent: 'task_list', health: 'check_alerts', brain: 'brain_query', swarm: 'list_agents', elastic: 'scale_explain' };
  return Object.keys(signs).find((pillar) => names.has(signs[pillar])) ?? 'agent';
}

function follow() {
  stop?.();
  const company = seat.company ? `?company=${encodeURIComponent(seat.company)}` : '';
  stop = listen(listened.map((path) => `agency://${path}${company}`), (kind) => (kind === 'tools' ? learn() : changed(kind)), (state) => {
    if (state === 'refused') { why = 'The token is not taken any more.'; close('door'); return; }
    const back = state === 'live' && lineState !== 'live';
    lineState = state;
    line.live = state === 'live';
    if (back) changed('*');
    redraw();
  });
}

async function learn() {
  try {
    page.tools = await tools();
    page.pillar = pillarOf(page.tools);
    redraw();
  } catch (error) { onError(error); }
}

function close(next) {
  stop?.();
  stop = null;
  forgetAll();
  stage = next;
  redraw();
}

function leave() {
  seat.token = '';
  seat.company = '';
  why = '';
  close('opening');
  open();
}

function choose(company) {
  seat.company = company;
  forgetAll();
  follow();
  redraw();
}

function onError(error) {
  if (error.status === 401 && stage !== 'door') {
    why = seat.token ? `The token is not taken: ${error.message}.` : '';
    seat.token = '';
    close('door');
  }
}

async function open() {
  stage = 'opening';
  why = '';
  redraw();
  try {
    page.tools = await tools();
    page.pillar = pillarOf(page.tools);
    const kind = page.pillar === 'agent' ? 'task' : { health: 'report', brain: 'memory', swarm: 'agent' }[page.pillar];
    known = kind ? await companies(kind).catch(() => []) : [];
    if (!known.includes(seat.company)) seat.company = known.length > 1 ? known[0] : '';
    stage = 'open';
    follow();
    redraw();
  } catch (error) {
    if (error.status === 401) { onError(error); return; }
    why = error.message;
    redraw();
    setTimeout(open, 2000);
  }
}

const decoded = (part) => { try { return decodeURIComponent(part); } catch { return part; } };

function route() {
  page.route = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decoded);
  if (!page.route.length) page.route = ['overview'];
  redraw();
  document.getElementById('main')?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

onData(redraw, onError);
window.addEventListener('hashchange', route);
document.querySelector('.skip').onclick = (event) => { event.preventDefault(); document.getElementById('main')?.focus(); };
document.addEventListener('visibilitychange', () => { if (!document.hidden && stage === 'open') changed('*'); });
setInterval(() => { if (stage === 'open' && !document.hidden) redraw(); }, 2000);
route();
open();

// Health beside the real Prometheus and Alertmanager, and a webhook that is dead at first.
import { test, before } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, execFileSync, spawnSync } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startAgency, legacyCall, source } from './agency.mjs';

const tools = join(source, 'build', 'tools', 'usr', 'bin');
const tool = (name) => join(tools, name);

const call = async (agency, name, args = {}) => {
  const answer = await legacyCall(agency.url(), name, args);
  const result = answer.json.result;
  return { error: result.isError, text: result.content[0].text, ...result.structuredContent };
};

async function until(ask, want, ms = 20000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    try { last = await ask(); if (want(last)) return last; } catch (error) { last = error; }
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`in vain: ${last?.stack ?? JSON.stringify(last)}`);
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

before(() => execFileSync(tool('promtool'), ['--version'], { stdio: 'ignore' }));

test('the metrics of every port please promtool, in both formats', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await call(agency, 'track_metric', { agent: 'a "quoted" one', metric: 'm\\x', value: 1.5 });
  await call(agency, 'task_submit', { kind: 'k', input: 1 });
  for (const port of [3000, 3002, 3004, 3006]) {
    const answer = await fetch(agency.url(port, '/metrics'));
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
    const checked = spawnSync(tool('promtool'), ['check', 'metrics'], { input: await answer.text() });
    assert.equal(checked.status, 0, `${port}: ${checked.stdout}${checked.stderr}`);
    const open = await fetch(agency.url(port, '/metrics'), { headers: { accept: 'application/openmetrics-text' } });
    assert.match(open.headers.get('content-type'), /^application\/openmetrics-text/);
    assert.match(await open.text(), /\n# EOF\n$/);
    for (const path of ['/livez', '/readyz', '/startupz', '/health']) {
      assert.equal((await fetch(agency.url(port, path))).status, 200, `${port}${path}`);
    }
  }
  const queue = await (await fetch(agency.url(3000, '/metrics'))).text();
  assert.match(queue, /^agency_queue_length 1$/m);
});

test('every family is there, hostile names do no harm, and the pillars are at one glance', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const hostile = ['a"b\\c', 'new\u2028line', '{evil="1"} 5', '# HELP x', '\u0430\u0433\u0435\u043d\u0442', "'; drop table", '../../etc'];
  for (const name of hostile) {
    const kept = await call(agency, 'track_metric', { agent: name, metric: name, value: 1, tags: { [name]: name, n: '1' } });
    assert.ok(!kept.error, `${name}: ${kept.text}`);
  }
  for (const [bad, says] of [[{ value: 'NaN' }, /value/], [{ value: 1e999 }, /value/], [{ metric: 'a\nb' }, /control character/],
    [{ metric: 'x'.repeat(201) }, /metric/], [{ tags: 'no' }, /tags must be an object/], [{ tags: { deep: 'x'.repeat(5000) } }, /tags/],
    [{ agent: 'a:b' }, /colon/], [{ timestamp: '2000-01-01' }, /year back/], [{ nme: 1 }, /nme/]]) {
    const answer = await call(agency, 'track_metric', { agent: 'a', metric: 'm', value: 1, ...bad });
    assert.equal(answer.error, true, JSON.stringify(bad));
    assert.match(answer.text, says);
  }
  const { metrics } = await call(agency, 'get_health_report');
  for (const name of hostile) assert.equal(metrics[`${name}:${name}`]?.count, 1, name);
  const text = await (await fetch(agency.url(3004, '/metrics'))).text();
  const checked = spawnSync(tool('promtool'), ['check', 'metrics'], { input: text });
  assert.equal(checked.status, 0, `${checked.stdout}${checked.stderr}`);
  assert.equal(text.match(/^agency_tracked_value\{agent="(?!(agent|brain|swarm|elastic|outside)")/mg).length, hostile.length, 'one line for each');
  assert.ok(!/^\{evil|^# HELP x/m.test(text));

  await call(agency, 'task_submit', { kind: 'k', input: 1 });
  const families = async (port) => new Set([...(await (await fetch(agency.url(port, '/metrics'))).text())
    .matchAll(/^# TYPE (\S+) (\S+)$/mg)].map((row) => `${row[1]} ${row[2]}`));
  const common = ['agency_calls_total counter', 'agency_call_duration_seconds histogram', 'agency_actor_inbox gauge',
    'agency_bus_refused_calls_total counter', 'agency_bus_events_total counter', 'agency_store_commits_total counter',
    'agency_store_commit_seconds_total counter', 'process_cpu_seconds_total counter', 'agency_pillar_up gauge'];
  for (const [port, own] of [[3000, ['agency_queue_length gauge', 'agency_runs_total counter', 'agency_steps_total counter',
    'agency_step_duration_seconds histogram', 'agency_effects_total counter', 'agency_task_transitions_total counter']],
  [3002, ['agency_brain_index_vectors gauge']], [3004, ['agency_health_points_total counter']], [3005, []],
  [3006, ['agency_scale_replicas gauge', 'agency_scale_desired_replicas gauge', 'agency_scale_changes_total counter']]]) {
    const there = await families(port);
    for (const family of [...common, ...own]) assert.ok(there.has(family), `${port}: ${family} in ${[...there].join(', ')}`);
  }

  const fleet = await until(() => call(agency, 'get_swarm_fleet_status'), (answer) => answer.status === 'working');
  assert.deepEqual(fleet.silent, []);
  assert.equal(fleet.queue_length, 1);
  assert.equal(fleet.subagents_live, 0);
  assert.ok(fleet.workers_active >= 1 && fleet.workers.agents.length >= 1, fleet.text);
  const all = await call(agency, 'get_system_health_summary');
  for (const pillar of all.pillars.filter((one) => one.up)) {
    assert.match(pillar.version, /^\d+\.\d+/, pillar.name);
    assert.ok(pillar.lag_ms >= 0 && pillar.since > 0, JSON.stringify(pillar));
    assert.equal('lives' in pillar, pillar.name !== 'outside', 'outside keeps nothing');
  }
});

test('Prometheus scrapes, evaluates the shipped rules and answers for the adapter', async (t) => {
  const agency = await startAgency();
  const dir = await mkdtemp(join(tmpdir(), 'agency-prometheus-'));
  const port = await freePort();
  const rules = join(source, 'charts', 'agency', 'prometheus-rules.yaml');
  execFileSync(tool('promtool'), ['check', 'rules', rules]);
  const targets = [3000, 3002, 3004, 3006].map((one) => `'127.0.0.1:${one + agency.offset}'`).join(', ');
  await writeFile(join(dir, 'prometheus.yml'), `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ['${rules}']
scrape_configs:
  - job_name: agency
    static_configs: [{targets: [${targets}]}]
`);
  const prometheus = spawn(tool('prometheus'), [`--config.file=${dir}/prometheus.yml`,
    `--storage.tsdb.path=${dir}/data`, `--web.listen-address=127.0.0.1:${port}`, '--log.level=error'], { stdio: 'ignore' });
  t.after(async () => {
    prometheus.kill('SIGKILL');
    await agency.stop();
    await rm(dir, { recursive: true, force: true });
  });
  for (let i = 0; i < 7; i++) await call(agency, 'task_submit', { kind: 'k', input: i });
  const ask = async (query) => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`);
    return (await answer.json()).data.result;
  };
  await until(() => ask('up{job="agency"} == 1'), (rows) => rows.length === 4, 40000);
  // What the adapter's rule for queue_length asks: one owner, so a sum of one.
  const length = await until(() => ask('sum(agency_queue_length)'), (rows) => rows[0]?.value[1] === '7', 30000);
  assert.equal(length.length, 1);
  const loaded = await (await fetch(`http://127.0.0.1:${port}/api/v1/rules`)).json();
  const all = loaded.data.groups.flatMap((group) => group.rules);
  assert.ok(all.length >= 5);
  await until(async () => (await (await fetch(`http://127.0.0.1:${port}/api/v1/rules`)).json()).data.groups
    .flatMap((group) => group.rules), (rows) => rows.every((row) => row.health === 'ok'), 30000);
});

test('an alert reaches a real Alertmanager, and resolves there', async (t) => {
  const port = await freePort();
  const dir = await mkdtemp(join(tmpdir(), 'agency-alertmanager-'));
  await writeFile(join(dir, 'config.yml'), 'route: {receiver: none}\nreceivers: [{name: none}]\n');
  const manager = spawn(tool('prometheus-alertmanager'), [`--config.file=${dir}/config.yml`, `--storage.path=${dir}/data`,
    `--web.listen-address=127.0.0.1:${port}`, '--cluster.listen-address=', '--log.level=error'], { stdio: 'ignore' });
  const agency = await startAgency({ env: {
    AGENCY_HEALTH_ALERTMANAGER_URL: `http://127.0.0.1:${port}`, AGENCY_HEALTH_WEBHOOK_BACKOFF_MS: '50' } });
  t.after(async () => {
    manager.kill('SIGKILL');
    await agency.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const alerts = async () => (await fetch(`http://127.0.0.1:${port}/api/v2/alerts`)).json();
  await call(agency, 'alert_on_threshold', { metric: 'errors', threshold: 5, operator: '>', id: 'too-many' });
  await call(agency, 'track_metric', { agent: 'bot', metric: 'errors', value: 9 });
  const [one] = await until(alerts, (rows) => rows.length === 1);
  assert.equal(one.labels.alertname, 'too-many');
  assert.equal(one.labels.agent, 'bot');
  await call(agency, 'track_metric', { agent: 'bot', metric: 'errors', value: 1 });
  await until(alerts, (rows) => rows.length === 0);
});

test('one fire and one resolve reach a webhook that was dead, across kill -9', async (t) => {
  const port = await freePort();
  const agency = await startAgency({ env: {
    AGENCY_HEALTH_WEBHOOK_URL: `http://127.0.0.1:${port}/hook`, AGENCY_HEALTH_WEBHOOK_BACKOFF_MS: '20' } });
  const got = [];
  let refusals = 3;
  const hook = createServer((request, response) => {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      response.statusCode = refusals-- > 0 ? 503 : 200;
      if (response.statusCode === 200) got.push(JSON.parse(body));
      response.end();
    });
  });
  t.after(async () => { hook.close(); await agency.stop(); });
  await call(agency, 'alert_on_threshold', { metric: 'm', threshold: 5, operator: '>', id: 'rule' });
  for (let i = 0; i < 3; i++) await call(agency, 'track_metric', { agent: 'a', metric: 'm', value: 9 });
  const pid = Number(await readFile(join(agency.data, 'run', 'health.pid'), 'utf8'));
  process.kill(pid, 'SIGKILL');
  hook.listen(port, '127.0.0.1');
  await until(() => got, (list) => list.length === 1);
  await until(() => call(agency, 'track_metric', { agent: 'a', metric: 'm', value: 1 }), (answer) => !answer.error);
  await until(() => got, (list) => list.length === 2);
  assert.deepEqual(got.map((one) => [one.version, one.status, one.alerts[0].labels.alertname]),
    [['4', 'firing', 'rule'], ['4', 'resolved', 'rule']]);
});

test('points survive kill -9: every one once, in the report and in the file', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  let acknowledged = 0, tried = 0;
  const file = join(agency.data, 'metrics', `${new Date().toISOString().slice(0, 10)}.ndjson`);
  await mkdir(join(agency.data, 'metrics'), { recursive: true });
  for (let round = 0; round < 3; round++) {
    const pid = Number(await readFile(join(agency.data, 'run', 'health.pid'), 'utf8'));
    const work = Promise.all(Array.from({ length: 40 }, async (_, i) => {
      await appendFile(file, `${JSON.stringify({ timestamp: Date.now(), agent: 'outside', metric: 'n', value: i })}\n`);
      tried++;
      const answer = await call(agency, 'track_metric', { agent: 'inside', metric: 'n', value: 1 });
      if (!answer.error) acknowledged++;
      if (i === 20) process.kill(pid, 'SIGKILL');
    }));
    await work;
    await until(async () => (await fetch(agency.url(3004, '/readyz'))).status, (status) => status === 200);
  }
  const report = await until(() => call(agency, 'get_health_report', { metric: 'n' }),
    (answer) => answer.metrics?.['outside:n']?.count === 120);
  const count = report.metrics['inside:n'].count;
  assert.ok(count >= acknowledged && count <= tried, `${acknowledged} <= ${count} <= ${tried}`);
  const lines = await until(async () => (await readFile(file, 'utf8')).split('\n')
    .filter((line) => line.includes('"inside"')), (rows) => rows.length >= count);
  assert.equal(new Set(lines).size, count);
  assert.equal(lines.length, count);
});

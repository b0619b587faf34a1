// Three pods as processes: two replicas of the agent and the brain. Each has an address and a
// directory of its own; between them there is only tcp with keys.
import test, { before, after } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, execFile } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { setTimeout as pause } from 'node:timers/promises';
import { binary, freeOffset, legacyCall, post } from './agency.mjs';

const run = promisify(execFile);
const PORTS = { agent: 3000, brain: 3002, health: 3004, swarm: 3005, elastic: 3006 };

async function until(ask, enough, ms = 60000) {
  const end = Date.now() + ms;
  for (;;) {
    const answer = await Promise.resolve().then(ask).catch((error) => ({ failed: error.message }));
    if (enough(answer)) return answer;
    assert.ok(Date.now() < end, `still: ${JSON.stringify(answer).slice(0, 1500)}`);
    await pause(20);
  }
}

class Cluster {
  async open() {
    this.dir = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
    this.offset = await freeOffset();
    await run(binary, ['keygen', join(this.dir, 'keys')]);
    this.keyFile = join(this.dir, 'gateway.key');
    await writeFile(this.keyFile, randomBytes(32), { mode: 0o600 });
    this.pods = {
      brain: { ip: '127.0.0.9', name: 'house-brain-0', containers: ['brain'] },
      0: { ip: '127.0.0.2', name: 'house-agent-0', containers: ['agent', 'health', 'swarm', 'elastic'] },
      1: { ip: '127.0.0.3', name: 'house-agent-1', containers: ['agent', 'health', 'swarm', 'elastic'] },
    };
    for (const pod of Object.values(this.pods)) {
      pod.data = join(this.dir, pod.name);
      pod.processes = {};
      await mkdir(pod.data);
    }
  }

  // What docs/cluster.md says that a container is given.
  env(pod) {
    const brain = pod.name.includes('brain');
    return {
      AGENCY_DATA: pod.data, AGENCY_BIND: pod.ip, COMPANY: 'acme',
      AGENCY_BUS_OWNER: this.pods[0].ip, AGENCY_BUS_LISTEN: pod.ip, AGENCY_GATEWAY_KEY_FILE: this.keyFile,
      AGENCY_BUS_CURVE_KEY: join(this.dir, 'keys', 'curve.key'), AGENCY_BUS_CURVE_ALLOW: join(this.dir, 'keys', 'curve.pub'),
      AGENCY_BUS_CURVE_SERVERS: join(this.dir, 'keys', 'curve.pub'),
      AGENCY_HEALTH_POLL_MS: '50', AGENCY_FEED_POLL_MS: '50', AGENCY_GATEWAY_AWAY_MS: '1500', AGENCY_AGENT_LEASE_MS: '3000',
      ...(brain ? {} : { AGENCY_BUS_POD: pod.name, AGENCY_BUS_BRAIN: `tcp://${this.pods.brain.ip}:${5502 + this.offset}` }),
    };
  }

  async start(pod, what, env = {}) {
    const child = spawn(binary, ['run', what, `--port-offset=${this.offset}`],
      { env: { PATH: process.env.PATH, ...this.env(pod), ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    child.output = '';
    child.gone = new Promise((done) => child.once('exit', done));
    pod.processes[what] = child;
    await new Promise((done, fail) => {
      const look = (chunk) => { child.output += chunk; if (child.output.includes('is ready')) done(); };
      child.stdout.on('data', look);
      child.stderr.on('data', look);
      child.gone.then((code) => fail(new Error(`${pod.name} ${what} ended with ${code}: ${child.output}`)));
    });
    return child;
  }

  startPod(pod) { return Promise.all(pod.containers.map((what) => this.start(pod, what))); }
  async kill(pod, what) { const child = pod.processes[what]; child.kill('SIGKILL'); await child.gone; }
  url(pod, port, path = '/mcp') { return new URL(`http://${pod.ip}:${port + this.offset}${path}`); }
  probe(pod, what, path) { return fetch(this.url(pod, PORTS[what], path)); }

  async call(pod, name, args = {}, port = 3000) {
    const { json } = await legacyCall(this.url(pod, port), name, args);
    if (!json?.result?.content) throw new Error(JSON.stringify(json) ?? 'no answer');
    const { structuredContent = {}, content, isError } = json.result;
    return { ...structuredContent, text: content?.[0]?.text, error: isError };
  }

  async cli(words, env) {
    try {
      const { stdout, stderr } = await run(binary, words, { env: { PATH: process.env.PATH, ...env }, timeout: 60000 });
      return { code: 0, stdout, stderr };
    } catch (error) {
      return { code: error.code, stdout: error.stdout ?? '', stderr: error.stderr ?? '' };
    }
  }

  async close() {
    const all = Object.values(this.pods).flatMap((pod) => Object.values(pod.processes));
    for (const child of all) if (child.exitCode === null) child.kill('SIGTERM');
    await Promise.all(all.map((child) => child.gone));
    await rm(this.dir, { recursive: true, force: true });
  }
}

const house = new Cluster();
let owner, replica;
const ready = (pod, what) => until(async () => { const answer = await house.probe(pod, what, '/readyz'); return { pod: pod.name, what, status: answer.status, says: await answer.text() }; }, (answer) => answer.status === 200);

before(async () => {
  await house.open();
  [owner, replica] = [house.pods[0], house.pods[1]];
  // In any order: the replica first.
  await Promise.all([replica, owner, house.pods.brain].map((pod) => house.startPod(pod)));
  await Promise.all([owner, replica].flatMap((pod) => pod.containers.map((what) => ready(pod, what))));
});
after(() => house.close());

test('any replica serves any call', async () => {
  const { id } = await house.call(replica, 'task_submit', { kind: 'k', input: { n: 1 } });
  assert.equal((await house.call(owner, 'task_get', { id })).task.state, 'ready');
  await house.call(owner, 'task_cancel', { id });
  assert.equal((await house.call(replica, 'task_get', { id })).task.state, 'cancelled');
  await house.call(replica, 'brain_store', { taskId: 't', request: 'the colour of the sky', solution: 'blue' });
  const { memories } = await house.call(owner, 'brain_query', { query: 'colour of the sky' });
  assert.equal(memories[0].solution, 'blue');
  assert.equal((await house.call(house.pods.brain, 'brain_query', { query: 'colour of the sky' }, 3002)).memories.length, 1);
  await house.call(replica, 'track_metric', { agent: 'a', metric: 'm', value: 7 }, 3004);
  assert.equal((await house.call(owner, 'get_health_report', { agent: 'a' }, 3004)).metrics['a:m'].last, 7);
  assert.ok((await house.call(replica, 'list_agents', {}, 3005)).agents);
  assert.equal((await house.call(replica, 'get_scaling_status', {}, 3006)).mode,
    (await house.call(owner, 'get_scaling_status', {}, 3006)).mode);
  const tools = async (pod) => (await post(house.url(pod, 3000), { jsonrpc: '2.0', id: 1, method: 'tools/list' })).json.result.tools.length;
  assert.equal(await tools(replica), await tools(owner));
  const scale = await (await house.probe(replica, 'agent', '/api/v1/scale')).json();
  assert.equal(scale.queue_length, 0);
});

test('a session that one replica began goes on at another', async () => {
  const begun = await post(house.url(owner, 3000), { jsonrpc: '2.0', id: 1, method: 'initialize',
    params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'c', version: '1' } } });
  const session = begun.headers.get('mcp-session-id');
  assert.ok(session);
  const there = await post(house.url(replica, 3000), { jsonrpc: '2.0', id: 2, method: 'tools/list' }, { 'mcp-session-id': session });
  assert.equal(there.status, 200, there.text);
});

test('only the owner shows the metrics of a pillar; a replica shows its own process', async () => {
  const text = async (pod) => (await house.probe(pod, 'agent', '/metrics')).text();
  assert.match(await text(owner), /^agency_queue_length/m);
  const shown = await text(replica);
  assert.doesNotMatch(shown, /^agency_queue_length/m);
  assert.match(shown, /^agency_pillar_up\{pillar="agent"\} 1$/m);
});

const hold = (gate) => `# hold

1. **Hold**

   \`\`\`sh
   until [ -e ${gate} ]; do sleep 0.05; done
   \`\`\`
`;

test('workers are children of the agent on every replica; a drained pod gets no work, and says when it is empty', async () => {
  const pid = async (pod) => Number(await readFile(join(pod.data, 'run', `${pod.name}.pid`), 'utf8'));
  await until(() => Promise.all([pid(owner), pid(replica)]), (pids) => Array.isArray(pids) && pids.every(Boolean));
  const local = (pod) => ({ AGENCY_DATA: pod.data });
  const drained = await house.cli(['drain', 'agent', '--timeout', '30000'], local(owner));
  assert.equal(drained.code, 0, drained.stderr);
  assert.match(drained.stdout, /house-agent-0 has drained/);
  assert.equal((await house.probe(owner, 'agent', '/readyz')).status, 503);
  assert.equal((await house.probe(owner, 'agent', '/livez')).status, 200);
  assert.equal((await house.probe(owner, 'health', '/readyz')).status, 200, 'another container is not drained');
  assert.ok((await house.call(owner, 'queue_stats')).queue_length >= 0, 'and still serves');
  const gate = join(house.dir, 'gate');
  await house.call(replica, 'sop_create', { name: 'hold', content: hold(gate) });
  const held = await house.call(replica, 'sop_execute', { name: 'hold', wait_ms: 0 });
  const state = async (id) => (await house.call(replica, 'task_get', { id })).task;
  await until(() => state(held.id), (task) => task.state === 'running'); // by the replica's worker: nobody else is left
  const busy = await house.cli(['drain', 'agent', '--timeout', '700'], local(replica));
  assert.equal(busy.code, 1, busy.stdout);
  assert.match(busy.stderr, /house-agent-1 is still at work after 700 ms/);
  // The other containers of the pod wait for it, too, when it is the pod that goes.
  const beside = await house.cli(['drain', 'swarm', '--timeout', '900'], local(replica));
  assert.equal(beside.code, 1, beside.stdout);
  assert.equal((await house.probe(replica, 'swarm', '/readyz')).status, 503);
  await writeFile(gate, '');
  const done = await house.cli(['drain', 'agent', '--timeout', '30000'], local(replica));
  assert.equal(done.code, 0, done.stderr);
  const task = await until(() => state(held.id), (now) => now.state === 'completed' || now.state === 'ready');
  assert.equal(task.crashes, 0);
  // A new life of the worker takes work again; its supervisor brings it back.
  const before = await pid(replica);
  process.kill(before, 'SIGKILL');
  await until(() => pid(replica), (now) => now > 0 && now !== before);
  const run = await house.call(replica, 'sop_execute', { name: 'hold', wait_ms: 30000 });
  assert.equal(run.state, 'completed');
  // The worker dies with the agent.
  const orphan = await pid(replica);
  await house.kill(replica, 'agent');
  await until(() => { try { process.kill(orphan, 0); return true; } catch { return false; } }, (alive) => alive === false);
  await house.start(replica, 'agent');
  await house.kill(owner, 'agent'); // and it is not drained any more
  await house.start(owner, 'agent');
  await Promise.all([ready(owner, 'agent'), ready(replica, 'agent')]);
  const alone = await house.cli(['drain', 'elastic', '--timeout', '30000'], local(replica));
  assert.equal(alone.code, 0, 'its workers go on: only this container is started again');
  for (const what of ['swarm', 'elastic']) { // as the kubelet would now
    await house.kill(replica, what);
    await house.start(replica, what);
    await ready(replica, what);
  }
  assert.equal((await house.cli(['drain', 'nobody'], local(owner))).code, 2);
  assert.equal((await house.cli(['drain'], { AGENCY_DATA: house.dir })).code, 3);
});

test('the owner is killed while a replica is called: nothing acknowledged is lost or doubled', async () => {
  const acknowledged = new Map();
  let over = false, next = 0;
  const client = async () => {
    while (!over) {
      const key = `key-${next++}`;
      for (;;) { // the same key until there is an answer, as a client should
        const answer = await house.call(replica, 'task_submit', { kind: 'flood', idempotency_key: key }).catch((error) => ({ error }));
        if (answer.id && !answer.error) { acknowledged.set(key, answer.id); break; }
      }
    }
  };
  const clients = Array.from({ length: 6 }, client);
  for (let i = 0; i < 3; i++) {
    const enough = acknowledged.size + 40;
    await until(() => acknowledged.size, (size) => size >= enough);
    await house.kill(owner, 'agent');
    await house.start(owner, 'agent');
  }
  const enough = acknowledged.size + 20;
  await until(() => acknowledged.size, (size) => size >= enough);
  over = true;
  await Promise.all(clients);
  assert.equal(new Set(acknowledged.values()).size, acknowledged.size);
  for (const [key, id] of [...acknowledged].filter((_, index) => index % 10 === 0)) {
    const again = await house.call(owner, 'task_submit', { kind: 'flood', idempotency_key: key });
    assert.equal(again.id, id);
    assert.equal(again.existed, true);
  }
  const found = new Set();
  let cursor;
  do {
    const page = await house.call(owner, 'task_list', { kind: 'flood', limit: 100, ...(cursor ? { cursor } : {}) });
    for (const task of page.tasks) found.add(task.id);
    cursor = page.cursor;
  } while (cursor);
  assert.equal(found.size, acknowledged.size, 'each key one task');
  for (const id of acknowledged.values()) assert.ok(found.has(id), id);
});

test('a run goes on at a replica while the owner is killed: every step once', async () => {
  const trace = join(house.dir, 'trace');
  const steps = Array.from({ length: 12 }, (_, i) => `${i + 1}. **S${i + 1}**

   \`\`\`sh
   echo ${i + 1} >> ${trace}; sleep 0.15
   \`\`\`
`).join('\n');
  await house.call(replica, 'sop_create', { name: 'trace', content: `# trace\n\n${steps}` });
  // The worker of the replica is the only one: that of the owner dies with it, and what it held is asked about.
  const restart = async (env) => { await house.kill(owner, 'agent'); await house.start(owner, 'agent', env); };
  await restart({ AGENCY_BUS_WORKERS: '0' });
  const { id } = await house.call(replica, 'sop_execute', { name: 'trace', wait_ms: 0 });
  const lines = async () => (await readFile(trace, 'utf8').catch(() => '')).split('\n').filter(Boolean);
  for (const enough of [2, 5, 8]) {
    await until(lines, (all) => all.length >= enough);
    await restart({ AGENCY_BUS_WORKERS: '0' });
  }
  const { task } = await until(() => house.call(replica, 'task_get', { id }), (answer) => ['completed', 'failed', 'input_required'].includes(answer.task?.state));
  assert.equal(task.state, 'completed');
  assert.deepEqual(await lines(), Array.from({ length: 12 }, (_, i) => String(i + 1)));
  await restart();
});

test('the owner is away: a clear error in bounded time, the replica lives, and finds it again', async () => {
  await house.kill(owner, 'agent');
  const answer = await house.call(replica, 'task_submit', { kind: 'k' });
  assert.equal(answer.error, true);
  assert.match(answer.text, /'agent' is away: it has not answered for 1500 ms/);
  assert.equal((await house.probe(replica, 'agent', '/livez')).status, 200);
  assert.equal((await house.probe(replica, 'agent', '/startupz')).status, 200);
  const not = await house.probe(replica, 'agent', '/readyz');
  assert.equal(not.status, 503);
  assert.match((await not.json()).why, /owner of 'agent' \(ordinal 0\) is not reached/);
  assert.equal((await house.probe(replica, 'health', '/readyz')).status, 200);
  // A replica may start while the owner is away.
  await house.kill(replica, 'agent');
  await house.start(replica, 'agent');
  assert.equal((await house.probe(replica, 'agent', '/startupz')).status, 200);
  const early = await house.call(replica, 'task_submit', { kind: 'k' });
  assert.equal(early.error, true);
  assert.match(early.text, /away or starting: agent/);
  await house.start(owner, 'agent');
  await ready(replica, 'agent');
  assert.ok((await house.call(replica, 'task_submit', { kind: 'k' })).id);
});

test('metrics on the volume of a replica come to the owner once each, whoever is killed', async () => {
  const file = join(replica.data, 'metrics', `${new Date().toISOString().slice(0, 10)}.ndjson`);
  await mkdir(join(replica.data, 'metrics'), { recursive: true });
  let sum = 0, count = 0;
  const write = async (lines) => {
    let text = '';
    for (let i = 0; i < lines; i++) {
      sum += ++count;
      text += `${JSON.stringify({ timestamp: Date.now(), agent: 'w', metric: 'volume', value: count })}\n`;
    }
    await appendFile(file, text);
  };
  const seen = async () => (await house.call(owner, 'get_health_report', { agent: 'w' }, 3004)).metrics?.['w:volume'] ?? { count: 0 };
  await write(20000);
  for (let i = 0; i < 3; i++) {
    await write(3000);
    await house.kill(replica, 'health');
    await Promise.all([house.start(replica, 'health'), write(3000)]);
    const before = (await until(seen, (row) => row.count >= 0)).count;
    if (before < count) await until(seen, (row) => row.count > before); // it is under way
    await write(5000);
    await house.kill(owner, 'health');
    await house.start(owner, 'health');
  }
  const all = await until(seen, (row) => row.count >= count);
  assert.equal(all.count, count);
  assert.equal(all.sum, sum);
});

// Longer with AGENCY_CHAOS_SECONDS=600; another course with AGENCY_CHAOS_SEED=2.
test('everything is killed at random: nothing acknowledged is lost or doubled, every run ends', async () => {
  const seconds = Number(process.env.AGENCY_CHAOS_SECONDS ?? 5);
  let seed = Number(process.env.AGENCY_CHAOS_SEED ?? 1);
  const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor((seed / 2147483648) * n); };
  const victims = [[owner, 'agent'], [replica, 'agent'], [owner, 'health'], [replica, 'health'], [house.pods.brain, 'brain']];
  const file = join(replica.data, 'metrics', `${new Date().toISOString().slice(0, 10)}.ndjson`);
  await house.call(replica, 'sop_create', { name: 'note', content: `# note

Input: n

1. **First**

   \`\`\`tool
   brain_store {"id": "first-{{input.n}}", "taskId": "{{input.n}}", "request": "first", "solution": "x"}
   \`\`\`

2. **Second**

   \`\`\`tool
   brain_store {"id": "second-{{input.n}}", "taskId": "{{input.n}}", "request": "second", "solution": "y"}
   \`\`\`
` });
  const end = Date.now() + seconds * 1000;
  const over = () => Date.now() > end;
  const either = () => (random(2) ? owner : replica);
  const persist = async (pod, name, args) => { // until it is acknowledged
    for (const give_up = Date.now() + 60000; ;) {
      const answer = await house.call(pod(), name, args).catch((error) => ({ error, text: error.message }));
      if (!answer.error) return answer;
      assert.ok(Date.now() < give_up, `${name}: ${answer.text}`);
      await pause(20);
    }
  };
  const tasks = new Map(), memories = [], runs = [];
  let sum = 0, count = 0;
  const submit = async (who) => { for (let i = 0; !over(); i++) { const key = `chaos-${who}-${i}`; tasks.set(key, (await persist(either, 'task_submit', { kind: 'chaos', idempotency_key: key })).id); } };
  const remember = async () => { for (let i = 0; !over(); i++) { await persist(either, 'brain_store', { id: `kept-${i}`, taskId: 'c', request: `r${i}`, solution: 's' }); memories.push(`kept-${i}`); } };
  const work = async () => { for (let i = 0; !over(); i++) { runs.push((await persist(either, 'sop_execute', { name: 'note', input: { n: String(i) }, wait_ms: 0, idempotency_key: `run-${i}` })).id); await pause(100); } };
  const measure = async () => { while (!over()) { sum += ++count; await appendFile(file, `${JSON.stringify({ timestamp: Date.now(), agent: 'c', metric: 'chaos', value: count })}\n`); await pause(5); } };
  const kill = async () => {
    while (!over()) {
      await pause(200 + random(700));
      const [pod, what] = victims[random(victims.length)];
      await house.kill(pod, what);
      await house.start(pod, what);
    }
  };
  await Promise.all([submit('a'), submit('b'), remember(), work(), measure(), kill()]);
  await Promise.all([owner, replica].flatMap((pod) => pod.containers.map((what) => ready(pod, what))));
  const found = new Map();
  let cursor;
  do {
    const page = await house.call(replica, 'task_list', { kind: 'chaos', limit: 100, ...(cursor ? { cursor } : {}) });
    for (const task of page.tasks) found.set(task.id, task);
    cursor = page.cursor;
  } while (cursor);
  assert.equal(found.size, tasks.size, 'each key one task');
  for (const id of tasks.values()) assert.ok(found.has(id), id);
  for (const id of memories) assert.ok(!(await house.call(replica, 'brain_get', { id })).error, id);
  for (const id of runs) await until(() => house.call(owner, 'task_get', { id }), (answer) => answer.task?.state === 'completed');
  const seen = await until(async () => (await house.call(owner, 'get_health_report', { agent: 'c' }, 3004)).metrics['c:chaos'], (row) => row?.count >= count);
  assert.equal(seen.count, count);
  assert.equal(seen.sum, sum);
});

test('the command line looks into the cluster from outside', async () => {
  const nowhere = join(house.dir, 'none');
  const keys = ['--set', `bus.curve_key=${join(house.dir, 'keys', 'curve.key')}`, '--set', `bus.curve_servers=${join(house.dir, 'keys', 'curve.pub')}`];
  const way = ['--data', nowhere, '--port-offset', String(house.offset), '--set', `bus.owner=${owner.ip}`,
    '--set', `bus.brain=tcp://${house.pods.brain.ip}:${5502 + house.offset}`, ...keys, '--company', 'acme'];
  const status = await house.cli(['status', ...way]);
  assert.equal(status.code, 0, status.stderr);
  for (const pillar of Object.keys(PORTS)) assert.match(status.stdout, new RegExp(`^${pillar} +tcp +[0-9]`, 'm'));
  const stats = await house.cli(['call', 'queue_stats', '-o', 'json', '--read-only', ...way]);
  assert.equal(JSON.parse(stats.stdout).paused, false);
  const refused = await house.cli(['call', 'task_submit', 'kind=k', '--read-only', ...way]);
  assert.notEqual(refused.code, 0);
  assert.match((await house.cli(['tools', ...way])).stdout, /^brain_query /m);
  const beat = house.cli(['call', 'brain_query', 'query=sky', ...way]);
  assert.match((await beat).stdout, /blue/);
  const wrong = await house.cli(['call', 'queue_stats', '--set', 'bus.ownr=x', ...way]);
  assert.match(wrong.stderr, /did you mean 'owner'/);
  const silent = await house.cli(['call', 'queue_stats', '--timeout', '500', '--data', nowhere, '--set', 'bus.owner=127.0.0.77', ...keys]);
  assert.equal(silent.code, 3);
  assert.match(silent.stderr, /tcp:\/\/127\.0\.0\.77:5500/);
});

test('what cannot be is refused at the start, with what to change', async () => {
  const fails = async (pod, what, env, says) => {
    const { code, stderr } = await house.cli(['run', what, `--port-offset=${house.offset}`], { ...house.env(pod), ...env });
    assert.ok(code > 0, `${what} ran`);
    assert.match(stderr, says);
  };
  await fails(owner, 'agent', {}, /another process owns/);
  await fails(replica, 'agent', { AGENCY_BUS_OWNER: '' }, /bus\.owner|'owner'/);
  await fails(replica, 'agent', { AGENCY_BUS_POD: '' }, /which replica this is/);
  await fails(replica, 'agent', { AGENCY_BUS_POD: 'house' }, /end with its ordinal/);
  await fails(replica, 'agent', { AGENCY_BUS_CURVE_SERVERS: join(house.dir, 'none') }, /cannot read the key file/);
  await fails(house.pods.brain, 'brain', { AGENCY_BUS_POD: 'house-brain-1' }, /one replica and one writer/);
});

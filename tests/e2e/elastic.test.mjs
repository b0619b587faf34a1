// Elastic in mode local: `agency up` scales worker processes by itself; nothing is lost by it.
import test from 'node:test';
import assert from 'node:assert/strict';
import { appendFile, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { startAgency, callTool as call, askUntil as until, pidOf } from './agency.mjs';

const quick = { AGENCY_ELASTIC_DOWN_STABILIZATION_MS: '1500', AGENCY_ELASTIC_DOWN_PERIOD_MS: '300',
  AGENCY_AGENT_LEASE_MS: '2000' };

// A procedure whose one step writes its own line, once.
async function noteSop(agency, name, seconds) {
  const made = await until(() => call(agency, 'sop_create', { name, content: `# ${name}

1. **Note**

   \`\`\`sh
   echo {{input}} >> ${join(agency.data, 'notes')}
   sleep ${seconds}
   \`\`\`
` }), (answer) => answer.text); // the gateway asks the pillars for their tools
  assert.ok(!made.error, made.text);
}

async function begin(agency, name, input) {
  for (;;) {
    const started = await call(agency, 'sop_execute', { name, input, wait_ms: 0 })
      .catch((error) => ({ error: true, text: error.message }));
    if (!started.error && started.id) return started.id;
    await pause(20);
  }
}

const ready = (status) => (status.workers ?? []).filter((worker) => worker.state === 'ready').length;

test('a burst goes 1 to 5 workers and back, and every task is done once', async (t) => {
  const agency = await startAgency({ env: quick });
  t.after(() => agency.stop());
  await noteSop(agency, 'note', 0.4);
  await until(() => call(agency, 'get_scaling_status'), (status) => ready(status) === 1);
  const crowd = Date.now();
  const more = until(() => call(agency, 'get_scaling_status'), (status) => ready(status) > 1)
    .then(() => Date.now() - crowd);
  const ids = [];
  for (let i = 0; i < 40; i++) ids.push(await begin(agency, 'note', `n${i}`));
  t.diagnostic(`the next worker answered ${await more} ms after the first task of the burst`);
  await until(() => call(agency, 'get_scaling_status', {}, 3006), (status) => ready(status) === 5);
  for (const id of ids) {
    const { task } = await until(() => call(agency, 'task_get', { id }),
      (answer) => answer.task?.state === 'completed');
    assert.equal(task.crashes, 0, 'no worker was ended while it held the task');
  }
  const one = await until(() => call(agency, 'get_swarm_status'),
    (status) => status.agents?.length === 1 && status.active_agents === 1);
  assert.equal(one.draining, 0);
  await until(() => agency.output(), (output) => (output.match(/has left/g) ?? []).length === 4);
  assert.equal(agency.output().match(/has drained in/g).length, 4, 'the proof is in the log');
  const notes = (await readFile(join(agency.data, 'notes'), 'utf8')).trim().split('\n');
  assert.equal(notes.length, 40, 'none was done twice');
  const explained = await call(agency, 'scale_explain');
  assert.ok(explained.changes.length >= 4);
  assert.match(explained.text, /calls for/);
});

test('policy and wishes: bad ones are refused, good ones outlive kill -9', async (t) => {
  const agency = await startAgency({ env: quick });
  t.after(() => agency.stop());
  await until(() => call(agency, 'get_scaling_status'), (status) => ready(status) === 1);
  const wrong = await call(agency, 'scale_policy_set', { min_replicas: 9 });
  assert.ok(wrong.error);
  assert.match(wrong.text, /min_replicas 9 is more than max_replicas 5/);
  const set = await call(agency, 'scale_policy_set', { max_replicas: 3 });
  assert.equal(set.max_replicas, 3);
  assert.equal(set.from_settings, false);
  const much = await call(agency, 'scale_agents', { count: 4 });
  assert.match(much.text, /more than max_replicas 3/);
  assert.equal((await call(agency, 'scale_agents', { count: 3 })).at_least, 3);
  await until(() => call(agency, 'get_scaling_status'), (status) => ready(status) === 3);
  const before = await Promise.all([1, 2, 3].map((i) => pidOf(agency, `worker-${i}`)));
  process.kill(await pidOf(agency, 'elastic'), 'SIGKILL');
  const after = await until(() => call(agency, 'get_scaling_status'),
    (status) => ready(status) === 3 && status.at_least === 3);
  assert.equal(after.max_replicas, 3);
  assert.deepEqual(await Promise.all([1, 2, 3].map((i) => pidOf(agency, `worker-${i}`))), before,
    'the workers did not notice');
  assert.equal((await call(agency, 'scale_policy_set', { reset: true })).from_settings, true);
  await call(agency, 'scale_agents', { count: 0 });
  await until(() => call(agency, 'get_swarm_status'), (status) => status.agents?.length === 1);
});

test('demand rules of the volume hold workers, and a wrong file changes nothing', async (t) => {
  const agency = await startAgency({ env: quick });
  t.after(() => agency.stop());
  const file = join(agency.data, 'elastic_rules.json');
  const rule = { metric: 'shop:orders', threshold: 3, action: 'scale_agents', agent_template: 'worker', count: 3, cooldown_threshold: 1 };
  await writeFile(file, JSON.stringify([rule]));
  await until(() => call(agency, 'get_swarm_status'), (status) => status.rules?.length === 1);
  const metrics = join(agency.data, 'metrics');
  await mkdir(metrics, { recursive: true });
  const track = (value) => appendFile(join(metrics, `${new Date().toISOString().slice(0, 10)}.ndjson`),
    `${JSON.stringify({ timestamp: Date.now(), agent: 'shop', metric: 'orders', value, tags: {} })}\n`);
  await track(4);
  await until(() => call(agency, 'get_scaling_status'), (status) => ready(status) === 3 && status.at_least === 3);
  await writeFile(file, '[\n{"metric": "x",\n "threshold": 1, "action": "spawn", "count": -1}]');
  const wrong = await until(() => call(agency, 'get_swarm_status'), (status) => status.rules_error);
  assert.match(wrong.rules_error, /line 3: rule 1:.*count/);
  assert.equal(wrong.rules[0].metric, 'shop:orders');
  await track(1);
  await until(() => call(agency, 'get_swarm_status'), (status) => status.agents?.length === 1);
});

test('--workers fixes them', async (t) => {
  const agency = await startAgency({ flags: ['--workers', '2'], env: quick });
  t.after(() => agency.stop());
  const status = await until(() => call(agency, 'get_scaling_status'), (answer) => answer.mode);
  assert.equal(status.mode, 'off');
  const refused = await call(agency, 'scale_agents', { count: 3 });
  assert.match(refused.text, /mode off/);
});

test('in mode hpa it only says what the work calls for', async (t) => {
  const agency = await startAgency({ env: { ...quick, AGENCY_ELASTIC_MODE: 'hpa' } });
  t.after(() => agency.stop());
  await until(() => call(agency, 'get_scaling_status'), (status) => status.mode === 'hpa');
  for (let i = 0; i < 11; i++) await call(agency, 'task_submit', { kind: 'nobody', input: i });
  const status = await until(() => call(agency, 'get_scaling_status'), (answer) => answer.queue_length === 11);
  assert.equal(status.desired_replicas, 3);
  assert.equal(status.replicas, undefined);
  const scale = await (await fetch(agency.url(3000, '/api/v1/scale'))).json();
  assert.equal(scale.queue_length, 11);
  assert.equal(scale.desired_replicas, 3);
  assert.match((await call(agency, 'scale_explain')).text, /mode hpa.*calls for 3/);
  await call(agency, 'scale_policy_set', { target_per_replica: 3, max_replicas: 7 }); // one policy for all who ask
  await until(async () => (await fetch(agency.url(3000, '/api/v1/scale'))).json(),
    (answer) => answer.desired_replicas === 4 && answer.target_per_replica === 3);
  await until(() => call(agency, 'get_scaling_status'), (answer) => answer.desired_replicas === 4);
  assert.equal((await call(agency, 'scale_agents', { count: 2 })).error, true);
});

test('a wish that cannot be written is told and written later', async (t) => {
  const agency = await startAgency({ env: quick });
  t.after(() => agency.stop());
  await until(() => call(agency, 'get_scaling_status'), (status) => ready(status) === 1);
  const draft = join(agency.data, 'run', 'workers.draft');
  await mkdir(draft);
  await call(agency, 'scale_agents', { count: 2 });
  await until(() => agency.output(), (output) => /cannot write .*workers\.want/.test(output));
  assert.equal(ready(await call(agency, 'get_scaling_status')), 1);
  await rmdir(draft);
  await until(() => call(agency, 'get_scaling_status'), (status) => ready(status) === 2);
});

// Seeded: AGENCY_CHAOS_SEED, AGENCY_CHAOS_SECONDS (600 for the long version).
test('bursts with random kill -9 and scale-ins: nothing lost, repeated or ended at work', async (t) => {
  const seconds = Number(process.env.AGENCY_CHAOS_SECONDS ?? 12);
  let seed = Number(process.env.AGENCY_CHAOS_SEED ?? 1);
  const chance = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const agency = await startAgency({ env: { ...quick, AGENCY_AGENT_MAX_CRASHES: '1000' } });
  t.after(() => agency.stop());
  await noteSop(agency, 'note', 0.2);
  const ids = new Map();
  let kills = 0;
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    for (let i = Math.floor(chance() * 30); i > 0; i--) {
      const input = `n${ids.size}`;
      ids.set(input, await begin(agency, 'note', input));
    }
    const { agents = [] } = await call(agency, 'get_swarm_status').catch(() => ({}));
    const victim = chance() < 0.3 || !agents.length ? 'elastic' : agents[Math.floor(chance() * agents.length)].name;
    if (chance() < 0.7) {
      try {
        process.kill(await pidOf(agency, victim), 'SIGKILL');
        kills += victim !== 'elastic';
      } catch { /* it is not there */ }
    }
    await pause(chance() * 4000);
  }
  let crashes = 0;
  let doubts = 0;
  for (const [input, id] of ids) {
    const { task } = await until(async () => {
      const answer = await call(agency, 'task_get', { id });
      if (answer.task?.state === 'input_required') { // killed in the middle: a person decides
        doubts++;
        await call(agency, 'step_complete', { id, result: 'seen' });
      }
      return answer;
    }, (answer) => answer.task?.state === 'completed', 60000);
    crashes += task.crashes;
    assert.ok(task, `${input} is not lost`);
  }
  const notes = (await readFile(join(agency.data, 'notes'), 'utf8')).trim().split('\n');
  assert.equal(new Set(notes).size, notes.length, 'none was done twice');
  assert.ok(notes.length >= ids.size - doubts, 'none was left out');
  t.diagnostic(`${ids.size} runs, ${kills} workers killed, ${crashes} leases lost with them, ${doubts} decided by hand`);
  assert.ok(crashes <= kills * 2, 'only a kill -9 loses a lease, two at most');
  await until(() => call(agency, 'get_swarm_status'), (status) => status.agents?.length === 1, 60000);
});

// A procedure for each item of a list, and a tool for each of its results, over MCP with real workers.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chromium, openBrowser } from './chromium.mjs';
import { startAgency, callTool as call, post, pidOf, askUntil, source } from './agency.mjs';

const over = (answer) => ['completed', 'failed', 'buried', 'cancelled'].includes(answer.state);

async function folders(agency, names) {
  const root = join(agency.data, 'root');
  for (const [i, name] of names.entries()) {
    await mkdir(join(root, name), { recursive: true });
    for (let file = 0; file <= i; file++) await writeFile(join(root, name, `f${file}`), 'x');
  }
  return root;
}

test('the example does its work for each folder', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const root = await folders(agency, ['a b', "it's", 'empty $(x)']);
  let made = await agency.cli('sop', 'create', join(source, 'examples/sops/folders-report.md'));
  assert.equal(made.code, 0, made.stderr);
  const early = await call(agency, 'validate_sop', { name: 'folders-report' });
  assert.equal(early.valid, false);
  assert.deepEqual(early.problems.map(({ line, what }) => [line, what]), [[19, "there is no procedure 'folder-facts'"]]);
  made = await agency.cli('sop', 'create', join(source, 'examples/sops/folder-facts.md'));
  assert.equal(made.code, 0, made.stderr);
  assert.equal((await call(agency, 'validate_sop', { name: 'folders-report' })).valid, true);
  const dry = await call(agency, 'sop_execute', { name: 'folders-report', input: root, simulate: true });
  assert.equal(dry.state, 'completed', dry.text);
  assert.deepEqual(dry.steps.map((step) => step.state), ['refused', 'refused', 'refused', 'refused']);
  const run = await call(agency, 'sop_execute', { name: 'folders-report', input: root });
  assert.equal(run.state, 'completed', run.text);
  assert.equal(run.result.stdout.split('\n').length, 3);
  assert.match(run.result.stdout, /\/a b: 1 files, .*, newest: f0\n.*\/empty \$\(x\): 3 files, .*\n.*\/it's: 2 files/);
  assert.equal(run.steps[1].total, 3);
  assert.deepEqual(run.steps[1].items.map((one) => one.state), ['completed', 'completed', 'completed']);
  const inner = await call(agency, 'run_get', { id: run.steps[1].items[2].child });
  assert.equal(inner.parent, run.id);
  assert.equal(inner.input.folder, join(root, "it's"));
  assert.match((await call(agency, 'brain_query', { query: 'What is in the folders', limit: 10 })).text, /it's: 2 files/);
  if (!chromium()) return;
  const browser = await openBrowser();
  t.after(() => browser.close());
  await browser.go(new URL(`/#/runs/${run.id}`, agency.url()));
  await browser.until(`document.querySelector('.step [aria-label=Items] a') && document.body.innerText.includes('3 of 3 items over')`);
  await browser.run(`location.hash = document.querySelector('.step [aria-label=Items] a').hash`);
  await browser.until(`[...document.querySelectorAll('dt')].some((one) => one.textContent === 'Inside of' && one.nextSibling.textContent === '${run.id}')`);
});

// Each script says that it began; what it does is not to be repeated without asking.
test('kill -9 in the middle: no item is done twice, and a person decides about those in doubt', async (t) => {
  const agency = await startAgency({ flags: ['--workers', '2'], env: { AGENCY_AGENT_LEASE_MS: '1500' } });
  t.after(() => agency.stop());
  const log = join(agency.data, 'log');
  await call(agency, 'sop_create', { name: 'one', content: `---
inputs: n
---
# One

1. **Do**

   \`\`\`sh
   echo {{input.n}} >> ${log}
   i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done
   echo did {{input.n}}
   \`\`\`
` });
  const made = await call(agency, 'sop_create', { name: 'all', content: `# All

1. **All**

   \`\`\`each parallel=4
   [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
   sop: one {"n": "{{item}}"}
   \`\`\`

2. **Last**

   \`\`\`sop
   one
   n: last
   \`\`\`
` });
  assert.ok(!made.error, made.text);
  const { id } = await call(agency, 'sop_execute', { name: 'all', wait_ms: 0 });
  const decide = async () => {
    const { tasks } = await call(agency, 'task_list', { state: 'input_required', limit: 100 });
    for (const asks of tasks ?? []) {
      assert.equal(asks.sop, 'one');
      assert.match(asks.why, /nobody knows whether/);
      await call(agency, 'step_complete', { id: asks.id, result: { stdout: 'did, says a person' } });
    }
  };
  const lines = async () => {
    await decide();
    return readFile(log, 'utf8').then((text) => text.trim().split('\n').length, () => 0);
  };
  for (const [at, name] of ['worker-1', 'agent', 'worker-2', 'agent'].entries()) {
    await askUntil(lines, (count) => count > at * 2);
    process.kill(await pidOf(agency, name), 'SIGKILL');
  }
  const run = await askUntil(async () => {
    await decide();
    return call(agency, 'run_get', { id });
  }, over, 60000);
  assert.equal(run.state, 'completed', run.text);
  assert.equal(run.steps[0].result.length, 10);
  for (const [i, result] of run.steps[0].result.entries())
    assert.ok([`did ${i}`, 'did, says a person'].includes(result.stdout), JSON.stringify(run.steps[0].result));
  const seen = (await readFile(log, 'utf8')).trim().split('\n').sort();
  assert.deepEqual(seen, [...new Set(seen)], 'nothing was done twice');
  const { tasks } = await call(agency, 'task_list', { limit: 100 });
  assert.equal(tasks.filter((task) => task.parent === id).length, 11, 'one run for each item and step');
});

test('whoever waits for a run hears at once that one inside it needs a person', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const gate = '# Gate\n\n1. **Ask**\n\n   ```approve\n   Go on?\n   ```\n';
  await call(agency, 'sop_create', { name: 'gate', content: gate });
  await call(agency, 'sop_create', { name: 'outer', content: '# Outer\n\n1. **In**\n\n   ```sop\n   gate\n   ```\n' });
  const waits = { name: 'sop_execute', arguments: { name: 'outer', wait_ms: 60000 }, _meta: { progressToken: 1 } };
  const heard = await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: waits },
    { accept: 'application/json, text/event-stream' });
  const run = JSON.parse(heard.text.split('\n').filter((line) => line.includes('"id":1')).at(-1).replace(/^data: */, '')).result.structuredContent;
  assert.equal(run.state, 'waiting_child', heard.text);
  assert.match(run.why, new RegExp(`the run ${run.asks} \\(gate\\) needs a person: .*Go on\\?`));
  // Whoever waits for its task asks now and then, and is told in the end.
  const task = (method, params) => post(agency.url(), { jsonrpc: '2.0', id: 2, method, params }, { 'mcp-protocol-version': '2025-11-25' });
  const made = (await task('tools/call', { name: 'sop_execute', arguments: { name: 'outer' }, task: { ttl: 60000 } })).json.result.task;
  const result = task('tasks/result', { taskId: made.taskId });
  const asks = await askUntil(async () => (await call(agency, 'task_list', { state: 'input_required' })).tasks,
    (tasks) => tasks?.length === 2);
  for (const one of asks) await call(agency, 'approve', { id: one.id });
  assert.equal((await result).json.result.structuredContent.state, 'completed');
});

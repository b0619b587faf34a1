// A backup of a running agency, killed and finished, damaged and refused, and brought back.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawn, execFile } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { binary, startAgency, legacyCall } from './agency.mjs';

const run = promisify(execFile);
const cli = async (data, ...words) => run(binary, [...words, '--data', data], { timeout: 60000 })
  .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));
const call = async (agency, name, args = {}) => {
  const { json } = await legacyCall(agency.url(), name, args);
  return { ...json.result.structuredContent, text: json.result.content[0].text, error: json.result.isError };
};
async function until(ask, enough, ms = 30000) {
  const end = Date.now() + ms;
  for (let last; ; ) {
    last = await Promise.resolve().then(ask).catch((error) => ({ failed: error.message }));
    if (enough(last)) return last;
    assert.ok(Date.now() < end, `still: ${JSON.stringify(last).slice(0, 2000)}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('what was acknowledged before a backup is in it, and comes back', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'agency-backup-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const agency = await startAgency();
  t.after(() => agency.stop());
  const company = 'acme';
  await call(agency, 'brain_store', { taskId: 'a', request: 'the heron', solution: 'stands still', company });
  await call(agency, 'sop_create', { name: 'rest', content: '# Rest\n\n1. **Nap**\n\n   ```wait\n   1ms\n   ```\n' });
  const done = await call(agency, 'sop_execute', { name: 'rest' });
  assert.equal(done.state, 'completed', done.text);
  const day = new Date().toISOString().slice(0, 10);
  await mkdir(join(agency.data, 'metrics'), { recursive: true });
  await appendFile(join(agency.data, 'metrics', `${day}.ndjson`),
    `${JSON.stringify({ timestamp: new Date().toISOString(), agent: 'sidecar', metric: 'heartbeat', value: 1 })}\n`);
  const beats = (where) => until(() => call(where, 'get_health_report', { timeframe: 'last_day' }), (answer) => answer.metrics?.['sidecar:heartbeat']);
  await beats(agency);

  // Writes go on meanwhile; a backup that is killed leaves nothing that looks like one.
  let writing = true, written = 0;
  const writer = (async () => {
    while (writing) { await call(agency, 'task_submit', { kind: 'busy' }); written++; }
  })();
  const to = join(home, 'whole');
  for (const writes of [0, 5, 20]) { // so many come in between, then it is killed
    const child = spawn(binary, ['store', 'backup', to, '--data', agency.data], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    for (const goal = written + writes; written < goal;) await call(agency, 'queue_stats', {});
    child.kill('SIGKILL');
    await ended;
    if ((await readdir(home)).includes('whole')) await rm(to, { recursive: true });
  }
  const before = written;
  const made = await agency.cli('store', 'backup', to);
  writing = false;
  await writer;
  assert.equal(made.code, 0, made.stderr);
  assert.deepEqual(await readdir(home), ['whole']);
  await run('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: to });
  const again = await agency.cli('store', 'backup', to);
  assert.match(again.stderr, /is there already: name a new directory/);
  const owned = await agency.cli('store', 'restore', to);
  assert.match(owned.stderr, /runs on .*: stop it first/);

  // Into a new place, beside the living one.
  const data = join(home, 'other');
  const back = await cli(data, 'store', 'restore', to);
  assert.equal(back.code, 0, back.stderr);
  assert.equal((await cli(data, 'store', 'check')).code, 0);
  const other = await startAgency({ data });
  t.after(() => other.stop());
  const found = await call(other, 'brain_query', { query: 'heron', company });
  assert.equal(found.memories?.[0]?.taskId, 'a', found.text);
  assert.equal((await call(other, 'run_get', { id: done.id })).state, 'completed');
  const { tasks } = await call(other, 'task_list', { kind: 'busy', limit: 1000 });
  assert.ok(tasks.length >= Math.min(before, 1000), `${tasks.length} of at least ${before}`);
  const report = await beats(other);
  // A line behind the restored ones shows that the file was read anew, and what was in it was not.
  await appendFile(join(data, 'metrics', `${day}.ndjson`),
    `${JSON.stringify({ timestamp: new Date().toISOString(), agent: 'sidecar', metric: 'later', value: 1 })}\n`);
  await until(() => call(other, 'get_health_report', { timeframe: 'last_day' }), (answer) => answer.metrics?.['sidecar:later']);
  const after = await beats(other);
  assert.equal(report.metrics['sidecar:heartbeat'].count, 1);
  assert.equal(after.metrics['sidecar:heartbeat'].count, 1, 'a restored file is not counted twice');
  await other.stop({ keep: true });

  // Nothing is overwritten without a word, and what was there is kept.
  const full = await cli(data, 'store', 'restore', to);
  assert.match(full.stderr, /holds data already/);
  await writeFile(join(data, 'mine.txt'), 'mine');
  const forced = await cli(data, 'store', 'restore', to, '--force');
  assert.equal(forced.code, 0, forced.stderr);
  const aside = (await readdir(data)).find((name) => name.startsWith('before-restore-'));
  assert.equal(await readFile(join(data, aside, 'mine.txt'), 'utf8'), 'mine');

  // A swap that was cut off: nothing starts, and the same command ends it.
  await writeFile(join(data, '.restoring'), `out before-restore-x\n`);
  await mkdir(join(data, '.restore'), { recursive: true });
  await writeFile(join(data, '.restore', 'new.txt'), 'new');
  const refused = await cli(data, 'up');
  assert.match(refused.stderr, /a restore into .* was interrupted/);
  const ended = await cli(data, 'store', 'restore', to, '-o', 'json');
  assert.equal(JSON.parse(ended.stdout).resumed, true, ended.stderr);
  assert.equal(await readFile(join(data, 'new.txt'), 'utf8'), 'new');

  // Damage is named, and nothing is touched.
  const file = join(to, 'brain', company, 'store', 'data.mdb');
  const bytes = await readFile(file);
  bytes[4096 + 20] ^= 1;
  await writeFile(file, bytes);
  const damaged = await cli(join(home, 'third'), 'store', 'restore', to);
  assert.equal(damaged.code, 1);
  assert.match(damaged.stderr, /brain\/acme\/store\/data.mdb was damaged or changed/);
  await writeFile(join(to, 'SHA256SUMS'), `${'0'.repeat(64)}  ../outside\n`);
  assert.match((await cli(join(home, 'third'), 'store', 'restore', to)).stderr, /line 1 of the list/);
});

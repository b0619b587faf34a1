// One company as a whole: made, exported beside its running neighbour, erased to the last byte, and brought back.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { binary, post, startAgency } from './agency.mjs';

const run = promisify(execFile);
const there = (path) => access(path).then(() => true, () => false);
// Files that hold these bytes.
async function filesWith(dir, word) {
  const found = [];
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (path.includes(word) || (entry.isFile() && (await readFile(path)).includes(word))) found.push(path);
  }
  return found;
}

test('a tenant is created, exported, erased and imported', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'agency-tenant-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const tokens = join(home, 'tokens');
  const cliOn = (data) => (...words) => run(binary, [...words, '--data', data], { timeout: 60000 })
    .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }), ({ code, stdout, stderr }) => ({ code, stdout, stderr }));
  const data = join(home, 'data'), cli = cliOn(data);
  const create = async (name) => {
    const made = await cli('tenant', 'create', name, '--tokens', tokens, '-o', 'json');
    assert.equal(made.code, 0, made.stderr);
    return JSON.parse(made.stdout).token;
  };
  const secrets = { acme: await create('acme'), beta: await create('beta') };
  assert.match((await cli('tenant', 'create', 'acme')).stderr, /there is a company 'acme' already/);
  assert.match((await cli('tenant', 'create', '../x')).stderr, /is no company name/);
  assert.match(await readFile(tokens, 'utf8'), /^sha256:[0-9a-f]{64} companies=acme role=admin name=acme\nsha256:.* companies=beta /);

  const start = async (where) => {
    const agency = await startAgency({ data: where, flags: ['--workers', '1', '--tokens', tokens] });
    t.after(() => agency.stop({ keep: true }));
    return agency;
  };
  const call = async (agency, who, name, args = {}) => {
    const { result } = (await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } },
      { authorization: `Bearer ${secrets[who]}` })).json;
    assert.ok(!result.isError, `${name}: ${result.content[0].text}`);
    return result.structuredContent;
  };
  const sop = '# Note\n\n1. **Say**\n\n   ```sh\n   echo WORD\n   ```\n';
  const work = async (agency, who, word) => {
    await call(agency, who, 'brain_store', { taskId: word, request: `the ${word} stands still`, solution: 'in the reeds' });
    await call(agency, who, 'brain_update_graph', { operation: 'add_node', args: { id: `node-${word}`, type: 'bird' } });
    await call(agency, who, 'sop_create', { name: `note-${word}`, content: sop.replace('WORD', word) });
    await call(agency, who, 'track_metric', { agent: word, metric: 'length', value: 7 });
    await call(agency, who, 'alert_on_threshold', { metric: 'length', operator: '>', threshold: 5 });
    await call(agency, who, 'task_submit', { kind: 'later', input: word, delay_ms: 86400000 });
    const done = await call(agency, who, 'sop_execute', { name: `note-${word}`, input: {} });
    assert.equal(done.state, 'completed');
    return done.id;
  };
  const holds = async (agency, who, word, id) => {
    const { memories } = await call(agency, who, 'brain_query', { query: word });
    assert.equal(memories[0]?.taskId, word);
    assert.match(JSON.stringify(await call(agency, who, 'brain_query_graph', { query: word })), new RegExp(`node-${word}`));
    assert.equal((await call(agency, who, 'run_get', { id })).state, 'completed');
    assert.equal((await call(agency, who, 'task_list', { kind: 'later' })).tasks.length, 1);
    assert.match((await call(agency, who, 'sop_logs', {})).log, new RegExp(`note-${word}`));
    assert.match(JSON.stringify(await call(agency, who, 'get_health_report', { timeframe: 'last_day' })), new RegExp(`${word}:length`));
  };
  let agency = await start(data);
  const ids = { acme: await work(agency, 'acme', 'heron'), beta: await work(agency, 'beta', 'stork') };

  // Beside the running agency, and nothing of the neighbour in it.
  const out = join(home, 'acme-export');
  const exported = await cli('tenant', 'export', 'acme', out);
  assert.equal(exported.code, 0, exported.stderr);
  await run('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: out });
  for (const word of ['stork', 'beta']) assert.deepEqual(await filesWith(out, word), []);
  assert.equal(JSON.parse(await readFile(join(out, 'backup.json'), 'utf8')).company, 'acme');
  assert.match((await cli('tenant', 'export', 'acme', out)).stderr, /is there already/);
  assert.match((await cli('tenant', 'export', 'nobody', join(home, 'x'))).stderr, /nothing of a company 'nobody'/);
  assert.match((await cli('store', 'restore', out, '--data', join(home, 'no'))).stderr, /bring it in with agency tenant import/);
  for (const words of [['erase', 'acme', '--yes'], ['import', out]])
    assert.match((await cli('tenant', ...words)).stderr, /runs on .*stop it first/);
  await agency.stop({ keep: true });

  // Asked first; then to the last byte. One that was cut off is ended before anything starts.
  const asked = await cli('tenant', 'erase', 'acme');
  assert.equal(asked.code, 2);
  assert.match(asked.stdout, /brain\/acme +\d+ files?, \d+ KiB/);
  assert.match(asked.stderr, /add --yes/);
  assert.ok(await there(join(data, 'brain', 'acme')));
  await rm(join(data, 'brain', 'acme'), { recursive: true });
  await writeFile(join(data, '.tenant'), 'erase acme\n');
  assert.match((await cli('up')).stderr, /agency tenant erase acme was interrupted/);
  assert.match((await cli('tenant', 'erase', 'beta', '--yes')).stderr, /tenant erase acme was interrupted/);
  const erased = await cli('tenant', 'erase', 'acme', '--yes');
  assert.equal(erased.code, 0, erased.stderr);
  assert.match(erased.stdout, /agent\/acme +\d+ files?.*[^]*acme is erased/);
  for (const word of ['heron', 'acme']) assert.deepEqual(await filesWith(data, word), [], word);
  assert.match((await cli('tenant', 'erase', 'acme', '--yes')).stderr, /nothing of a company 'acme'/);
  agency = await start(data);
  await holds(agency, 'beta', 'stork', ids.beta);
  await agency.stop({ keep: true });

  // Back where it was, beside the neighbour; cut off in the middle and ended.
  const back = await cli('tenant', 'import', out);
  assert.equal(back.code, 0, back.stderr);
  assert.match((await cli('tenant', 'import', out)).stderr, /there is a company 'acme' .* already/);
  await mkdir(join(data, '.restore', 'brain'), { recursive: true });
  await rename(join(data, 'brain', 'acme'), join(data, '.restore', 'brain', 'acme'));
  await writeFile(join(data, '.tenant'), 'import acme\n');
  assert.match((await cli('up')).stderr, /agency tenant import acme was interrupted/);
  const ended = await cli('tenant', 'import', out, '-o', 'json');
  assert.deepEqual(JSON.parse(ended.stdout), { imported: 'acme', resumed: true }, ended.stderr);
  assert.equal((await cli('store', 'check')).code, 0);
  agency = await start(data);
  await holds(agency, 'acme', 'heron', ids.acme);
  await holds(agency, 'beta', 'stork', ids.beta);
  assert.equal((await call(agency, 'acme', 'sop_execute', { name: 'note-heron', input: {} })).state, 'completed');
  assert.equal((await cli('audit', 'verify')).code, 0, 'the log goes on where it was');
  await agency.stop({ keep: true });

  // Killed wherever it may be (at the n-th change that is seen in the directory): the same command ends it.
  const killedAt = async (n, words) => {
    const watchers = ['.', 'agent', 'brain', 'health'].map((dir) => watch(join(data, dir)));
    const child = spawn(binary, ['tenant', ...words, '--data', data], { stdio: 'ignore' });
    let seen = 0;
    for (const watcher of watchers) watcher.on('change', () => { if (++seen === n) child.kill('SIGKILL'); });
    const [, signal] = await once(child, 'exit');
    for (const watcher of watchers) watcher.close();
    const again = await cli('tenant', ...words);
    if (signal) assert.ok(again.code === 0 || /nothing of a company|there is a company/.test(again.stderr), again.stderr);
    return signal === 'SIGKILL';
  };
  let kills = 0;
  for (const n of [1, 4, 9, 16]) {
    kills += await killedAt(n, ['erase', 'acme', '--yes']);
    assert.deepEqual(await filesWith(data, 'heron'), []);
    kills += await killedAt(n, ['import', out]);
    assert.deepEqual((await readdir(data)).filter((name) => /^\.(tenant|restor)/.test(name)), []);
    assert.equal((await cli('store', 'check')).code, 0);
    assert.ok((await readFile(join(data, 'sop_logs.ndjson'), 'utf8')).includes('heron'));
  }
  assert.ok(kills > 0);
  assert.equal((await cli('audit', 'verify')).code, 0);

  // Into an agency that never knew it; a damaged one is refused and leaves nothing.
  const other = join(home, 'other');
  assert.equal((await cliOn(other)('tenant', 'import', out)).code, 0);
  agency = await start(other);
  await holds(agency, 'acme', 'heron', ids.acme);
  await agency.stop({ keep: true });
  const file = join(out, 'agent', 'acme', 'store', 'data.mdb');
  const bytes = await readFile(file);
  bytes[5000] ^= 1;
  await writeFile(file, bytes);
  const third = join(home, 'third');
  const damaged = await cliOn(third)('tenant', 'import', out);
  assert.equal(damaged.code, 1);
  assert.match(damaged.stderr, /agent\/acme\/store\/data.mdb was damaged or changed/);
  assert.ok(!await there(join(third, 'agent')));
});

test('the default company is the one at the top of the data directory', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'agency-tenant-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const agency = await startAgency({ data: join(home, 'data'), flags: ['--workers', '0'] });
  t.after(() => agency.stop());
  const sop = join(home, 'rest.md');
  await writeFile(sop, '# Rest\n\n1. **Nap**\n\n   ```wait\n   1ms\n   ```\n');
  assert.equal((await agency.cli('sop', 'create', sop)).code, 0);
  await agency.cli('metric', 'track', 'agent=me', 'metric=m', 'value=1');
  await mkdir(join(agency.data, 'metrics', 'acme'), { recursive: true });
  await writeFile(join(agency.data, 'metrics', 'acme', '2026-01-01.ndjson'), '');
  await agency.stop({ keep: true });
  const out = join(home, 'out');
  const cli = (...words) => run(binary, ['tenant', ...words, '--data', agency.data]).then(({ stdout }) => ({ code: 0, stdout }),
    ({ code, stdout, stderr }) => ({ code, stdout, stderr }));
  assert.equal((await cli('export', 'default', out)).code, 0);
  assert.ok(await there(join(out, 'sops', 'rest.md')));
  assert.ok(!await there(join(out, 'metrics', 'acme')));
  assert.equal((await cli('erase', 'default', '--yes')).code, 0);
  assert.ok(!await there(join(agency.data, 'sops')));
  assert.ok(await there(join(agency.data, 'metrics', 'acme')));
  assert.match((await cli('import', out, '--company', 'acme')).stderr, /was the default company where it was exported, and is not here/);
  assert.equal((await cli('import', out)).code, 0);
  assert.match(await readFile(join(agency.data, 'sops', 'rest.md'), 'utf8'), /Nap/);
});

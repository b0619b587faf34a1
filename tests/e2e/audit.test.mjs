// Who changed what: recorded beside the work, listed and verified live and at rest, and not to be mended.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { binary, post, startAgency } from './agency.mjs';

const run = promisify(execFile);
const line = (name, companies, role) =>
  `sha256:${createHash('sha256').update(`secret-of-${name}`).digest('hex')} companies=${companies} role=${role} name=${name}\n`;

test('the audit log of a company: who, what, refused or not, and whether it is whole', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'agency-audit-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const tokens = join(home, 'tokens');
  await writeFile(tokens, line('ann', 'acme', 'operator') + line('bob', 'acme,beta', 'reader') + line('cleo', 'beta', 'admin'));
  const data = join(home, 'data');
  const agency = await startAgency({ data, flags: ['--workers', '0', '--tokens', tokens] });
  t.after(() => agency.stop());
  const call = async (who, name, args) => (await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } },
    { authorization: `Bearer secret-of-${who}` })).json.result;

  const { id } = (await call('ann', 'task_submit', { kind: 'mail', input: { password: 'open sesame' } })).structuredContent;
  await call('ann', 'brain_store', { taskId: 'x', request: 'a private matter', solution: 'kept' });
  await call('ann', 'task_list', {});
  assert.ok((await call('bob', 'task_submit', { kind: 'mail', input: 1, company: 'acme' })).isError);
  assert.ok((await call('ann', 'task_get', { id: 'y', company: 'beta' })).isError);
  await call('cleo', 'task_submit', { kind: 'other', input: 1 });
  await agency.cli('task', 'submit', 'kind=by-hand', 'input=1', '--company', 'acme');

  // Refusals are written within a second or so, what changed something at once.
  const listed = async (...words) => JSON.parse((await agency.cli('audit', 'list', ...words, '-o', 'json')).stdout);
  assert.deepEqual((await listed('agent', 'tool=task_submit', 'outcome=ok')).map(({ company, who, ids }) => [company, who, ids[0]]).slice(0, 2),
    [['acme', 'ann', id], ['beta', 'cleo', 't0000000001']]);
  let acme;
  for (const end = Date.now() + 20000; ;) {
    acme = await listed('--company', 'acme');
    if (acme.filter(({ outcome }) => outcome !== 'ok').length === 2) break;
    assert.ok(Date.now() < end, JSON.stringify(acme));
  }
  assert.deepEqual(acme.map(({ pillar, tool, who, role, outcome }) => `${pillar} ${tool} ${who} ${role} ${outcome}`).sort(), [
    'agent task_get ann operator COMPANY',
    'agent task_submit ann operator ok',
    'agent task_submit bob reader FORBIDDEN',
    'agent task_submit local admin ok',
    'brain brain_store ann operator ok',
  ]);
  assert.match(acme.find(({ who }) => who === 'local').door, /^client-\d+$/);
  assert.equal(acme.find(({ who }) => who === 'ann').door, 'gateway-agent');
  assert.doesNotMatch(JSON.stringify(acme), /sesame|private/, 'no contents');
  assert.ok((await listed('--company', 'beta')).every(({ who }) => who === 'cleo'));
  const text = await agency.cli('audit', 'list', 'agent', 'who=bob');
  assert.match(text.stdout, /^\S+Z agent\/acme #\d+ task_submit FORBIDDEN by bob \(reader\) from gateway-agent\n$/);

  // Whole, beside the running agency and at rest; a head that was kept is found again.
  const heads = join(home, 'heads.json');
  const verified = await agency.cli('audit', 'verify', '-o', 'json');
  assert.equal(verified.code, 0, verified.stdout);
  await writeFile(heads, verified.stdout);
  await call('ann', 'task_submit', { kind: 'later', input: 1 });
  await agency.stop({ keep: true });
  const cli = (...words) => run(binary, ['audit', ...words, '--data', data]).then(({ stdout }) => ({ code: 0, stdout }),
    ({ code, stdout, stderr }) => ({ code, stdout, stderr }));
  const whole = await cli('verify', `heads=${heads}`);
  assert.equal(whole.code, 0, JSON.stringify(whole));
  assert.match(whole.stdout, /^agent\/acme: ok, records 1 to 5, the hash of the last is [0-9a-f]{64}$/m);

  // Words and files that are wrong.
  for (const [words, what] of [[['lst'], /agency audit list/], [['list', 'limit=0'], /limit must be/], [['verify', 'who=ann'], /knows no 'who='/],
    [['verify', 'nobody'], /no pillar with a store called 'nobody'/], [['list', 'agent', 'brain'], /what is 'brain'/]]) {
    const answer = await cli(...words);
    assert.equal(answer.code, 2, words.join(' '));
    assert.match(answer.stderr, what);
  }
  await writeFile(join(home, 'no.json'), '{"a":1}');
  assert.match((await cli('verify', `heads=${join(home, 'no.json')}`)).stderr, /holds no heads/);

  // A head of a longer log, and of another one.
  const known = JSON.parse(await readFile(heads, 'utf8'));
  const claim = async (change) => {
    await writeFile(join(home, 'claim.json'), JSON.stringify(known.map((one) => (one.pillar === 'agent' && one.company === 'acme' ? { ...one, ...change } : one))));
    return cli('verify', `heads=${join(home, 'claim.json')}`);
  };
  const cut = await claim({ last: 9 });
  assert.equal(cut.code, 1);
  assert.match(cut.stdout, /^agent\/acme: BROKEN: it ends with record 5, and had record 9: its end was cut off$/m);
  assert.match((await claim({ hash: '0'.repeat(64) })).stdout, /agent\/acme: BROKEN: record 4 is not the one that it was/);
  assert.match((await claim({ company: 'gone' })).stdout, /agent\/gone: BROKEN: the whole log is gone/);

  // One letter in the file.
  const file = join(data, 'agent', 'acme', 'store', 'data.mdb');
  const bytes = await readFile(file);
  for (let at = 0; (at = bytes.indexOf('FORBIDDEN', at)) >= 0; at += 9) bytes.write('ok, ok, o', at);
  await writeFile(file, bytes);
  const broken = await cli('verify', '--company', 'acme');
  assert.equal(broken.code, 1, JSON.stringify(broken));
  assert.match(broken.stdout, /^agent\/acme: BROKEN: record \d, or one written together with it, was changed$/m);
  assert.match(broken.stdout, /^brain\/acme: ok/m);
  const shown = await cli('list', 'agent', '--company', 'acme');
  assert.equal(shown.code, 1);
  assert.match(shown.stderr, /was changed; see agency audit verify/);
});

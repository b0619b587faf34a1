// The command line of somebody who is new: asking never acts, and what is too much is named.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import net from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { binary, freeOffset, startAgency } from './agency.mjs';

test('--help and words too many never act; texts are those of the earlier system', async (t) => {
  const agency = await startAgency({ flags: ['--workers', '0'] });
  t.after(() => agency.stop());
  const refused = async (words, what) => {
    const answer = await agency.cli(...words);
    assert.equal(answer.code, 2, `${words}: ${answer.stdout}${answer.stderr}`);
    assert.match(answer.stderr, what);
  };
  for (const command of ['up', 'down', 'drain', 'doctor']) {
    const shown = await agency.cli(command, '--help');
    assert.equal(shown.code, 0);
    assert.match(shown.stdout, new RegExp(`^agency ${command}`));
    assert.deepEqual(await agency.cli('help', command), shown);
  }
  assert.match((await agency.cli('brain', 'get', '--help')).stdout, /brain_get: Read one memory/);
  await refused(['down', 'now'], /what is 'now'\? It is: agency down/);
  await refused(['status', '--company', '--timeout', '5'], /--company needs a value/);
  await refused(['bus', 'look', 'agent'], /knows tap PILLAR .* not 'look'/);
  await refused(['help', 'statsu'], /did you mean 'status'/);
  const nobody = await agency.cli('bus', 'tap', 'nobody');
  assert.equal(nobody.code, 3);
  assert.match(nobody.stderr, /there is no 'nobody' here/);
  assert.equal((await agency.cli('status')).code, 0, 'it is still up');

  const says = async (...words) => (await agency.cli('call', ...words)).stdout.trim();
  assert.equal(await says('check_alerts'), 'No alerts triggered.');
  assert.equal(await says('track_metric', 'agent=me', 'metric=latency', 'value=7'), 'Metric latency tracked.');
  assert.match(await says('alert_on_threshold', 'metric=latency', 'operator=>', 'threshold=5'), /^Alert rule added for latency > 5$/m);
  assert.match(await says('check_alerts'), /^ALERT: me:latency is 7\.00 \(> 5\)$/m);
});

test('words of groups, and completion as bash asks for it', async (t) => {
  const agency = await startAgency({ flags: ['--workers', '0'] });
  t.after(() => agency.stop());
  const group = await agency.cli('agent');
  assert.equal(group.code, 2, 'a word is missing');
  assert.match(group.stdout, /^ {2}agency agent spawn +Begin a durable subagent/m);
  const wrong = await agency.cli('task', 'lst');
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /there is no 'agency task lst'; did you mean 'list'\?/);
  await agency.cli('graph', 'update', 'operation=add_node', 'args={"id":"ann","type":"person"}');
  assert.match((await agency.cli('graph', 'query', 'ann')).stdout, /ann/);
  await agency.cli('metric', 'track', 'agent=me', 'metric=latency', 'value=7');
  assert.match((await agency.cli('metric', 'report')).stdout, /me:latency/);

  const top = await agency.cli('top'); // no terminal: one look
  assert.equal(top.code, 0);
  assert.match(top.stdout, /^queue {4}0 ready, .*\nworkers {2}0 of .*\nalerts {3}0 firing$/m);
  assert.match(top.stdout, /^brain +\d+ +\d/m);
  assert.ok(!top.stdout.includes('\x1b'));

  const completes = async (line) => {
    const script = `source <("$1" completion bash); COMP_WORDS=("$1"); COMP_LINE=$2 COMP_POINT=\${#2};
      compopt() { :; }; _agency; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await promisify(execFile)('bash', ['-c', script, 'bash', binary, line],
      { env: { ...process.env, AGENCY_DATA: agency.data } });
    return stdout.trim().split('\n');
  };
  assert.deepEqual(await completes('agency sta'), ['status']);
  assert.ok((await completes('agency brain ')).includes('query'));
  assert.ok((await completes('agency brain query ')).includes('limit='));
  assert.deepEqual(await completes('agency brain query x format='), ['text', 'json']);
  assert.deepEqual(await completes('agency call track_'), ['track_metric']);
  assert.deepEqual(await completes('agency --comp'), ['--company']);
  const shell = await agency.cli('completion', 'tcsh');
  assert.equal(shell.code, 2);
  assert.match(shell.stderr, /bash, zsh or fish/);
});

test('a port that is taken is said once, and nothing is started', async (t) => {
  const offset = await freeOffset();
  const data = await mkdtemp(join(tmpdir(), 'agency-e2e-'));
  const taken = net.createServer();
  t.after(async () => { taken.close(); await rm(data, { recursive: true, force: true }); });
  await new Promise((resolve) => taken.listen(3004 + offset, '127.0.0.1', resolve));
  const failed = await promisify(execFile)(binary, ['up', '--data', data, `--port-offset=${offset}`])
    .then(() => assert.fail('it started'), (error) => error);
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, new RegExp(`^agency: cannot listen at 127.0.0.1:${3004 + offset}: .*another --port-offset\\n$`));
});

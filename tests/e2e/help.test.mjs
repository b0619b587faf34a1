// The command line of somebody who is new: asking never acts, and what is too much is named.
import test from 'node:test';
import assert from 'node:assert/strict';
import { startAgency } from './agency.mjs';

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

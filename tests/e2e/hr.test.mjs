// A procedure fails for real over MCP, a review proposes, a person decides; schedules over kill -9.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startAgency, legacyCall } from './agency.mjs';

const call = async (agency, name, args = {}) => {
  const answer = await legacyCall(agency.url(), name, args);
  return { error: answer.json.result.isError, text: answer.json.result.content[0].text, ...answer.json.result.structuredContent };
};
const pidOf = async (agency, name) => Number(await readFile(join(agency.data, 'run', `${name}.pid`), 'utf8'));

async function until(ask, want, ms = 20000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    try { last = await ask(); } catch (error) { last = { error: String(error) }; }
    if (want(last)) return last;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`in vain: ${JSON.stringify(last)}`);
}

test('real failures become a proposal that is approved, applied and taken back', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await call(agency, 'sop_create', { name: 'ship',
    content: '# Ship\n\n1. **Push** it\n\n   ```sh retries=0\n   echo "no route to host 10.0.0.$RANDOM" >&2; exit 7\n   ```\n' });
  for (let i = 0; i < 3; i++) {
    const run = await call(agency, 'sop_execute', { name: 'ship', input: {} });
    assert.equal(run.state, 'failed', run.text);
  }
  const review = await call(agency, 'perform_weekly_review');
  assert.equal(review.analysis.failed, 3, review.text);
  assert.equal(review.proposals.length, 1, review.text);
  const proposal_id = review.proposals[0];
  assert.match((await call(agency, 'list_pending_proposals')).text, new RegExp(proposal_id));
  assert.ok((await call(agency, 'update_agent_soul', { proposal_id })).error);
  process.kill(await pidOf(agency, 'agent'), 'SIGKILL');
  await until(() => call(agency, 'proposal_approve', { proposal_id }), (answer) => answer.proposal?.status === 'approved');
  const applied = await call(agency, 'update_agent_soul', { proposal_id });
  assert.equal(applied.proposal?.status, 'applied', applied.text);
  assert.match(await readFile(join(agency.data, 'souls', 'sop_engine.md'), 'utf8'), /Known failure of ship/);
  const copy = JSON.parse(await readFile(join(agency.data, 'hr', 'proposals', `${proposal_id}.json`), 'utf8'));
  assert.equal(copy.status, 'applied');
  assert.equal(copy.evidence[0].count, 3);
  const undone = await call(agency, 'proposal_rollback', { proposal_id });
  assert.equal(undone.proposal?.status, 'rolled_back', undone.text);
  await assert.rejects(readFile(join(agency.data, 'souls', 'sop_engine.md')));
  const own = await call(agency, 'suggest_agent_improvement', { agent_name: 'writer', title: 't', description: 'd', changes: 'Be brief.' });
  const refused = await call(agency, 'proposal_approve', { proposal_id: own.proposal.id });
  assert.match(refused.text, /cannot approve it: call with the token of another principal/);
});

test('a schedule gives one task for each due time, across kill -9', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await call(agency, 'schedule_add', { id: 'beat', every_ms: 1000, catch_up: 'all', task: { kind: 'beat' } });
  for (let deaths = 0; deaths < 3; deaths++) {
    await until(() => call(agency, 'schedule_list'), (answer) => answer.schedules?.[0]?.submitted > deaths);
    process.kill(await pidOf(agency, 'agent'), 'SIGKILL');
  }
  const { schedules } = await until(() => call(agency, 'schedule_list'), (answer) => answer.schedules?.[0]?.submitted >= 6);
  const { tasks } = await call(agency, 'task_list', { kind: 'beat', limit: 1000 });
  const due = tasks.map((task) => Number(task.idempotency_key.split(':')[2])).sort((a, b) => a - b);
  assert.ok(due.length >= schedules[0].submitted);
  for (let i = 1; i < due.length; i++) assert.equal(due[i] - due[i - 1], 1000, 'none is missing, none is twice');
});

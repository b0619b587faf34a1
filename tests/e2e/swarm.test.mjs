// The swarm as a client meets it, with its process killed in between.
import test from 'node:test';
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { startAgency, callTool as call, askUntil as until, pidOf } from './agency.mjs';

async function killSwarm(agency) {
  const old = await pidOf(agency, 'swarm');
  process.kill(old, 'SIGKILL');
  await until(() => pidOf(agency, 'swarm').then((pid) => ({ pid })), ({ pid }) => pid && pid !== old);
}

const wanted = (i) => ({ role: 'clerk', task: `sheep ${i}`, parent_agent_id: 'e2e' });

test('subagents outlive a swarm that is killed, and none is doubled or lost', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await until(() => call(agency, 'list_agents'), (answer) => answer.agents);
  const acknowledged = [];
  let killing = true;
  const kills = (async () => {
    for (let i = 0; i < 3; i++) { await pause(150); await killSwarm(agency); }
  })().finally(() => { killing = false; });
  for (let i = 0; killing && i < 60; i++) {
    const answer = await call(agency, 'spawn_subagent', wanted(i)).catch(() => ({ error: true }));
    if (!answer.error && answer.agent_id) acknowledged.push(answer);
  }
  await kills;
  assert.ok(acknowledged.length > 0, 'some were spawned');
  const { agents } = await until(() => call(agency, 'list_agents', { limit: 1000 }, 3005),
    (answer) => answer.agents?.length && answer.agents.every((agent) => agent.run_id
      && agent.run_state === 'input_required'));
  t.diagnostic(`${acknowledged.length} acknowledged, ${agents.length} there, 3 kills`);
  for (const { agent_id } of acknowledged)
    assert.ok(agents.some((agent) => agent.agent_id === agent_id), `${agent_id} is there`);
  const { tasks } = await call(agency, 'task_list', { kind: 'sop', limit: 1000 });
  assert.equal(tasks.length, agents.length, 'one run each');
  assert.equal(new Set(agents.map((agent) => agent.run_id)).size, agents.length);
  assert.equal(new Set(agents.map((agent) => agent.task)).size, agents.length, 'none doubled');

  // An end, a result and a company that is not theirs.
  const [first, second] = agents;
  const ended = await call(agency, 'terminate_agent', { agent_id: first.agent_id });
  assert.equal(ended.outcome, 'terminated', ended.text);
  await call(agency, 'step_complete', { id: second.run_id, result: { sheep: 7 } });
  await until(() => call(agency, 'agent_card', { agent_id: second.agent_id }),
    (answer) => answer.agent?.outcome === 'completed');
  const foreign = await call(agency, 'terminate_agent', { agent_id: agents[2].agent_id, company: 'rival' });
  assert.ok(foreign.error && /no subagent/.test(foreign.text), foreign.text);
  await until(() => call(agency, 'recall_delegation_patterns', { task_type: 'swarm_task' }),
    (answer) => answer.runs === 2);
});

test('bids that never come: the brain stands still', async (t) => {
  const agency = await startAgency({ env: { AGENCY_SWARM_BID_MS: '300' } });
  t.after(() => agency.stop());
  const spawned = await until(() => call(agency, 'spawn_subagent', wanted(0)), (answer) => answer.agent_id);
  const brain = await pidOf(agency, 'brain');
  process.kill(brain, 'SIGSTOP');
  try {
    const answer = await until(() => call(agency, 'negotiate_task', { task_description: 'sheep' }, 3005),
      (said) => said.winner);
    assert.equal(answer.winner, spawned.agent_id);
    assert.equal(answer.measured, false);
    assert.ok(answer.problem, 'it says why');
  } finally {
    process.kill(brain, 'SIGCONT');
  }
  await until(() => call(agency, 'brain_list', { type: 'swarm_negotiation_pattern' }),
    (answer) => answer.memories?.length);
});

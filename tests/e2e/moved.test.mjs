// A client of the earlier system that changed nothing but its URL: the direct POST /messages, the
// same arguments, and a program that reads the text of each answer as it always did.
import test from 'node:test';
import assert from 'node:assert/strict';
import { startAgency, post, modern } from './agency.mjs';

const accept = 'application/json, text/event-stream';

async function ask(agency, name, args = {}, port = 3000) {
  const { status, text } = await post(agency.url(port, '/messages'),
    { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }, { accept });
  assert.equal(status, 200, text);
  const [, data] = /^event: message\ndata: (.*)$/m.exec(text) ?? [];
  assert.ok(data, `an event: ${text}`);
  const { result } = JSON.parse(data);
  assert.ok(result, text);
  assert.equal(result.content.length, 1);
  return { text: result.content[0].text, error: result.isError ?? false };
}

// Text that is JSON, pretty with two spaces.
function parsed(name, text) {
  const value = JSON.parse(text);
  const open = /^[[{]\n( +)\S/.exec(text);
  if (open) assert.equal(open[1].length, 2, `${name}: two spaces`);
  else assert.match(text, /^(\[\]|\{\})$/, name);
  return value;
}

const has = (row, types) => {
  for (const [key, type] of Object.entries(types)) assert.equal(typeof row[key], type, `${key} of ${JSON.stringify(row)}`);
};
const listOf = (types) => (rows) => { assert.ok(Array.isArray(rows)); rows.forEach((row) => has(row, types)); };
const sop = '# Hello\n\nSay it.\n\n1. **Greet**\n\n   ```sh\n   echo hi\n   ```\n';
const patch = '--- /dev/null\n+++ b/souls/x.md\n@@ -0,0 +1 @@\n+be kind\n';
const bid = { agentId: 'string', cost: 'number', quality: 'number', rationale: 'string' };
const agent = { id: 'string', role: 'string', parentId: 'string', lastActive: 'number' };

// Tool, arguments (or how they come of what was said before), what the text must be: a sentence it
// begins with, a pattern, or a look at the JSON.
const calls = [
  ['brain_store', { taskId: 't1', request: 'make tea', solution: 'boil water', artifacts: '["a.txt","b.txt"]', simulation_attempts: '["x"]',
    resolved_via_dreaming: true, id: "it's", tokens: 5, duration: 6, dreaming_outcomes: '["y"]', type: 'note', related_episode_id: 'z',
    source_agency: 'q', forecast_horizon: 3, error_margin: 0.5, company: 'default' }, 'Memory stored successfully.'],
  ['brain_query', { query: 'tea', limit: 3 },
    /^\[Task: t1\]\nTimestamp: \d{4}-.*Z\nRequest: make tea\nSolution: boil water\nArtifacts: a\.txt, b\.txt\nId: /],
  ['brain_query', { query: 'tea', format: 'json' }, (rows) => {
    assert.equal(rows.length, 1);
    has(rows[0], { id: 'string', taskId: 'string', timestamp: 'number', userPrompt: 'string', agentResponse: 'string', _distance: 'number' });
    assert.deepEqual(rows[0].artifacts, ['a.txt', 'b.txt']);
  }],
  ['brain_query', { query: 'zebra' }, /^No relevant memories found\.$/],
  ['brain_query', { query: 'zebra', format: 'json' }, (rows) => assert.deepEqual(rows, [])],
  ['brain_delete_episode', { id: "it's" }, /^Episode it's deleted\.$/],
  ['brain_delete_episode', { id: 'never' }, /^Episode never deleted\.$/],
  ['brain_update_graph', { operation: 'add_node', args: '{"id":"ann","type":"person","properties":{"x":1}}' }, /^Node 'ann' added\/updated\.$/],
  ['brain_update_graph', { operation: 'add_node', args: '{"id":"tea","type":"drink"}' }, /^Node 'tea' added\/updated\.$/],
  ['brain_update_graph', { operation: 'add_edge', args: '{"from":"ann","to":"tea","relation":"likes"}' },
    /^Edge 'ann' -\[likes\]-> 'tea' added\/updated\.$/],
  ['brain_query_graph', { query: 'ANN' }, ({ nodes, edges }) => {
    assert.deepEqual(nodes, [{ id: 'ann', type: 'person', properties: { x: 1 } }]);
    assert.deepEqual(edges, [{ from: 'ann', to: 'tea', relation: 'likes', properties: {} }]);
  }],
  ['brain_query_graph', { query: 'nobody' }, ({ nodes, edges }) => assert.deepEqual([nodes, edges], [[], []])],
  ['brain_get_sop', { name: 'nope' }, /nope/, 'error'],
  ['log_experience', { taskId: 't2', task_type: 'coding', agent_used: 'coder', outcome: 'success', summary: 'fine', artifacts: '["x"]',
    tokens: 2000000, duration: 4 }, /^Experience logged successfully\.$/],
  ['recall_delegation_patterns', { task_type: 'coding', query: 'fine' },
    /^Found 1 relevant experiences for 'coding'\.\nOverall Success Rate: 100%\n\nAgent Performance:\n- coder: 100% success \(1\/1\)/],
  ['recall_delegation_patterns', { task_type: 'nothing' }, /^No past experiences found for task type: nothing$/],
  ['brain_register_framework', { name: 'crew' }, /^Framework 'crew' registered/],
  ['brain_configure', {}, ({ keep_days }) => assert.deepEqual(keep_days, { crew: 36500 })],
  ['brain_maintenance', { action: 'optimize' }, /./],
  ['track_metric', { agent: 'me', metric: 'lat', value: 7, tags: { host: 'a' } }, /^Metric lat tracked\.$/],
  ['alert_on_threshold', { metric: 'lat', threshold: 5, operator: '>' }, 'Alert rule added for lat > 5'],
  ['check_alerts', {}, /^ALERT: me:lat is 7\.00 \(> 5\)(\n|$)/],
  ['get_health_report', { timeframe: 'last_hour' }, (report) => {
    assert.deepEqual(Object.keys(report)[0], 'me:lat', 'what is tracked comes first');
    Object.entries(report).forEach(([key, row]) => {
      assert.match(key, /^[^:]+:./);
      has(row, { count: 'number', min: 'number', max: 'number', avg: 'number', sum: 'number' });
    });
    assert.equal(report['me:lat'].sum, 7);
  }],
  ['get_correlated_alerts', {}, (groups) => {
    listOf({ id: 'string', timestamp: 'string', summary: 'string', severity: 'string' })(groups);
    assert.equal(groups.length, 1);
    assert.equal(groups[0].severity, 'low');
    assert.ok(Array.isArray(groups[0].alerts) && Date.parse(groups[0].timestamp));
  }],
  ['get_company_metrics', {}, (companies) => {
    assert.deepEqual(Object.keys(companies), ['default']);
    const { count, tokens, cost, success_rate, avg_duration } = companies.default;
    assert.deepEqual({ count, tokens, cost, success_rate, avg_duration },
      { count: 1, tokens: 2000000, cost: 10, success_rate: 1, avg_duration: 4 });
  }],
  ['get_ecosystem_health', {}, /^(healthy|degraded)/],
  ['get_system_health_summary', {}, /^(healthy|degraded)/],
  ['get_swarm_fleet_status', {}, /./],
  ['sop_list', {}, /^No SOPs found\.$/],
  ['sop_create', { name: 'hello', content: sop }, /^SOP 'hello' created successfully in .+\.$/],
  ['sop_create', { name: 'second', content: sop }, /^SOP 'second' created successfully in .+\.$/],
  ['sop_list', {}, /^hello, second$/],
  ['validate_sop', { name: 'hello' }, /^SOP 'hello' is valid\.\nTitle: Hello\nSteps:/],
  ['sop_execute', { name: 'hello', input: 'x' }, /^SOP 'Hello' executed successfully\.\nSummary:\nStep 1 completed: /],
  ['sop_execute', { name: 'nope', input: 'x' }, /^Error executing SOP 'nope'/, 'error'],
  ['brain_get_sop', { name: 'hello' }, '# Hello\n'],
  ['list_pending_proposals', {}, /^No pending proposals\.$/],
  ['propose_change', { title: 'T', description: 'D', affectedFiles: ['souls/x.md'], patch }, /^Proposal 'T' created with ID: \S+$/],
  ['list_pending_proposals', {}, /^ID: \S+\nTitle: T\nDescription: D\nFiles: souls\/x\.md\nStatus: pending/],
  ['analyze_logs', { limit: 5 }, /./],
  ['analyze_agent_logs', { agent_name: 'nobody', timeframe_hours: 1 }, /^No logs found to analyze\.$/],
  ['perform_weekly_review', {}, /./],
  ['suggest_agent_improvement', { agent_name: 'y', title: 't', description: 'd', changes: 'be kind' }, /^Proposal 't' created with ID: \S+$/],
  ['update_agent_soul', { proposal_id: 'prop-none' }, /prop-none/, 'error'],
  ['generate_sop_from_patterns', {}, /./],
  ['list_agents', {}, (rows) => assert.deepEqual(rows, [])],
  ['negotiate_task', { agent_ids: [], task_description: 'sheep' }, /^Negotiation failed: No valid bids received\./, 'error'],
  ['spawn_subagent', { role: 'clerk', task: 'count', parent_agent_id: 'root', company_id: 'default' }, (said) => {
    has(said, { agent_id: 'string', status: 'string', role: 'string' });
    assert.deepEqual([said.status, said.role], ['spawned', 'clerk']);
  }],
  ['list_agents', {}, (rows) => { assert.equal(rows.length, 1); listOf(agent)(rows); }],
  ['get_agent_metrics', {}, (said) => {
    has(said, { total_agents: 'number', active_agents: 'number' });
    assert.equal(said.agents.length, said.total_agents);
    listOf({ ...agent, idleSeconds: 'number' })(said.agents);
  }],
  ['negotiate_task', (said) => ({ agent_ids: [said.spawn_subagent.agent_id], task_description: 'count sheep' }), (award, said) => {
    assert.equal(award.winner_id, said.spawn_subagent.agent_id);
    has(award.winning_bid, bid);
    assert.equal(award.all_bids.length, 1);
    listOf(bid)(award.all_bids);
  }],
  ['negotiate_task', { task_description: 'count sheep', simulation_mode: true }, ({ winning_bid }) => has(winning_bid, bid)],
  ['run_simulation', { role: 'clerk', task: 'hello' }, /Step 1 refused/],
  ['run_simulation', { role: 'clerk', task: 'nothing like it' }, /^Simulation error: /, 'error'],
  ['terminate_agent', (said) => ({ agent_id: said.spawn_subagent.agent_id }), /^Agent agent_\S+ terminated\.$/],
  ['terminate_agent', { agent_id: 'nope' }, /^Agent nope not found/, 'error'],
  ['get_scaling_status', {}, /^Running/],
  ['get_swarm_status', {}, /./],
  ['scale_agents', { count: 1 }, /./],
  ['no_such_tool', {}, /^MCP error -32602/, 'error'],
  ['brain_store', { taskId: 1 }, /^MCP error -32602/, 'error'],
];

test('every tool of the earlier system answers a client of it as before', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const said = {};
  for (const [name, how, what, wrong] of calls) {
    const args = typeof how === 'function' ? how(said) : how;
    const { text, error } = await ask(agency, name, args);
    assert.equal(error, wrong === 'error', `${name}: ${text}`);
    if (typeof what === 'string') assert.ok(text.startsWith(what), `${name}: ${text}`);
    else if (what instanceof RegExp) assert.match(text, what, name);
    else what(said[name] = parsed(name, text), said);
  }

  // Metrics with a history: the lists of detections and predictions have rows.
  const now = Date.now();
  for (let i = 30; i >= 0; i--)
    await ask(agency, 'track_metric', { agent: 'a', metric: 'up', value: i ? 100 - i : 5000, timestamp: now - i * 60000 }, 3004);
  const odd = parsed('detect_anomalies', (await ask(agency, 'detect_anomalies', { agent: 'a', metric: 'up' })).text);
  assert.equal(odd.length, 1);
  listOf({ agent: 'string', metric: 'string', value: 'number', timestamp: 'string', z_score: 'number', mean: 'number',
    std_dev: 'number', severity: 'string' })(odd);
  const [ahead] = parsed('predict_metrics', (await ask(agency, 'predict_metrics', { metric: 'up', horizon_minutes: 30 })).text);
  has(ahead, { metric: 'string', current_value: 'number', predicted_value: 'number', horizon_minutes: 'number', trend: 'string' });
  assert.equal(ahead.horizon_minutes, 30);
  assert.deepEqual(parsed('predict_metrics', (await ask(agency, 'predict_metrics', { metric: 'lat' })).text), [], 'too little history');

  // The same text by /mcp, as the serialisation of what is structured; people at the shell read words.
  const { json } = await modern(agency.url(), 'tools/call', { name: 'list_agents', arguments: { gone: true } });
  assert.deepEqual(JSON.parse(json.result.content[0].text), json.result.structuredContent.agents);
  const { stdout } = await agency.cli('call', 'list_agents', 'gone=true');
  assert.match(stdout, /^agent_\S+ {2}gone/);
});

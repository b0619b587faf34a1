// What blocks of procedures do, over MCP, with real workers.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { access, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startAgency, legacyCall, source } from './agency.mjs';

const call = async (agency, name, args) => {
  const answer = await legacyCall(agency.url(), name, args);
  return { error: answer.json.result.isError, text: answer.json.result.content[0].text, ...answer.json.result.structuredContent };
};

test('a simulated run reads, and changes nothing', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const file = join(agency.data, 'written');
  await call(agency, 'brain_store', { taskId: 'm1', request: 'what is the password policy', solution: 'fourteen characters' });
  const made = await call(agency, 'sop_create', { name: 'policy', content: `---
inputs: subject
---
# Policy

1. **Look**

   \`\`\`tool
   brain_query {"query": "{{input.subject}}", "limit": 1}
   \`\`\`

2. **Write**

   \`\`\`sh
   echo {{steps.look.result.memories}} > ${file}
   \`\`\`

3. **Keep**

   \`\`\`tool
   brain_store {"taskId": "kept", "request": "{{input.subject}}", "solution": "zanzibar"}
   \`\`\`

4. **Nowhere**

   \`\`\`tool
   brain_stat
   \`\`\`
` });
  assert.ok(!made.error, made.text);
  const ran = await call(agency, 'sop_execute', { name: 'policy', input: 'password policy', simulate: true });
  assert.equal(ran.simulated, true, ran.text);
  assert.deepEqual(ran.steps.slice(0, 3).map((step) => step.state), ['completed', 'refused', 'refused'], ran.text);
  assert.match(JSON.stringify(ran.steps[0].result), /fourteen characters/, 'it really read');
  assert.deepEqual(ran.refused.map((one) => one.name), ['write', 'keep']);
  assert.equal(ran.refused[1].tool, 'brain_store');
  assert.deepEqual(ran.refused[1].args, { taskId: 'kept', request: 'password policy', solution: 'zanzibar' });
  assert.match(ran.refused[1].why, /brain_store changes something/);
  await assert.rejects(access(file), 'the script did not run');
  assert.doesNotMatch((await call(agency, 'brain_list', {})).text, /zanzibar/);
  assert.doesNotMatch((await call(agency, 'brain_list', {})).text, /sop_execution/);
  const real = await call(agency, 'sop_execute', { name: 'policy', input: 'password policy' });
  assert.equal(real.simulated, false);
  assert.equal(real.steps[1].state, 'completed', real.text);
  await access(file);
});

test('the example with a branch goes both ways', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  const made = await agency.cli('sop', 'create', join(source, 'examples/sops/policy-check.md'));
  assert.equal(made.code, 0, made.stderr);
  const folder = join(agency.data, 'hand over');
  await mkdir(folder);
  await writeFile(join(folder, 'small'), 'x');
  const small = await call(agency, 'sop_execute', { name: 'policy-check', input: { folder, largest: 1 } });
  assert.equal(small.state, 'completed', small.text);
  assert.deepEqual(small.steps.map((step) => step.state),
    ['completed', 'completed', 'skipped', 'skipped', 'completed']);
  assert.equal(small.result.stdout, 'files over the limit: 0\nnone');
  await writeFile(join(folder, 'large'), Buffer.alloc(3 << 20));
  const large = await call(agency, 'sop_execute', { name: 'policy-check', input: { folder, largest: 1 } });
  assert.equal(large.state, 'completed', large.text);
  assert.ok(large.steps.every((step) => step.state === 'completed'), large.text);
  assert.equal(large.result.stdout, `files over the limit: 1\n${join(folder, 'large')}`);
  assert.match((await call(agency, 'brain_query', { query: 'files too large' })).text, /large/);
});

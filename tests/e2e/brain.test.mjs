// The brain as its users meet it: by MCP and by the command line; a memory that moves by file.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { watch } from 'node:fs';
import { access, readFile, stat, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binary, startAgency } from './agency.mjs';

// One tool over plain HTTP, as curl would.
async function call(agency, name, args) {
  const answer = await fetch(agency.url(3002), {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }),
  });
  const text = await answer.text();
  const json = text.startsWith('{') ? text : text.split('\n').find((line) => line.startsWith('data: ')).slice(6);
  return JSON.parse(json).result;
}

test('the calls of the earlier system give what they gave', async () => {
  const agency = await startAgency({ flags: ['--workers', '0'] });
  try {
    const none = await call(agency, 'brain_query', { query: 'anything' });
    assert.equal(none.content[0].text, 'No relevant memories found.');
    const stored = await call(agency, 'brain_store', {
      taskId: "it's-1", request: 'Why is the build red?', solution: 'A test slept.', artifacts: '["a.log","b.log"]', id: "x' OR '1'='1" });
    assert.equal(stored.content[0].text, 'Memory stored successfully.');
    await call(agency, 'brain_store', { taskId: 't-2', request: 'Plant tulips', solution: 'In autumn.', artifacts: ['c.txt'] });
    const found = await call(agency, 'brain_query', { query: 'red build', limit: 1 });
    assert.match(found.content[0].text,
      /^\[Task: it's-1\]\nTimestamp: \d{4}-\d\d-\d\dT.*Z\nRequest: Why is the build red\?\nSolution: A test slept\.\nArtifacts: a\.log, b\.log\nId: x' OR '1'='1\nCreated: /);
    const rows = JSON.parse((await call(agency, 'brain_query', { query: 'tulips', format: 'json', limit: 1 })).content[0].text);
    assert.equal(rows[0].userPrompt, 'Plant tulips');
    assert.deepEqual(rows[0].artifacts, ['c.txt']);

    // A quote in an id deletes nothing else.
    const gone = await call(agency, 'brain_delete_episode', { id: "x' OR '1'='1" });
    assert.equal(gone.content[0].text, "Episode x' OR '1'='1 deleted.");
    assert.equal((await call(agency, 'brain_stat', {})).structuredContent.memories, 1);

    const node = await call(agency, 'brain_update_graph', { operation: 'add_node', args: '{"id":"n1","type":"City","properties":{"a":1}}' });
    assert.equal(node.content[0].text, "Node 'n1' added/updated.");
    const edge = await call(agency, 'brain_update_graph', { operation: 'add_edge', args: { from: 'n1', to: 'n2', relation: 'near' } });
    assert.equal(edge.content[0].text, "Edge 'n1' -[near]-> 'n2' added/updated.");
    const graph = JSON.parse((await call(agency, 'brain_query_graph', { query: 'CITY' })).content[0].text);
    assert.deepEqual(graph.nodes, [{ id: 'n1', type: 'City', properties: { a: 1 } }]);

    const logged = await call(agency, 'log_experience', {
      taskId: 't', task_type: 'deploy', agent_used: 'ann', outcome: 'success', summary: 'fine', tokens: 10, duration: 2 });
    assert.equal(logged.content[0].text, 'Experience logged successfully.');
    await call(agency, 'log_experience', { taskId: 't', task_type: 'deploy', agent_used: 'ann', outcome: 'failure', summary: 'no' });
    const patterns = (await call(agency, 'recall_delegation_patterns', { task_type: 'deploy' })).content[0].text;
    assert.match(patterns, /^Found 2 relevant experiences for 'deploy'\.\nOverall Success Rate: 50%\n\nAgent Performance:\n- ann: 50% success \(1\/2\)/);
    assert.equal((await call(agency, 'recall_delegation_patterns', { task_type: 'x' })).content[0].text,
      'No past experiences found for task type: x');
    assert.equal((await call(agency, 'brain_query', { query: 'x', limit: 0 })).isError, true);
  } finally {
    await agency.stop();
  }
});

test('a memory moves by file, also when it is killed on the way', async () => {
  const agency = await startAgency({ flags: ['--workers', '0'] });
  const folder = await mkdtemp(join(tmpdir(), 'agency-move-'));
  const file = join(folder, 'memory.jsonl'), copy = join(folder, 'copy.jsonl');
  const there = (path) => access(path).then(() => true, () => false);
  try {
    const lines = [];
    for (let i = 0; i < 4000; i++)
      lines.push(JSON.stringify({ kind: 'memory', id: `m${i}`, timestamp: 1700000000000 + i, request: `question ${i}`, solution: `answer ${i}` }));
    await writeFile(file, `${lines.join('\n')}\n`);

    // Killed once some of it is in.
    const child = spawn(binary, ['brain', 'import', file, '--data', agency.data], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const watcher = watch(folder);
    await new Promise((resolve) => {
      watcher.on('change', (event, name) => { if (name === 'memory.jsonl.progress') resolve(); });
      ended.then(resolve);
    });
    watcher.close();
    child.kill('SIGKILL');
    await ended;
    const again = await agency.cli('brain', 'import', file);
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stderr, /going on after line \d+/);
    assert.equal(await there(`${file}.progress`), false);
    assert.equal(JSON.parse((await agency.cli('brain', 'stat', '-o', 'json')).stdout).memories, 4000);
    assert.equal((await agency.cli('brain', 'check')).code, 0);

    // Without a file all of it goes through a pipe, not the first page.
    const piped = await agency.cli('brain', 'export');
    assert.equal(piped.stdout.trimEnd().split('\n').length, 4000, piped.stderr);
    const taking = spawn(binary, ['brain', 'import', '-', '--company', 'piped', '--data', agency.data],
      { stdio: ['pipe', 'pipe', 'inherit'] });
    taking.stdin.end(piped.stdout);
    assert.match(await text(taking.stdout), /standard input: 4000 lines taken/);

    const out = await agency.cli('brain', 'export', copy);
    assert.equal(out.code, 0, out.stderr);
    const back = (await readFile(copy, 'utf8')).trimEnd().split('\n').map((line) => JSON.parse(line).id);
    assert.equal(new Set(back).size, 4000);
    assert.equal(await there(`${copy}.part`), false);
    assert.equal(await there(`${copy}.progress`), false);

    // Where one company stopped is no place for another to go on from.
    await writeFile(file, `${lines[0]}\n${lines[1]}\n`);
    const { size, mtimeMs } = await stat(file);
    const stopped = `${lines[0].length + 1}\n1\n${size}\n${Math.floor(mtimeMs / 1000)}\n-\ndefault\n`;
    await writeFile(`${file}.progress`, stopped);
    assert.match((await agency.cli('brain', 'import', file)).stderr, /going on after line 1/);
    await writeFile(`${file}.progress`, stopped);
    const third = await agency.cli('brain', 'import', file, '--company', 'third', '-o', 'json');
    assert.equal(JSON.parse(third.stdout).lines, 2, third.stderr);

    // A byte that is no UTF-8, a NUL byte and a line that is too long stop nothing but themselves.
    await writeFile(file, Buffer.concat([Buffer.from(`${lines[0]}\n`), Buffer.from([0x22, 0xff, 0x22, 10, 0x7b, 0, 10]),
      Buffer.from(`"${'y'.repeat(9 << 20)}"\n${lines[1]}\n${'rubbish\n'.repeat(150)}${lines[2]}`)]));
    const odd = await agency.cli('brain', 'import', file, '--company', 'odd');
    assert.equal(odd.code, 1);
    assert.match(odd.stderr, /line 2: it is not valid UTF-8\n.*line 3: it has a NUL byte\n.*line 4: it is longer/);
    assert.match(odd.stderr, /line 6: .*and 50 more up to line 156/s);
    assert.match(odd.stdout, /3 lines taken/);
    assert.equal(JSON.parse((await agency.cli('brain', 'stat', '--company', 'odd', '-o', 'json')).stdout).memories, 3);

    // A file that was cut off in the middle of a line.
    await writeFile(file, `${lines[0]}\nrubbish\n${lines[1]}\n${lines[2].slice(0, 30)}`);
    const cut = await agency.cli('brain', 'import', file, '--company', 'other');
    assert.equal(cut.code, 1);
    assert.match(cut.stderr, /line 2: .*\n.*line 4: /);
    assert.match(cut.stdout, /2 lines taken/);
    const missing = await agency.cli('brain', 'import', join(folder, 'none.jsonl'));
    assert.notEqual(missing.code, 0);
    assert.match(missing.stderr, /none\.jsonl/);
  } finally {
    await agency.stop();
    await rm(folder, { recursive: true, force: true });
  }
});

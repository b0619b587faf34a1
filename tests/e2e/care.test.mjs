// An `.agent` folder of the earlier system comes over: all of it once, the rest named; the doctor.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import net from 'node:net';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binary, source, startAgency } from './agency.mjs';

const folder = join(source, 'tests', 'corpus', 'agent-folder');

test('a folder comes over, and a second time nothing does', async () => {
  const agency = await startAgency();
  try {
    const dry = JSON.parse((await agency.cli('import', folder, '--dry-run', '-o', 'json')).stdout);
    assert.equal(dry.dry_run, true);
    assert.notEqual((await agency.cli('brain', 'get', 'e1')).code, 0, 'a dry run writes nothing');

    const first = await agency.cli('import', folder, '-o', 'json');
    assert.equal(first.code, 1, 'something was left');
    const told = JSON.parse(first.stdout);
    assert.deepEqual(told.brought, { memories: 4, nodes: 2, edges: 1, proposals: 4, procedures: 1, souls: 1, metrics: 2 });
    assert.deepEqual(told.brought, dry.brought);

    // What was pending is pending here, fits what came over, and may be approved by a person.
    const { proposals } = JSON.parse((await agency.cli('call', 'list_pending_proposals', '-o', 'json')).stdout);
    assert.deepEqual(proposals.map(({ title, maker }) => [title, maker]), [['Check twice', 'import'], ['Be brief', 'import']]);
    for (const { id } of proposals) {
      assert.equal((await agency.cli('call', 'proposal_approve', `proposal_id=${id}`)).code, 0);
      assert.equal((await agency.cli('call', 'update_agent_soul', `proposal_id=${id}`)).code, 0);
    }
    assert.match(await readFile(join(agency.data, 'sops', 'release.md'), 'utf8'), /see twice/);
    assert.equal(await readFile(join(agency.data, 'souls', 'writer.md'), 'utf8'), 'You write letters.\n\nWrite at most five sentences.\n');
    const rejected = JSON.parse((await agency.cli('brain', 'get', 'import-proposal-8f14e45f-0003', '-o', 'json')).stdout).memory;
    assert.match(rejected.solution, /^rejected: Answers were long/);
    assert.deepEqual(told.left.map(({ file, where }) => [file, where]), [
      ['brain/acme/episodes.json', '[1]'], ['brain/episodes.jsonl', 'line 3'],
      ['brain/episodic', ''], ['brain/graph.json', 'nodes[2]'], ['metrics/2026-01-02.ndjson', 'line 2'],
      ['scheduler.json', ''], ['hr/proposals/p1.json', ''], ['hr/proposals/p3.json', ''],
      ['hr_proposals/prop-1735900000000.approved', '']]);
    const why = (file) => told.left.find((row) => row.file === file).why;
    assert.match(why('brain/episodic'), /LanceDB/);
    assert.match(why('scheduler.json'), /schedule_add/);
    assert.match(why('hr/proposals/p3.json'), /config\/model.json.*only souls.*kept as a memory/);
    assert.match(why('hr_proposals/prop-1735900000000.approved'), /approve the proposal again/);

    const memory = JSON.parse((await agency.cli('brain', 'get', 'e1', '-o', 'json')).stdout).memory;
    assert.equal(memory.request, 'Why was the invoice late?');
    assert.deepEqual(memory.metadata, { mood: 'calm' });
    assert.equal((await agency.cli('brain', 'get', 'a1', '--company', 'acme')).code, 0);
    assert.notEqual((await agency.cli('brain', 'get', 'a1')).code, 0, 'it is of acme alone');
    const graph = JSON.parse((await agency.cli('call', 'brain_query_graph', 'query=', '-o', 'json')).stdout);
    assert.deepEqual(graph.nodes.find(({ id }) => id === 'billing').properties, { owner: 'ada', tier: 1 });
    assert.equal(graph.edges.length, 1);
    assert.match((await agency.cli('sop', 'list')).stdout, /release/);
    const lines = await readFile(join(agency.data, 'metrics', '2026-01-02.ndjson'), 'utf8');
    assert.equal(lines.trim().split('\n').length, 2);

    const again = JSON.parse((await agency.cli('import', folder, '-o', 'json')).stdout);
    assert.equal(again.brought.memories + again.brought.proposals + again.brought.metrics, 0);
    assert.deepEqual([again.already.memories, again.already.proposals, again.already.metrics], [4, 4, 2]);
    assert.match((await agency.cli('call', 'list_pending_proposals')).stdout, /No pending proposals/);
  } finally {
    await agency.stop();
  }
});

test('an import that is killed goes on where it stopped', async () => {
  const many = 1500;
  const agency = await startAgency();
  const dir = await mkdtemp(join(tmpdir(), 'agency-import-'));
  try {
    await mkdir(join(dir, 'brain'));
    await writeFile(join(dir, 'brain', 'episodes.jsonl'), Array.from({ length: many }, (_, i) =>
      JSON.stringify({ id: `m${i}`, taskId: 't', request: `question ${i}`, solution: `answer ${i}` })).join('\n'));
    const child = spawn(binary, ['import', dir, '--data', agency.data], { stdio: 'ignore' });
    const gone = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal)));
    const deadline = Date.now() + 20000;
    while ((await agency.cli('brain', 'get', 'm20')).code !== 0)
      assert.ok(Date.now() < deadline, 'the import makes no progress');
    child.kill('SIGKILL');
    assert.equal(await gone, 'SIGKILL', 'it was killed in the middle');

    const again = await agency.cli('import', dir, '-o', 'json');
    assert.equal(again.code, 0, again.stderr);
    const { brought, already } = JSON.parse(again.stdout);
    assert.ok(already.memories > 20 && brought.memories > 0, JSON.stringify({ brought, already }));
    assert.equal(brought.memories + already.memories, many);
    const ids = new Set();
    let cursor, count = 0;
    do {
      const page = JSON.parse((await agency.cli('brain', 'list', 'limit=1000',
        ...(cursor ? [`cursor=${cursor}`] : []), '-o', 'json')).stdout);
      page.memories.forEach(({ id }) => ids.add(id));
      count += page.memories.length;
      cursor = page.cursor;
    } while (cursor);
    assert.equal(count, many);
    assert.equal(ids.size, many);
  } finally {
    await rm(dir, { recursive: true, force: true });
    await agency.stop();
  }
});

test('the doctor sees what is wrong, with and without an agency', async () => {
  const agency = await startAgency({ env: { AGENCY_GATEWAY_MAX_STREEMS: '7', AGENCY_AGENT_PORT: 'tcp://10.0.0.1:3000', AGENCY_AGENT_PORT_5500_TCP: 'x',
    AGENCY_BRAIN_SERVICE_HOST: '10.0.0.1', AGENCY_OF_OURS: 'x' } });
  assert.deepEqual(agency.output().match(/^agency: the variable .*$/mg), ['agency: the variable AGENCY_GATEWAY_MAX_STREEMS is no setting; did you mean AGENCY_GATEWAY_MAX_STREAMS?']);
  const doctor = async (...flags) => {
    const { code, stdout } = await agency.cli('doctor', '-o', 'json', `--port-offset=${agency.offset}`, ...flags);
    const { worst, findings } = JSON.parse(stdout);
    return { code, worst, of: (name) => findings.find((row) => row.name === name) };
  };
  try {
    const up = await doctor();
    assert.equal(up.code, 0, JSON.stringify(up));
    assert.equal(up.of('brain').what, 'answers');
    assert.equal(up.of(`port ${3000 + agency.offset}`).what, 'listens');
    const tokens = join(agency.data, 'tokens');
    assert.equal((await doctor('--tokens', tokens)).of('tokens').finding, 'fail');
    await writeFile(tokens, '', { mode: 0o644 });
    await writeFile(tokens, '# ours\n\nsesame companies=a name=x\n');
    assert.match((await doctor('--tokens', tokens)).of('tokens').what, /line 3 is no token/);
    await writeFile(tokens, '# none\n');
    assert.equal((await doctor('--tokens', tokens)).of('tokens').finding, 'warn');
    await writeFile(join(agency.data, 'agency.conf'), 'brian.limit = 3\n');
    const bad = await doctor();
    assert.equal(bad.code, 1);
    assert.match(bad.of('settings').what, /brain/);
    await writeFile(join(agency.data, 'agency.conf'), 'swarm.depth_most = 1000\n');
    assert.match((await doctor()).of('settings').what, /depth_most/);
    await writeFile(join(agency.data, 'agency.conf'), 'worker.llm_url = http://127.0.0.1:9/v1\nbus.curve_key = /nowhere\n');
    const far = await doctor();
    assert.equal(far.of('language model').finding, 'fail');
    assert.equal(far.of('curve key').finding, 'fail');
    await rm(join(agency.data, 'agency.conf'));
    await mkdir(join(agency.data, 'brain', 'torn', 'store'), { recursive: true });
    await writeFile(join(agency.data, 'brain', 'torn', 'store', 'data.mdb'), 'x'.repeat(8192));
    assert.match((await doctor()).of('brain stores').what, /company 'torn'.*damaged/);
    await rm(join(agency.data, 'brain', 'torn'), { recursive: true });
    await writeFile(join(agency.data, '.restoring'), 'in x');
    assert.equal((await doctor()).of('restore').finding, 'fail');
    await rm(join(agency.data, '.restoring'));

    await agency.stop({ keep: true });
    const taken = net.createServer();
    await new Promise((resolve) => taken.listen(3000 + agency.offset, '127.0.0.1', resolve));
    const down = await doctor();
    await new Promise((resolve) => taken.close(resolve));
    assert.equal(down.of('brain').what, 'does not run');
    assert.equal(down.of(`port ${3000 + agency.offset}`).finding, 'fail');
    assert.equal(down.code, 1);
    assert.equal((await doctor()).code, 0);
  } finally {
    await agency.stop();
  }
});

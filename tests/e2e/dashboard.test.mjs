// The dashboard: what is served, and what a person sees and decides in a real browser.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { startAgency, legacyCall, post, modern } from './agency.mjs';
import { chromium, openBrowser } from './chromium.mjs';

const skip = chromium() ? false : 'SKIPPED-CHROMIUM: no Chromium on this machine (apt install chromium-headless-shell)';
const evil = '<script>document.title="pwned"</script><img src=x onerror="document.title=\'pwned\'">';
const call = async (agency, name, args = {}) => (await legacyCall(agency.url(), name, args)).json.result.structuredContent;
const hash = (token) => createHash('sha256').update(token).digest('hex');

const refund = '---\ninputs: order\n---\n# Refund an order\n\n1. **Look it up**\n\n   ```sh replay=safe\n   echo {{input.order}}\n   ```\n\n' +
  '2. **Ask**\n\n   ```approve\n   Refund {{input.order}}?\n   ```\n\n3. **Pay**\n\n   ```sh\n   echo paid\n   ```\n';

test('the page and its files: from memory, revalidated, and nothing from elsewhere', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  assert.match(agency.output(), new RegExp(`Dashboard: ${agency.url(3000, '/')}\\n`));
  const html = await (await fetch(agency.url(3000, '/'))).text();
  const seen = new Set(), todo = ['/'];
  for (let path; (path = todo.pop());) {
    if (seen.has(path)) continue;
    seen.add(path);
    for (const port of [3000, 3004]) {
      const answer = await fetch(agency.url(port, path)), text = await answer.text(), tag = answer.headers.get('etag');
      assert.equal(answer.status, 200, path);
      assert.match(answer.headers.get('content-security-policy'), /default-src 'none'; script-src 'self'; style-src 'self';/);
      assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
      assert.equal((await fetch(agency.url(port, path), { headers: { 'if-none-match': tag } })).status, 304, path);
      assert.equal((await fetch(agency.url(port, path), { headers: { 'if-none-match': '"other"' } })).status, 200, path);
      assert.equal((await fetch(agency.url(port, path), { method: 'HEAD' })).status, 200, path);
      assert.equal((await fetch(agency.url(port, path), { method: 'POST' })).status, 405, path);
      for (const found of text.matchAll(/https?:\/\/[^\s'"`)]+/g)) assert.equal(found[0], 'http://www.w3.org/2000/svg', `${path}: ${found[0]}`);
      for (const found of text.matchAll(/(?:from '\.|src="|href=")(\/[a-z]+\.(?:js|css|svg))/g)) todo.push(found[1]);
      assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/, path);
    }
  }
  assert.ok(seen.has('/app.js') && seen.has('/client.js') && seen.has('/style.css') && seen.has('/icon.svg'), [...seen].join(' '));
  assert.doesNotMatch(html, /<script(?![^>]* src=)|<style|style=| on[a-z]+=/, 'nothing inline');
  assert.equal((await fetch(agency.url(3000, '/nothing.js'))).status, 404);
});

test('a metric over time, and lists that say when they changed', async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  for (const value of [1, 2, 6]) await call(agency, 'track_metric', { agent: 'shop', metric: 'latency', value });
  const series = await call(agency, 'metric_series', { metric: 'shop:latency', points: 60 });
  assert.equal(series.step_ms, 60000);
  assert.equal(series.lines.length, 1);
  const points = series.lines[0].points;
  assert.equal(points.reduce((sum, point) => sum + point.count, 0), 3);
  assert.equal(Math.max(...points.map((point) => point.max)), 6);
  assert.ok(points.every((point) => point.at >= series.since && point.at <= series.until && (point.at - series.since) % series.step_ms === 0));
  assert.deepEqual((await call(agency, 'metric_series', { metric: 'nobody' })).lines, []);
  const stream = await fetch(agency.url(), { method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 's', method: 'subscriptions/listen', params: { notifications: { resourceSubscriptions: ['agency://queue/now', 'agency://alerts/now', 'agency://proposals/pending', 'agency://queue/now?company=other'] },
      _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} } } }) });
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const hear = async (words) => { while (!text.includes(words)) { const { value, done } = await reader.read(); assert.ok(!done, `${words} in ${text}`); text += value; } };
  await hear('acknowledged');
  text = '';
  await call(agency, 'task_submit_batch', { tasks: Array.from({ length: 200 }, () => ({ kind: 'mail' })) });
  await hear('"uri":"agency://queue/now"');
  await call(agency, 'alert_on_threshold', { metric: 'shop:latency', operator: '>', threshold: 5 });
  await hear('"uri":"agency://alerts/now"');
  await call(agency, 'suggest_agent_improvement', { agent_name: 'writer', title: 't', description: 'd', changes: 'Be brief.' });
  await hear('"uri":"agency://proposals/pending"');
  assert.doesNotMatch(text, /company=other/);
  assert.ok(text.split('agency://queue/now').length < 20, 'many changes are told as one');
  const read = await modern(agency.url(), 'resources/read', { uri: 'agency://queue/now' });
  assert.equal(JSON.parse(read.json.result.contents[0].text).ready, 200);
  await reader.cancel();
});

test('a person looks, decides and is told, and hostile names stay text', { skip }, async (t) => {
  const agency = await startAgency();
  t.after(() => agency.stop());
  await call(agency, 'sop_create', { name: 'refund', content: refund });
  await call(agency, 'brain_store', { taskId: 't', id: 'm1', request: `slow build ${evil}`, solution: evil, author: evil, type: evil });
  await call(agency, 'task_submit', { kind: evil.slice(0, 60), input: { text: evil } });
  await call(agency, 'track_metric', { agent: evil, metric: 'latency', value: 9 });
  await call(agency, 'alert_on_threshold', { metric: 'latency', operator: '>', threshold: 5 });
  await call(agency, 'suggest_agent_improvement', { agent_name: 'writer', title: evil, description: evil, changes: `Be brief. ${evil}` });
  const run = await call(agency, 'sop_execute', { name: 'refund', input: { order: evil }, wait_ms: 10000 });
  assert.equal(run.state, 'input_required');
  const browser = await openBrowser();
  t.after(() => browser.close());
  const text = (selector = 'main') => `(document.querySelector('${selector}')?.innerText ?? '')`;

  await browser.go(agency.url(3000, '/'));
  await browser.until(`document.querySelector('.lamp.good')`); // events flow
  await browser.until(`${text()}.includes('refund') && ${text()}.includes('health')`);
  await browser.until(`[...document.querySelectorAll('nav a')].some((a) => a.innerText.replace(/\\s/g, '') === 'Decisions2')`);

  // Something happens elsewhere, and the page hears of it without being asked.
  const fresh = await call(agency, 'task_submit', { kind: 'letter' });
  await browser.until(`${text()}.includes('${fresh.id}')`);

  await browser.run(`location.hash = '#/decisions'`);
  await browser.until(`document.querySelector('blockquote')?.innerText.includes('onerror')`);
  const reject = `[...document.querySelectorAll('button')].find((b) => b.ariaLabel?.startsWith('Reject: Refund'))`;
  await browser.run(`${reject}.click()`);
  await browser.until(`document.querySelector('.toast.bad')?.innerText.includes('Say why')`);
  assert.equal((await call(agency, 'run_get', { id: run.id })).state, 'input_required', 'no reason, no rejection');
  await browser.run(`(() => { const form = ${reject}.form; form.elements.why.value = 'fine by me'; form.querySelector('.primary').click(); })()`);
  await browser.until(`!document.querySelector('blockquote')`);
  const decided = await call(agency, 'sop_execute', { name: 'refund', input: { order: '1' }, wait_ms: 10000 });
  assert.equal(decided.state, 'input_required');
  await browser.until(`${text()}.includes('${decided.id}')`); // the next question comes by itself
  await browser.run(`(() => { const form = ${reject}.form; form.elements.why.value = 'too much'; ${reject}.click(); })()`);
  await browser.until(`!document.querySelector('blockquote')`);
  const after = await call(agency, 'run_get', { id: decided.id });
  assert.equal(after.state, 'failed');
  assert.match(after.error, /too much/);

  await browser.run(`location.hash = '#/runs/${run.id}'`);
  await browser.until(`document.querySelectorAll('.step.completed').length === 3`);
  assert.equal((await call(agency, 'run_get', { id: run.id })).state, 'completed');
  await browser.run(`location.hash = '#/alerts'`);
  await browser.until(`${text()}.includes('firing')`);
  await browser.run(`[...document.querySelectorAll('button')].find((b) => b.innerText === 'Silence 1 h').click()`);
  await browser.until(`${text()}.includes('silenced')`);
  assert.ok((await call(agency, 'check_alerts')).alerts[0].silenced_until > Date.now());
  await browser.run(`location.hash = '#/charts'`);
  await browser.until(`document.querySelector('.chart .line, .chart .dot')`);
  await browser.run(`location.hash = '#/memory'`);
  await browser.until(`document.querySelector('form[role=search]')`);
  await browser.run(`(() => { const form = document.querySelector('form[role=search]'); form.elements.query.value = 'slow build'; form.elements.explain.checked = true; form.requestSubmit(); })()`);
  await browser.until(`${text('article')}.includes('slow build') && ${text('article')}.includes('has the words')`);
  await browser.run(`location.hash = '#/tasks'`);
  await browser.until(`${text()}.includes('onerror') || ${text()}.includes('<script>')`);
  await browser.run(`location.hash = '#/procedures/refund'`);
  await browser.until(`${text('.source')}.includes('Refund an order') && document.querySelector('form')`);
  await browser.run(`(() => { const form = document.querySelector('form'); form.elements['in-order'].value = '4711'; form.querySelector('.primary').click(); })()`);
  await browser.until(`location.hash.startsWith('#/runs/') && document.querySelector('.step.waiting')`);

  assert.equal(await browser.run(`document.querySelectorAll('main img, main script').length`), 0);
  assert.doesNotMatch(await browser.run('document.title'), /pwned/);
  await browser.size(400, 800, true);
  assert.ok(await browser.run('document.documentElement.scrollWidth <= 400'), 'nothing sticks out of a narrow window');
  assert.deepEqual(browser.complaints(), []);

  // The agency goes and comes back; so does the page.
  await agency.stop({ keep: true });
  await browser.until(`document.querySelector('.lamp.warn')?.innerText.includes('Reconnecting')`);
  const second = await startAgency({ data: agency.data, offset: agency.offset });
  t.after(() => second.stop());
  await browser.until(`document.querySelector('.lamp.good')`);
});

test('with tokens the page asks for one, and shows only its companies', { skip }, async (t) => {
  const file = join(tmpdir(), `agency-dashboard-tokens-${process.pid}`);
  await writeFile(file, `sha256:${hash('secret-one')} companies=acme,beta role=operator name=ann\nsha256:${hash('secret-two')} companies=acme role=reader name=bob\n`, { mode: 0o600 });
  t.after(() => rm(file));
  const agency = await startAgency({ flags: ['--tokens', file] });
  t.after(() => agency.stop());
  assert.equal((await fetch(agency.url(3000, '/'))).status, 200, 'the page says nothing about anybody');
  assert.equal((await post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/list' })).status, 401);
  const as = (name, args) => post(agency.url(), { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }, { authorization: 'Bearer secret-one' });
  await as('task_submit', { kind: 'of-acme', company: 'acme' });
  await as('task_submit', { kind: 'of-beta', company: 'beta' });
  const browser = await openBrowser();
  t.after(() => browser.close());
  const enter = (token) => browser.run(`(() => { const form = document.querySelector('form'); form.elements.token.value = '${token}'; form.requestSubmit(); })()`);
  await browser.go(agency.url(3000, '/'));
  await browser.until(`document.querySelector('input[type=password]')`);
  await enter('wrong');
  await browser.until(`document.querySelector('.trouble')?.innerText.includes('not known')`);
  await enter('secret-one');
  await browser.until(`document.querySelector('main').innerText.includes('of-acme')`);
  assert.ok(!(await browser.run('document.body.innerText')).includes('of-beta'));
  await browser.run(`(() => { const pick = document.getElementById('company'); pick.value = 'beta'; pick.dispatchEvent(new Event('change')); })()`);
  await browser.until(`document.querySelector('main').innerText.includes('of-beta') && !document.querySelector('main').innerText.includes('of-acme')`);
  assert.deepEqual(await browser.run('[localStorage.length, document.cookie]'), [0, '']);
  await browser.run(`[...document.querySelectorAll('button')].find((b) => b.innerText === 'Sign out').click()`);
  await browser.until(`document.querySelector('input[type=password]')`);
  assert.equal(await browser.run(`sessionStorage.getItem('agency.token')`), null);
  await enter('secret-two');
  await browser.until(`document.querySelector('main').innerText.includes('of-acme')`);
  assert.equal(await browser.run(`document.getElementById('company')`), null);
  const acme = (await as('task_list', { company: 'acme' })).json.result.structuredContent.tasks[0];
  await browser.run(`window.confirm = () => true; location.hash = '#/tasks/${acme.id}'`);
  await browser.until(`[...document.querySelectorAll('button')].some((b) => b.innerText === 'Cancel')`);
  await browser.run(`[...document.querySelectorAll('button')].find((b) => b.innerText === 'Cancel').click()`);
  await browser.until(`document.querySelector('.toast.bad')`); // a reader may not, and is told so in words
  assert.match(await browser.run(`document.querySelector('.toast.bad').innerText`), /role|operator|may not|reader/);
});

// The page is an MCP client of its own origin: it calls tools, and listens to what changes.

const seat = {
  get token() { return sessionStorage.getItem('agency.token') ?? ''; },
  set token(text) { if (text) sessionStorage.setItem('agency.token', text); else sessionStorage.removeItem('agency.token'); },
  get company() { return sessionStorage.getItem('agency.company') ?? ''; },
  set company(text) { if (text) sessionStorage.setItem('agency.company', text); else sessionStorage.removeItem('agency.company'); },
};
export { seat };

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

let next = 1;
const authorization = () => (seat.token ? { authorization: `Bearer ${seat.token}` } : {});

async function post(body, headers, signal) {
  let answer;
  try {
    answer = await fetch('/mcp', { method: 'POST', signal, cache: 'no-store', body: JSON.stringify(body),
      headers: { 'content-type': 'application/json', ...headers, ...authorization() } });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, 'The agency does not answer. Is it running? (agency up)');
  }
  if (answer.ok) return answer;
  let text = `HTTP ${answer.status}`;
  try { text = (await answer.json()).error?.message ?? text; } catch { /* no JSON */ }
  throw new Refused(answer.status, text);
}

// A request without a session: any version that has structured results.
export async function rpc(method, params) {
  const answer = await post({ jsonrpc: '2.0', id: next++, method, params }, { accept: 'application/json' });
  const message = await answer.json();
  if (message.error) throw new Refused(200, message.error.message);
  return message.result;
}

export async function call(name, args = {}) {
  const named = seat.company ? { company: seat.company, ...args } : args;
  const result = await rpc('tools/call', { name, arguments: named });
  if (result.isError) throw new Refused(200, result.content?.[0]?.text ?? 'the tool failed');
  return result.structuredContent;
}

export async function tools() {
  const names = new Set();
  let cursor;
  do {
    const page = await rpc('tools/list', cursor ? { cursor } : {});
    for (const tool of page.tools) names.add(tool.name);
    cursor = page.nextCursor;
  } while (cursor);
  return names;
}

export async function companies(kind) {
  const result = await rpc('completion/complete', {
    ref: { type: 'ref/resource', uri: `agency://${kind}/{id}{?company}` }, argument: { name: 'company', value: '' } });
  return result.completion.values;
}

// ---- What changes ----

const modern = '2026-07-28';
const quiet = 45000; // the gateway says something every 15 s

async function* events(signal, subscriptions) {
  const answer = await post({ jsonrpc: '2.0', id: `listen-${next++}`, method: 'subscriptions/listen', params: {
    notifications: { promptsListChanged: true, resourcesListChanged: true, toolsListChanged: true, resourceSubscriptions: subscriptions },
    _meta: { 'io.modelcontextprotocol/protocolVersion': modern, 'io.modelcontextprotocol/clientCapabilities': {} } } },
  { accept: 'application/json, text/event-stream', 'mcp-protocol-version': modern, 'mcp-method': 'subscriptions/listen' }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    if (!blocks.length) yield null;
    for (const block of blocks) {
      const data = block.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\n');
      yield data ? JSON.parse(data) : null;
    }
  }
}

// Tells `changed` the kind of what changed (queue, alerts, ...) and `state` how the line is: live, lost
// or refused. Comes back by itself; stop() ends it.
export function listen(subscriptions, changed, state) {
  let stopped = false, attempt = 0, abort, alarm;
  const watch = () => { clearTimeout(alarm); alarm = setTimeout(() => abort.abort(), quiet); };
  (async () => {
    while (!stopped) {
      abort = new AbortController();
      try {
        watch();
        for await (const message of events(abort.signal, subscriptions)) {
          watch();
          attempt = 0;
          if (message?.method === 'notifications/subscriptions/acknowledged') state('live');
          else if (message?.method === 'notifications/resources/updated') changed(message.params.uri.split('/')[2]);
          else if (message?.method?.endsWith('/list_changed')) changed(message.method.split('/')[1]);
        }
      } catch (error) {
        if (!stopped && error.status === 401) { state('refused'); return; }
      }
      clearTimeout(alarm);
      if (stopped) return;
      state('lost');
      await new Promise((resolve) => { setTimeout(resolve, Math.min(500 * 2 ** attempt++, 8000)); });
    }
  })();
  return () => { stopped = true; clearTimeout(alarm); abort.abort(); };
}

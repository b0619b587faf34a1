// An MCP server that is not ours, made with the official SDKs, for outside.test.mjs:
//   node foreign.mjs v1-stdio | v2-stdio | v1-http PORT | v1-sse PORT | v2-http PORT
// and some that no SDK would make: garbage | huge | mute | broken (all stdio).
import { appendFileSync, existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { z } from 'zod';

const [kind, port] = process.argv.slice(2);
const text = (value) => ({ content: [{ type: 'text', text: value }] });
const forever = (signal) => new Promise((resolve) => signal?.addEventListener('abort', resolve, { once: true }));
const info = { name: `foreign-${kind}`, version: '1.0.0' };

// `shape` makes the input schema as the SDK wants it; `extra` of a handler holds signal and notify.
function addTools(server, shape, extraOf) {
  const tool = (name, description, input, annotations, run) => server.registerTool(
    name, { description, inputSchema: shape(input), annotations },
    (args, extra) => run(args, extraOf(extra)));
  tool('add', 'Adds two numbers.', { a: z.number(), b: z.number() }, { readOnlyHint: true },
    ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { sum: a + b } }));
  tool('note', 'Appends a line; answers when it may.', { file: z.string(), line: z.string(), wait: z.string().optional() }, {},
    async ({ file, line, wait }, { signal }) => {
      appendFileSync(file, `${line}\n`);
      if (wait && !existsSync(wait)) {
        await forever(signal);
        if (signal?.aborted) appendFileSync(file, 'cancelled\n');
      }
      return text(`noted ${line}`);
    });
  tool('put', 'Writes a file; twice is no harm.', { file: z.string(), line: z.string(), wait: z.string().optional() }, { idempotentHint: true },
    async ({ file, line, wait }, { signal }) => {
      appendFileSync(`${file}.calls`, 'x');
      writeFileSync(file, line);
      if (wait && !existsSync(wait)) await forever(signal);
      return text('put');
    });
  tool('count', 'Counts aloud.', { to: z.number() }, { readOnlyHint: true }, async ({ to }, { progress }) => {
    for (let i = 1; i <= to; i++) await progress(i, to);
    return text(`counted to ${to}`);
  });
  tool('fail', 'Fails.', {}, {}, () => ({ ...text('the printer is on fire'), isError: true }));
  tool('secret', 'Says what it was given.', {}, { readOnlyHint: true }, () => text(process.env.SECRET ?? 'nothing'));
  tool('tell', 'Writes to its log.', { line: z.string() }, { readOnlyHint: true }, ({ line }) => {
    console.error(line);
    return text('told');
  });
  return tool;
}

async function v1(connect) {
  const { McpServer } = await import('@modelcontextprotocol/sdk/server/mcp.js');
  const make = () => {
    const server = new McpServer(info);
    const tool = addTools(server, (input) => input, (extra) => ({
      signal: extra.signal,
      progress: (progress, total) => extra._meta?.progressToken !== undefined && extra.sendNotification({
        method: 'notifications/progress', params: { progressToken: extra._meta.progressToken, progress, total },
      }),
    }));
    tool('grow', 'Adds a tool.', {}, {}, () => {
      tool('grown', 'It was added.', {}, { readOnlyHint: true }, () => text('I am new'));
      return text('grown');
    });
    return server;
  };
  await connect(make);
}

async function v2(make) {
  const { McpServer } = await import('@modelcontextprotocol/server');
  return () => {
    const server = new McpServer(info);
    addTools(server, (input) => z.object(input), (ctx) => ({
      signal: ctx.mcpReq?.signal ?? ctx.signal,
      progress: (progress, total) => ctx.mcpReq?._meta?.progressToken !== undefined && ctx.mcpReq.notify({
        method: 'notifications/progress', params: { progressToken: ctx.mcpReq._meta.progressToken, progress, total },
      }),
    }));
    return server;
  };
}

const listening = () => console.log('listening');
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// Reads JSON lines and answers by `reply`.
function byHand(reply) {
  let rest = '';
  process.stdin.on('data', (chunk) => {
    rest += chunk;
    for (let at; (at = rest.indexOf('\n')) >= 0; rest = rest.slice(at + 1)) {
      const message = JSON.parse(rest.slice(0, at));
      if (message.id !== undefined) reply(message);
    }
  });
  process.stdin.on('end', () => process.exit(0));
}

const initialized = { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: info };

function handmade(tools, more = () => false) {
  byHand((message) => {
    if (more(message)) return;
    if (message.method === 'initialize') say({ jsonrpc: '2.0', id: message.id, result: initialized });
    else if (message.method === 'tools/list') say({ jsonrpc: '2.0', id: message.id, result: { tools } });
    else if (message.method === 'tools/call') say({ jsonrpc: '2.0', id: message.id, result: text('fine') });
    else if (message.method === 'ping') say({ jsonrpc: '2.0', id: message.id, result: {} });
    else say({ jsonrpc: '2.0', id: message.id, error: { code: -32601, message: 'Method not found' } });
  });
}

const good = { name: 'good', description: 'Works.', inputSchema: { type: 'object' } };
let deep = { type: 'string' };
for (let i = 0; i < 20; i++) deep = { type: 'object', properties: { deeper: deep } };

switch (kind) {
  case 'v1-stdio': {
    const { StdioServerTransport } = await import('@modelcontextprotocol/sdk/server/stdio.js');
    await v1((make) => make().connect(new StdioServerTransport()));
    break;
  }
  case 'v2-stdio': {
    const { serveStdio } = await import('@modelcontextprotocol/server/stdio');
    serveStdio(await v2());
    break;
  }
  case 'v1-http': {
    const { StreamableHTTPServerTransport } = await import('@modelcontextprotocol/sdk/server/streamableHttp.js');
    await v1((make) => {
      const sessions = new Map();
      let forgetful = false;
      createServer(async (request, response) => {
        const id = request.headers['mcp-session-id'];
        if (process.env.WANT_TOKEN && request.headers.authorization !== `Bearer ${process.env.WANT_TOKEN}`) return response.writeHead(401).end();
        let body = '';
        for await (const chunk of request) body += chunk;
        const message = body ? JSON.parse(body) : undefined;
        if (message?.method === 'tools/call' && message.params.name === 'add' && message.params.arguments.a === 404) {
          if (!forgetful) sessions.clear(); // it forgets everybody, once
          forgetful = true;
        }
        let transport = sessions.get(id);
        if (!transport && message?.method === 'initialize') {
          transport = new StreamableHTTPServerTransport({
            sessionIdGenerator: () => randomUUID(),
            onsessioninitialized: (made) => sessions.set(made, transport),
          });
          await make().connect(transport);
        }
        if (!transport) {
          return response.writeHead(id ? 404 : 400, { 'content-type': 'application/json' })
            .end(JSON.stringify({ jsonrpc: '2.0', error: { code: id ? -32001 : -32000, message: 'no session' }, id: null }));
        }
        await transport.handleRequest(request, response, message);
      }).listen(Number(port), '127.0.0.1', listening);
    });
    break;
  }
  case 'v1-sse': {
    const { SSEServerTransport } = await import('@modelcontextprotocol/sdk/server/sse.js');
    await v1((make) => {
      const sessions = new Map();
      createServer(async (request, response) => {
        const { pathname, searchParams } = new URL(request.url, 'http://localhost');
        if (process.env.WANT_TOKEN && request.headers.authorization !== `Bearer ${process.env.WANT_TOKEN}`) return response.writeHead(401).end();
        if (request.method === 'GET' && pathname === '/sse') {
          const transport = new SSEServerTransport('/messages', response);
          sessions.set(transport.sessionId, transport);
          return make().connect(transport);
        }
        const transport = sessions.get(searchParams.get('sessionId'));
        if (request.method !== 'POST' || pathname !== '/messages' || !transport) return response.writeHead(404).end();
        return transport.handlePostMessage(request, response);
      }).listen(Number(port), '127.0.0.1', listening);
    });
    break;
  }
  case 'v2-http': {
    const { createMcpHandler } = await import('@modelcontextprotocol/server');
    const { toNodeHandler } = await import('@modelcontextprotocol/node');
    createServer(toNodeHandler(createMcpHandler(await v2()))).listen(Number(port), '127.0.0.1', listening);
    break;
  }
  case 'garbage':
    handmade([good], (message) => {
      process.stdout.write('Hello! This is no JSON.\n{"jsonrpc":"1.0"}\n[]\n{"jsonrpc":"2.0","id":999999,"result":{}}\n');
      if (message.method !== 'tools/call') return false;
      say({ jsonrpc: '2.0', id: message.id, result: [1, 2] });
      say({ jsonrpc: '2.0', id: message.id, result: { content: 'nonsense', structuredContent: 7 } });
      return true;
    });
    break;
  case 'huge': // a line without an end
    handmade([good], (message) => {
      if (message.method !== 'tools/call') return false;
      const chunk = 'x'.repeat(65536);
      const more = () => { while (process.stdout.write(chunk)); process.stdout.once('drain', more); };
      more();
      return true;
    });
    break;
  case 'mute': // takes calls and never answers them
    handmade([good], (message) => message.method === 'tools/call');
    break;
  case 'nested': // deeper than anybody reads
    handmade([good], (message) => {
      if (message.method !== 'tools/call') return false;
      say({ jsonrpc: '2.0', result: { content: [], structuredContent: JSON.parse('{"id":'.repeat(200) + '7' + '}'.repeat(200)) }, id: message.id });
      return true;
    });
    break;
  case 'broken':
    handmade([good, 7, null, { name: '' }, { name: 'no schema' }, { name: 'none' }, { name: 'text', inputSchema: 'x' },
      { name: 'list', inputSchema: { type: 'array' } }, { name: 'deep', inputSchema: deep },
      { name: 'wide', inputSchema: { type: 'object', description: 'x'.repeat(70000) } },
      { name: 'last', description: 'Works as well.', inputSchema: { type: 'object' } }]);
    break;
  default:
    throw new Error(`no such server: ${kind}`);
}

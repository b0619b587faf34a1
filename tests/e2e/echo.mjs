// An echo server made with the official SDK, stateless, for tests/bench_gateway: node echo.mjs v1|v2
// Prints its port.
import { createServer } from 'node:http';
import { z } from 'zod';

const [version] = process.argv.slice(2);
const info = { name: 'echo', version: '1.0.0' };
const tool = (server, shape) => {
  server.registerTool('echo_say', { description: 'Echo.', inputSchema: shape({ text: z.string() }) },
    ({ text }) => ({ content: [{ type: 'text', text }] }));
  return server;
};

let handle;
if (version === 'v1') {
  const { McpServer } = await import('@modelcontextprotocol/sdk/server/mcp.js');
  const { StreamableHTTPServerTransport } = await import('@modelcontextprotocol/sdk/server/streamableHttp.js');
  handle = async (request, response) => {
    const server = tool(new McpServer(info), (shape) => shape);
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
    response.on('close', () => { transport.close(); server.close(); });
    await server.connect(transport);
    await transport.handleRequest(request, response);
  };
} else {
  const { McpServer, createMcpHandler } = await import('@modelcontextprotocol/server');
  const { toNodeHandler } = await import('@modelcontextprotocol/node');
  handle = toNodeHandler(createMcpHandler(() => tool(new McpServer(info), (shape) => z.object(shape))));
}
const server = createServer(handle).listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();

// node:http as Node itself uses it. An import would read each of its exports, WebSocket among them, for which Node then loads
// its whole implementation of fetch: 4 MB of memory that nothing here has a use for.

export const { Agent, createServer } = process.getBuiltinModule("node:http");

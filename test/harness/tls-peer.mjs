// Speaks TLS in a network namespace of a test: `serve ADDRESS PORT`, which says to everybody which server name they asked for, with the
// certificate and key of CERTIFICATE and KEY; and `ask ADDRESS PORT NAME`, which prints what such a server says, or what went wrong.
import { connect, createServer } from "node:tls";

const [verb, host, port, servername] = process.argv.slice(2);
if (verb === "serve") {
  const { CERTIFICATE: cert, KEY: key } = process.env;
  const server = createServer({ cert, key }, (socket) => {
    socket.on("error", () => {});
    socket.end(`you asked for ${socket.servername}`);
  });
  server.on("tlsClientError", () => {});
  server.listen({ host, port: Number(port) }, () => process.stdout.write("listening\n"));
} else {
  const client = connect({ host, port: Number(port), servername, rejectUnauthorized: false, timeout: 2_000 });
  client.on("timeout", () => client.destroy(new Error("no answer")));
  client.on("error", ({ message }) => process.stdout.write(message));
  client.on("data", (bytes) => process.stdout.write(bytes));
}

// A program at one end of a network of a test: serves, connects and probes as it is told, one JSON object a line. It is in a network
// namespace of its own, which goes with it, and it ends with whoever started it.
import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

/** Datagrams that arrived, by what they begin with: "tag:". */
const arrivals = new Map();
const held = new Map();
const probes = new Map();

const operations = {
  /** Echoes. */
  serve({ protocol, address, port }) {
    return new Promise((resolve, reject) => {
      if (protocol === "tcp") {
        const server = createServer((socket) => socket.on("error", () => {}).pipe(socket));
        server.once("error", reject).listen(port, address, () => resolve(server.address().port));
        return;
      }
      const socket = createSocket(address?.includes(":") ? "udp6" : "udp4");
      socket.on("message", (message, { address: from, port: fromPort }) => {
        const [tag] = message.toString().split(":");
        arrivals.set(tag, (arrivals.get(tag) ?? 0) + 1);
        socket.send(message, fromPort, from, () => {});
      });
      socket.once("error", reject).bind(port, address, () => resolve(socket.address().port));
    });
  },
  /** "answered", "refused", "silent", or what the kernel says. */
  async ask({ protocol, to, port, from, timeoutMs }) {
    return protocol === "tcp" ? askTcp({ to, port, from, timeoutMs }) : askUdp({ to, port, from, timeoutMs });
  },
  /** Opens a connection that stays. */
  async hold({ name, to, port, timeoutMs }) {
    const socket = connect({ host: to, port });
    held.set(name, socket);
    socket.on("error", () => {});
    return Promise.race([
      new Promise((resolve) => socket.once("connect", () => resolve("open"))),
      after(timeoutMs, "silent"),
    ]);
  },
  /** Sends something on it: "answered" or "silent". */
  async say({ name, timeoutMs }) {
    const socket = held.get(name);
    const heard = new Promise((resolve) => socket.once("data", () => resolve("answered")));
    socket.write("hello");
    return Promise.race([heard, after(timeoutMs, "silent")]);
  },
  let({ name }) {
    held.get(name)?.destroy();
    held.delete(name);
  },
  /** Sends a datagram every few milliseconds from one port, and keeps which were answered. */
  async probe({ name, to, port, everyMs }) {
    const socket = createSocket("udp4");
    const sent = [];
    socket.on("error", () => {});
    socket.on("message", (message) => {
      const [, number] = message.toString().split(":");
      const probe = sent[Number(number)];
      if (probe) probe.isAnswered = true;
    });
    await new Promise((resolve) => socket.bind(0, resolve));
    const timer = setInterval(() => {
      sent.push({ at: performance.now(), isAnswered: false });
      socket.send(`${name}:${sent.length - 1}`, port, to, () => {});
    }, everyMs);
    probes.set(name, { socket, timer, sent });
  },
  /** How many were sent and answered since the last look, and for how long on end none was. */
  async probed({ name, end }) {
    const probe = probes.get(name);
    const { sent, socket, timer } = probe;
    if (end) clearInterval(timer);
    // the last ones may be on their way
    await after(end ? 100 : 0);
    const seen = sent.slice(probe.from ?? 0);
    probe.from = sent.length;
    if (end) socket.close();
    let longest = 0;
    let first;
    for (const { at, isAnswered } of seen) {
      if (isAnswered) first = undefined;
      else {
        first ??= at;
        longest = Math.max(longest, at - first);
      }
    }
    const answered = seen.filter(({ isAnswered }) => isAnswered).length;
    return { sent: seen.length, answered, longestLossMs: longest };
  },
  arrivals: ({ tag }) => arrivals.get(tag) ?? 0,
};

function after(ms, value) {
  return new Promise((resolve) => setTimeout(() => resolve(value), ms));
}

function askTcp({ to, port, from, timeoutMs }) {
  return new Promise((resolve) => {
    const socket = connect({ host: to, port, ...(from === undefined ? {} : { localAddress: from }) });
    const end = (outcome) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(outcome);
    };
    const timer = setTimeout(() => end("silent"), timeoutMs);
    socket.on("error", ({ code }) => end(code === "ECONNREFUSED" ? "refused" : code));
    socket.once("connect", () => socket.write("hello"));
    socket.once("data", () => end("answered"));
  });
}

function askUdp({ to, port, from, timeoutMs }) {
  return new Promise((resolve) => {
    const socket = createSocket(to.includes(":") ? "udp6" : "udp4");
    const send = () => socket.send("ask:", port, to, (error) => error && end(error.code));
    const again = setInterval(send, Math.max(20, timeoutMs / 5));
    const timer = setTimeout(() => end("silent"), timeoutMs);
    let isOver = false;
    const end = (outcome) => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      clearInterval(again);
      socket.close();
      resolve(outcome);
    };
    socket.on("error", ({ code }) => end(code));
    socket.once("message", () => end("answered"));
    socket.bind(0, from, send);
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, operation, ...options } = JSON.parse(line);
  Promise.resolve()
    .then(() => operations[operation](options))
    .then(
      (value) => console.log(JSON.stringify({ id, value })),
      (error) => console.log(JSON.stringify({ id, error: String(error) })),
    );
}
process.exit(0);

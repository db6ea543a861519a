// How soon a name that is known is answered, to a client in a network namespace of its own, as a sandbox is: over a pair of virtual
// interfaces, where the names that may be looked up are listed. Without the engine, and with a nameserver of the benchmark's own.

import { execFile, execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import dnsPacket from "dns-packet";
import { createResolver } from "../src/network/resolver/resolver.ts";
import { createLog } from "../src/observe/log.ts";
import { type Result, resultOf } from "./result.ts";

const gateway = "198.18.53.1";
const client = "198.18.53.2";
const names = Array.from({ length: 20 }, (_, index) => `n${index}.example.com`);
/** As many as a list of an operator has. */
const allowDomains = [...Array.from({ length: 50 }, (_, index) => `*.other${index}.net`), "*.example.com"];

const egress = { scope: "LISTED", ports: [], allowCidrs: [], denyCidrs: [], allowDomains } as const;

/** Milliseconds from a question until its answer, one question after the other. */
export async function measureResolver(runs: number): Promise<Result> {
  const outside = await startOutside();
  const resolver = createResolver({
    upstreams: () => [{ address: "127.0.0.1", port: outside.port }],
    asker: (address) => (address === client ? { sandboxId: "bench", egress } : undefined),
    learn: async () => undefined,
    onDenied: () => undefined,
    queriesPerSecond: 1_000_000,
    log: createLog({ level: "error" }),
  });
  const namespace = makeNamespace();
  try {
    await resolver.listen(gateway);
    const program = fileURLToPath(new URL("resolver-client.ts", import.meta.url));
    const command = [
      "netns",
      "exec",
      namespace.name,
      process.execPath,
      program,
      gateway,
      String(runs),
      ...names,
    ];
    const { stdout } = await promisify(execFile)("ip", command, {
      maxBuffer: 64 * 1_024 ** 2,
      timeout: 120_000,
    });
    const values = JSON.parse(stdout) as readonly number[];
    if (outside.count() > names.length)
      throw new Error("names were asked outside that should have been known");
    return resultOf({ name: "resolver", unit: "ms", values, goal: { of: "p50", atMost: 1 } });
  } finally {
    await resolver.close();
    namespace.remove();
    outside.close();
  }
}

async function startOutside() {
  let count = 0;
  const socket = createSocket("udp4");
  socket.on("message", (message, from) => {
    count += 1;
    const { id = 0, questions = [] } = dnsPacket.decode(message);
    const name = questions[0]?.name ?? "";
    const answers = [{ type: "A", name, ttl: 3_600, data: "8.8.8.8" } as const];
    socket.send(dnsPacket.encode({ type: "response", id, questions, answers }), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind({ port: 0, address: "127.0.0.1" }, resolve));
  return { port: socket.address().port, count: () => count, close: () => socket.close() };
}

function makeNamespace(): { readonly name: string; remove(): void } {
  const name = `bench-names-${process.pid}`;
  const here = `bn${process.pid}`;
  const ip = (...args: readonly string[]) => execFileSync("ip", args);
  ip("netns", "add", name);
  const remove = () => ip("netns", "delete", name);
  try {
    ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", name);
    ip("address", "add", `${gateway}/30`, "dev", here);
    ip("link", "set", here, "up");
    ip("-n", name, "address", "add", `${client}/30`, "dev", "eth0");
    ip("-n", name, "link", "set", "eth0", "up");
    return { name, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

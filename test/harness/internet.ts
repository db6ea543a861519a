// A small internet for tests: a host, what is beyond it, and sandboxes on bridges, each a network namespace. Nothing of it leaves the
// machine, and all of it goes with the process.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("network-peer.mjs", import.meta.url));

/** Addresses beyond the host. */
export const beyond = {
  /** Of the link to the host, on both sides. */
  gateway: "45.33.32.1",
  host: "45.33.32.2",
  /** Public ones. */
  site: "93.184.216.34",
  mirror: "151.101.2.132",
  dns: "8.8.8.8",
  metadata: "169.254.169.254",
  /** Of other machines of the same owner. */
  lan: "192.168.50.5",
  intranet: "10.20.0.5",
  carrier: "100.64.0.9",
  site6: "2a01:4f8::34",
} as const;

type Outcome = "answered" | "refused" | "silent" | string;
type Protocol = "tcp" | "udp";

export interface Destination {
  readonly protocol?: Protocol;
  readonly to: string;
  readonly port: number;
  /** Default: the one that the kernel chooses. */
  readonly from?: string;
  readonly timeoutMs?: number;
}

export interface Probed {
  readonly sent: number;
  readonly answered: number;
  /** From the first to the last of those that were lost on end, by when they were sent. */
  readonly longestLossMs: number;
}

/** A program in a network namespace of its own. */
export interface Peer {
  readonly pid: number;
  /** What starts another program there. */
  readonly within: readonly string[];
  /** Runs one to its end. Returns what it printed. */
  run(command: readonly string[], input?: string): string;
  /** Echoes whatever comes. */
  serve(at: {
    readonly protocol?: Protocol;
    readonly address?: string;
    readonly port: number;
  }): Promise<void>;
  /** Sends something and waits for the echo. */
  ask(destination: Destination): Promise<Outcome>;
  /** Opens a connection that stays; `say` sends on it and waits for the echo. */
  hold(name: string, destination: Omit<Destination, "protocol" | "from">): Promise<"open" | "silent">;
  say(name: string, timeoutMs?: number): Promise<"answered" | "silent">;
  let(name: string): Promise<void>;
  /** Sends a datagram every few milliseconds until `probed` is told to end it. */
  probe(
    name: string,
    destination: { readonly to: string; readonly port: number; readonly everyMs?: number },
  ): Promise<void>;
  /** Since the last look. */
  probed(name: string, options?: { readonly end?: boolean }): Promise<Probed>;
  /** Datagrams that a server here got of a probe. */
  arrivals(name: string): Promise<number>;
  close(): Promise<void>;
}

export interface Internet {
  readonly host: Peer;
  readonly internet: Peer;
  addBridge(options: { readonly bridge: string; readonly gateway: string; readonly prefix: number }): void;
  /** One as the engine makes it: an address and a hardware address of its own, and the bridge's as the gateway. */
  addSandbox(options: {
    readonly bridge: string;
    readonly address: string;
    readonly gateway: string;
    readonly prefix: number;
    /** Default: the one that goes with the address. */
    readonly mac?: string;
  }): Promise<Peer>;
  close(): Promise<void>;
}

/** Why no such network can be made here; undefined when one can. For `describe.skipIf`. */
export const internetObstacle = obstacle();

/**
 * Close it in every case.
 *
 * @param hostPid a process in the network namespace that is to be the host. Default: a namespace of its own.
 */
export async function openInternet({ hostPid }: { readonly hostPid?: number } = {}): Promise<Internet> {
  const peers: Peer[] = [];
  const add = async (namespace?: readonly string[]) => {
    const peer = await openPeer(namespace);
    peers.push(peer);
    return peer;
  };
  const close = async () => {
    await Promise.all(peers.map((peer) => peer.close()));
  };
  try {
    const there = hostPid === undefined ? undefined : ["nsenter", `--net=/proc/${hostPid}/ns/net`];
    const [host, internet] = await Promise.all([add(there), add()]);
    const { gateway, host: hostAddress, site6, ...others } = beyond;
    internet.run(
      ["ip", "-batch", "-"],
      [
        "link set lo up",
        `link add up0 type veth peer name up0 netns ${host.pid}`,
        "link set up0 up",
        `addr add ${gateway}/24 dev up0`,
        "addr add fd45::1/64 dev up0 nodad",
        ...Object.values(others).map((address) => `addr add ${address}/32 dev lo`),
        `addr add ${site6}/128 dev up0 nodad`,
      ].join("\n"),
    );
    host.run(
      ["ip", "-batch", "-"],
      [
        "link set lo up",
        "link set up0 up",
        `addr add ${hostAddress}/24 dev up0`,
        "addr add fd45::2/64 dev up0 nodad",
        `route add default via ${gateway}`,
        "route add default via fd45::1",
      ].join("\n"),
    );
    internet.run(["ip", "-6", "route", "add", "default", "via", "fd45::2"]);
    host.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
    let links = 0;
    return {
      host,
      internet,
      addBridge({ bridge, gateway, prefix }) {
        host.run(
          ["ip", "-batch", "-"],
          [
            // of its own, as the engine's have: else it is one of its ports', and another once that goes
            `link add ${bridge} address ${macOf(gateway, "02:73")} type bridge`,
            `addr add ${gateway}/${prefix} dev ${bridge}`,
            `addr add ${at6(gateway, 1)}/64 dev ${bridge} nodad`,
            `link set ${bridge} up`,
          ].join("\n"),
        );
      },
      async addSandbox({ bridge, address, gateway, prefix, mac = macOf(address) }) {
        const sandbox = await add();
        links += 1;
        host.run(
          ["ip", "-batch", "-"],
          [
            `link add veth${links} type veth peer name eth0 address ${mac} netns ${sandbox.pid}`,
            `link set veth${links} master ${bridge} up`,
          ].join("\n"),
        );
        sandbox.run(
          ["ip", "-batch", "-"],
          [
            "link set lo up",
            "link set eth0 up",
            `addr add ${address}/${prefix} dev eth0`,
            `route add default via ${gateway}`,
            `addr add ${at6(gateway, lastByte(address))}/64 dev eth0 nodad`,
            `route add default via ${at6(gateway, 1)}`,
          ].join("\n"),
        );
        return sandbox;
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function macOf(address: string, prefix = "06:73"): string {
  const bytes = address.split(".").map((byte) => Number(byte).toString(16).padStart(2, "0"));
  return `${prefix}:${bytes.join(":")}`;
}

const lastByte = (address: string) => Number(address.split(".").at(-1));

/** The address of a host on the bridge that has this gateway. */
const at6 = (gateway: string, host: number) => `fd77:${lastByte(gateway)}::${host}`;

/** Much longer than the kernel waits before it sends a lost packet again: a busy machine may let a program stand for seconds. */
const defaultTimeoutMs = 15_000;

async function openPeer(launcher: readonly string[] = ["unshare", "--net"]): Promise<Peer> {
  const [command = "", ...args] = launcher;
  const child = spawn(command, [...args, process.execPath, program], { stdio: ["pipe", "pipe", "inherit"] });
  const { pid } = child;
  if (pid === undefined) throw new Error("unshare did not start");
  const within = ["nsenter", `--net=/proc/${pid}/ns/net`];
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { id, value, error } = JSON.parse(line) as { id: number; value?: unknown; error?: string };
    if (error === undefined) waiting.get(id)?.resolve(value);
    else waiting.get(id)?.reject(new Error(error));
    waiting.delete(id);
  });
  child.once("close", () => {
    for (const { reject } of waiting.values()) reject(new Error("the peer is gone"));
  });
  let asked = 0;
  const tell = (operation: string, options: object): Promise<unknown> => {
    const pending = Promise.withResolvers<unknown>();
    asked += 1;
    waiting.set(asked, pending);
    child.stdin.write(`${JSON.stringify({ id: asked, operation, ...options })}\n`);
    return pending.promise;
  };
  // answers once it runs, and so once it is in its namespace
  await tell("arrivals", { tag: "none" });
  return {
    pid,
    within,
    run(command, input) {
      const [name = "", ...args] = [...within, ...command];
      return execFileSync(name, args, { encoding: "utf8", input: input ?? "", stdio: "pipe" });
    },
    serve: async ({ protocol = "tcp", ...at }) => void (await tell("serve", { protocol, ...at })),
    ask: async ({ protocol = "tcp", timeoutMs = defaultTimeoutMs, ...to }) =>
      (await tell("ask", { protocol, timeoutMs, ...to })) as Outcome,
    hold: async (name, { timeoutMs = defaultTimeoutMs, ...to }) =>
      (await tell("hold", { name, timeoutMs, ...to })) as "open" | "silent",
    say: async (name, timeoutMs = defaultTimeoutMs) =>
      (await tell("say", { name, timeoutMs })) as "answered" | "silent",
    let: async (name) => void (await tell("let", { name })),
    probe: async (name, { everyMs = 5, ...to }) => void (await tell("probe", { name, everyMs, ...to })),
    probed: async (name, { end = false } = {}) => (await tell("probed", { name, end })) as Probed,
    arrivals: async (tag) => (await tell("arrivals", { tag })) as number,
    close: () => end(child),
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "close");
  child.kill("SIGKILL");
  await ended;
}

function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return "no network namespaces of its own: run as root";
  const directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  const missing = ["nft", "ip", "unshare", "nsenter"].find(
    (name) => !directories.some((directory) => existsSync(`${directory}/${name}`)),
  );
  if (missing !== undefined) return `${missing} is not installed: run by \`npm test\``;
  try {
    execFileSync("unshare", ["--net", "nft", "-c", "add table inet probe"], { stdio: "pipe" });
    return undefined;
  } catch (error) {
    return `no network namespace with nftables can be had here: ${String(error)}`;
  }
}

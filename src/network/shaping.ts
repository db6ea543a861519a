// Bounds of bandwidth, and the isolation of ports of a bridge: what firewall rules cannot hold, set on the two ends of a sandbox's
// pair of interfaces after its start, and read back.

import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { boundCommands, rateIn, showCommand } from "./bucket.ts";
import { type HeldNamespace, holdNamespace, insideName, ownInterface } from "./link.ts";
import type { NetworkLimits } from "./policy.ts";
import { missingOf, type Run, runHere } from "./program.ts";

export interface Shape {
  /** A process of the sandbox. */
  readonly pid: number;
  /** Of its tenant. */
  readonly bridge: string;
  /** Of the sandbox's own interface: nothing is touched if the process has another, as one that has its number by now. */
  readonly mac: string;
  readonly limits: Pick<NetworkLimits, "transmitBytesPerSecond" | "receiveBytesPerSecond">;
  /** Whether sandboxes of the tenant may reach each other. Otherwise the port is isolated: the bridge itself passes nothing. */
  readonly peers: boolean;
  /** The container was started a moment ago, so that nothing can have been bounded yet: what would be removed is not looked for. */
  readonly isNew?: boolean;
}

export interface Shaper {
  /**
   * Sets what the kernel is to hold for a sandbox that runs, over what it held before, and reads it back; traffic does not notice where
   * nothing changes. Resolves with nothing done for one that has ended. Of several at once for the same sandbox the last one holds.
   *
   * @throws SandboxdError LIMIT_UNENFORCEABLE for a bound that does not hold; NETWORK_UNAVAILABLE if it has no port on that bridge,
   * or the port cannot be isolated.
   */
  apply(shape: Shape): Promise<void>;
  /** What is missing on this host for all of it, in words; undefined if nothing is. Tries it, in a namespace of its own. */
  problem(): Promise<string | undefined>;
}

const programs = ["ip", "tc", "bridge", "nsenter", "unshare", "sh"];

export function createShaper({ log, run = runHere }: { readonly log: Log; readonly run?: Run }): Shaper {
  /** By MAC: what is under way. */
  const turns = new Map<string, Promise<void>>();

  async function applyNow(shape: Shape): Promise<void> {
    const namespace = holdNamespace(shape.pid);
    if (namespace === undefined) return;
    try {
      await set(shape, namespace);
    } catch (error) {
      // its interfaces go with it
      if (!namespace.isStill()) return;
      throw error;
    } finally {
      namespace.close();
    }
  }

  async function set(shape: Shape, namespace: HeldNamespace): Promise<void> {
    const { limits, isNew = false } = shape;
    const own = ownInterface(shape.pid);
    if (own?.mac !== shape.mac || !namespace.isStill()) {
      throw unconnected(shape, `${insideName} has the MAC ${own?.mac}, not ${shape.mac}`);
    }
    // a number that bridge and tc know as a name, and that no other interface gets
    const port = `if${own.otherEnd}`;
    const bound = async (field: keyof typeof fields, device: string, enter: readonly string[]) => {
      const bytesPerSecond = limits[field];
      if (isNew && bytesPerSecond === undefined) return;
      const tc = (commands: string) => run([...enter, "tc", "-j", "-batch", "-"], commands);
      await hold(field, bytesPerSecond, isNew, device, tc);
    };
    await Promise.all([
      isolate(shape, port),
      bound("receiveBytesPerSecond", port, []),
      bound("transmitBytesPerSecond", insideName, namespace.enter),
    ]);
    log.debug({ address: shape.mac }, `what its ends on bridge ${shape.bridge} hold was read back`);
  }

  /** Says it again where it is so already: one program sets and shows. */
  async function isolate(shape: Shape, port: string): Promise<void> {
    const isWanted = !shape.peers;
    const commands = `link set dev ${port} isolated ${isWanted ? "on" : "off"}\nlink show dev ${port}\n`;
    const printed = await run(["bridge", "-j", "-d", "-batch", "-"], commands).catch((error: unknown) => {
      throw unconnected(shape, messageOf(error));
    });
    const [found] = JSON.parse(printed) as readonly {
      readonly master?: string;
      readonly isolated?: boolean;
    }[];
    if (found?.master !== shape.bridge) throw unconnected(shape, `it is at a port of ${found?.master}`);
    if (found.isolated === isWanted) return;
    throw new SandboxdError(
      "NETWORK_UNAVAILABLE",
      `a port of bridge ${shape.bridge} is to have isolated ${isWanted}, and the kernel says ${found.isolated}`,
      { hint: "isolated ports of a bridge need Linux 4.18 and iproute2 4.19, or later" },
    );
  }

  return {
    apply(shape) {
      const turn = (turns.get(shape.mac) ?? Promise.resolve()).catch(() => {}).then(() => applyNow(shape));
      turns.set(shape.mac, turn);
      const ended = () => {
        if (turns.get(shape.mac) === turn) turns.delete(shape.mac);
      };
      turn.then(ended, ended);
      return turn;
    },
    async problem() {
      const missing = missingOf(programs);
      if (missing.length > 0) return `not on this host: ${missing.join(", ")} (of iproute2 and util-linux)`;
      try {
        await run(["unshare", "--net", "--", "sh", "-e"], trial);
        return undefined;
      } catch (error) {
        return `bandwidth cannot be bounded, or ports isolated: ${messageOf(error)}`;
      }
    },
  };
}

/** As a spec has them. */
const fields = {
  receiveBytesPerSecond: "network_limits.receive_bytes_per_second",
  transmitBytesPerSecond: "network_limits.transmit_bytes_per_second",
} as const;

/** Bounds a device, unless it is bounded so already. */
async function hold(
  name: keyof typeof fields,
  bytesPerSecond: number | undefined,
  isNew: boolean,
  device: string,
  tc: (commands: string) => Promise<string>,
): Promise<void> {
  const rateAfter = (commands: string) => tc(commands).then(rateIn).catch(messageOf);
  if (!isNew && (await rateAfter(showCommand(device))) === bytesPerSecond) return;
  const held = await rateAfter(boundCommands(device, bytesPerSecond));
  if (held === bytesPerSecond) return;
  const field = fields[name];
  throw new SandboxdError(
    "LIMIT_UNENFORCEABLE",
    `${field} is ${bytesPerSecond ?? "not set"}, and the kernel says ${held ?? "that there is no bound"}`,
    {
      hint: "bounds of bandwidth need tc, of iproute2, and the kernel's token bucket filter (sch_tbf); CheckHost tries them",
      fields: [{ field, description: "this host cannot hold it" }],
    },
  );
}

function unconnected({ bridge }: Shape, why: string): SandboxdError {
  return new SandboxdError(
    "NETWORK_UNAVAILABLE",
    `the sandbox is not on its tenant's bridge ${bridge}: ${why}`,
    {
      hint: "restart the sandbox; `bridge link` on the host shows what is on which bridge",
    },
  );
}

/** All that is needed, tried on a pair of interfaces that nobody has. */
const trial = `ip link add trial0 type bridge
ip link add trial1 type veth peer name trial2
ip link set trial1 master trial0
bridge link set dev trial1 isolated on
printf '${boundCommands("trial1", 1_000_000).replaceAll("\n", "\\n")}' | tc -batch -
`;

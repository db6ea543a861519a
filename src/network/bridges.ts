// The bridges of tenants at the engine, with the resolver on each: made for the first sandbox that needs one, removed after the
// last. A bridge is ours to remove if no sandbox has a place on it, whichever life of the daemon made it.

import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import { type Cidr, parseCidr } from "./addresses.ts";
import { type AddressRules, chooseNet, type TenantNet } from "./allocation.ts";
import type { Resolver } from "./resolver/resolver.ts";

/** What the engine does for networks. */
export interface NetworkEngine {
  /** Makes the bridge, or finds it as planned. Something else on this host may have its subnet, or its name. */
  ensure(net: TenantNet): Promise<"ready" | "subnet taken" | "bridge taken">;
  /** Gone is success. */
  remove(network: string): Promise<"gone" | "in use">;
  /** The names of all networks of this host; undefined while it cannot be asked. */
  names(): Promise<readonly string[] | undefined>;
}

export interface BridgesOptions {
  readonly rules: AddressRules;
  readonly engine: NetworkEngine;
  readonly resolver: Pick<Resolver, "listen" | "unlisten">;
  /** Whether any sandbox of the tenant has a place. */
  readonly isUsed: (tenant: string) => boolean;
  /** Whether containers of the tenant may hold its addresses, so that it cannot be moved. */
  readonly isFixed: (tenant: string) => boolean;
  /** Has the kernel's rules of a bridge that is gone removed. */
  readonly dropRules: (bridge: string) => Promise<void>;
  /** Blocks that this machine routes somewhere else. */
  readonly routed: () => readonly Cidr[];
  /** Whether this process has an interface of that name: the engine may be in another network namespace. */
  readonly hasInterface: (name: string) => boolean;
  readonly log: Log;
}

export interface Bridges {
  /** The tenant's network, chosen if it has none. @throws SandboxdError ADDRESS_EXHAUSTED. */
  netOf(tenant: string): TenantNet;
  /** Takes up what a record says. */
  adopt(tenant: string, net: TenantNet): void;
  /** Has it there, in another subnet than before if the engine has something else in that. Rejects with NETWORK_UNAVAILABLE. */
  ready(tenant: string): Promise<void>;
  /** Something went wrong with it: it is looked at again before the next use. */
  doubt(tenant: string): void;
  /** A sandbox is gone: its bridge may have to go. */
  tidySoon(): void;
  count(): number;
  close(): void;
}

/** The engine knows of a container's end a moment later. */
const tidyAfterMs = 2_000;
const tidyEveryMs = 30_000;
/** Subnets that are tried before it is given up. */
const mostTries = 8;

export function createBridges(options: BridgesOptions): Bridges {
  const { rules, engine, resolver, isUsed, log } = options;
  /** By tenant, of those that have any. */
  const nets = new Map<string, TenantNet>();
  /** By tenant: it is there, or is being made. */
  const known = new Map<string, Promise<void>>();
  const turns = new Map<string, Promise<unknown>>();
  const collided: Cidr[] = [];
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  /** One after the other for each tenant: a bridge is not removed while a sandbox is about to use it. */
  function inTurn<T>(tenant: string, step: () => Promise<T>): Promise<T> {
    const next = (turns.get(tenant) ?? Promise.resolve()).then(step);
    const settled = next
      .catch(() => undefined)
      .finally(() => {
        if (turns.get(tenant) === settled) turns.delete(tenant);
      });
    turns.set(tenant, settled);
    return next;
  }

  function netOf(tenant: string): TenantNet {
    const net =
      nets.get(tenant) ?? chooseNet(tenant, rules, [...nets.values()], [...options.routed(), ...collided]);
    nets.set(tenant, net);
    return net;
  }

  async function make(tenant: string): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const net = netOf(tenant);
      const outcome = await engine.ensure(net);
      if (outcome === "bridge taken") throw namesake(net);
      if (outcome === "ready") {
        if (!options.hasInterface(net.bridge)) throw elsewhere(net);
        return resolver.listen(net.gateway);
      }
      const subnet = parseCidr(net.subnet);
      if (subnet !== undefined) collided.push(subnet);
      if (tries === mostTries || options.isFixed(tenant)) throw taken(tenant, net);
      log.warn(
        { tenant, subnet: net.subnet },
        "something else on this host is there; taking the next subnet",
      );
      nets.delete(tenant);
    }
  }

  function later(ms: number): void {
    if (isClosed) return;
    clearTimeout(timer);
    timer = setTimeout(() => void tidy(), ms);
  }

  async function tidy(): Promise<void> {
    try {
      const names = await engine.names();
      if (names === undefined) return;
      for (const tenant of [...nets.keys()]) await inTurn(tenant, () => removeUnused(tenant));
      for (const [tenant, { network }] of nets) if (!names.includes(network)) known.delete(tenant);
      const ours = new Set([...nets.values()].map(({ network }) => network));
      for (const name of names) if (!ours.has(name)) await engine.remove(name);
      // those that could not be had when they were to be, or that somebody removed
      for (const tenant of nets.keys()) if (isUsed(tenant) && !known.has(tenant)) await ready(tenant);
    } catch (error) {
      log.warn({ err: messageOf(error) }, "networks are not as they should be; it is tried again");
    } finally {
      later(tidyEveryMs);
    }
  }

  async function removeUnused(tenant: string): Promise<void> {
    const net = nets.get(tenant);
    if (net === undefined || isUsed(tenant)) return;
    known.delete(tenant);
    if ((await engine.remove(net.network)) === "in use") return;
    await resolver.unlisten(net.gateway);
    // one that came meanwhile waits for its turn, and finds the rules as it put them
    if (isUsed(tenant)) return;
    await options.dropRules(net.bridge);
    if (isUsed(tenant)) return;
    nets.delete(tenant);
    log.info({ tenant, network: net.network }, "network removed with the tenant's last sandbox");
  }

  function ready(tenant: string): Promise<void> {
    const before = known.get(tenant);
    if (before !== undefined) return before;
    const making = inTurn(tenant, () => make(tenant));
    known.set(tenant, making);
    making.catch(() => {
      if (known.get(tenant) === making) known.delete(tenant);
    });
    return making;
  }

  later(tidyAfterMs);
  return {
    netOf,
    adopt(tenant, net) {
      if (!nets.has(tenant)) nets.set(tenant, net);
    },
    ready,
    doubt: (tenant) => void known.delete(tenant),
    tidySoon: () => later(tidyAfterMs),
    count: () => nets.size,
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}

function taken(tenant: string, { subnet }: TenantNet): SandboxdError {
  return new SandboxdError(
    "NETWORK_UNAVAILABLE",
    `subnet ${subnet} of tenant "${tenant}" is in use by something else on this host`,
    { hint: "give [network] pools blocks that nothing else on this host uses", metadata: { tenant } },
  );
}

function namesake({ bridge }: TenantNet): SandboxdError {
  return new SandboxdError(
    "NETWORK_UNAVAILABLE",
    `an interface ${bridge} is there that is not the engine's`,
    {
      hint: `remove it, if nobody needs it: ip link delete ${bridge}`,
    },
  );
}

function elsewhere({ bridge }: TenantNet): SandboxdError {
  return new SandboxdError(
    "NETWORK_UNAVAILABLE",
    `the engine made bridge ${bridge}, and there is none here: the engine is in another network namespace`,
    { hint: "run sandboxd and the engine in the same network namespace" },
  );
}

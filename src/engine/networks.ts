// The engine's networks that sandboxes are connected to: made before the first container that has one, compared before each use,
// removed when no container has it. Nobody else's network is ever touched.

import { setTimeout as sleep } from "node:timers/promises";
import type Docker from "dockerode";
import type { NetworkCreateOptions, NetworkInspectInfo } from "dockerode";
import { messageOf, SandboxdError } from "../errors.ts";
import { overlaps, parseCidr } from "../network/addresses.ts";
import { type Attempt, orFailure, statusOf } from "./calls.ts";
import { checkNetworkName, checkNetworkPlan, type NetworkPlan } from "./network-plan.ts";
import type { EngineNetworks, Waiting } from "./runtime.ts";

const bridgeOptions = "com.docker.network.bridge";
const bridgeName = `${bridgeOptions}.name`;

/**
 * What the engine's configuration may add (`default-network-opts`): how large packets are, and where published ports would be
 * bound, of which there are none.
 */
const harmlessOptions: ReadonlySet<string> = new Set([
  "com.docker.network.driver.mtu",
  `${bridgeOptions}.host_binding_ipv4`,
]);

/** A network is made in a tenth of a second. */
const lookEveryMs = 50;
const mostLooks = 10;

/** Fields that the client's types lack: those of later engines. */
type Found = NetworkInspectInfo & { readonly EnableIPv4?: boolean };

/** The complete call that makes a network. @throws RangeError if the plan is out of its bounds. */
export function networkCreateOptions(plan: NetworkPlan): NetworkCreateOptions {
  checkNetworkPlan(plan);
  return {
    Name: plan.name,
    // of the API before 1.44; later ones always do
    CheckDuplicate: true,
    Driver: "bridge",
    Internal: false,
    Attachable: false,
    Ingress: false,
    EnableIPv6: false,
    IPAM: { Driver: "default", Config: [{ Subnet: plan.subnet, Gateway: plan.gateway }] },
    Options: {
      [bridgeName]: plan.bridge,
      // who reaches whom on the bridge changes while it is there, and what the engine was told cannot
      [`${bridgeOptions}.enable_icc`]: "true",
      // whoever empties the firewall leaves sandboxes without a way out, not with an open one
      [`${bridgeOptions}.enable_ip_masquerade`]: "false",
      // From Engine 27 on; earlier ones keep it and do nothing. The engine drops what comes in unasked, and lets out what our own
      // rules let out: "nat-unprotected" and "routed" would accept some of what comes in.
      [`${bridgeOptions}.gateway_mode_ipv4`]: "nat",
    },
    Labels: { ...plan.labels },
  };
}

export function createEngineNetworks(docker: Docker, attempt: Attempt): EngineNetworks {
  /** By name: those that are being made, or compared. */
  const making = new Map<string, ReturnType<EngineNetworks["createNetwork"]>>();

  const list = (filters: Readonly<Record<string, readonly string[]>>, options?: Waiting) =>
    orFailure(
      "list",
      attempt(
        "list",
        (abortSignal) => docker.listNetworks({ filters: JSON.stringify(filters), abortSignal }),
        options,
      ),
    ) as Promise<readonly Found[]>;

  /** The engine takes a name for a part of it, and may have several of one name. */
  async function find(name: string, options?: Waiting): Promise<readonly Found[]> {
    return (await list({ name: [name] }, options)).filter((one) => one.Name === name);
  }

  function remove(idOrName: string, options?: Waiting): Promise<"gone" | "in use"> {
    const ask = async (abortSignal: AbortSignal) => {
      try {
        await docker.getNetwork(idOrName).remove({ abortSignal });
        return "gone";
      } catch (error) {
        if (statusOf(error) === 404) return "gone";
        if (/has active endpoints/.test(messageOf(error))) return "in use";
        throw error;
      }
    };
    return orFailure("remove", attempt("remove", ask, options));
  }

  async function make(plan: NetworkPlan, options?: Waiting): Promise<"made" | Conflict> {
    const ask = async (abortSignal: AbortSignal) => {
      try {
        await docker.createNetwork({ ...networkCreateOptions(plan), abortSignal });
        return "made";
      } catch (error) {
        const conflict = conflictOf(error);
        if (conflict === undefined) throw error;
        return conflict;
      }
    };
    return orFailure("create", attempt("create", ask, options));
  }

  async function ensure(
    plan: NetworkPlan,
    options?: Waiting,
  ): Promise<"ready" | "subnet taken" | "bridge taken"> {
    let found = await withoutStale(plan, await find(plan.name, options), options);
    if (found.length === 0) {
      const outcome = await make(plan, options);
      found = outcome === "made" ? await find(plan.name, options) : await appearing(plan, options);
      if (found.length === 0 && outcome !== "made" && outcome !== "name taken") return outcome;
    }
    refuseOther(plan, found);
    return "ready";
  }

  /** Whoever else is making it has its subnet and its bridge already, and the engine lists it once all is done. */
  async function appearing(plan: NetworkPlan, options?: Waiting): Promise<readonly Found[]> {
    for (let looks = 1; ; looks += 1) {
      const all = await list({}, options);
      const found = all.filter((one) => one.Name === plan.name);
      // then it is another that has them
      const isExplained = all.some((one) => isInTheWay(plan, one));
      if (found.length > 0 || isExplained || looks === mostLooks) return found;
      await sleep(lookEveryMs);
    }
  }

  /** Those that stay: one of ours that is otherwise goes, if no container is on it. */
  async function withoutStale(
    plan: NetworkPlan,
    all: readonly Found[],
    options?: Waiting,
  ): Promise<readonly Found[]> {
    const host = `${plan.labelPrefix}host`;
    const owner = plan.labels[host];
    const staying: Found[] = [];
    for (const one of all) {
      const isOurs = owner !== undefined && one.Labels?.[host] === owner;
      const isStale = isOurs && differenceOf(plan, one) !== undefined;
      if (!isStale || (await remove(one.Id, options)) === "in use") staying.push(one);
    }
    return staying;
  }

  return {
    createNetwork(plan, options) {
      const before = making.get(plan.name) ?? Promise.resolve();
      const ensured = before.then(
        () => ensure(plan, options),
        () => ensure(plan, options),
      );
      making.set(plan.name, ensured);
      const ended = () => {
        if (making.get(plan.name) === ensured) making.delete(plan.name);
      };
      ensured.then(ended, ended);
      return ensured;
    },
    async removeNetwork(name, options) {
      checkNetworkName("name", name);
      return remove(name, options);
    },
    async networks(label, options) {
      return (await list({ label: [label] }, options)).map((one) => ({
        name: one.Name,
        labels: one.Labels ?? {},
        bridge: one.Options?.[bridgeName] ?? "",
        subnet: one.IPAM?.Config?.[0]?.Subnet ?? "",
      }));
    },
  };
}

type Conflict = "name taken" | "subnet taken" | "bridge taken";

/** What the engine says of a network that it cannot make beside another; undefined for any other failure. */
export function conflictOf(error: unknown): Conflict | undefined {
  if (statusOf(error) === undefined) return undefined;
  const message = messageOf(error);
  if (statusOf(error) === 409 && /already exists/.test(message)) return "name taken";
  if (/same bridge name|is not a bridge/.test(message)) return "bridge taken";
  return /overlap/i.test(message) ? "subnet taken" : undefined;
}

function isInTheWay(plan: NetworkPlan, other: Found): boolean {
  const wanted = parseCidr(plan.subnet);
  const subnets = (other.IPAM?.Config ?? []).flatMap(({ Subnet: text = "" }) => parseCidr(text) ?? []);
  return (
    other.Options?.[bridgeName] === plan.bridge ||
    (wanted !== undefined && subnets.some((one) => overlaps(one, wanted)))
  );
}

function refuseOther(plan: NetworkPlan, found: readonly Found[]): void {
  const [only] = found;
  const difference =
    only === undefined || found.length > 1
      ? `there are ${found.length} of that name`
      : differenceOf(plan, only);
  if (difference === undefined) return;
  throw new SandboxdError(
    "HARDENING_MISMATCH",
    `the engine's network ${plan.name} is another than planned: ${difference}`,
    {
      hint: "stop the containers that are on it and remove it with `docker network rm`, the daemon makes it anew; see default-network-opts in the engine's daemon.json",
      metadata: { network: plan.name },
    },
  );
}

/** The first thing that is not as planned. */
export function differenceOf(plan: NetworkPlan, found: Found): string | undefined {
  const wanted = networkCreateOptions(plan);
  const options = Object.entries(found.Options ?? {}).filter(([name]) => !harmlessOptions.has(name));
  const pairs = [
    ["driver", wanted.Driver, found.Driver],
    ["scope", "local", found.Scope],
    ["internal", false, found.Internal],
    ["attachable", false, found.Attachable],
    ["ingress", false, found.Ingress],
    ["configuration alone", false, found.ConfigOnly],
    ["configured from", "", found.ConfigFrom?.Network ?? ""],
    ["IPv6", false, found.EnableIPv6],
    ["IPv4", true, found.EnableIPv4 ?? true],
    ["address driver", "default", found.IPAM?.Driver],
    ["address options", "{}", textOf(found.IPAM?.Options ?? {})],
    ["addresses", textOf([{ Subnet: plan.subnet, Gateway: plan.gateway }]), textOf(found.IPAM?.Config ?? [])],
    ["options", textOf(wanted.Options ?? {}), textOf(Object.fromEntries(options))],
    ["labels", textOf(plan.labels), textOf(found.Labels ?? {})],
  ] as const;
  const other = pairs.find(([, want, got]) => want !== got);
  return other === undefined ? undefined : `${other[0]}: wanted ${other[1]}, got ${other[2]}`;
}

/** A text equal for equal values, whatever the order of their keys; what is empty counts as absent. */
function textOf(value: object): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== "object" || part === null || Array.isArray(part)) return part;
    const told = Object.entries(part).filter(([, one]) => one !== "" && one !== null);
    return Object.fromEntries(told.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  });
}

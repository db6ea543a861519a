// What sandboxes have of networks: their places, and the rules that the kernel holds for them, as their tenants' policies say. What
// is given to whom stands in the records of the sandboxes alone.

import { messageOf, SandboxdError } from "../errors.ts";
import type { Log } from "../observe/log.ts";
import type { SandboxRecord } from "../sandbox/record.ts";
import type { Repository } from "../sandbox/repository.ts";
import { choosePlace } from "./allocation.ts";
import { type BridgesOptions, createBridges } from "./bridges.ts";
import { type EffectiveNetwork, effectiveNetwork, type Proxies, peersReach } from "./effective.ts";
import type { Firewall, FirewallChange } from "./firewall/firewall.ts";
import type { NetworkMode, NetworkPlace, TenantNetwork } from "./policy.ts";
import { createReleases } from "./releases.ts";
import type { Resolver } from "./resolver/resolver.ts";
import type { Shaper } from "./shaping.ts";
import type { SniProxy } from "./sni-proxy/sni-proxy.ts";

export interface NetworksOptions
  extends Pick<BridgesOptions, "rules" | "engine" | "routed" | "hasInterface"> {
  readonly repository: Repository;
  readonly policyOf: (tenant: string) => TenantNetwork;
  readonly proxies: () => Proxies;
  /** Blocks that are not public and may be allowed all the same, as the configuration says now. */
  readonly allowPrivate: () => readonly string[];
  readonly firewall: Firewall;
  readonly resolver: Resolver;
  readonly sniProxy: SniProxy;
  readonly shaper: Shaper;
  /** Whether the kernel forwards packets at all. */
  readonly forwards: () => boolean;
  /** A process of a sandbox that runs; undefined for one that does not. */
  readonly pidOf: (record: SandboxRecord, containerId: string) => number | undefined;
  readonly log: Log;
}

export interface Networks {
  /** @throws SandboxdError NETWORK_UNAVAILABLE while sandboxes cannot have the mode here. */
  assertUsable(mode: NetworkMode): void;
  /** The place of a new sandbox; undefined for one that has no network. @throws SandboxdError ADDRESS_EXHAUSTED. */
  choose(tenant: string, mode: NetworkMode): NetworkPlace | undefined;
  /**
   * Has the network there that a container is created in, and resolves to its place: another than the record's if something else turned out to be in
   * that subnet. Its rules are on their way then: they have to be `held` before it starts. Both reject with NETWORK_UNAVAILABLE, the first
   * with ADDRESS_EXHAUSTED, too.
   */
  prepare(
    record: SandboxRecord,
  ): Promise<{ readonly place: NetworkPlace; readonly held: Promise<void> } | undefined>;
  /** Bounds the traffic of one that was just started. Rejects with LIMIT_UNENFORCEABLE. */
  bound(record: SandboxRecord, containerId: string): Promise<void>;
  /** A container of the tenant could not be had: its bridge is looked at again before the next. */
  doubt(tenant: string): void;
  /** Has the kernel hold a policy for what a tenant has. Rejects with the one before held. */
  hold(tenant: string, policy: TenantNetwork): Promise<void>;
  /** The same for one sandbox whose spec changes. */
  apply(record: SandboxRecord): Promise<void>;
  /** Has the kernel hold the rules of all that have a place: before the first start of this life. */
  holdAll(): Promise<void>;
  /** The same, and their bounds too: after a reload. */
  boundAll(): Promise<void>;
  /** Has the bridges of all there. */
  bridgeAll(): Promise<void>;
  /** Whose an address is. */
  at(address: string): SandboxRecord | undefined;
  /** What a sandbox may do now. */
  effectiveOf(record: SandboxRecord): EffectiveNetwork;
  /** Networks that there are. */
  count(): number;
  close(): Promise<void>;
}

export function createNetworks(options: NetworksOptions): Networks {
  const { repository, policyOf, firewall, resolver, sniProxy, shaper, log } = options;
  /** By sandbox: whose place must be given back to the kernel. */
  const placed = new Map<string, { readonly tenant: string; readonly address: string }>();
  /** Whose each address is. */
  const owners = new Map<string, string>();
  /** By sandbox: what its link was last told to hold, in this life of the daemon. */
  const shaped = new Map<string, string>();
  /** By tenant: the address that was given last. */
  const lastAddress = new Map<string, string>();
  /** Whether the kernel was given everything once in this life of the daemon. */
  let isHeld = false;

  const recordsOf = (tenant: string) =>
    repository.all().filter((record) => record.tenant === tenant && record.place !== undefined);
  const tenantsWithPlace = () => [...new Set([...placed.values()].map(({ tenant }) => tenant))];

  const bridges = createBridges({
    ...options,
    resolver: {
      listen: resolver.listen,
      async unlisten(gateway) {
        await Promise.all([resolver.unlisten(gateway), sniProxy.unlisten(gateway)]);
      },
    },
    isUsed: (tenant) => recordsOf(tenant).length > 0,
    isFixed: (tenant) => recordsOf(tenant).some(({ containerId }) => containerId !== ""),
    dropRules: (bridge) => firewall.change({ removeBridges: [bridge] }),
  });

  const releases = createReleases({
    remove: (ids) => firewall.change({ remove: ids }),
    isBack: (id) => placed.has(id),
    log,
  });

  function placeIn(tenant: string): NetworkPlace {
    const taken = new Set(recordsOf(tenant).flatMap(({ place }) => place?.address ?? []));
    const place = choosePlace(bridges.netOf(tenant), taken, lastAddress.get(tenant));
    lastAddress.set(tenant, place.address);
    return place;
  }

  function remember({ id, tenant, place }: SandboxRecord): void {
    if (place === undefined) return;
    const { network, bridge, subnet, gateway, address } = place;
    const before = placed.get(id)?.address;
    if (before !== undefined && before !== address) owners.delete(before);
    placed.set(id, { tenant, address });
    owners.set(address, id);
    bridges.adopt(tenant, { network, bridge, subnet, gateway });
  }

  /** Lets go of what a sandbox that is gone had. */
  function released(id: string): void {
    const had = placed.get(id);
    if (had === undefined) return;
    placed.delete(id);
    owners.delete(had.address);
    shaped.delete(id);
    resolver.forget(id);
    sniProxy.forget(id);
    bridges.tidySoon();
    releases.add(id);
  }

  const effectiveUnder = ({ spec }: SandboxRecord, policy: TenantNetwork) =>
    effectiveNetwork(policy, spec, options.proxies(), options.allowPrivate());

  /** The rules of some sandboxes of one tenant, with those of their bridge. */
  function changeOf(records: readonly SandboxRecord[], policy: TenantNetwork) {
    const peers = peersReach(policy);
    const rules = records.flatMap((record) => {
      if (record.place === undefined) return [];
      const { egress, limits } = effectiveUnder(record, policy);
      const { bridge, subnet, gateway, address } = record.place;
      const sandbox = { sandboxId: record.id, bridge, address, limits };
      return [
        { bridge: { bridge, subnet, gateway, peers }, sandbox: egress ? { ...sandbox, egress } : sandbox },
      ];
    });
    return {
      putBridges: rules.slice(0, 1).map(({ bridge }) => bridge),
      put: rules.map(({ sandbox }) => sandbox),
    } satisfies FirewallChange;
  }

  /** What the two ends of a sandbox's link are to hold. */
  function shapeOf(record: SandboxRecord, policy: TenantNetwork) {
    const { transmitBytesPerSecond: transmit, receiveBytesPerSecond: receive } = effectiveUnder(
      record,
      policy,
    ).limits;
    return {
      limits: {
        ...(transmit === undefined ? {} : { transmitBytesPerSecond: transmit }),
        ...(receive === undefined ? {} : { receiveBytesPerSecond: receive }),
      },
      peers: peersReach(policy),
    };
  }

  /** `started`: the container, if it was just started, and not yet told to be the record's. */
  async function shape(record: SandboxRecord, policy: TenantNetwork, started?: string): Promise<void> {
    const { id, place } = record;
    const wanted = shapeOf(record, policy);
    const text = JSON.stringify(wanted);
    const isNew = started !== undefined;
    if (place === undefined || (!isNew && shaped.get(id) === text)) return;
    const pid = options.pidOf(record, started ?? record.containerId);
    if (pid === undefined) return;
    shaped.delete(id);
    await shaper.apply({ pid, bridge: place.bridge, mac: place.mac, ...wanted, isNew });
    shaped.set(id, text);
  }

  /** Has the server names of those checked whose policy says so. A bridge that is not there yet gets it with the start that needs it. */
  async function checkNames(records: readonly SandboxRecord[], policy: TenantNetwork): Promise<void> {
    const place = records.find((record) => effectiveUnder(record, policy).egress?.checkSni === true)?.place;
    if (place !== undefined && options.hasInterface(place.bridge)) await sniProxy.listen(place.gateway);
  }

  /** The first change takes the place of what an earlier life left in the kernel, and so has to be everything. */
  async function holdAll(): Promise<void> {
    const changes = tenantsWithPlace().map((tenant) => changeOf(recordsOf(tenant), policyOf(tenant)));
    if (changes.length > 0) {
      await firewall.change({
        putBridges: changes.flatMap(({ putBridges }) => putBridges),
        put: changes.flatMap(({ put }) => put),
      });
    }
    isHeld = true;
  }

  async function change(asked: FirewallChange): Promise<void> {
    if (!isHeld) await holdAll();
    await firewall.change(asked);
  }

  async function holdThese(records: readonly SandboxRecord[], policy: TenantNetwork): Promise<void> {
    if (records.length === 0) return;
    await checkNames(records, policy);
    await change(changeOf(records, policy));
    await Promise.all(records.filter(isUp).map((record) => shape(record, policy)));
  }

  for (const record of repository.all()) remember(record);
  const unsubscribe = repository.subscribe((id) => {
    const record = repository.get(id);
    if (record === undefined) return released(id);
    remember(record);
    if (record.state === "STOPPED" || record.state === "FAILED") sniProxy.drop(id);
    else sniProxy.review(id);
  });

  return {
    assertUsable(mode) {
      if (mode === "NONE") return;
      const problem =
        firewall.problem() ?? (mode === "EGRESS" && !options.forwards() ? notForwarding : undefined);
      if (problem === undefined) return;
      throw new SandboxdError("NETWORK_UNAVAILABLE", `no network can be had on this host: ${problem}`, {
        hint: "CheckHost tells what is missing; NETWORK_MODE_NONE needs nothing of it",
      });
    },
    choose: (tenant, mode) => (mode === "NONE" ? undefined : placeIn(tenant)),
    async prepare(record) {
      const { tenant, place } = record;
      if (place === undefined) return undefined;
      const hold = (at: NetworkPlace) => change(changeOf([{ ...record, place: at }], policyOf(tenant)));
      // beside each other: rules name the bridge, and can be there before it
      const first = hold(place);
      // nobody waits for it if the network cannot be had
      first.catch(() => undefined);
      await bridges.ready(tenant);
      const isMoved = bridges.netOf(tenant).subnet !== place.subnet;
      const now = isMoved ? placeIn(tenant) : place;
      const held = isMoved ? first.then(() => hold(now)) : first;
      held.catch(() => undefined); // nor if names cannot be checked
      await checkNames([{ ...record, place: now }], policyOf(tenant));
      return { place: now, held };
    },
    async bound(record, containerId) {
      const policy = policyOf(record.tenant);
      const shaping = shape(record, policy, containerId);
      if (Object.keys(shapeOf(record, policy).limits).length > 0) return shaping;
      // without bounds it is a second lock on what the rules hold already, and nobody waits for that
      shaping.catch((error: unknown) =>
        log.warn(
          { sandbox: record.id, err: messageOf(error) },
          "its port of the bridge could not be isolated",
        ),
      );
    },
    doubt: bridges.doubt,
    async hold(tenant, policy) {
      const records = recordsOf(tenant);
      try {
        await holdThese(records, policy);
      } catch (error) {
        await holdThese(records, policyOf(tenant)).catch(() => undefined);
        throw error;
      }
    },
    apply: (record) => holdThese(record.place === undefined ? [] : [record], policyOf(record.tenant)),
    holdAll,
    async boundAll() {
      for (const tenant of tenantsWithPlace()) await holdThese(recordsOf(tenant), policyOf(tenant));
    },
    async bridgeAll() {
      await Promise.all(
        tenantsWithPlace().map(async (tenant) => {
          await bridges.ready(tenant);
          await checkNames(recordsOf(tenant), policyOf(tenant));
        }),
      );
    },
    at(address) {
      const owner = owners.get(address);
      return owner === undefined ? undefined : repository.get(owner);
    },
    effectiveOf: (record) => effectiveUnder(record, policyOf(record.tenant)),
    count: bridges.count,
    async close() {
      bridges.close();
      releases.close();
      unsubscribe();
      await Promise.all([resolver.close(), sniProxy.close()]);
      await firewall.close();
    },
  };
}

/** Why nothing leaves a bridge. The engine turns it on, unless its configuration forbids that. */
export const notForwarding = "the kernel forwards nothing: net.ipv4.ip_forward is 0 (set it to 1)";

const isUp = ({ state }: SandboxRecord) => state === "RUNNING" || state === "PAUSED";

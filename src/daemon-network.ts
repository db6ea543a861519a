// Builds what gives sandboxes their networks, and joins it to the engine, the host's conditions, the metrics and the events.

import type { NetworkView } from "./api/network-codec.ts";
import type { Config } from "./config/config.ts";
import { proxiesOf, upstreamsOf } from "./daemon-config.ts";
import type { DockerRuntime } from "./engine/docker.ts";
import { networkMember } from "./engine/member-file.ts";
import { messageOf } from "./errors.ts";
import type { Host } from "./host/host.ts";
import { hostTag } from "./network/allocation.ts";
import { createDenialEvents } from "./network/denials.ts";
import { networkFacts } from "./network/facts.ts";
import { createFirewall, type Denials, type Firewall } from "./network/firewall/firewall.ts";
import { createNetworks, type Networks, notForwarding } from "./network/networks.ts";
import { createResolver, type Resolver } from "./network/resolver/resolver.ts";
import { hasInterface, ownAddresses, routedBlocks } from "./network/routes.ts";
import { createShaper } from "./network/shaping.ts";
import { createSniProxy, type SniProxy } from "./network/sni-proxy/sni-proxy.ts";
import type { Log } from "./observe/log.ts";
import type { MetricsRegistry } from "./observe/metrics.ts";
import { hostSelector, labelPrefix } from "./sandbox/labels.ts";
import { cgroupParentOf } from "./sandbox/plan.ts";
import type { SandboxRecord } from "./sandbox/record.ts";
import type { Repository } from "./sandbox/repository.ts";
import type { Tenants } from "./tenant/tenants.ts";

export interface NetworkingOptions {
  readonly config: Config;
  /** As it is now: a reload may have changed it. */
  readonly currentConfig: () => Config;
  readonly hostId: string;
  readonly host: Host;
  readonly runtime: DockerRuntime;
  readonly repository: Repository;
  readonly tenants: Pick<Tenants, "policyOf" | "subscribe">;
  readonly registry: MetricsRegistry;
  readonly log: Log;
}

export interface Networking {
  readonly networks: Networks;
  /** Undefined for a sandbox without a network. */
  view(record: SandboxRecord): NetworkView | undefined;
  /** Has the kernel hold the rules of what there is: before anything is started. As the two that follow, it does not fail; a condition tells. */
  hold(): Promise<void>;
  /** Has the bridges there too, once the engine was reached. */
  recover(): Promise<void>;
  /** Has it all hold what the configuration says now. */
  reload(): Promise<void>;
  /** Why networks cannot be had here, or are not held now; undefined if all is well. */
  problem(): Promise<string | undefined>;
  close(): Promise<void>;
}

export function createNetworking(options: NetworkingOptions): Networking {
  const { config, currentConfig, hostId, host, runtime, repository, registry } = options;
  const log = options.log.child("networks");
  const { pools, subnetPrefix, sniPort } = config.network;
  const firewall = createFirewall({
    tag: hostTag(hostId),
    pools,
    // a question over TCP takes several
    questionsPerSecond: 20 * config.network.dnsQueriesPerSecond,
    sniPort,
    log: options.log.child("firewall"),
  });
  const denialEvents = createDenialEvents({ repository, log });
  const tellDenied = (reason: "name" | "sni") => (sandboxId: string, destination: string) =>
    denialEvents.add(sandboxId, { reason, destination, count: 1, timeMs: Date.now() });
  const clientAt = (address: string) => {
    const record = networks.at(address);
    if (record === undefined) return undefined;
    const { egress } = networks.effectiveOf(record);
    return { sandboxId: record.id, ...(egress === undefined ? {} : { egress }) };
  };
  const resolver = createResolver({
    upstreams: () => upstreamsOf(currentConfig()),
    queriesPerSecond: config.network.dnsQueriesPerSecond,
    asker: clientAt,
    learn: firewall.learn,
    onDenied: tellDenied("name"),
    log: options.log.child("resolver"),
  });
  const sniProxy = createSniProxy({
    port: sniPort,
    client: clientAt,
    async addressesOf(...asked) {
      const found = await resolver.addressesOf(...asked);
      const own = ownAddresses();
      return found.filter((address) => !own.has(address));
    },
    onDenied: tellDenied("sni"),
    log: options.log.child("sni-proxy"),
  });
  const shaper = createShaper({ log });
  const selector = hostSelector(hostId);
  const labels = { [`${labelPrefix}host`]: hostId };
  const networks = createNetworks({
    rules: { hostId, pools, subnetPrefix },
    repository,
    policyOf: (tenant) => options.tenants.policyOf(tenant).network,
    proxies: () => proxiesOf(currentConfig()),
    allowPrivate: () => currentConfig().network.allowPrivate,
    engine: {
      ensure: ({ network, ...net }) => runtime.createNetwork({ name: network, ...net, labels, labelPrefix }),
      remove: (network) => runtime.removeNetwork(network),
      async names() {
        return host.isUsable() ? (await runtime.networks(selector)).map(({ name }) => name) : undefined;
      },
    },
    firewall,
    resolver,
    sniProxy,
    shaper,
    pidOf(record, containerId) {
      const facts = host.facts();
      if (facts === undefined || containerId === "") return undefined;
      return networkMember({
        containerId,
        parent: cgroupParentOf(record, facts),
        version: facts.cgroupVersion,
      });
    },
    routed: () => routedBlocks("sbx"),
    hasInterface,
    forwards: () => networkFacts().forwards,
    log,
  });

  const unsubscribe = [
    firewall.onDenied(({ sandboxId, ...denial }) => denialEvents.add(sandboxId, denial)),
    firewall.subscribe(tell),
    // a sandbox may have been made ready under the policy of before, while the new one was written
    options.tenants.subscribe((name) => {
      sniProxy.review();
      const held = networks.hold(name, options.tenants.policyOf(name).network);
      held.catch((error: unknown) =>
        log.warn({ tenant: name, err: messageOf(error) }, "its networks are not held"),
      );
    }),
  ];
  meterNetworks(registry, { networks, firewall, resolver, sniProxy });

  /** A host on which no sandbox has a network is not worse for not being able to give one. */
  function tell(): void {
    const problem = firewall.problem();
    const isMissed = problem !== undefined && networks.count() > 0;
    host.conditionIs(
      "NETWORK_UNENFORCED",
      isMissed,
      isMissed ? problem : "the kernel holds the rules of all networks",
      "nft list ruleset shows what is there; the daemon puts its tables back as soon as it can",
    );
  }

  async function attempt(failure: string, job: () => Promise<void>): Promise<void> {
    try {
      await job();
    } catch (error) {
      log.warn({ err: messageOf(error) }, failure);
    }
    tell();
  }

  return {
    networks,
    view(record) {
      if (record.place === undefined) return undefined;
      const { queries = 0, refused = 0 } = resolver.counts().get(record.id) ?? {};
      const denied = firewall.denials().get(record.id) ?? noDenials;
      return {
        effective: networks.effectiveOf(record),
        enforced: firewall.problem() === undefined,
        denials: {
          ...denied,
          queries,
          queriesRefused: refused,
          sni: sniProxy.denials().get(record.id) ?? 0,
        },
      };
    },
    hold: () => attempt("rules of networks could not be put in place", networks.holdAll),
    async reload() {
      await attempt("networks do not hold what was read", networks.boundAll);
      sniProxy.review();
    },
    async recover() {
      await attempt("rules of networks could not be put in place", networks.holdAll);
      await attempt("networks could not be taken up", networks.bridgeAll);
    },
    problem: async () =>
      firewall.problem() ??
      sniProxy.problem() ??
      (await shaper.problem()) ??
      (networkFacts().forwards ? undefined : notForwarding),
    async close() {
      for (const stop of unsubscribe) stop();
      denialEvents.close();
      await networks.close();
    },
  };
}

const noDenials: Denials = { policy: 0, host: 0, peer: 0, spoofed: 0, connections: 0, packets: 0 };

/** Sums over all sandboxes: their ids are no labels. What one that is gone was refused stays in the sums. */
function meterNetworks(
  { metrics, onRender }: MetricsRegistry,
  { networks, firewall, resolver, sniProxy }: NetworkParts,
): void {
  let told = new Map<string, number>();
  onRender(() => {
    metrics.networks.set({}, networks.count());
    metrics.networkEnforced.set({}, networks.count() === 0 || firewall.problem() === undefined ? 1 : 0);
    const now = new Map<string, number>();
    const risen = (key: string, value: number) => {
      now.set(key, value);
      return Math.max(0, value - (told.get(key) ?? 0));
    };
    for (const [id, denials] of firewall.denials()) {
      for (const [reason, count] of Object.entries(denials)) {
        metrics.networkDenied.add({ reason }, risen(`${id} ${reason}`, count));
      }
    }
    for (const [id, { queries, refused }] of resolver.counts()) {
      metrics.nameQueries.add({ outcome: "answered" }, risen(`${id} answered`, queries));
      metrics.nameQueries.add({ outcome: "refused" }, risen(`${id} refused`, refused));
    }
    for (const [id, count] of sniProxy.denials())
      metrics.networkDenied.add({ reason: "sni" }, risen(`${id} sni`, count));
    metrics.sniConnections.set({}, sniProxy.count());
    told = now;
  });
}

interface NetworkParts {
  readonly networks: Networks;
  readonly firewall: Firewall;
  readonly resolver: Resolver;
  readonly sniProxy: SniProxy;
}

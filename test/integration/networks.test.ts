// Networks of sandboxes, from a caller's request to the packets: the daemon, the engine, the kernel's rules and the resolver together,
// with an internet of the test's own.

import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { EgressScope } from "../../gen/sandboxd/v1/network_pb.ts";
import { NetworkMode } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { TenantNetworkSchema } from "../../gen/sandboxd/v1/tenant_pb.ts";
import { engineNamespace, engineObstacle, inNetworkOf } from "../harness/engine.ts";
import { beyond, type Internet, internetObstacle, openInternet, type Peer } from "../harness/internet.ts";
import { printed, reaches as reachesFrom } from "../harness/reach.ts";
import {
  eventually,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
} from "../harness/sandboxes.ts";
import { testCertificate, testKey } from "../unit/config/fixture.ts";

const obstacle = engineObstacle ?? internetObstacle;
const small = { cpuMillis: 200n, memoryBytes: BigInt(32 * mebibyte), pids: 64n };
const nameserver = fileURLToPath(new URL("../harness/nameserver.mjs", import.meta.url));
/** Where many names are, as on a CDN. */
const shared = "151.101.66.132";
const tlsPeer = fileURLToPath(new URL("../harness/tls-peer.mjs", import.meta.url));
const names = {
  "site.example": [beyond.site],
  "mirror.example": [beyond.mirror],
  "inner.example": [beyond.lan],
  "one.shared.example": [shared],
  "two.shared.example": [shared],
  "rebinds.shared.example": [beyond.host, beyond.lan],
};

type Policy = MessageInitShape<typeof TenantNetworkSchema>;
const both = [NetworkMode.INTERNAL, NetworkMode.EGRESS];

describe.skipIf(obstacle !== undefined)(`networks (${obstacle ?? "engine"})`, () => {
  let host: LocalHost;
  let outside: Internet;
  const servers: ChildProcess[] = [];

  beforeAll(async () => {
    outside = await openInternet({ hostPid: engineNamespace() });
    outside.internet.run(["ip", "addr", "add", `${shared}/32`, "dev", "lo"]);
    await Promise.all([
      serve(outside.internet, [nameserver, beyond.dns, "53", JSON.stringify(names)]),
      serve(outside.internet, [tlsPeer, "serve", shared, "443"]),
      serve(outside.host, [tlsPeer, "serve", beyond.host, "443"]),
      ...[beyond.site, beyond.mirror, beyond.lan, beyond.carrier].map((address) =>
        outside.internet.serve({ address, port: 443 }),
      ),
      outside.internet.serve({ port: 80 }),
      outside.host.serve({ port: 7070 }),
    ]);
    host = await startHost({
      launcher: inNetworkOf(),
      config: {
        network: { resolvers: [beyond.dns], pools: ["10.99.0.0/16"], subnet_prefix: 28 },
        proxies: { corporate: { address: "151.101.2.132:3128", no_proxy: [".internal"] } },
        templates: { shell: { image: "sandboxd-base:latest", network_mode: "egress" } },
      },
    });
  });
  afterAll(async () => {
    await host?.daemon.cleanup();
    for (const server of servers) server.kill();
    await outside?.close();
  });

  async function serve({ within: place }: Peer, program: readonly string[]): Promise<void> {
    const [command = "", ...within] = place;
    const env = { CERTIFICATE: testCertificate, KEY: testKey };
    const server = spawn(command, [...within, process.execPath, ...program], { env });
    servers.push(server);
    await once(server.stdout, "data");
  }

  const put = (tenant: string, network: Policy) => host.tenants.putTenant({ tenant, network });
  const create = async (sandboxId: string, tenant: string, networkMode = NetworkMode.EGRESS, more = {}) =>
    present(
      (
        await host.sandboxes.createSandbox({
          sandboxId,
          tenant,
          spec: { ...specOf(sleeping, small), networkMode, ...more },
        })
      ).sandbox,
    );
  const networkOf = async (sandboxId: string) => present((await host.get(sandboxId)).status?.network);

  const inside = (sandboxId: string, script: string) => printed(host.daemon, sandboxId, script);
  const reaches = (sandboxId: string, destination: string, port: number) =>
    reachesFrom(host.daemon, sandboxId, destination, port);

  test("a sandbox reaches what its tenant's policy allows, and nothing else", async () => {
    await put("acme", { modes: both });
    await put("other", { modes: both, egress: { ports: [{ first: 443 }, { first: 80 }] } });
    const [one, two] = await Promise.all([
      create("one", "acme"),
      create("two", "acme", NetworkMode.INTERNAL),
      create("three", "other"),
    ]);
    const place = present(one.status?.network);
    expect(place).toMatchObject({
      enforced: true,
      egress: { scope: EgressScope.PUBLIC, ports: [{ first: 443 }] },
    });
    expect(present(two.status?.network).egress).toBeUndefined();

    expect(await reaches("one", beyond.site, 443)).toBe(true);
    expect(await reaches("three", beyond.site, 80)).toBe(true);
    await inside("two", "nc -ll -p 443 -e cat >/dev/null 2>&1 </dev/null & sleep 0.2");
    expect(await reaches("two", "127.0.0.1", 443)).toBe(true);
    const refused: readonly (readonly [string, string, number])[] = [
      ["one", beyond.site, 80],
      ["two", beyond.site, 443],
      ["one", beyond.metadata, 80],
      ["one", beyond.lan, 443],
      ["one", beyond.carrier, 443],
      ["one", place.gateway, 7070],
      ["one", beyond.host, 7070],
      ["one", present(two.status?.network).address, 443],
      ["three", present(two.status?.network).address, 443],
    ];
    const reached = await Promise.all(refused.map(([from, to, port]) => reaches(from, to, port)));
    expect(reached).toEqual(refused.map(() => false));
  });

  test("names are answered by the host's resolver, and are no way to private addresses", async () => {
    expect(await inside("one", "nslookup site.example | grep -A2 Name")).toContain(beyond.site);
    expect(await inside("one", "nslookup inner.example")).not.toContain(beyond.lan);
    expect(await reaches("one", "site.example", 443)).toBe(true);
    // nobody else's resolver is reached
    expect(await inside("one", `nslookup site.example ${beyond.dns}`)).not.toContain(beyond.site);
    expect(await inside("two", "nslookup site.example")).not.toContain(beyond.site);
  });

  test("a policy that lists names opens their addresses, as they are looked up, and is changed while it runs", async () => {
    const listed = { scope: EgressScope.LISTED, allowDomains: ["site.example"] };
    await put("acme", { modes: both, egress: listed });
    expect(await reaches("one", beyond.site, 443)).toBe(false);
    expect(await reaches("one", "site.example", 443)).toBe(true);
    expect(await reaches("one", "mirror.example", 443)).toBe(false);
    expect(await reaches("one", beyond.mirror, 443)).toBe(false);
    await host.sandboxes.updateSandbox({
      sandboxId: "one",
      egress: { scope: EgressScope.LISTED, allowCidrs: [] },
    });
    expect(await reaches("one", beyond.site, 443)).toBe(false);
    await put("acme", { modes: both });
    await host.sandboxes.updateSandbox({ sandboxId: "one", updateMask: { paths: ["egress"] } });
    expect(await reaches("one", beyond.mirror, 443)).toBe(true);
  });

  test("sandboxes of a tenant reach each other if its policy says so, and those of others never", async () => {
    const { address } = await networkOf("two");
    await put("acme", { modes: both, allowPeers: true });
    expect(await reaches("one", address, 443)).toBe(true);
    expect(await reaches("three", address, 443)).toBe(false);
    await put("acme", { modes: both });
    expect(await reaches("one", address, 443)).toBe(false);
  });

  test("what was refused is told in the status and in words", async () => {
    await eventually(
      "refusals of each kind",
      async () => present((await networkOf("one")).denials),
      ({ policy, host: toHost, peer, queriesRefused }) =>
        policy > 0n && toHost > 0n && peer > 0n && queriesRefused > 0n,
    );
    const { stats } = await host.sandboxes.getSandboxStats({ sandboxId: "one" });
    expect(stats?.network?.transmitBytes).toBeGreaterThan(0n);
    expect(stats?.network?.receiveBytes).toBeGreaterThan(0n);
    const { findings } = await host.sandboxes.explainSandbox({ sandboxId: "one" });
    expect(findings.map(({ kind }) => kind)).toContain("network_denied");
  });

  test("the rules outlive the daemon, and are put back when somebody takes them away", async () => {
    await host.daemon.kill("SIGKILL");
    const probe = outside.host.run(["sh", "-c", "nft list ruleset | grep -c 'table .* sandboxd_'"]);
    expect(Number(probe)).toBe(2);
    await host.daemon.start();
    expect(await reaches("one", beyond.site, 443)).toBe(true);
    expect(await reaches("one", beyond.site, 80)).toBe(false);
    // not all there are: the engine makes no network any more until it is told to put its own back
    outside.host.run(["sh", "-c", "nft list tables | grep sandboxd_ | xargs -n 3 nft delete"]);
    expect(await reaches("one", beyond.site, 80)).toBe(false);
    await eventually("rules", async () => (await networkOf("one")).enforced, Boolean);
    expect(await reaches("one", beyond.site, 443)).toBe(true);
  });

  test("a tenant that has none is refused one, and one whose policy is narrower than what is asked", async () => {
    await put("poor", {});
    expect((await refusalOf(create("x1", "poor"))).reason).toBe("NETWORK_NOT_ALLOWED");
    expect((await refusalOf(create("x2", "nobody"))).reason).toBe("NETWORK_NOT_ALLOWED");
    const wide = create("x3", "acme", NetworkMode.EGRESS, { egress: { ports: [{ first: 22 }] } });
    const { reason, error } = await refusalOf(wide);
    expect(reason).toBe("NETWORK_NOT_ALLOWED");
    expect(error.message).toContain("22");
    expect(
      (await host.containers()).filter(({ Names }) => Names.some((name) => name.includes("-x"))),
    ).toEqual([]);
  });

  test("behind a proxy, programs are told of it and nothing else is reached, which an event tells", async () => {
    await put("office", { modes: [NetworkMode.EGRESS], proxy: "corporate" });
    await create("desk", "office");
    const told = await inside("desk", "env | grep -i proxy | sort");
    expect(told).toContain("HTTPS_PROXY=http://151.101.2.132:3128");
    expect(told).toContain("no_proxy=localhost,127.0.0.1,::1,.internal");
    await outside.internet.serve({ port: 3128 });
    expect(await reaches("desk", "151.101.2.132", 3128)).toBe(true);
    expect(await reaches("desk", beyond.site, 443)).toBe(false);
    const [denial] = await eventually(
      "the refusal as an event",
      async () => {
        const { events } = await host.events.listEvents({ pageSize: 1_000 });
        const isOfDesk = events.filter(
          ({ type, sandboxId }) => type === EventType.SANDBOX_NETWORK_DENIED && sandboxId === "desk",
        );
        return isOfDesk.flatMap(({ networkDenials }) => networkDenials);
      },
      (denials) => denials.length > 0,
    );
    expect(denial).toMatchObject({ reason: "policy", destination: `${beyond.site}:443` });
  });

  describe("of a tenant whose server names are checked", () => {
    const policy = (...allowDomains: readonly string[]) => ({
      modes: both,
      egress: { scope: EgressScope.LISTED, allowDomains: [...allowDomains], checkSni: true },
    });

    /** What a server says to a client in a sandbox's network namespace that asks for a name at the shared address. */
    async function asked(sandboxId: string, name: string): Promise<string> {
      const found = await host.containers();
      const { Id } = present(found.find(({ Names }) => Names.some((one) => one.endsWith(`-${sandboxId}`))));
      const { State } = await host.docker.getContainer(Id).inspect();
      const client = [process.execPath, tlsPeer, "ask", shared, "443", name];
      const { stdout } = await promisify(execFile)("nsenter", [`--net=/proc/${State.Pid}/ns/net`, ...client]);
      return stdout;
    }

    test("TLS gets to the names that are allowed, and not to others at the same address", async () => {
      await put("strict", policy("one.shared.example", "rebinds.shared.example"));
      await create("named", "strict");
      expect((await networkOf("named")).egress).toMatchObject({ checkSni: true });
      expect(await asked("named", "one.shared.example")).toBe("no answer");
      expect(await inside("named", "nslookup one.shared.example")).toContain(shared);
      expect(await asked("named", "one.shared.example")).toBe("you asked for one.shared.example");
      expect(await asked("named", "two.shared.example")).toMatch(/unrecognized name/i);
      // whoever has no names checked gets there
      await put("other", {
        modes: both,
        egress: { scope: EgressScope.LISTED, allowDomains: ["one.shared.example"] },
      });
      expect(await inside("three", "nslookup one.shared.example")).toContain(shared);
      expect(await asked("three", "two.shared.example")).toBe("you asked for two.shared.example");
      // a name must not lead to the host, nor to its network
      expect(await asked("named", "rebinds.shared.example")).not.toContain("you asked");
      expect((await networkOf("named")).denials?.sni).toBe(1n);
      const { events } = await host.events.listEvents({ pageSize: 1_000, filter: { sandboxId: "named" } });
      const denials = events.flatMap(({ networkDenials }) => networkDenials);
      expect(denials).toContainEqual(
        expect.objectContaining({ reason: "sni", destination: "two.shared.example" }),
      );
    });

    test("a policy that changes holds at once, for a sandbox and for a tenant", async () => {
      await put("strict", policy("*.shared.example"));
      expect(await asked("named", "two.shared.example")).toBe("you asked for two.shared.example");
      const egress = { scope: EgressScope.LISTED, allowDomains: ["two.shared.example"] };
      await host.sandboxes.updateSandbox({ sandboxId: "named", egress });
      expect((await networkOf("named")).egress).toMatchObject({ checkSni: true });
      expect(await inside("named", "nslookup two.shared.example")).toContain(shared);
      expect(await asked("named", "one.shared.example")).toMatch(/unrecognized name/i);
      expect(await asked("named", "two.shared.example")).toBe("you asked for two.shared.example");
      await host.sandboxes.updateSandbox({ sandboxId: "named", updateMask: { paths: ["egress"] } });
      expect(await inside("named", "nslookup one.shared.example")).toContain(shared);
    });

    test("holds after the daemon was killed, and for a sandbox that is started again", async () => {
      await host.daemon.kill("SIGKILL");
      expect(await asked("named", "one.shared.example")).not.toContain("you asked");
      await host.daemon.start();
      await eventually(
        "the proxy",
        () => asked("named", "one.shared.example"),
        (said) => said.startsWith("you asked"),
      );
      expect(await asked("named", "one.other.example")).toMatch(/unrecognized name/i);
      await host.sandboxes.stopSandbox({ sandboxId: "named" });
      await host.sandboxes.startSandbox({ sandboxId: "named" });
      expect(await inside("named", "nslookup one.shared.example")).toContain(shared);
      expect(await asked("named", "one.shared.example")).toBe("you asked for one.shared.example");
    });

    test("is refused where there is no name to check", async () => {
      const refused = await refusalOf(put("strict", { modes: both, egress: { checkSni: true } }));
      expect(refused).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
      expect(refused.message).toContain("network.egress.check_sni");
    });
  });

  test("with a tenant's last sandbox its network goes", async () => {
    const networks = async () =>
      (await host.docker.listNetworks({ filters: { label: [`sandboxd.host=${host.daemon.hostId}`] } })).map(
        ({ Name }) => Name.split("_").at(-1),
      );
    expect((await networks()).toSorted()).toEqual(["acme", "office", "other", "strict"]);
    for (const sandboxId of ["one", "two", "three", "desk", "named"])
      await host.sandboxes.deleteSandbox({ sandboxId });
    await eventually("no networks", networks, (left) => left.length === 0);
    expect(execFileSync("sh", ["-c", `${inNetworkOf().join(" ")} ip -o link`]).toString()).not.toContain(
      "sbx",
    );
  });
});

// Networks on a whole host: a newer engine, cgroup v2, the installed service under its own unit, and what is beyond the host in a
// network namespace of it.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckVerdict } from "../../gen/sandboxd/v1/host_pb.ts";
import { NetworkMode, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { bundled } from "../harness/bundled.ts";
import {
  type GuestHost,
  guestPatienceMs,
  isGuestMissing,
  releaseDirectory,
  startGuestHost,
} from "../harness/guest.ts";
import { beyond } from "../harness/internet.ts";
import { printed } from "../harness/reach.ts";
import { eventually, isIn, present, refusalOf, sleeping, specOf, whereIs } from "../harness/sandboxes.ts";

const names = { "site.example": [beyond.site], "inner.example": [beyond.lan] };
const echo =
  "for (const port of [80, 443]) require('net').createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(port)";

const serve = (unit: string, args: string) =>
  `systemd-run --quiet --collect --unit=${unit} --property=NetworkNamespacePath=/run/netns/outside ${releaseDirectory}/node_modules/node/bin/node ${args}`;

/** Everything beyond the guest, as the guest makes it. */
const outside = `set -e
ip netns add outside
ip link add to-outside type veth peer name eth0 netns outside
ip address add ${beyond.host}/24 dev to-outside
ip link set to-outside up
ip -n outside address add ${beyond.gateway}/24 dev eth0
ip -n outside link set lo up
ip -n outside link set eth0 up
for address in ${beyond.site} ${beyond.dns} ${beyond.metadata} ${beyond.lan}; do
  ip -n outside address add $address/32 dev lo
  ip route replace $address via ${beyond.gateway}
done
${serve("names", `${releaseDirectory}/nameserver.mjs ${beyond.dns} 53 '${JSON.stringify(names)}'`)}
${serve("echo", `-e "${echo}"`)}
`;

describe.skipIf(isGuestMissing)("networks of the installed service", () => {
  let host: GuestHost;
  beforeAll(async () => {
    host = await startGuestHost({ network: { resolvers: [beyond.dns], pools: ["10.99.0.0/16"] } });
    await host.guest.run(`cat > ${releaseDirectory}/nameserver.mjs`, {
      input: await bundled("nameserver.mjs"),
    });
    await openOutside();
  });
  afterAll(() => host?.close());

  async function openOutside(): Promise<void> {
    await host.guest.run(outside);
    // each of these is there, so that what a sandbox does not reach is refused to it
    for (const address of [beyond.site, beyond.metadata, beyond.lan]) {
      const asked = () => host.guest.run(`timeout 2 bash -c 'echo > /dev/tcp/${address}/443' && echo there`);
      await eventually(
        address,
        () => asked().catch(() => ""),
        (said) => said.includes("there"),
        guestPatienceMs,
      );
    }
  }

  async function create(sandboxId: string, tenant: string, networkMode = NetworkMode.EGRESS, more = {}) {
    const spec = { ...specOf(sleeping), networkMode, ...more };
    const { sandbox } = await host.sandboxes.createSandbox({ sandboxId, tenant, spec });
    return present(sandbox?.status?.network);
  }
  /** What a script printed in a sandbox. The first program in one waits for an exec of the engine, which takes its time here. */
  const inside = (sandboxId: string, script: string) =>
    eventually(
      `a program in ${sandboxId}`,
      () => printed(host.daemon, sandboxId, script).catch(() => undefined),
      (said) => said !== undefined,
      guestPatienceMs,
    ).then((said) => said ?? "");
  const networkOf = async (sandboxId: string) => present((await host.get(sandboxId)).status?.network);
  const reaches = async (sandboxId: string, to: string, port = 443) =>
    (await inside(sandboxId, `echo hello | nc -w 3 ${to} ${port}`)).startsWith("hello");
  const isEnforced = (sandboxId: string) =>
    eventually(
      `rules around ${sandboxId}`,
      () => networkOf(sandboxId),
      ({ enforced }) => enforced,
      guestPatienceMs,
    );

  test("can be had, which CheckHost says", async () => {
    const found = await eventually(
      "the check of networks",
      async () => (await host.host.checkHost({})).checks.find(({ name }) => name === "networks"),
      (check) => check !== undefined && check.verdict !== CheckVerdict.UNKNOWN,
      guestPatienceMs,
    );
    expect(`${CheckVerdict[found?.verdict ?? 0]} ${found?.message}`).toMatch(/^OK /);
  });

  test("let a sandbox reach what its tenant's policy allows, and nothing else", async () => {
    const modes = [NetworkMode.INTERNAL, NetworkMode.EGRESS];
    await host.tenants.putTenant({ tenant: "acme", network: { modes } });
    await host.tenants.putTenant({ tenant: "other", network: { modes } });
    const one = await create("one", "acme");
    const two = await create("two", "acme", NetworkMode.INTERNAL);
    await create("three", "other");
    expect(one.enforced).toBe(true);
    expect(two.gateway).toBe(one.gateway);
    await inside("two", "nc -ll -p 443 -e cat >/dev/null 2>&1 </dev/null & sleep 0.5");

    expect(await reaches("one", beyond.site)).toBe(true);
    expect(await reaches("three", beyond.site)).toBe(true);
    expect(await reaches("one", "site.example")).toBe(true);
    expect(await reaches("two", "127.0.0.1")).toBe(true);
    for (const [from, to, port] of [
      ["one", beyond.site, 80],
      ["one", beyond.metadata, 443],
      ["one", beyond.lan, 443],
      ["one", "inner.example", 443],
      ["one", beyond.host, 22],
      ["one", one.gateway, 22],
      ["one", two.address, 443],
      ["three", two.address, 443],
      ["two", beyond.site, 443],
    ] as const)
      expect(await reaches(from, to, port), `${from} to ${to}:${port}`).toBe(false);
  });

  test("have no other family, no way to forge, and only the interface of their own", async () => {
    const links = await inside("one", "ls /sys/class/net; cat /proc/net/if_inet6");
    expect(links.trim().split(/\s+/).slice(0, 2)).toEqual(["eth0", "lo"]);
    expect(links, "an address of IPv6").not.toMatch(/ eth0$/m);
    expect(await inside("one", "ping -c 1 -w 2 127.0.0.1 2>&1; true")).not.toContain("1 received");
    const { stats } = await host.sandboxes.getSandboxStats({ sandboxId: "one" });
    expect(stats?.network?.transmitBytes).toBeGreaterThan(0n);
  });

  test("tell what they refused", async () => {
    const { denials } = await eventually(
      "refusals",
      () => networkOf("one"),
      (network) => (network.denials?.policy ?? 0n) > 0n && (network.denials?.host ?? 0n) > 0n,
      guestPatienceMs,
    );
    expect(denials?.peer).toBeGreaterThan(0n);
  });

  test("follow a policy that changes, at once", async () => {
    const modes = [NetworkMode.INTERNAL, NetworkMode.EGRESS];
    await host.tenants.putTenant({ tenant: "acme", network: { modes, egress: { ports: [{ first: 80 }] } } });
    expect(await reaches("one", beyond.site, 80)).toBe(true);
    expect(await reaches("one", beyond.site, 443)).toBe(false);
    const { address } = await networkOf("two");
    expect(await reaches("one", address, 443)).toBe(false);
    await host.tenants.putTenant({ tenant: "acme", network: { modes, allowPeers: true } });
    expect(await reaches("one", address, 443)).toBe(true);
    expect(await reaches("three", address, 443)).toBe(false);
  });

  test("are bounded in both directions", async () => {
    const networkLimits = { receiveBytesPerSecond: 1_000_000n, transmitBytesPerSecond: 500_000n };
    await create("slow", "other", NetworkMode.EGRESS, { networkLimits });
    const { containerId } = present((await host.get("slow")).status);
    const { State } = await host.docker.getContainer(containerId).inspect();
    expect(await host.guest.run("tc qdisc show")).toMatch(/tbf .*rate 8Mbit/);
    expect(await host.guest.run(`nsenter --net --target ${State.Pid} tc qdisc show`)).toMatch(
      /tbf .*rate 4Mbit/,
    );
    await host.sandboxes.deleteSandbox({ sandboxId: "slow" });
  });

  test.each([
    ["the daemon was killed", "systemctl kill --signal=KILL sandboxd; systemctl start sandboxd"],
    ["the engine was restarted", "systemctl restart docker"],
    ["the ruleset was flushed", "nft flush ruleset; sleep 1"],
  ])("hold after %s", async (_, command) => {
    await host.guest.run(command);
    await isEnforced("one");
    await eventually("the way out", () => reaches("one", beyond.site), Boolean, guestPatienceMs);
    expect(await reaches("one", beyond.metadata)).toBe(false);
    expect(await reaches("one", beyond.lan)).toBe(false);
    expect(await reaches("one", beyond.host, 22)).toBe(false);
  });

  test("are there again after the machine was rebooted, with the same addresses", async () => {
    const before = await networkOf("one");
    await host.guest.reboot();
    await openOutside();
    await host.until("one", isIn(SandboxState.STOPPED));
    const { sandbox } = await host.sandboxes.startSandbox({ sandboxId: "one" });
    expect(whereIs(present(sandbox)).state).toBe("RUNNING");
    expect(sandbox?.status?.network).toMatchObject({
      enforced: true,
      address: before.address,
      gateway: before.gateway,
    });
    expect(await reaches("one", beyond.site)).toBe(true);
    expect(await reaches("one", beyond.metadata)).toBe(false);
  });

  test("leave nothing with their last sandbox", async () => {
    for (const sandboxId of ["one", "two", "three"]) await host.sandboxes.deleteSandbox({ sandboxId });
    await eventually(
      "no bridge",
      () => host.guest.run("ip -brief link; docker network ls"),
      (said) => !said.includes("sbx"),
      guestPatienceMs,
    );
    await host.tenants.putTenant({ tenant: "acme", network: { modes: [NetworkMode.NONE] } });
    const refused = await refusalOf(create("again", "acme"));
    expect(refused.reason).toBe("NETWORK_NOT_ALLOWED");
  });

  test("and their rules go with the service, its state and workspaces", async () => {
    const kernel =
      "cat /proc/mounts; nft list tables; ip rule; docker network ls; docker volume ls; ls -d /var/lib/sandboxd";
    expect(await host.guest.run(`${kernel} || true`)).toMatch(/sandboxd_.* proto 115/s);
    await host.guest.run(`${releaseDirectory}/systemd/uninstall.sh --purge`);
    expect(await host.guest.run(`${kernel} 2>/dev/null || true`)).not.toMatch(/sandboxd|sbx|proto 115/);
  });
});

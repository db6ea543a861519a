// Networks and the containers on them, from the plan to the kernel and back: by the engine's door and the shaper alone.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { ContainerPlan } from "../../src/engine/container-plan.ts";
import { createDockerRuntime, type DockerRuntime } from "../../src/engine/docker.ts";
import type { NetworkPlan } from "../../src/engine/network-plan.ts";
import { findNetworkFaults } from "../../src/engine/network-read-back.ts";
import { type Run, runHere } from "../../src/network/program.ts";
import { createShaper, type Shape } from "../../src/network/shaping.ts";
import { createLog } from "../../src/observe/log.ts";
import { engineMark, removeCgroups } from "../../tools/lib/leftovers.mjs";
import { isUnified } from "../harness/cgroup.ts";
import { baseImage, engineObstacle, sharedEngine } from "../harness/engine.ts";
import { eventually, mebibyte } from "../harness/sandboxes.ts";
import { plan as anyPlan } from "../unit/engine/plan.ts";

interface Rates {
  readonly received: number;
  readonly sent: number;
}

const verbs = ["list", "inspect", "create", "start", "stop", "remove", "update", "pull", "pause"];
const uid = 20_001;
const token = randomBytes(4).toString("hex");
const owner = `networks-${token}`;
const labels = { "sandboxd.host": owner };

/** The engine has a network of its own, and this process another: as long as it stays the same one, by this process of it. */
function enginePid(): string {
  const file = join(dirname(sharedEngine()), "docker.pid");
  return existsSync(file) ? readFileSync(file, "utf8").trim() : String(process.pid);
}
const there = () => ["--target", enginePid(), "--net", "--"];
const asEngine = (...command: readonly string[]) =>
  execFileSync("nsenter", [...there(), ...command], { encoding: "utf8" });

/** Blocks that no other test has. */
const block = randomInt(256);
const subnetOf = (number: number) => `10.219.${block}.${64 * number}/26`;
const addressOf = (number: number, host: number) => `10.219.${block}.${64 * number + host}`;

function networkOf(number: number, change: Partial<NetworkPlan> = {}): NetworkPlan {
  return {
    name: `${owner}_net_${number}`,
    bridge: `tst${token}${number}`,
    subnet: subnetOf(number),
    gateway: addressOf(number, 1),
    labels,
    labelPrefix: "sandboxd.",
    ...change,
  };
}

describe.skipIf(engineObstacle !== undefined)(
  `networks of the engine (${engineObstacle ?? "engine"})`,
  () => {
    let runtime: DockerRuntime;
    let docker: Docker;
    let imageId: string;

    beforeAll(async () => {
      runtime = createDockerRuntime({
        socket: sharedEngine(),
        timeoutsMs: Object.fromEntries([...verbs, "resume", "exec"].map((verb) => [verb, 20_000])) as never,
        observe: () => {},
      });
      docker = new Docker({ socketPath: sharedEngine() });
      imageId = (await docker.getImage(baseImage).inspect()).Id;
    });

    afterEach(async () => {
      const filters = JSON.stringify({ label: [`sandboxd.host=${owner}`] });
      for (const { Id } of await docker.listContainers({ all: true, filters }))
        await docker.getContainer(Id).remove({ force: true });
      const all = await docker.listNetworks();
      for (const { Id, Name } of all) if (Name.startsWith(owner)) await docker.getNetwork(Id).remove();
    });

    afterAll(async () => {
      runtime.close();
      await removeCgroups(parent().slice(1));
      expect(asEngine("ip", "-o", "link")).not.toContain(`tst${token}`);
    });

    const parent = () => `/${process.env[engineMark] ?? "sandboxd-test"}-${owner}`;
    const own = async () => (await runtime.networks(`sandboxd.host=${owner}`)).map(({ name }) => name);

    function containerOn(net: NetworkPlan, host: number, script = "sleep 1000"): ContainerPlan {
      const { blockIo: _, ...limits } = anyPlan.limits;
      const [a, b, c, d] = net.gateway.split(".").map(Number) as [number, number, number, number];
      const bytes = [6, 0x73, a, b, c, d - 1 + host];
      return {
        ...anyPlan,
        name: `${net.name}-${host}`,
        imageId,
        args: [script],
        uid,
        gid: uid,
        labels,
        cgroupParent: parent(),
        limits,
        imageVolumes: [],
        network: {
          mode: "bridge",
          network: net.name,
          address: `${a}.${b}.${c}.${d - 1 + host}`,
          mac: bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
          dns: net.gateway,
        },
        engine: { cgroupVersion: isUnified ? 2 : 1, possibleCpus: 4 },
      };
    }

    /** As the daemon does it; its id, and its first process. */
    async function start(plan: ContainerPlan): Promise<{ readonly id: string; readonly pid: number }> {
      const made = await runtime.create(plan);
      if (made === "taken") throw new Error("the name is taken");
      await runtime.compare(made.id, plan, { isNew: true });
      await runtime.start(made.id);
      const pid = (await runtime.inspect(made.id))?.pid ?? 0;
      return { id: made.id, pid };
    }

    test("one is made as planned, found again, and removed with its bridge", async () => {
      const net = networkOf(0);
      expect(await runtime.createNetwork(net)).toBe("ready");
      expect(asEngine("ip", "-br", "address", "show", net.bridge)).toContain(`${net.gateway}/26`);
      const { Id } = await docker.getNetwork(net.name).inspect();
      expect(await runtime.createNetwork(net)).toBe("ready");
      expect((await docker.getNetwork(net.name).inspect()).Id).toBe(Id);
      expect(await runtime.networks(`sandboxd.host=${owner}`)).toEqual([
        { name: net.name, labels, bridge: net.bridge, subnet: net.subnet },
      ]);
      expect(asEngine("iptables", "-t", "nat", "-S")).not.toContain(net.bridge);

      expect(await runtime.removeNetwork(net.name)).toBe("gone");
      expect(await runtime.removeNetwork(net.name)).toBe("gone");
      expect(await own()).toEqual([]);
    });

    test("several who make the same one at once make one, whichever process they are in", async () => {
      const net = networkOf(0);
      const other = createDockerRuntime({
        socket: sharedEngine(),
        timeoutsMs: Object.fromEntries([...verbs, "resume", "exec"].map((verb) => [verb, 20_000])) as never,
        observe: () => {},
      });
      try {
        const asked = [runtime, other, runtime, other, runtime].map((one) => one.createNetwork(net));
        expect(await Promise.all(asked)).toEqual(asked.map(() => "ready"));
        expect(await own()).toEqual([net.name]);
      } finally {
        other.close();
      }
    });

    test("a subnet, or a bridge, that another has is told as such, and nothing is left", async () => {
      const net = networkOf(0);
      await runtime.createNetwork(net);
      const overlapping = networkOf(1, { subnet: net.subnet, gateway: net.gateway });
      expect(await runtime.createNetwork(overlapping)).toBe("subnet taken");
      expect(await runtime.createNetwork(networkOf(1, { bridge: net.bridge }))).toBe("bridge taken");
      asEngine("ip", "link", "add", `tst${token}v`, "type", "veth", "peer", "name", `tst${token}w`);
      try {
        expect(await runtime.createNetwork(networkOf(1, { bridge: `tst${token}v` }))).toBe("bridge taken");
      } finally {
        asEngine("ip", "link", "delete", `tst${token}v`);
      }
      expect(await own()).toEqual([net.name]);
      expect(await runtime.createNetwork(networkOf(1))).toBe("ready");
    });

    test("one of that name that somebody else made is refused and left alone; ours of before is made anew", async () => {
      const net = networkOf(0);
      const IPAM = { Driver: "default", Config: [{ Subnet: net.subnet, Gateway: net.gateway }] };
      await docker.createNetwork({ Name: net.name, IPAM });
      await expect(runtime.createNetwork(net)).rejects.toMatchObject({
        reason: "HARDENING_MISMATCH",
        message: expect.stringMatching(new RegExp(`${net.name} is another than planned: options: wanted`)),
      });
      const { Id } = await docker.getNetwork(net.name).inspect();
      await docker.getNetwork(Id).remove();

      await runtime.createNetwork(networkOf(2, { name: net.name }));
      expect(await runtime.createNetwork(net)).toBe("ready");
      expect((await runtime.networks(`sandboxd.host=${owner}`)).map(({ subnet }) => subnet)).toEqual([
        net.subnet,
      ]);
    });

    test("a container has the address and the MAC of its plan, our resolver, and no IPv6", async () => {
      const net = networkOf(0);
      await runtime.createNetwork(net);
      const plan = containerOn(net, 2);
      const { id, pid } = await start(plan);
      expect(await runtime.verify(id, plan)).toBeDefined();
      expect(readFileSync(`/proc/${pid}/net/if_inet6`, "utf8")).toBe("");
      expect(readFileSync(`/proc/${pid}/root/sys/class/net/eth0/address`, "utf8").trim()).toBe(
        plan.network.mode === "bridge" ? plan.network.mac : "",
      );
      expect(readFileSync(`/proc/${pid}/root/etc/resolv.conf`, "utf8")).not.toMatch(/^search/m);
      const own = ["--net", "--target", `${pid}`, "--"];
      const disabled = execFileSync("nsenter", [...own, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"]);
      expect(disabled.toString().trim()).toBe("1");

      // what the kernel shows is compared with the plan, and not with what the engine thinks
      const network = plan.network as Extract<ContainerPlan["network"], { mode: "bridge" }>;
      expect(findNetworkFaults(network, pid)).toEqual([]);
      expect(findNetworkFaults({ ...network, address: addressOf(0, 9) }, pid)).toEqual([
        `its address is ${network.address}, not ${addressOf(0, 9)}`,
      ]);
      expect(findNetworkFaults({ ...network, mac: "06:73:00:00:00:09" }, pid)).toEqual([
        `its MAC is ${network.mac}, not 06:73:00:00:00:09`,
      ]);
      expect(findNetworkFaults({ mode: "none" }, pid)).toEqual(["it has another interface, eth0"]);

      // nothing of it is the sandbox's to change, and what root of the host changes is seen
      const spoof = ["ip address add 10.219.0.1/32 dev eth0", "ifconfig eth0 hw ether 06:73:00:00:00:09"];
      for (const command of [...spoof, "ip route delete default", "ip link set eth0 down"]) {
        const tried = await runtime.exec(id, {
          command: ["sh", "-c", command],
          user: `${uid}:${uid}`,
          workingDir: "/tmp",
          timeoutMs: 20_000,
          maxOutputBytes: 1_000,
        });
        expect(tried.output.toString(), command).toMatch(/not permitted/);
      }
      expect(findNetworkFaults(network, pid)).toEqual([]);
      execFileSync("nsenter", [...own, "ip", "address", "add", "10.219.0.1/32", "dev", "eth0"]);
      expect(findNetworkFaults(network, pid)).toEqual([expect.stringContaining("10.219.0.1")]);
      execFileSync("nsenter", [...own, "ip", "address", "delete", "10.219.0.1/32", "dev", "eth0"]);

      expect(await runtime.removeNetwork(net.name)).toBe("in use");
      await expect(runtime.createNetwork({ ...net, gateway: addressOf(0, 3) })).rejects.toMatchObject({
        reason: "HARDENING_MISMATCH",
        message: expect.stringContaining(`"Gateway":"${addressOf(0, 3)}"`),
      });

      // as whoever may talk to the engine could
      const second = networkOf(1);
      await runtime.createNetwork(second);
      await docker.getNetwork(second.name).connect({ Container: id });
      await expect(runtime.verify(id, plan)).rejects.toMatchObject({
        reason: "HARDENING_MISMATCH",
        message: expect.stringContaining("it has another interface, eth1"),
      });
      await expect(runtime.compare(id, plan, { isNew: false })).rejects.toMatchObject({
        reason: "HARDENING_MISMATCH",
        message: expect.stringContaining("NetworkSettings.Networks"),
      });
      await docker.getNetwork(second.name).disconnect({ Container: id });
      await runtime.compare(id, plan, { isNew: false });
      await expect(
        runtime.compare(id, { ...plan, network: { ...network, dns: "9.9.9.9" } }, { isNew: false }),
      ).rejects.toMatchObject({ message: expect.stringContaining('HostConfig.Dns: wanted ["9.9.9.9"]') });
    });

    test("a container whose network was removed and made again is connected again", async () => {
      const net = networkOf(0);
      await runtime.createNetwork(net);
      const plan = containerOn(net, 2);
      const { id } = await start(plan);
      await runtime.stop(id, 0);
      await docker.getNetwork(net.name).remove();
      await expect(runtime.start(id)).rejects.toMatchObject({
        reason: "NETWORK_UNAVAILABLE",
        message: expect.stringContaining("not found"),
      });
      await runtime.createNetwork(net);
      await runtime.compare(id, plan, { isNew: false });
      await runtime.start(id);
      expect(await runtime.verify(id, plan)).toBeDefined();

      // nobody gets an address that somebody has
      const other = await runtime.create({ ...plan, name: `${plan.name}-twice` });
      await expect(runtime.start((other as { id: string }).id)).rejects.toMatchObject({
        reason: "NETWORK_UNAVAILABLE",
        message: expect.stringContaining("Address already in use"),
      });
    });

    describe("shaped", () => {
      const log = createLog({ level: "fatal" });
      const run: Run = (command, input) => runHere(["nsenter", ...there(), ...command], input);
      const shaper = createShaper({ log, run });
      const children: ChildProcess[] = [];

      afterEach(() => {
        for (const child of children.splice(0)) child.kill("SIGKILL");
      });

      const shapeOf = (plan: ContainerPlan, net: NetworkPlan, pid: number, change: Partial<Shape>): Shape => {
        const mac = plan.network.mode === "bridge" ? plan.network.mac : "";
        return { pid, bridge: net.bridge, mac, limits: {}, peers: true, ...change };
      };

      /** Sends without end to whoever connects to port 7000, and drops what it is sent on port 7001. */
      async function serve(where: readonly string[], address: string): Promise<void> {
        const program = `const { createServer } = require("node:net");
          const zeros = Buffer.alloc(65536);
          createServer((socket) => {
            const send = () => { while (socket.write(zeros)); };
            socket.on("drain", send).on("error", () => {}).resume();
            send();
          }).listen(7000, "${address}");
          createServer((socket) => socket.on("error", () => {}).resume())
            .listen(7001, "${address}", () => console.log("ready"));`;
        const child = spawn("nsenter", [...where, process.execPath, "-e", program], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        children.push(child);
        await new Promise((resolve) => child.stdout?.once("data", resolve));
      }

      function counters(pid: number): Rates {
        const line = /eth0:\s*(.*)/.exec(readFileSync(`/proc/${pid}/net/dev`, "utf8"))?.[1] ?? "";
        const words = line.split(/\s+/).map(Number);
        return { received: words[0] ?? 0, sent: words[8] ?? 0 };
      }

      /** Bytes per second, over some time of steady traffic. */
      async function ratesOf(pid: number, ms: number): Promise<Rates> {
        const [before, began] = [counters(pid), performance.now()];
        await sleep(ms);
        const [after, seconds] = [counters(pid), (performance.now() - began) / 1_000];
        return {
          received: (after.received - before.received) / seconds,
          sent: (after.sent - before.sent) / seconds,
        };
      }

      test("a sandbox sends and receives as much as its bounds say, and as it can without", async () => {
        const net = networkOf(0);
        await runtime.createNetwork(net);
        await serve(there(), net.gateway);
        const traffic = `sleep 1000 | nc ${net.gateway} 7000 >/dev/null & nc ${net.gateway} 7001 </dev/zero`;
        const plan = containerOn(net, 2, traffic);
        const { pid } = await start(plan);
        // many times what it is bounded to below
        const isFree = (rates: Rates) => rates.received > 10 * mebibyte && rates.sent > 10 * mebibyte;
        await eventually("traffic", () => ratesOf(pid, 150), isFree);

        const limits = { receiveBytesPerSecond: 2 * mebibyte, transmitBytesPerSecond: mebibyte };
        // from a wide bound to a narrow one: packets that wait are larger than what may pass at once
        const wide = { receiveBytesPerSecond: 16 * mebibyte, transmitBytesPerSecond: 16 * mebibyte };
        await shaper.apply(shapeOf(plan, net, pid, { limits: wide, isNew: true }));
        await sleep(200);
        await shaper.apply(shapeOf(plan, net, pid, { limits }));
        // what was on its way, and what is sent again
        await sleep(500);
        const bounded = await ratesOf(pid, 1_200);
        expect(bounded.received / limits.receiveBytesPerSecond).toBeGreaterThan(0.5);
        expect(bounded.received / limits.receiveBytesPerSecond).toBeLessThan(1.2);
        expect(bounded.sent / limits.transmitBytesPerSecond).toBeGreaterThan(0.5);
        expect(bounded.sent / limits.transmitBytesPerSecond).toBeLessThan(1.2);

        await shaper.apply(shapeOf(plan, net, pid, {}));
        await eventually("traffic without bounds", () => ratesOf(pid, 150), isFree);
      });

      test("sandboxes of a tenant reach each other if they may, and the gateway in any case", async () => {
        const net = networkOf(0);
        await runtime.createNetwork(net);
        const [one, two] = [containerOn(net, 2), containerOn(net, 3)];
        const [{ pid }, { pid: other }] = await Promise.all([start(one), start(two)]);
        await serve(["--target", `${other}`, "--net", "--"], addressOf(0, 3));
        await serve(there(), net.gateway);
        const reaches = async (address: string) => {
          const script = `exec 3<>/dev/tcp/${address}/7000 && head -c 1 <&3 | wc -c`;
          const inside = ["nsenter", "--target", `${pid}`, "--net", "--"];
          const command = [...inside, "timeout", "0.5", "bash", "-c", script];
          return (await runHere(command).catch(() => "")).trim() === "1";
        };
        const both = (peers: boolean) =>
          Promise.all([
            shaper.apply(shapeOf(one, net, pid, { peers })),
            shaper.apply(shapeOf(two, net, other, { peers })),
          ]);
        expect(await reaches(addressOf(0, 3))).toBe(true);
        await both(false);
        expect(await reaches(addressOf(0, 3))).toBe(false);
        expect(await reaches(net.gateway)).toBe(true);
        await both(true);
        expect(await reaches(addressOf(0, 3))).toBe(true);

        // nothing is done to the wrong one
        const limits = { receiveBytesPerSecond: mebibyte };
        await expect(shaper.apply(shapeOf(one, net, other, { limits }))).rejects.toMatchObject({
          reason: "NETWORK_UNAVAILABLE",
          message: expect.stringContaining("has the MAC"),
        });
        await expect(shaper.apply(shapeOf(one, net, process.pid, { limits }))).rejects.toThrow(
          "is in the network namespace of the daemon",
        );
        await expect(
          shaper.apply(shapeOf(one, { ...net, bridge: "docker0" }, pid, { limits })),
        ).rejects.toMatchObject({ reason: "NETWORK_UNAVAILABLE" });
        await runtime.remove(`${one.name}`);
        await shaper.apply(shapeOf(one, net, pid, { limits }));
      });

      test("this machine has what it takes, and one that has not says what it lacks", async () => {
        expect(await shaper.problem()).toBeUndefined();
        const without = createShaper({
          log,
          run: (command, input) => run(command, input?.replace("tbf", "no_such")),
        });
        expect(await without.problem()).toMatch(/bandwidth cannot be bounded, or ports isolated: .*no_such/);
      });
    });
  },
);

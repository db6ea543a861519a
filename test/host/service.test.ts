// The daemon as a service of systemd: installed, started, watched, reloaded, upgraded and removed as an operator does.

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import {
  configFile,
  configure,
  type GuestHost,
  guestPatienceMs,
  isGuestMissing,
  releaseDirectory,
  startGuestHost,
} from "../harness/guest.ts";
import { eventually, present, refusalOf, sleeping } from "../harness/sandboxes.ts";

/** In tenths. What keeps it from being lower is told in the unit: root, and no mount namespace of its own. */
const mostExposure = 60;

describe.skipIf(isGuestMissing)("as a service, the daemon", () => {
  let host: GuestHost;
  beforeAll(async () => {
    host = await startGuestHost();
  });
  afterAll(() => host?.close());
  afterEach(async () => {
    const { sandboxes } = await host.sandboxes.listSandboxes({});
    await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
  });

  const run = (command: string) => host.guest.run(command);
  const show = async (property: string) =>
    (await run(`systemctl show --property=${property} --value sandboxd`)).trim();
  const restarts = async () => Number(await show("NRestarts"));

  /** The sandbox is the same container and the same process as before. */
  async function expectUntouched(before: Sandbox, startedAt: string): Promise<void> {
    const now = await host.get(before.sandboxId);
    expect(now.status).toEqual(before.status);
    expect(await startOf(now)).toBe(startedAt);
  }
  async function startOf({ status }: Sandbox): Promise<string> {
    const { State } = await host.docker.getContainer(present(status).containerId).inspect();
    return `${State.Pid} ${State.StartedAt} ${State.Running}`;
  }

  /** Lines that the daemon logged while `what` was done, parsed. */
  async function linesDuring(what: () => Promise<unknown>): Promise<readonly Record<string, unknown>[]> {
    const cursor = /-- cursor: (.*)/.exec(await run("journalctl -n0 --show-cursor"))?.[1];
    await what();
    const text = await run(`journalctl --unit=sandboxd --output=cat --after-cursor='${cursor}'`);
    return text.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : []));
  }

  test("has a unit that systemd finds nothing wrong with, and that exposes no more than it must", async () => {
    expect(await run("systemd-analyze verify sandboxd.service 2>&1")).toBe("");
    await run(`systemd-analyze security --no-pager --threshold=${mostExposure} sandboxd.service`);
  });

  test("is ready when it has adopted what runs and answers, and says so", async () => {
    const before = await host.run("kept", sleeping);
    const startedAt = await startOf(before);
    await run("systemctl stop sandboxd");
    expect(await startOf(before), "a stop leaves sandboxes alone").toBe(startedAt);
    await run("systemctl start sandboxd");
    const { stats } = await host.sandboxes.getSandboxStats({ sandboxId: "kept" }, { timeoutMs: 20_000 });
    expect(stats?.memoryUsageBytes, "it is measured already").toBeGreaterThan(0n);
    await expectUntouched(before, startedAt);
    expect(await show("StatusText")).toBe("serving");
    expect(await show("NotifyAccess")).toBe("main");
  });

  test("is started again when it was killed, and sandboxes go on", async () => {
    const before = await host.run("kept", sleeping);
    const startedAt = await startOf(before);
    const count = await restarts();
    await host.daemon.kill();
    await host.daemon.start();
    expect(await restarts()).toBe(count + 1);
    await expectUntouched(before, startedAt);
  });

  test("is started again when it hangs, and not while it is well", async () => {
    const dropIn = "/run/systemd/system/sandboxd.service.d";
    await run(`mkdir -p ${dropIn} && printf '[Service]\\nWatchdogSec=12\\n' >${dropIn}/watchdog.conf`);
    await run("systemctl daemon-reload && systemctl restart sandboxd");
    const before = await host.run("kept", sleeping);
    const startedAt = await startOf(before);
    const count = await restarts();
    await new Promise((resolve) => setTimeout(resolve, 20_000));
    expect(await restarts(), "it was fed all the while").toBe(count);

    const pid = await host.daemon.pid();
    await run(`kill -STOP ${pid}`);
    await eventually(
      "another process",
      () => host.daemon.pid(),
      (now) => now > 0 && now !== pid,
      guestPatienceMs,
    );
    await host.daemon.start();
    expect(await restarts()).toBe(count + 1);
    expect(await run("journalctl --unit=sandboxd --output=cat --no-pager")).toContain("Watchdog timeout");
    await expectUntouched(before, startedAt);
    await run(`rm -r ${dropIn} && systemctl daemon-reload`);
  });

  test("takes up a changed configuration at a reload, names each key, and says what needs a restart", async () => {
    const limits = { max: { pids: 300 } };
    const settled = async () => {
      await run("systemctl reload sandboxd");
      await eventually(
        "the reload",
        () => show("ActiveState"),
        (state) => state === "active",
        guestPatienceMs,
      );
      // it answers to the signal in its own time
      await new Promise((resolve) => setTimeout(resolve, 3_000));
    };
    const pid = await host.daemon.pid();
    const changed = await linesDuring(async () => {
      await configure(host.guest, { limits, sampling: { period: "2s" } });
      await settled();
    });
    expect(changed).toContainEqual(
      expect.objectContaining({ level: "info", key: "limits.max.pids", after: "300" }),
    );
    expect(changed).toContainEqual(
      expect.objectContaining({
        level: "warn",
        key: "sampling.period",
        msg: expect.stringMatching(/restarted/),
      }),
    );
    const refused = await refusalOf(host.run("many", sleeping, { pids: 310n }));
    expect(refused.code).toBe("InvalidArgument");

    const refusedFile = await linesDuring(async () => {
      await configure(host.guest, { limits: { max: { pids: "many" } } });
      await settled();
    });
    expect(refusedFile).toContainEqual(expect.objectContaining({ level: "error", key: "limits.max.pids" }));
    expect(await show("StatusText")).toMatch(/errors, the old one is in effect/);
    expect((await refusalOf(host.run("many", sleeping, { pids: 310n }))).code).toBe("InvalidArgument");

    await configure(host.guest);
    await settled();
    expect(await show("StatusText")).toBe("serving");
    expect((await host.run("many", sleeping, { pids: 310n })).status?.state).toBe(SandboxState.RUNNING);
    expect(await host.daemon.pid(), "it was never restarted").toBe(pid);
  });

  const current = async () => (await run("basename $(readlink /usr/lib/sandboxd/current)")).trim();
  /** Unpacks the release once more, as another one. */
  const unpack = (id: string) =>
    run(
      `cp -al ${releaseDirectory} /root/${id} && rm /root/${id}/RELEASE && echo ${id} >/root/${id}/RELEASE`,
    );

  test("is upgraded in place under running sandboxes, but not to what its configuration is wrong for", async () => {
    const before = await host.run("kept", sleeping);
    const startedAt = await startOf(before);
    const first = await current();
    await unpack("second");
    await run(`echo '# by hand' >>${configFile}`);
    expect(await run("/root/second/systemd/install.sh")).toContain("sandboxd second is installed");
    expect(await current()).toBe("second");
    await expectUntouched(before, startedAt);
    expect(await run(`tail -n1 ${configFile}`), "the configuration is the operator's").toBe("# by hand\n");
    const pid = await host.daemon.pid();

    await run(`echo 'what = is this' >>${configFile}`);
    expect(await run("/root/second/systemd/install.sh 2>&1 || true")).toMatch(
      /has errors.*Nothing was changed/s,
    );
    await run(`sed -i '$d' ${configFile}`);
    expect(await host.daemon.pid()).toBe(pid);

    await run(`${releaseDirectory}/systemd/install.sh`);
    expect(await current(), "to go back is to install the older one").toBe(first);
    await expectUntouched(before, startedAt);
  });

  test("is put back when the one it is upgraded to does not come up", async () => {
    const before = await host.run("kept", sleeping);
    const startedAt = await startOf(before);
    const first = await current();
    await unpack("third");
    const serve = "/root/third/dist/bundle/serve.js";
    await run(`rm ${serve} && echo 'export const serve = () => process.exit(1);' >${serve}`);
    expect(await run("/root/third/systemd/install.sh 2>&1 || true")).toContain(`Back at ${first}`);
    expect(await current()).toBe(first);
    await host.daemon.start();
    await expectUntouched(before, startedAt);
  });

  test("leaves nothing but configuration and state when it is removed, and finds its sandboxes when it is back", async () => {
    const before = await host.run("kept", sleeping);
    const startedAt = await startOf(before);
    const uninstall = `${releaseDirectory}/systemd/uninstall.sh`;
    expect(await run(`${uninstall} --purge 2>&1 || true`)).toContain("there are sandboxes");
    await run(uninstall);
    await run(uninstall);
    expect(await startOf(before)).toBe(startedAt);
    const left = await run(
      "find / -xdev -iname '*sandboxd*' -not -path '/root/*' -not -path '/proc/*'; find /run -iname '*sandboxd*'",
    );
    expect(
      left
        .trim()
        .split("\n")
        .sort()
        // of what still runs
        .filter((file) => !/sandboxd[^/]*\.slice/.test(file)),
    ).toEqual(["/etc/sandboxd", configFile, "/var/lib/sandboxd"]);
    await run(`${releaseDirectory}/systemd/install.sh`);
    await expectUntouched(before, startedAt);
    await host.sandboxes.deleteSandbox({ sandboxId: "kept" });
    expect(await run(`${uninstall} --purge`)).toContain("configuration and state");
    expect(
      (await run("ls -d /etc/sandboxd /var/lib/sandboxd /run/sandboxd 2>/dev/null || true")).trim(),
    ).toBe("");
    await run(`${releaseDirectory}/systemd/install.sh`);
    expect((await host.host.getHost({})).host?.accepting, "a first installation needs no help").toBe(true);
  });
});

// Workspaces and root layers through the installed service: project quotas of ext4 below its state, and of XFS below the engine's data.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckVerdict } from "../../gen/sandboxd/v1/host_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { WorkspaceBackend, WorkspaceState } from "../../gen/sandboxd/v1/workspace_pb.ts";
import { type GuestHost, guestPatienceMs, isGuestMissing, startGuestHost } from "../harness/guest.ts";
import { eventually, isIn, mebibyte, present, sleeping, specOf, tenant } from "../harness/sandboxes.ts";

const workspaceId = "home";

describe.skipIf(isGuestMissing)("workspaces of the installed service", () => {
  let host: GuestHost;
  beforeAll(async () => {
    host = await startGuestHost();
  });
  afterAll(() => host?.close());

  /** What a script with the workspace says, once it has ended. */
  async function saidBy(sandboxId: string, script: string, more = {}): Promise<string> {
    const spec = { ...specOf(script), ...more };
    await host.sandboxes.createSandbox({ sandboxId, tenant, spec });
    await host.until(
      sandboxId,
      (sandbox) => isIn(SandboxState.STOPPED)(sandbox) || isIn(SandboxState.FAILED)(sandbox),
    );
    const said = await host.output(sandboxId);
    await host.sandboxes.deleteSandbox({ sandboxId });
    return said;
  }

  test("are kept by the project quota of the state's file system, which CheckHost says", async () => {
    const found = await eventually(
      "the check of workspaces",
      async () => (await host.host.checkHost({})).checks.find(({ name }) => name === "workspaces"),
      // it is found out after the start
      (check) => check !== undefined && check.verdict !== CheckVerdict.UNKNOWN,
      guestPatienceMs,
    );
    expect(`${CheckVerdict[found?.verdict ?? 0]} ${found?.message}`).toMatch(/^OK .*PROJECT_QUOTA/);
    const limits = { sizeBytes: BigInt(16 * mebibyte), inodes: 100n };
    const { workspace } = await host.workspaces.createWorkspace({ workspaceId, tenant, limits });
    expect(workspace?.status).toMatchObject({
      state: WorkspaceState.READY,
      backend: WorkspaceBackend.PROJECT_QUOTA,
    });
    expect(present(workspace?.status).projectId).toBeGreaterThan(0n);
  });

  test("hold their bytes and files, grow live, and outlive sandboxes and the daemon", async () => {
    const workspace = { workspaceId };
    const script =
      "dd if=/dev/zero of=big bs=1M count=32 2>&1 | head -1; stat -c %s big; rm big; i=0; while touch tmp/$i 2>/dev/null; do i=$((i+1)); done; echo $i; rm -r tmp/*; echo kept > projects/a";
    const said = await saidBy("filler", script, { workspace });
    const [, bytes, files] = /(\d+)\n(\d+)\n$/.exec(said) ?? [];
    expect(Number(bytes)).toBeGreaterThan(14 * mebibyte);
    expect(Number(bytes)).toBeLessThanOrEqual(16 * mebibyte);
    expect(Number(files)).toBeGreaterThan(80);
    expect(Number(files)).toBeLessThan(100);

    await host.sandboxes.createSandbox({
      sandboxId: "user",
      tenant,
      spec: { ...specOf(sleeping), workspace },
    });
    await host.workspaces.updateWorkspace({ workspaceId, limits: { sizeBytes: BigInt(24 * mebibyte) } });
    await host.guest.run("systemctl restart sandboxd");
    await host.until("user", isIn(SandboxState.RUNNING));
    await host.sandboxes.deleteSandbox({ sandboxId: "user" });
    const after = await saidBy(
      "reader",
      "cat projects/a; grep ' /workspace ' /proc/mounts; dd if=/dev/zero of=big bs=1M count=32 2>/dev/null; stat -c %s big",
      { workspace },
    );
    expect(after).toMatch(/^kept\n\S+ \/workspace ext4 rw,nosuid,nodev/);
    expect(Number(after.trim().split("\n").at(-1))).toBeGreaterThan(20 * mebibyte);
  });

  test("leave nothing once they are deleted", async () => {
    await host.workspaces.deleteWorkspace({ workspaceId });
    const left = await host.guest.run("ls /var/lib/sandboxd/workspaces/spaces | wc -l");
    expect(left.trim()).toBe("0");
  });

  test("a writable root layer is bounded by the engine's XFS, and read back", async () => {
    const rootBytes = BigInt(32 * mebibyte);
    const script = "touch /x 2>&1; df -k / | tail -1; exec true";
    const said = await saidBy("layered", script, { rootBytes });
    // its user may write nowhere in it but where the image lets everybody
    expect(said).toContain("Permission denied");
    expect(Number(said.trim().split("\n").at(-1)?.split(/\s+/)[1])).toBeLessThanOrEqual(32 * 1_024);
  });
});

// The toolbox in the sandboxes of the whole daemon: it is there, it lasts, nothing takes its place, and without it sandboxes run all the same.

import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FilesystemService } from "../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { CheckVerdict } from "../../gen/sandboxd/v1/host_pb.ts";
import { ProcessService } from "../../gen/sandboxd/v1/process_service_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  isIn,
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(
  `the toolbox in sandboxes (${engineObstacle ?? "engine"})`,
  () => {
    let host: LocalHost;
    let processes: Client<typeof ProcessService>;
    let files: Client<typeof FilesystemService>;
    beforeAll(async () => {
      host = await startHost();
      processes = host.daemon.client(ProcessService);
      files = host.daemon.client(FilesystemService);
    });
    afterAll(() => host?.daemon.cleanup());

    async function outputOf(sandboxId: string, ...command: readonly string[]): Promise<string> {
      let text = "";
      for await (const { event } of processes.startProcess({ sandboxId, command: [...command] })) {
        const { value, case: kind } = event?.event ?? {};
        if (kind === "stdout" || kind === "stderr") text += Buffer.from(value as Uint8Array).toString();
      }
      return text;
    }

    const toolboxCheck = async () =>
      (await host.host.checkHost({})).checks.find(({ name }) => name === "toolbox");

    test("starts programs and shows files, also after restarts of the daemon and of the sandbox", async () => {
      await host.run("one", sleeping, { cpuMillis: 1000n });
      expect(await outputOf("one", "echo", "hello")).toBe("hello\n");
      const { file } = await files.stat({ sandboxId: "one", path: "/.sandboxd/toolbox" });
      expect(file).toMatchObject({ path: "/.sandboxd/toolbox" });
      await host.daemon.restart();
      expect(await outputOf("one", "echo", "again")).toBe("again\n");
      await host.sandboxes.stopSandbox({ sandboxId: "one" });
      expect(await refusalOf(outputOf("one", "true"))).toMatchObject({ reason: "INVALID_STATE" });
      await host.sandboxes.startSandbox({ sandboxId: "one" });
      expect(await outputOf("one", "echo", "anew")).toBe("anew\n");
      expect(await toolboxCheck()).toMatchObject({ verdict: CheckVerdict.OK, hint: "" });
    });

    test("is written to by nobody inside", async () => {
      const script =
        "touch /.sandboxd/x; rm /.sandboxd/toolbox; mv /.sandboxd/run /.sandboxd/away; rmdir /.sandboxd/run; touch /.sandboxd/run/mine";
      const said = await outputOf("one", "sh", "-c", script);
      expect(said.match(/Read-only file system/g)).toHaveLength(4);
      expect(said.trim().split("\n")).toHaveLength(4);
    });

    test("has a place that no mount of a request can be at", async () => {
      const at = (path: string) => ({ ...specOf("true"), tmpfs: [{ path, sizeBytes: BigInt(mebibyte) }] });
      for (const path of ["/.sandboxd", "/.sandboxd/run", "/.sandboxd/more"]) {
        const refusal = await refusalOf(
          host.sandboxes.createSandbox({ sandboxId: "two", tenant, spec: at(path) }),
        );
        expect(refusal).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
        expect(refusal.message).toContain(`"${path}" lies in /.sandboxd, which is always there`);
      }
    });

    test("that cannot be installed is told, and sandboxes run without it", async () => {
      const place = join(host.daemon.stateDirectory, "toolbox");
      await host.sandboxes.deleteSandbox({ sandboxId: "one" });
      await host.daemon.stop();
      rmSync(place, { recursive: true });
      writeFileSync(place, "");
      await host.daemon.start();
      expect(await toolboxCheck()).toMatchObject({ verdict: CheckVerdict.FAILED });
      const sandbox = await host.run("bare", sleeping);
      expect(whereIs(sandbox)).toMatchObject({ state: "RUNNING" });
      const { Mounts: mounts } = await host.docker
        .getContainer(present(sandbox.status).containerId)
        .inspect();
      expect(mounts).toEqual([]);
      for (const call of [outputOf("bare", "true"), files.stat({ sandboxId: "bare", path: "/" })])
        expect(await refusalOf(call)).toMatchObject({
          code: "FailedPrecondition",
          reason: "TOOLBOX_UNAVAILABLE",
        });

      // one that has none stays as it is once others have it
      rmSync(place);
      await host.daemon.restart();
      await host.run("other", sleeping, { cpuMillis: 1000n });
      expect(await outputOf("other", "echo", "hello")).toBe("hello\n");
      await host.sandboxes.stopSandbox({ sandboxId: "bare" });
      await host.sandboxes.startSandbox({ sandboxId: "bare" });
      await host.until("bare", isIn(SandboxState.RUNNING));
      expect(await refusalOf(outputOf("bare", "true"))).toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
    });
  },
);

// The life of a sandbox as a caller sees it, from the create to the delete.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SandboxState, TransitionReason } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { baseImage, engineObstacle } from "../harness/engine.ts";
import {
  isIn,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(`the life of a sandbox (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  beforeAll(async () => {
    host = await startHost();
  });
  afterAll(() => host?.daemon.cleanup());

  test("a create answers when the sandbox runs, with its effective spec, container, image and uid", async () => {
    const sandbox = await host.run("created", sleeping);
    expect(whereIs(sandbox)).toEqual({ state: "RUNNING", reason: "PROGRESS" });
    expect(sandbox.status).toMatchObject({
      containerId: expect.stringMatching(/^[0-9a-f]{64}$/),
      imageId: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
      startTime: expect.anything(),
    });
    expect(sandbox.status?.exit).toBeUndefined();
    expect(sandbox.status?.uid).toBeGreaterThanOrEqual(300_000n);
    expect(sandbox.spec).toMatchObject({ image: baseImage, workingDir: "/tmp" });
    expect(sandbox.spec?.resources?.openFiles).toBe(4096n);
    expect(await host.get("created")).toEqual(sandbox);
    const state = await host.docker.getContainer(present(sandbox.status).containerId).inspect();
    expect(state.State.Running).toBe(true);
  });

  test("a create without an id makes one", async () => {
    const made = await host.sandboxes.createSandbox({ tenant, spec: specOf(sleeping) });
    expect(made.sandbox?.sandboxId).toMatch(/^sb-[0-9a-f]{16}$/);
    await host.sandboxes.deleteSandbox({ sandboxId: present(made.sandbox).sandboxId });
  });

  test("a create that does not wait is kept, and the sandbox comes to run", async () => {
    const { sandbox } = await host.sandboxes.createSandbox({
      sandboxId: "unwaited",
      tenant,
      spec: specOf(sleeping),
      wait: false,
    });
    expect(sandbox?.status?.state).toBeLessThan(SandboxState.RUNNING);
    await host.until("unwaited", isIn(SandboxState.RUNNING));
  });

  test("50 identical creates at once make one container and get one answer", async () => {
    const request = { sandboxId: "fifty", tenant, spec: specOf(sleeping) };
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => host.sandboxes.createSandbox(request)),
    );
    const first = answers[0]?.sandbox;
    expect(first?.status?.state).toBe(SandboxState.RUNNING);
    for (const { sandbox } of answers) expect(sandbox).toEqual(first);
    const containers = (await host.containers()).filter(({ Names }) => Names[0]?.endsWith("-fifty"));
    expect(containers.map(({ Id }) => Id)).toEqual([first?.status?.containerId]);
  });

  test("the same id with another spec, or of another tenant, already exists", async () => {
    await host.run("taken", sleeping);
    const other = await refusalOf(host.run("taken", "exec sleep 999"));
    expect(other).toMatchObject({ code: "AlreadyExists", reason: "SANDBOX_ALREADY_EXISTS" });
    const foreign = host.sandboxes.createSandbox({
      sandboxId: "taken",
      tenant: "other",
      spec: specOf(sleeping),
    });
    expect(await refusalOf(foreign)).toMatchObject({
      code: "AlreadyExists",
      reason: "SANDBOX_ALREADY_EXISTS",
    });
  });

  test("stop, start and delete do their work once, however often they are asked", async () => {
    const created = await host.run("again", sleeping);
    const stops = await Promise.all([1, 2, 3].map(() => host.sandboxes.stopSandbox({ sandboxId: "again" })));
    for (const { sandbox } of stops) {
      expect(whereIs(present(sandbox))).toEqual({ state: "STOPPED", reason: "REQUESTED" });
      expect(sandbox?.generation).toBe(created.generation + 1n);
    }
    const { sandbox: stopped } = await host.sandboxes.stopSandbox({ sandboxId: "again" });
    expect(stopped).toEqual(stops[0]?.sandbox);

    const starts = await Promise.all(
      [1, 2, 3].map(() => host.sandboxes.startSandbox({ sandboxId: "again" })),
    );
    for (const { sandbox } of starts) {
      expect(sandbox?.status?.state).toBe(SandboxState.RUNNING);
      expect(sandbox?.generation).toBe(created.generation + 2n);
      expect(sandbox?.status?.containerId).toBe(created.status?.containerId);
    }

    await Promise.all([1, 2, 3].map(() => host.sandboxes.deleteSandbox({ sandboxId: "again" })));
    await host.sandboxes.deleteSandbox({ sandboxId: "again" });
    expect(await refusalOf(host.get("again"))).toMatchObject({
      code: "NotFound",
      reason: "SANDBOX_NOT_FOUND",
    });
    expect(
      (await host.containers()).map(({ Id }) => Id),
      "its container is gone",
    ).not.toContain(created.status?.containerId);
  });

  test("a command that handles the stop signal may end by itself within its grace", async () => {
    await host.run("graceful", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    await expect.poll(() => host.output("graceful")).toContain("ready");
    const began = performance.now();
    const { sandbox } = await host.sandboxes.stopSandbox({
      sandboxId: "graceful",
      grace: { seconds: 15n },
    });
    expect(sandbox?.status).toMatchObject({ state: SandboxState.STOPPED, exit: { code: 0, signal: 0 } });
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  test("a command that ends with 0 leaves its sandbox STOPPED, completed", async () => {
    await host.run("done", "exit 0");
    const sandbox = await host.until("done", isIn(SandboxState.STOPPED));
    expect(sandbox.status).toMatchObject({
      transition: { reason: TransitionReason.COMPLETED },
      exit: { code: 0, signal: 0, oomKilled: false },
    });
  });

  test("a command that ends with 3 leaves its sandbox FAILED, exited, and can be started again", async () => {
    await host.run("three", "exit 3");
    const sandbox = await host.until("three", isIn(SandboxState.FAILED));
    expect(sandbox.status).toMatchObject({
      transition: { reason: TransitionReason.EXITED },
      exit: { code: 3, signal: 0 },
    });
    const { sandbox: again } = await host.sandboxes.startSandbox({ sandboxId: "three" });
    const ended = await host.until("three", isIn(SandboxState.FAILED));
    expect(ended.generation).toBe(again?.generation);
    expect(ended.status?.exit?.finishTime).not.toEqual(sandbox.status?.exit?.finishTime);
  });

  test("a command that kills itself leaves its sandbox FAILED, signaled", async () => {
    await host.run("killed", "kill -USR1 $$; exit 0");
    const sandbox = await host.until("killed", isIn(SandboxState.FAILED));
    expect(whereIs(sandbox).reason).toBe("SIGNALED");
    expect(sandbox.status?.exit).toMatchObject({ code: 138, signal: 10 });
  });

  test("a command that is not there is refused, and the sandbox is kept as FAILED until it is deleted", async () => {
    const create = host.sandboxes.createSandbox({
      sandboxId: "unusable",
      tenant,
      spec: { ...specOf(""), command: ["/no/such/command"] },
    });
    expect(await refusalOf(create)).toMatchObject({
      code: "FailedPrecondition",
      reason: "COMMAND_UNUSABLE",
    });
    expect(whereIs(await host.get("unusable"))).toEqual({ state: "FAILED", reason: "COMMAND_UNUSABLE" });
    await host.sandboxes.deleteSandbox({ sandboxId: "unusable" });
    expect((await refusalOf(host.get("unusable"))).reason).toBe("SANDBOX_NOT_FOUND");
  });

  test("an image that is not on the host is told, and the sandbox is kept as FAILED", async () => {
    const create = host.sandboxes.createSandbox({
      sandboxId: "imageless",
      tenant,
      spec: { ...specOf(sleeping), image: "sandboxd-base:no-such-tag" },
    });
    expect(await refusalOf(create)).toMatchObject({
      code: "FailedPrecondition",
      reason: "IMAGE_UNAVAILABLE",
    });
    expect(whereIs(await host.get("imageless"))).toEqual({ state: "FAILED", reason: "IMAGE_UNAVAILABLE" });
  });

  test("a template that the host does not have is refused", async () => {
    const create = host.sandboxes.createSandbox({ tenant, spec: { template: "nope" } });
    expect(await refusalOf(create)).toMatchObject({ code: "InvalidArgument", reason: "TEMPLATE_NOT_FOUND" });
  });

  test("what does not exist is NOT_FOUND to every verb but delete", async () => {
    const id = { sandboxId: "never-was" };
    for (const call of [
      host.sandboxes.getSandbox(id),
      host.sandboxes.startSandbox(id),
      host.sandboxes.stopSandbox(id),
      host.sandboxes.updateSandbox({ ...id, labels: { a: "b" } }),
      host.sandboxes.getSandboxStats(id),
    ]) {
      expect(await refusalOf(call)).toMatchObject({ code: "NotFound", reason: "SANDBOX_NOT_FOUND" });
    }
    await host.sandboxes.deleteSandbox(id);
  });

  test("a caller that gives up does not stop the creation", async () => {
    const giving = new AbortController();
    const create = host.sandboxes.createSandbox(
      { sandboxId: "abandoned", tenant, spec: specOf(sleeping) },
      { signal: giving.signal },
    );
    await Promise.all([
      refusalOf(create),
      host.until("abandoned", (sandbox) => sandbox.status !== undefined).then(() => giving.abort()),
    ]);
    await host.until("abandoned", isIn(SandboxState.RUNNING));
  });

  describe("lists", () => {
    const ids = ["list-a", "list-b", "list-c", "list-d", "list-e"];
    beforeAll(async () => {
      await Promise.all(
        ids.map((sandboxId, index) =>
          host.sandboxes.createSandbox({
            sandboxId,
            tenant: "listed",
            spec: { ...specOf(sleeping), labels: { half: index < 2 ? "first" : "second", all: "yes" } },
          }),
        ),
      );
      await host.sandboxes.stopSandbox({ sandboxId: "list-e" });
    });

    async function listed(filter: object, pageSize = 0): Promise<{ ids: string[]; pages: number }> {
      const found: string[] = [];
      let pageToken = "";
      let pages = 0;
      do {
        const page = await host.sandboxes.listSandboxes({ filter, pageSize, pageToken });
        found.push(...page.sandboxes.map(({ sandboxId }) => sandboxId));
        pageToken = page.nextPageToken;
        pages += 1;
      } while (pageToken !== "");
      return { ids: found, pages };
    }

    test("come in order of id, in pages that leave nothing out", async () => {
      expect(await listed({ tenant: "listed" }, 2)).toEqual({ ids, pages: 3 });
      expect(await listed({ tenant: "listed" }, 5)).toEqual({ ids, pages: 1 });
    });

    test("hold what matches tenant, every label, and one of the states", async () => {
      expect((await listed({ tenant: "nobody" })).ids).toEqual([]);
      expect((await listed({ labels: { half: "first", all: "yes" } })).ids).toEqual(ids.slice(0, 2));
      expect((await listed({ labels: { half: "first", all: "no" } })).ids).toEqual([]);
      expect((await listed({ tenant: "listed", states: [SandboxState.STOPPED] })).ids).toEqual(["list-e"]);
      const running = { tenant: "listed", labels: { half: "second" }, states: [SandboxState.RUNNING] };
      expect((await listed(running)).ids).toEqual(["list-c", "list-d"]);
    });

    test("refuse a token that was not given for the same filter", async () => {
      const { nextPageToken } = await host.sandboxes.listSandboxes({
        filter: { tenant: "listed" },
        pageSize: 2,
      });
      for (const [filter, pageToken] of [
        [{ tenant: "listed" }, "nonsense"],
        [{ tenant: "acme" }, nextPageToken],
        [{}, nextPageToken],
        [{ tenant: "listed" }, `${nextPageToken}AA`],
      ] as const) {
        const refused = await refusalOf(host.sandboxes.listSandboxes({ filter, pageToken }));
        expect(refused).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
      }
    });
  });
});

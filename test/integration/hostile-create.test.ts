// What a hostile caller may ask of a create: refused by its reason before there is any row or container, or overridden.

import { request } from "node:http";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { type NetworkMode, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { baseImage, engineObstacle } from "../harness/engine.ts";
import {
  mebibyte,
  present,
  refusalOf,
  type SpecInit,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

const most = 2n ** 63n - 1n;

/** Specs that the contract has words for, but no sandbox may have. */
const refused: readonly (readonly [string, SpecInit, string, string])[] = [
  ["NUL in an argument", { args: ["a\0b"] }, "InvalidArgument", "INVALID_FIELD"],
  ["NUL in the command", { command: ["sh\0"] }, "InvalidArgument", "INVALID_FIELD"],
  ["NUL in an environment value", { env: { A: "a\0b" } }, "InvalidArgument", "INVALID_FIELD"],
  ["an environment name with =", { env: { "A=B": "c" } }, "InvalidArgument", "INVALID_FIELD"],
  ["an empty environment name", { env: { "": "c" } }, "InvalidArgument", "INVALID_FIELD"],
  ["LD_PRELOAD", { env: { LD_PRELOAD: "/tmp/evil.so" } }, "InvalidArgument", "INVALID_FIELD"],
  ["a reserved environment name", { env: { SANDBOXD_TOKEN: "x" } }, "InvalidArgument", "INVALID_FIELD"],
  ["1 MB of environment in one value", { env: { A: "x".repeat(1e6) } }, "InvalidArgument", "INVALID_FIELD"],
  [
    "1 MB of environment in many values",
    { env: Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`A${n}`, "x".repeat(26_000)])) },
    "InvalidArgument",
    "INVALID_FIELD",
  ],
  [
    "100,000 environment entries",
    { env: Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`A${n}`, ""])) },
    "InvalidArgument",
    "INVALID_FIELD",
  ],
  [
    "100,000 arguments",
    { args: Array.from({ length: 100_000 }, () => "") },
    "InvalidArgument",
    "INVALID_FIELD",
  ],
  [
    "a message above the listener's bound",
    { env: { A: "x".repeat(5 * mebibyte) } },
    "ResourceExhausted",
    "MESSAGE_TOO_LARGE",
  ],
  ["a reserved label", { labels: { "sandboxd.host": "other" } }, "InvalidArgument", "INVALID_FIELD"],
  ["a label with a newline", { labels: { a: "b\nc" } }, "InvalidArgument", "INVALID_FIELD"],
  ["a label with a terminal escape", { labels: { a: "\u001b[2J" } }, "InvalidArgument", "INVALID_FIELD"],
  [
    "65 labels",
    { labels: Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`a${n}`, ""])) },
    "InvalidArgument",
    "INVALID_FIELD",
  ],
  ["working_dir with ..", { workingDir: "/tmp/../etc" }, "InvalidArgument", "INVALID_FIELD"],
  ["working_dir /proc/self/fd/7", { workingDir: "/proc/self/fd/7" }, "InvalidArgument", "INVALID_FIELD"],
  ["working_dir //proc", { workingDir: "//proc/self" }, "InvalidArgument", "INVALID_FIELD"],
  ["working_dir /./proc", { workingDir: "/./proc/self" }, "InvalidArgument", "INVALID_FIELD"],
  ["working_dir /sys", { workingDir: "/sys" }, "InvalidArgument", "INVALID_FIELD"],
  ["a relative working_dir", { workingDir: "tmp" }, "InvalidArgument", "INVALID_FIELD"],
  ["working_dir with NUL", { workingDir: "/tmp\0" }, "InvalidArgument", "INVALID_FIELD"],
  ["working_dir with a newline", { workingDir: "/tmp\n" }, "InvalidArgument", "INVALID_FIELD"],
  ["an image that is not allowed", { image: "evil:latest" }, "PermissionDenied", "IMAGE_NOT_ALLOWED"],
  [
    "an image of a registry",
    { image: "evil.example/sandboxd-base:latest" },
    "PermissionDenied",
    "IMAGE_NOT_ALLOWED",
  ],
  [
    "an allowed image by digest",
    { image: `sandboxd-base@sha256:${"0".repeat(64)}` },
    "PermissionDenied",
    "IMAGE_NOT_ALLOWED",
  ],
  ["an image id", { image: `sha256:${"0".repeat(64)}` }, "PermissionDenied", "IMAGE_NOT_ALLOWED"],
  ["an image with a query", { image: "sandboxd-base:latest?x=1" }, "InvalidArgument", "INVALID_FIELD"],
  ["a stop_grace of a year", { stopGrace: { seconds: 31_536_000n } }, "InvalidArgument", "INVALID_FIELD"],
  ["a negative stop_grace", { stopGrace: { seconds: -1n } }, "InvalidArgument", "INVALID_FIELD"],
  ["an unknown network mode", { networkMode: 7 as NetworkMode }, "InvalidArgument", "INVALID_FIELD"],
  [
    "more memory than the machine has",
    { resources: { memoryBytes: 17_592_186_044_416n } },
    "ResourceExhausted",
    "HOST_CAPACITY_EXCEEDED",
  ],
  [
    "a request above its limit",
    { resources: { cpuMillis: 100n, cpuRequestMillis: 101n } },
    "InvalidArgument",
    "INVALID_FIELD",
  ],
  [
    "a tmpfs above the memory",
    { resources: { memoryBytes: 6_291_456n, tmpfsBytes: 6_291_457n } },
    "InvalidArgument",
    "INVALID_FIELD",
  ],
];

const amounts = [
  "cpuMillis",
  "cpuRequestMillis",
  "memoryBytes",
  "memoryRequestBytes",
  "pids",
  "openFiles",
  "tmpfsBytes",
  "tmpfsInodes",
  "shmBytes",
  "logBytes",
] as const;

/** Fields of the engine's own API, and of others', that must not even be read past. */
const unknownFields: readonly object[] = [
  { privileged: true },
  { Privileged: true },
  { capAdd: ["SYS_ADMIN"] },
  { cap_add: ["ALL"] },
  { devices: ["/dev/kmsg"] },
  { runtime: "runc" },
  { securityOpt: ["seccomp=unconfined"] },
  { cgroupParent: "/" },
  { sysctls: { "kernel.core_pattern": "|/evil" } },
  { pidMode: "host" },
  { ipcMode: "host" },
  { usernsMode: "host" },
  { oomScoreAdj: -1000 },
  { maskedPaths: [] },
  { user: "0" },
  { groupAdd: ["0"] },
  { volumes: ["/:/host"] },
  { binds: ["/:/host"] },
  { mounts: [{ source: "/", target: "/host" }] },
  { volumesFrom: ["other"] },
  { links: ["other"] },
  { extraHosts: ["a:127.0.0.1"] },
  { dns: ["127.0.0.1"] },
  { hostConfig: { Privileged: true } },
  { resources: { oomKillDisable: true } },
  { networkMode: "NETWORK_MODE_HOST" },
];

describe.skipIf(engineObstacle !== undefined)(`a hostile create (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  const cleanups: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    host = await startHost({ config: { engine: { relist_period: "1s", orphan_grace: "1s" } } });
  });
  afterEach(async () => {
    for (const clean of cleanups.splice(0).reverse()) await clean();
  });
  afterAll(() => host?.daemon.cleanup());

  /** The daemon lives, and nothing came of what was asked. */
  async function expectNothing(): Promise<void> {
    expect((await host.sandboxes.listSandboxes({})).sandboxes).toEqual([]);
    expect(await host.containers()).toEqual([]);
    const { events } = await host.events.listEvents({ filter: { tenant: "hostile" } });
    expect(events).toEqual([]);
  }

  const create = (spec: SpecInit, sandboxId = "hostile") =>
    host.sandboxes.createSandbox({ sandboxId, tenant: "hostile", spec: { ...specOf(sleeping), ...spec } });

  test.each(refused)("%s is refused, and nothing is made", async (_what, spec, code, reason) => {
    expect(await refusalOf(create(spec))).toMatchObject({ code, reason });
    await expectNothing();
  });

  test("the largest environment that is allowed reaches the engine, whatever is in it", async () => {
    const env = Object.fromEntries(Array.from({ length: 4 }, (_, n) => [`A${n}`, '"'.repeat(30_000)]));
    const { sandbox } = await host.sandboxes.createSandbox({
      sandboxId: "large",
      tenant,
      spec: { ...specOf(sleeping), env },
    });
    expect(whereIs(present(sandbox)).state).toBe("RUNNING");
    await host.sandboxes.deleteSandbox({ sandboxId: "large" });
  });

  test.each(amounts)("%s of 0, -1, the least and the most of its type is refused", async (amount) => {
    for (const value of [0n, -1n, -(2n ** 63n), most]) {
      const refusal = await refusalOf(create({ resources: { [amount]: value } }));
      expect(refusal, `${amount} ${value}`).toMatchObject({
        code: "InvalidArgument",
        reason: "INVALID_FIELD",
      });
    }
    await expectNothing();
  });

  test.each(["UPPER", "a_b", "../a", "a/b", "-a", "a\n", "a\0", "a".repeat(64)])(
    "the id and the tenant %j are refused",
    async (name) => {
      for (const request of [
        { sandboxId: name, tenant },
        { sandboxId: "hostile", tenant: name },
      ]) {
        const call = host.sandboxes.createSandbox({ ...request, spec: specOf(sleeping) });
        expect(await refusalOf(call)).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
      }
      await expectNothing();
    },
  );

  test("a tenant is required", async () => {
    const call = host.sandboxes.createSandbox({ sandboxId: "hostile", spec: specOf(sleeping) });
    expect(await refusalOf(call)).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    await expectNothing();
  });

  test.each(unknownFields)("the unknown %j over HTTP/1.1 with JSON is refused", async (extra) => {
    const spec = { image: baseImage, command: ["sleep", "1000"], ...extra };
    const answer = await postJson(host.daemon.socketPath, { sandboxId: "hostile", tenant: "hostile", spec });
    expect(answer).toEqual({ status: 400, code: "invalid_argument", reason: "MALFORMED_MESSAGE" });
    await expectNothing();
  });

  test.each([
    ["NaN", { cpuMillis: "NaN" }],
    ["2^63", { cpuMillis: "9223372036854775808" }],
    ["a fraction", { cpuMillis: 100.5 }],
    ["1e400", { cpuMillis: "1e400" }],
  ])("a number that is %s over JSON is refused", async (_what, resources) => {
    const spec = { image: baseImage, resources };
    const answer = await postJson(host.daemon.socketPath, { sandboxId: "hostile", tenant: "hostile", spec });
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument", reason: "MALFORMED_MESSAGE" });
    await expectNothing();
  });

  test("the same request without the extra field is accepted, so the refusals were for the field", async () => {
    const spec = { image: baseImage, command: ["sleep", "1000"], resources: { memoryBytes: "33554432" } };
    const answer = await postJson(host.daemon.socketPath, { sandboxId: "honest", tenant: "honest", spec });
    expect(answer.status).toBe(200);
    await host.sandboxes.deleteSandbox({ sandboxId: "honest" });
  });

  test("an image's user, volumes, health check and working directory come to nothing", async () => {
    const image = await importHostileImage(host, [
      "USER 0:0",
      "VOLUME /volume",
      "WORKDIR /proc/self/fd/7",
      'HEALTHCHECK CMD ["true"]',
      "EXPOSE 22",
    ]);
    cleanups.push(() => host.docker.getImage(image).remove());
    const script = "id -u; id -g; pwd; touch /volume/a && echo wrote; exec sleep 1000";
    const { sandbox } = await create({ ...specOf(script), image });
    cleanups.push(() => host.sandboxes.deleteSandbox({ sandboxId: "hostile" }));
    const status = present(present(sandbox).status);
    const found = await host.docker.getContainer(status.containerId).inspect();
    expect(found.Config.User).toBe(`${status.uid}:${status.uid}`);
    expect(found.Config.WorkingDir).toBe("/tmp");
    expect(found.Config.Labels["sandboxd.host"]).toBe(host.daemon.hostId);
    expect(found.Config.Labels["sandboxd.record"]).toContain('"id":"hostile"');
    expect(found.State.Health).toBeUndefined();
    expect(found.Config.Healthcheck?.Test).toEqual(["NONE"]);
    const mounts = found.Mounts.filter(({ Type }) => Type === "volume" || Type === "bind");
    expect(mounts.map(({ Destination }) => Destination)).toEqual(["/.sandboxd"]);
    expect(found.HostConfig.Privileged).toBe(false);
    await expect.poll(() => host.output("hostile")).toContain(`${status.uid}\n${status.uid}\n/tmp\n`);
    const { Volumes } = await host.docker.listVolumes();
    expect((Volumes ?? []).filter(({ Name }) => !Name.includes("_toolbox_"))).toEqual([]);
  });

  test("an image with a reserved label is refused, and no container is left", async () => {
    const image = await importHostileImage(host, [
      "LABEL sandboxd.host=elsewhere",
      "LABEL sandboxd.evil=yes",
    ]);
    cleanups.push(() => host.docker.getImage(image).remove());
    expect((await refusalOf(create({ image }))).reason).toBe("IMAGE_UNSUPPORTED");
    expect(whereIs(await host.get("hostile"))).toEqual({ state: "FAILED", reason: "IMAGE_UNSUPPORTED" });
    expect(await host.containers()).toEqual([]);
    await host.sandboxes.deleteSandbox({ sandboxId: "hostile" });
  });

  test("a foreign container with the sandbox's name is not touched, and the create fails", async () => {
    const foreign = await host.docker.createContainer({
      name: `sandboxd-${host.daemon.hostId}-squatted`,
      Image: baseImage,
      Cmd: ["sleep", "1000"],
    });
    cleanups.push(() => foreign.remove({ force: true }));
    await foreign.start();
    const before = await foreign.inspect();
    expect(await refusalOf(host.run("squatted", sleeping))).toMatchObject({
      code: "Internal",
      reason: "ENGINE_FAILED",
    });
    expect((await host.get("squatted")).status?.state).toBe(SandboxState.FAILED);
    await host.sandboxes.deleteSandbox({ sandboxId: "squatted" });
    expect(await host.containers()).toEqual([]);
    expect((await foreign.inspect()).State).toEqual(before.State);
  });

  test("a container with this host's label but no signature is left alone, and is no sandbox", async () => {
    const foreign = await host.docker.createContainer({
      Image: baseImage,
      Cmd: ["sleep", "1000"],
      Labels: {
        "sandboxd.host": host.daemon.hostId,
        "sandboxd.record": '{"id":"spoof","instance":"x"}',
        "sandboxd.mac": "0".repeat(64),
      },
    });
    cleanups.push(() => foreign.remove({ force: true }));
    await foreign.start();
    await new Promise((resolve) => setTimeout(resolve, 3_500));
    expect((await foreign.inspect()).State.Running).toBe(true);
    expect((await refusalOf(host.get("spoof"))).reason).toBe("SANDBOX_NOT_FOUND");
  });

  test("after all of that the daemon serves", async () => {
    expect(whereIs(await host.run("after", sleeping))).toEqual({ state: "RUNNING", reason: "PROGRESS" });
  });
});

interface JsonAnswer {
  readonly status: number;
  readonly code: string | undefined;
  readonly reason: string | undefined;
}

/** One CreateSandbox over HTTP/1.1 and the Connect protocol with JSON. */
function postJson(socketPath: string, message: object): Promise<JsonAnswer> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        socketPath,
        method: "POST",
        path: "/sandboxd.v1.SandboxService/CreateSandbox",
        headers: { host: "localhost", "content-type": "application/json", "connect-protocol-version": "1" },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const body = JSON.parse(Buffer.concat(chunks).toString()) as ErrorBody;
          const info = body.details?.find(({ type }) => type === "google.rpc.ErrorInfo");
          resolve({
            status: response.statusCode ?? 0,
            code: body.code,
            reason: info && fromBinary(ErrorInfoSchema, Buffer.from(info.value, "base64")).reason,
          });
        });
      },
    );
    outgoing.on("error", reject);
    outgoing.end(JSON.stringify(message));
  });
}

interface ErrorBody {
  readonly code?: string;
  readonly details?: readonly { readonly type: string; readonly value: string }[];
}

/** The base image with a hostile configuration. Gives its name, which the image policy allows. */
async function importHostileImage({ docker }: TestHost, changes: readonly string[]): Promise<string> {
  const source = await docker.createContainer({ Image: baseImage });
  try {
    const tag = `hostile-${process.pid}`;
    const archive = await source.export();
    const progress = await docker.importImage(archive, { repo: "sandboxd-base", tag, changes: [...changes] });
    await new Promise<void>((resolve, reject) => {
      docker.modem.followProgress(progress, (error: Error | null) =>
        error === null ? resolve() : reject(error),
      );
    });
    return `sandboxd-base:${tag}`;
  } finally {
    await source.remove();
  }
}

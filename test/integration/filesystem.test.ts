// Files in real sandboxes, as a caller has them: in an image with nothing but its one program, on each kind of file system, and against a sandbox that means harm.
import { spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync, gzipSync } from "node:zlib";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type Docker from "dockerode";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  ArchiveCompression,
  FileChangeType,
  FilesystemService,
  FileType,
  type UploadArchiveRequestSchema,
  type WriteFileRequestSchema,
} from "../../gen/sandboxd/v1/filesystem_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import {
  type LocalHost,
  mebibyte,
  present,
  refusalOf,
  specOf,
  startHost,
  tenant,
} from "../harness/sandboxes.ts";
import { archive, entry } from "../unit/workspace/archive/fixture.ts";

const bareImage = "sandboxd-base:bare";

/** An image that holds one static program, which waits. */
async function importBare(docker: Docker): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "bare-"));
  try {
    mkdirSync(join(root, "tmp"));
    copyFileSync("/bin/busybox", join(root, "sleep"));
    const tar = spawn("tar", ["-C", root, "-c", "."], { stdio: ["ignore", "pipe", "inherit"] });
    const progress = await docker.importImage(tar.stdout, { repo: "sandboxd-base", tag: "bare" });
    await new Promise<void>((resolve, reject) => {
      docker.modem.followProgress(progress, (error: Error | null) =>
        error === null ? resolve() : reject(error),
      );
    });
  } finally {
    rmSync(root, { recursive: true });
  }
}

describe.skipIf(engineObstacle !== undefined)(`files in sandboxes (${engineObstacle ?? "engine"})`, () => {
  let host: LocalHost;
  let files: Client<typeof FilesystemService>;
  beforeAll(async () => {
    host = await startHost();
    files = host.daemon.client(FilesystemService);
    await importBare(host.docker);
    const work = { path: "/workspace", sizeBytes: BigInt(8 * mebibyte) };
    const resources = { cpuMillis: 1000n, memoryBytes: BigInt(128 * mebibyte), pids: 64n };
    const bare = { ...specOf("", resources), image: bareImage, command: ["/sleep", "100000"], tmpfs: [work] };
    await host.sandboxes.createSandbox({ sandboxId: "bare", tenant, spec: bare });
    const swapping =
      "cd /workspace; mkdir outside; while :; do rm -rf dir; mkdir dir; rm -rf dir; ln -s /workspace/outside dir; done";
    await host.sandboxes.createSandbox({
      sandboxId: "swapping",
      tenant,
      spec: { ...specOf(swapping, resources), tmpfs: [work] },
    });
  });
  afterAll(async () => {
    await host?.docker
      .getImage(bareImage)
      .remove({ force: true })
      .catch(() => {});
    await host?.daemon.cleanup();
  });

  type Target = Extract<MessageInitShape<typeof WriteFileRequestSchema>["part"], { case: "target" }>["value"];

  function write(
    path: string,
    content: string | Uint8Array,
    target: Partial<Target> = {},
    sandboxId = "bare",
  ) {
    const messages = async function* (): AsyncGenerator<MessageInitShape<typeof WriteFileRequestSchema>> {
      yield { part: { case: "target", value: { sandboxId, path, ...target } as Target } };
      const bytes = Buffer.from(content);
      for (let start = 0; start < bytes.length; start += mebibyte)
        yield { part: { case: "data", value: bytes.subarray(start, start + mebibyte) } };
    };
    return files.writeFile(messages());
  }

  async function read(path: string, range: { offset?: bigint; length?: bigint } = {}, sandboxId = "bare") {
    const parts: Uint8Array[] = [];
    for await (const { part } of files.readFile({ sandboxId, path, ...range }))
      if (part.case === "data") parts.push(part.value);
    return Buffer.concat(parts);
  }

  function upload(path: string, bytes: Uint8Array, sandboxId = "bare") {
    const messages = async function* (): AsyncGenerator<MessageInitShape<typeof UploadArchiveRequestSchema>> {
      yield { part: { case: "target", value: { sandboxId, path } } };
      yield { part: { case: "data", value: bytes } };
    };
    return files.uploadArchive(messages());
  }

  async function download(path: string, compression = ArchiveCompression.UNSPECIFIED, sandboxId = "bare") {
    const parts: Uint8Array[] = [];
    for await (const { data } of files.downloadArchive({ sandboxId, path, compression })) parts.push(data);
    return Buffer.concat(parts);
  }

  const names = async (path: string, sandboxId = "bare") =>
    (await files.listDirectory({ sandboxId, path })).files.map((file) => file.path);

  describe("in an image without a shell", () => {
    test.each(["/workspace", "/tmp"])(
      "%s can be written, read, listed, moved in and emptied",
      async (place) => {
        const uid = Number(present((await host.get("bare")).status).uid);
        const { file } = await write(`${place}/a/file`, "hello", { parents: true, mode: 0o600 });
        expect(file).toMatchObject({
          path: `${place}/a/file`,
          type: FileType.FILE,
          sizeBytes: 5n,
          mode: 0o600,
          uid,
          gid: uid,
        });
        expect((await read(`${place}/a/file`, { offset: 1n, length: 3n })).toString()).toBe("ell");
        await files.move({ sandboxId: "bare", path: `${place}/a/file`, newPath: `${place}/a/other` });
        await files.makeDirectory({ sandboxId: "bare", path: `${place}/a/b`, mode: 0o700 });
        expect(await names(`${place}/a`)).toEqual([`${place}/a/b`, `${place}/a/other`]);
        await files.remove({ sandboxId: "bare", path: `${place}/a`, recursive: true });
        expect(await refusalOf(files.stat({ sandboxId: "bare", path: `${place}/a` }))).toMatchObject({
          code: "NotFound",
          reason: "FILE_NOT_FOUND",
        });
      },
    );

    test("what the image holds can be read, and is told to be read-only", async () => {
      expect((await files.stat({ sandboxId: "bare", path: "/sleep" })).file).toMatchObject({
        type: FileType.FILE,
      });
      expect((await read("/sleep")).length).toBeGreaterThan(100_000);
      const readOnly = { code: "FailedPrecondition", reason: "FILE_READ_ONLY" };
      // the root directory is root's, and the kernel says first what it likes
      const refused = [
        refusalOf(write("/x", "")),
        refusalOf(files.makeDirectory({ sandboxId: "bare", path: "/x" })),
        refusalOf(files.remove({ sandboxId: "bare", path: "/sleep" })),
        refusalOf(files.move({ sandboxId: "bare", path: "/sleep", newPath: "/other" })),
        refusalOf(write("/.sandboxd/toolbox", "")),
        refusalOf(upload("/more", archive())),
      ];
      for (const refusal of await Promise.all(refused)) expect(refusal).toMatchObject(readOnly);
    });

    test("a page token goes on where the page ended, in its directory alone", async () => {
      const entries = ["a", "b", "c"].map((name) => entry(name, { content: name }));
      await upload("/workspace/pages", archive(...entries));
      const request = { sandboxId: "bare", path: "/workspace/pages", pageSize: 2 };
      const first = await files.listDirectory(request);
      expect(first.files.map(({ path }) => path)).toEqual(["/workspace/pages/a", "/workspace/pages/b"]);
      const second = await files.listDirectory({ ...request, pageToken: first.nextPageToken });
      expect(second.files.map(({ path }) => path)).toEqual(["/workspace/pages/c"]);
      expect(second.nextPageToken).toBe("");
      const elsewhere = files.listDirectory({
        ...request,
        path: "/workspace",
        pageToken: first.nextPageToken,
      });
      expect(await refusalOf(elsewhere)).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    });

    test("archives go down and up, as they are and compressed", async () => {
      const bytes = archive(
        entry("dir/", { type: "5", mode: "0000750\0" }),
        entry("dir/file", { content: "x".repeat(100_000) }),
        entry("dir/link", { type: "2", linkname: "file" }),
      );
      expect(await upload("/workspace/up", gzipSync(bytes))).toMatchObject({ bytes: 100_000n, entries: 3n });
      const plain = await download("/workspace/up");
      expect(gunzipSync(await download("/workspace/up", ArchiveCompression.GZIP)).equals(plain)).toBe(true);
      await upload("/tmp/again", plain);
      expect((await read("/tmp/again/dir/link")).toString()).toBe("x".repeat(100_000));
      expect((await files.stat({ sandboxId: "bare", path: "/tmp/again/dir" })).file?.mode).toBe(0o750);
    });

    test("a full file system leaves the file that was there, and nothing else", async () => {
      await write("/workspace/full/file", "old", { parents: true });
      const refusal = await refusalOf(write("/workspace/full/file", Buffer.alloc(10 * mebibyte)));
      expect(refusal).toMatchObject({ code: "ResourceExhausted", reason: "FILE_NO_SPACE" });
      expect((await read("/workspace/full/file")).toString()).toBe("old");
      expect(await names("/workspace/full")).toEqual(["/workspace/full/file"]);
    });

    test("a caller that goes away half-way leaves the file that was there, and no worker", async () => {
      await write("/workspace/gone/file", "old", { parents: true });
      const controller = new AbortController();
      const messages = async function* (): AsyncGenerator<MessageInitShape<typeof WriteFileRequestSchema>> {
        yield {
          part: { case: "target", value: { sandboxId: "bare", path: "/workspace/gone/file" } as Target },
        };
        yield { part: { case: "data", value: Buffer.alloc(mebibyte) } };
        await sleep(200);
        controller.abort();
        await sleep(10_000, undefined, { ref: false });
      };
      await expect(files.writeFile(messages(), { signal: controller.signal })).rejects.toThrow();
      const workers = async () =>
        (await host.docker.getContainer(present((await host.get("bare")).status).containerId).top()).Processes
          .length;
      // init, the main command and the server
      await expect.poll(workers, { timeout: 5_000 }).toBeLessThanOrEqual(3);
      expect((await read("/workspace/gone/file", { length: 10n })).toString()).toBe("old");
      expect(await names("/workspace/gone")).toEqual(["/workspace/gone/file"]);
    });

    test("a watch tells what the service itself changes, and ends with the caller", async () => {
      const controller = new AbortController();
      await files.makeDirectory({ sandboxId: "bare", path: "/workspace/watched" });
      const updates = files
        .watchDirectory(
          { sandboxId: "bare", path: "/workspace/watched", recursive: true },
          { signal: controller.signal },
        )
        [Symbol.asyncIterator]();
      const next = async () => present((await updates.next()).value).update;
      expect(await next()).toMatchObject({ case: "ready" });
      await write("/workspace/watched/below/file", "x", { parents: true });
      const change = (type: FileChangeType, path: string, isDirectory: boolean) => ({
        case: "change",
        value: { type, path: `/workspace/watched/${path}`, isDirectory },
      });
      expect(await next()).toMatchObject(change(FileChangeType.CREATED, "below", true));
      expect(await next()).toMatchObject(change(FileChangeType.CREATED, "below/file", false));
      controller.abort();
      await expect(updates.next()).rejects.toThrow();
    });
  });

  describe("a sandbox that means harm", () => {
    test("never leads out of itself: the root that /proc shows is its own", async () => {
      const inside = await names("/proc/self/root");
      expect(inside).toContain("/proc/self/root/sleep");
      expect(inside).not.toContain("/proc/self/root/etc/os-release");
      const { file } = await write("/proc/self/root/tmp/mine", "x");
      expect(file).toMatchObject({ path: "/proc/self/root/tmp/mine" });
      expect((await read("/tmp/mine")).toString()).toBe("x");
    });

    test("that swaps a directory for a link gains nothing: an entry is made below the directory or is refused", async () => {
      const bytes = archive(
        ...Array.from({ length: 50 }, (_, index) => entry(`dir/evil${index}`, { content: "x" })),
      );
      const reasons = new Set<string>();
      for (let round = 0; round < 20; round += 1)
        await upload("/workspace", bytes, "swapping").catch(async (error) => {
          reasons.add((await refusalOf(Promise.reject(error))).reason);
        });
      // gone between two steps is another answer than being a link by then
      expect(
        [...reasons].filter((reason) => !["ARCHIVE_REFUSED", "FILE_NOT_FOUND"].includes(reason)),
      ).toEqual([]);
      expect(await names("/workspace/outside", "swapping")).toEqual([]);
    });
  });

  describe("what cannot be", () => {
    test("is refused with its field: paths, modes, conditions, messages", async () => {
      const refused = [
        refusalOf(files.stat({ sandboxId: "bare", path: "relative" })),
        refusalOf(files.stat({ sandboxId: "bare", path: "/a\0b" })),
        refusalOf(write("/tmp/x", "", { mode: 0o1000 })),
        refusalOf(write("/tmp/x", "", { createOnly: true, offset: 0n })),
        refusalOf(write("/tmp/x", "12345", { sizeBytes: 4n })),
        refusalOf(files.remove({ sandboxId: "bare", path: "/", recursive: true })),
        refusalOf(files.writeFile((async function* () {})())),
      ];
      for (const refusal of await Promise.all(refused))
        expect(refusal).toMatchObject({ code: "InvalidArgument", reason: "INVALID_FIELD" });
    });

    test("a sandbox that is unknown, or does not run, has no files", async () => {
      expect(await refusalOf(files.stat({ sandboxId: "none", path: "/" }))).toMatchObject({
        code: "NotFound",
        reason: "SANDBOX_NOT_FOUND",
      });
      await host.run("stopped", "exec sleep 1000");
      await host.sandboxes.stopSandbox({ sandboxId: "stopped" });
      const refused = [
        refusalOf(files.stat({ sandboxId: "stopped", path: "/" })),
        refusalOf(write("/tmp/x", "", {}, "stopped")),
        refusalOf(download("/", ArchiveCompression.UNSPECIFIED, "stopped")),
      ];
      for (const refusal of await Promise.all(refused))
        expect(refusal).toMatchObject({ code: "FailedPrecondition", reason: "INVALID_STATE" });
    });
  });
});

// sandboxctl cp, ls and cat, the real program: docker's rules of what becomes of what, and archives that mean harm.

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ProcessService } from "../../gen/sandboxd/v1/process_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type CtlOptions, ctl } from "../harness/sandboxctl.ts";
import { sleeping, startHost, type TestHost } from "../harness/sandboxes.ts";

describe.skipIf(engineObstacle !== undefined)(`sandboxctl cp (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  let address: Record<string, string>;
  const here = mkdtempSync(join(tmpdir(), "sandboxctl-cp-"));
  beforeAll(async () => {
    host = await startHost();
    address = { SANDBOXCTL_HOST: `unix://${host.daemon.socketPath}` };
    await host.run("box", sleeping, { cpuMillis: 1_000n, memoryBytes: 256n * 1024n * 1024n, pids: 64n });
  });
  afterAll(async () => {
    rmSync(here, { recursive: true });
    await host?.daemon.cleanup();
  });

  const run = (args: readonly string[], options: CtlOptions = {}) => ctl(args, { ...options, env: address });
  /** What a script in the sandbox writes. */
  const inside = async (script: string) => {
    const out: Uint8Array[] = [];
    const started = host.daemon
      .client(ProcessService)
      .startProcess({ sandboxId: "box", command: ["sh", "-c", script] });
    for await (const { event } of started) if (event?.event.case === "stdout") out.push(event.event.value);
    return Buffer.concat(out).toString();
  };
  /** Must succeed. */
  const cp = async (from: string, to: string, ...options: readonly string[]) => {
    const result = await run(["cp", "-q", ...options, from, to]);
    expect(result, result.stderr).toMatchObject({ code: 0, stdout: "" });
  };
  const refusal = async (from: string, to: string) => {
    const { code, stderr } = await run(["cp", from, to]);
    expect(code).toBe(1);
    return stderr;
  };

  test("files go in and out whole, with their mode, onto names and into directories", async () => {
    const bytes = randomBytes(3_000_000);
    writeFileSync(join(here, "file"), bytes);
    chmodSync(join(here, "file"), 0o750);
    await cp(join(here, "file"), "box:/tmp");
    await cp(join(here, "file"), "box:/tmp/renamed");
    expect(await inside("cd /tmp; cmp file renamed && stat -c '%a %s' file renamed")).toBe(
      "750 3000000\n750 3000000\n",
    );
    await cp("box:/tmp/renamed", here);
    expect(readFileSync(join(here, "renamed")).equals(bytes)).toBe(true);
    expect(statSync(join(here, "renamed")).mode & 0o777).toBe(0o750);
    await cp("box:tmp/file", join(here, "onto"));
    expect(readFileSync(join(here, "onto")).equals(bytes)).toBe(true);
    const told = await run(["cp", "box:/tmp/file", join(here, "onto")]);
    expect(told.stderr).toBe(`copied 2.86MiB to ${join(here, "onto")}\n`);
  });

  test("a directory is copied into one that is there, as one that is not, and its content with /.", async () => {
    mkdirSync(join(here, "tree/sub"), { recursive: true });
    writeFileSync(join(here, "tree/sub/a b"), "x");
    symlinkSync("sub/a b", join(here, "tree/link"));
    await cp(join(here, "tree"), "box:/tmp/new");
    await cp(join(here, "tree"), "box:/tmp/new");
    await cp(`${join(here, "tree")}/.`, "box:/tmp/new/tree/sub");
    expect(await inside("cd /tmp/new; find . | sort; readlink link")).toBe(
      ["", "/link", "/sub", "/sub/a b", "/tree", "/tree/link", "/tree/sub", "/tree/sub/a b"]
        .concat(["/tree/sub/link", "/tree/sub/sub", "/tree/sub/sub/a b"])
        .map((path) => `.${path}\n`)
        .join("")
        .concat("sub/a b\n"),
    );
    await cp("box:/tmp/new/sub", join(here, "out"));
    await cp("box:/tmp/new/sub", join(here, "out"));
    await cp("box:/tmp/new/.", join(here, "out"));
    expect(readdirSync(join(here, "out")).sort()).toEqual(["a b", "link", "sub", "tree"]);
    expect(readFileSync(join(here, "out/sub/a b"), "utf8")).toBe("x");
  });

  test("links are copied as links, and followed with -L", async () => {
    await inside("cd /tmp; echo content > real; ln -sf real point");
    await cp("box:/tmp/point", join(here, "as-link"));
    expect(readlinkSync(join(here, "as-link"))).toBe("real");
    await cp("box:/tmp/point", join(here, "followed"), "-L");
    expect(readFileSync(join(here, "followed"), "utf8")).toBe("content\n");
    symlinkSync("elsewhere", join(here, "here-link"));
    await cp(join(here, "here-link"), "box:/tmp/there-link");
    expect(await inside("readlink /tmp/there-link")).toBe("elsewhere\n");
  });

  test("what makes no sense is refused with the reason", async () => {
    await inside("mkdir -p /tmp/dir; echo > /tmp/plain");
    const refused = [
      ["box:/tmp/dir", join(here, "file"), /cannot be copied onto a file/],
      ["box:/tmp/plain", `${join(here, "absent")}/`, /no such directory/],
      ["box:/tmp/plain", join(here, "absent/below"), /the directory above it does not exist/],
      ["box:/tmp/plain/", here, /\(FILE_WRONG_TYPE\)/],
      ["box:/tmp/nothing", here, /there is nothing in the sandbox/],
      [join(here, "file"), "box:/etc/x", /\((FILE_READ_ONLY|FILE_NOT_ALLOWED)\)/],
    ] as const;
    const answers = await Promise.all(refused.map(([from, to]) => refusal(from, to)));
    for (const [at, [, , why]] of refused.entries()) expect(answers[at]).toMatch(why);
    expect((await run(["cp", "box:/a", "box:/b"])).code).toBe(2);
    expect(existsSync(join(here, "absent"))).toBe(false);
  });

  test("- is a tar archive: named as docker names it, and unpacked into a directory that is there", async () => {
    await inside("mkdir -p /tmp/packed/in; echo 1 > /tmp/packed/in/f; ln /tmp/packed/in/f /tmp/packed/hard");
    const { bytes } = await run(["cp", "box:/tmp/packed", "-"]);
    const listed = execFileSync("tar", ["-tf", "-"], { input: bytes, encoding: "utf8" });
    expect(listed.split("\n").filter(Boolean).sort()).toEqual([
      "packed/",
      "packed/hard",
      "packed/in/",
      "packed/in/f",
    ]);
    await inside("mkdir -p /tmp/back");
    expect((await run(["cp", "-q", "-", "box:/tmp/back"], { input: bytes })).code).toBe(0);
    expect(await inside("cd /tmp/back/packed; cat in/f hard; stat -c %h hard")).toBe("1\n1\n2\n");
    expect((await run(["cp", "-", "box:/tmp/not-there"], { input: bytes })).code).toBe(1);
  });

  test("nothing is written through a link that an earlier copy left", async () => {
    const outside = join(here, "outside");
    mkdirSync(outside);
    const target = join(here, "target");
    mkdirSync(target);
    await inside(`mkdir -p /tmp/evil; ln -sfn ${outside} /tmp/evil/out`);
    await cp("box:/tmp/evil/out", target);
    expect(readlinkSync(join(target, "out"))).toBe(outside);
    await inside("rm /tmp/evil/out; mkdir /tmp/evil/out; echo owned > /tmp/evil/out/file");
    expect((await run(["cp", "box:/tmp/evil/out", target])).code).toBe(1);
    await cp("box:/tmp/evil/.", target);
    expect(lstatSync(join(target, "out")).isDirectory(), "the link made way").toBe(true);
    expect(readdirSync(outside)).toEqual([]);
    await inside(`rm -r /tmp/evil/out; ln -s ${outside}/file /tmp/evil/name`);
    await cp("box:/tmp/evil/name", target);
    await inside("rm /tmp/evil/name; echo owned > /tmp/evil/name");
    await cp("box:/tmp/evil/name", target);
    expect(lstatSync(join(target, "name")).isFile()).toBe(true);
    expect(readdirSync(outside)).toEqual([]);
  });

  test("ls and cat show what is there, and no name acts on a terminal", async () => {
    await inside("mkdir -p /tmp/list; cd /tmp/list; echo hi > \"$(printf 'a\\033[2Jb')\"; mkdir -m 1777 d");
    const { stdout } = await run(["ls", "box:/tmp/list"]);
    expect(stdout).toMatch(/^-rw-r--r-- +\d+:\d+ +3 +\S+Z +a\\x1b\[2Jb$/m);
    expect(stdout).toMatch(/^drwxrwxrwt .* d$/m);
    expect((await run(["ls", "-q", "box:/tmp/list"])).stdout).toBe("a\\x1b[2Jb\nd\n");
    expect((await run(["cat", "box:/tmp/list/a\u001b[2Jb"])).stdout).toBe("hi\n");
    expect((await run(["cat", "box:/tmp/list/none"])).stderr).toContain("(FILE_NOT_FOUND)");
  });
});

// Trees as archives, down and up: the same again, whatever made or unpacks them, and nothing but what the directory may hold.
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { describe, expect, onTestFinished, test } from "vitest";
import { archive, entry, pax } from "../workspace/archive/fixture.ts";
import { all, type Inside, id, inside, mounted, pieces, uid } from "./fixture.ts";

const MiB = 1024 * 1024;
const large = { maxBytes: 1024 * MiB, maxEntries: 100_000 } as const;
const refusal = (reason: string) => expect.objectContaining({ reason });

async function down({ files }: Inside, path: string, options: object = {}): Promise<Buffer> {
  return Buffer.concat(await all(files.download(id, path, { ...large, compression: "none", ...options })));
}

function up({ files }: Inside, path: string, bytes: Uint8Array, options: object = {}) {
  return files.upload(id, path, pieces(bytes, 10_000), { ...large, maxRatio: 200, ...options });
}

const sh = (home: string, script: string) =>
  execFileSync("sh", ["-ec", script], { cwd: home, uid, gid: uid, stdio: "pipe" });

/** All that tar would tell of a tree: kinds, modes, times, targets, content. */
function picture(root: string): readonly string[] {
  const found = (...what: readonly string[]) =>
    execFileSync("find", [".", "-mindepth", "1", ...what], { cwd: root, encoding: "utf8" })
      .split("\0")
      .filter(Boolean);
  const lines = found("-printf", "%p %y %m %T@ %l %n\\0");
  const hashes = found("-type", "f", "-print0").map(
    (name) =>
      `${name} ${createHash("sha256")
        .update(readFileSync(join(root, name)))
        .digest("hex")}`,
  );
  return [...lines.map((line) => line.replace(/(\.\d{6})\d+/, "$1")), ...hashes].sort();
}

const tree = `
  mkdir -p tree/sub/deeper tree/empty
  echo hello >tree/file; head -c 700000 /dev/urandom >tree/sub/random; : >tree/sub/deeper/nothing
  ln tree/file tree/sub/same; ln -s ../file tree/sub/link; ln -s /etc/passwd tree/absolute
  printf x >"tree/$(printf 'n%.0s' $(seq 120))"; printf x >"tree/line
break"; echo ä >tree/grüße
  chmod 640 tree/file; chmod 555 tree/sub/deeper; chmod 711 tree/empty
  find tree -exec touch -h -d 2001-02-03T04:05:06.123456Z {} +
`;

describe("down", () => {
  test("an archive is one that tar unpacks to the same tree", async () => {
    const world = await inside();
    sh(world.home, tree);
    const bytes = await down(world, join(world.home, "tree"));
    const out = join(world.home, "out");
    mkdirSync(out);
    execFileSync("tar", ["-xpf", "-", "-C", out], { input: bytes });
    expect(picture(out)).toEqual(picture(join(world.home, "tree")));
  });

  test("it is compressed as asked for, and is the same within", async () => {
    const world = await inside();
    sh(world.home, tree);
    const path = join(world.home, "tree");
    const bytes = await down(world, path);
    expect(gunzipSync(await down(world, path, { compression: "gzip" })).equals(bytes)).toBe(true);
    expect(zstdDecompressSync(await down(world, path, { compression: "zstd" })).equals(bytes)).toBe(true);
  });

  test("one file is an archive of one entry, also by a link", async () => {
    const world = await inside();
    sh(world.home, "echo hello >file; ln -s file link");
    for (const name of ["file", "link"]) {
      const listed = execFileSync("tar", ["-tf", "-"], { input: await down(world, join(world.home, name)) });
      expect(listed.toString()).toBe(`${name}\n`);
    }
  });

  test("sockets, FIFOs and what may not be read are left out; a directory that may not be read is there, and empty", async () => {
    const world = await inside();
    const at = (name: string) => join(world.home, name);
    sh(world.home, "mkdir open; mkfifo fifo; echo >file");
    const listener = createServer().listen(at("socket"));
    onTestFinished(() => void listener.close());
    writeFileSync(at("secret"), "x", { mode: 0o600 });
    mkdirSync(at("closed"), 0o700);
    writeFileSync(at("closed/file"), "x");
    const listed = execFileSync("tar", ["-tf", "-"], { input: await down(world, world.home) }).toString();
    expect(listed.split("\n").sort()).toEqual(["", "closed/", "file", "open/"]);
  });

  test("/proc, /sys and /dev are not entered, and other file systems are", async () => {
    const world = await inside();
    mounted(join(world.home, "mounted"), "size=1m");
    writeFileSync(join(world.home, "mounted/file"), "x");
    const listed = execFileSync("tar", ["-tf", "-"], { input: await down(world, world.home) }).toString();
    expect(listed).toContain("mounted/file");
    const seen: string[] = [];
    const names = world.files.download(id, "/", { ...large, compression: "none" });
    for await (const piece of names) {
      seen.push(Buffer.from(piece).toString("latin1"));
      if (seen.length === 50) break;
    }
    expect(seen.join("")).not.toMatch(/\0(proc|sys|dev)\/[a-z0-9]/);
  });

  test("beyond its bytes, entries or depth it is refused", async () => {
    const world = await inside();
    sh(world.home, `mkdir -p many deep/${"d/".repeat(64)}; for i in 1 2 3; do echo >many/$i; done`);
    truncateSync(join(world.home, "many/1"), 2 * MiB);
    const many = join(world.home, "many");
    await expect(down(world, many, { maxBytes: MiB })).rejects.toEqual(refusal("ARCHIVE_TOO_LARGE"));
    await expect(down(world, many, { maxEntries: 2 })).rejects.toEqual(refusal("ARCHIVE_TOO_LARGE"));
    expect((await down(world, many, { maxEntries: 3 })).length).toBeGreaterThan(2 * MiB);
    await down(world, join(world.home, "deep"));
    sh(world.home, `mkdir deep/${"d/".repeat(65)}`);
    await expect(down(world, join(world.home, "deep"))).rejects.toEqual(refusal("ARCHIVE_REFUSED"));
    await expect(down(world, join(world.home, "deep"), { compression: "zstd" })).rejects.toEqual(
      refusal("ARCHIVE_REFUSED"),
    );
  });

  test("what is neither directory nor file, or is not there, is refused", async () => {
    const world = await inside();
    sh(world.home, "mkfifo fifo");
    await expect(down(world, join(world.home, "fifo"))).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(down(world, "/dev/null")).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
    await expect(down(world, join(world.home, "none"))).rejects.toEqual(refusal("FILE_NOT_FOUND"));
  });

  test("a file that a program makes shorter or longer meanwhile is as long as it said", async () => {
    const world = await inside();
    const path = join(world.home, "file");
    sh(world.home, "head -c 30000000 /dev/zero >file; echo >other");
    const collected: Uint8Array[] = [];
    for await (const piece of world.files.download(id, world.home, { ...large, compression: "none" })) {
      if (collected.length === 0) truncateSync(path, 1_000);
      collected.push(piece);
    }
    const listed = execFileSync("tar", ["-tvf", "-"], { input: Buffer.concat(collected) }).toString();
    expect(listed).toMatch(/ 30000000 .* file\n/);
    expect(listed).toContain("other");
  });

  test("ends inside when the caller stops, and holds little meanwhile", async () => {
    const world = await inside();
    writeFileSync(join(world.home, "large"), "");
    truncateSync(join(world.home, "large"), 100 * 1024 * MiB);
    for (const compression of ["none", "zstd"] as const) {
      const taken = world.files.download(id, world.home, { maxBytes: 2 ** 50, maxEntries: 9, compression });
      await taken.next();
      await sleep(100);
      await taken.return();
      await expect.poll(world.workers, { timeout: 5_000 }).toBe(0);
    }
  });
});

describe("up", () => {
  test("a tree goes down and up to the same tree, whoever packed it", async () => {
    const world = await inside();
    sh(world.home, tree);
    const from = join(world.home, "tree");
    const tar = execFileSync("tar", ["-C", from, "-cf", "-", "."], { maxBuffer: 100 * MiB });
    const paxed = execFileSync("tar", ["--format=pax", "-C", from, "-cf", "-", "."], {
      maxBuffer: 100 * MiB,
    });
    const expected = picture(from);
    const archives = {
      own: await down(world, from),
      tar,
      paxed,
      gzip: gzipSync(tar),
      zstd: zstdCompressSync(tar),
    };
    for (const [name, bytes] of Object.entries(archives)) {
      const to = join(world.home, `to-${name}/below`);
      const { entries } = await up(world, to, bytes);
      expect(entries).toBeGreaterThanOrEqual(12);
      // GNU's own format tells no parts of a second
      const whole = (lines: readonly string[]) => lines.map((line) => line.replace(/\.\d{6} /, " "));
      if (name === "own" || name === "paxed") expect(picture(to)).toEqual(expected);
      else expect(whole(picture(to))).toEqual(whole(expected));
      expect(statSync(join(to, "file")).uid).toBe(uid);
    }
  });

  test("files and links take the place of what is there, directories are kept", async () => {
    const world = await inside();
    sh(
      world.home,
      "mkdir -p to/dir; echo old >to/file; ln -s /etc/passwd to/link; echo keep >to/dir/keep; echo x >to/was-file",
    );
    const to = join(world.home, "to");
    const bytes = archive(
      entry("file", { content: "new" }),
      entry("link", { content: "no link any more" }),
      entry("dir/", { type: "5", mode: "0000750\0" }),
      entry("was-file/", { type: "5" }),
      entry("was-file/below", { content: "x" }),
    );
    expect(await up(world, to, bytes)).toEqual({ bytes: 20, entries: 5 });
    expect(readFileSync(join(to, "file"), "utf8")).toBe("new");
    expect(lstatSync(join(to, "link")).isFile()).toBe(true);
    expect(readFileSync(join(to, "dir/keep"), "utf8")).toBe("keep\n");
    expect(statSync(join(to, "dir")).mode & 0o7777).toBe(0o750);
    expect(readFileSync("/etc/passwd", "utf8")).not.toContain("no link any more");
  });

  test("set-user-id bits are dropped, and read-only directories are filled before they are shut", async () => {
    const world = await inside();
    const bytes = archive(
      entry("shut/", { type: "5", mode: "0000555\0" }),
      entry("shut/file", { content: "x", mode: "0006755\0" }),
      entry("other", { content: "y" }),
      entry("shut/second", { content: "z" }),
    );
    await up(world, world.home, bytes);
    expect(statSync(join(world.home, "shut")).mode & 0o7777).toBe(0o555);
    expect(statSync(join(world.home, "shut/file")).mode & 0o7777).toBe(0o755);
    expect(readFileSync(join(world.home, "shut/second"), "utf8")).toBe("z");
  });

  const hostile: Readonly<Record<string, Buffer>> = {
    "an absolute path": entry("/tmp/evil", { content: "x" }),
    "a path with ..": entry("a/../../evil", { content: "x" }),
    "a path through a link in it": Buffer.concat([
      entry("link", { type: "2", linkname: "/tmp" }),
      entry("link/evil", { content: "x" }),
    ]),
    "a path through a link that was there": entry("there/evil", { content: "x" }),
    "a directory through a link that was there": entry("there/evil/", { type: "5" }),
    "a hard link to an absolute path": entry("evil", { type: "1", linkname: "/etc/passwd" }),
    "a hard link with ..": entry("evil", { type: "1", linkname: "../canary" }),
    "a hard link through a link": entry("evil", { type: "1", linkname: "there/canary" }),
    "a hard link to a link": Buffer.concat([
      entry("l", { type: "2", linkname: "/etc/passwd" }),
      entry("evil", { type: "1", linkname: "l" }),
    ]),
    "a hard link to itself": entry("evil", { type: "1", linkname: "evil" }),
    "a character device": entry("evil", { type: "3" }),
    "a block device": entry("evil", { type: "4" }),
    "a FIFO": entry("evil", { type: "6" }),
    "a sparse file": entry("evil", { type: "S", content: "x" }),
    "65 directories": entry(`${"d/".repeat(65)}evil`, { content: "x" }),
    "a path with .. in an extended header": Buffer.concat([
      pax({ path: "../evil" }),
      entry("x", { content: "x" }),
    ]),
    "a link to nothing": entry("evil", { type: "2", linkname: "" }),
    "a file in place of a directory": entry("directory", { content: "x" }),
  };
  test.each(Object.entries(hostile))(
    "%s is refused, and nothing outside is touched",
    async (_what, bytes) => {
      const world = await inside();
      const [to, outside] = [join(world.home, "to"), join(world.home, "outside")];
      sh(
        world.home,
        "mkdir -p to/directory/x outside; echo alive >outside/canary; echo alive >canary; ln -s ../outside to/there",
      );
      await expect(up(world, to, archive(bytes))).rejects.toEqual(refusal("ARCHIVE_REFUSED"));
      expect(readdirSync(outside)).toEqual(["canary"]);
      expect(readdirSync(world.home).sort()).toEqual(["canary", "outside", "to"]);
      expect(existsSync("/tmp/evil")).toBe(false);
      expect(readdirSync(to)).not.toContain("evil");
    },
  );

  test("what is no archive, is cut, or is compressed otherwise is refused", async () => {
    const world = await inside();
    const whole = archive(entry("file", { content: "x".repeat(5_000) }));
    const bad = [
      Buffer.from("hello"),
      whole.subarray(0, 3_000),
      gzipSync(whole).subarray(0, 40),
      Buffer.concat([gzipSync(whole).subarray(0, 20), Buffer.alloc(50, 7)]),
      Buffer.from("fd377a585a000000", "hex"),
      Buffer.from("425a683931", "hex"),
    ];
    for (const bytes of bad)
      await expect(up(world, world.home, bytes)).rejects.toEqual(refusal("ARCHIVE_REFUSED"));
    expect(readdirSync(world.home)).toEqual([]);
  });

  test("beyond bytes, entries or ratio it is refused before it is unpacked", async () => {
    const world = await inside();
    const two = archive(entry("a", { content: "x".repeat(600) }), entry("b", { content: "x".repeat(600) }));
    await expect(up(world, world.home, two, { maxBytes: 1_199 })).rejects.toEqual(
      refusal("ARCHIVE_TOO_LARGE"),
    );
    await expect(up(world, world.home, two, { maxEntries: 1 })).rejects.toEqual(refusal("ARCHIVE_TOO_LARGE"));
    expect(await up(world, world.home, two, { maxBytes: 1_200, maxEntries: 2 })).toEqual({
      bytes: 1_200,
      entries: 2,
    });
    const bomb = archive(entry("bomb", { content: Buffer.alloc(20 * MiB) }));
    for (const bytes of [gzipSync(bomb), zstdCompressSync(bomb)]) {
      await expect(up(world, world.home, bytes)).rejects.toEqual(refusal("ARCHIVE_TOO_LARGE"));
      expect(existsSync(join(world.home, "bomb"))).toBe(false);
    }
    expect(await up(world, world.home, gzipSync(bomb), { maxRatio: 1_000_000 })).toMatchObject({
      entries: 1,
    });
  });

  test("of which the sender gives up half-way leaves whole files alone", async () => {
    const world = await inside();
    sh(world.home, "echo old >second");
    const failing = async function* () {
      yield archive(entry("first", { content: "x" })).subarray(0, 1_024);
      yield entry("second", { content: Buffer.alloc(500_000) }).subarray(0, 300_000);
      await sleep(50);
      throw new Error("the sender is gone");
    };
    const upload = world.files.upload(id, world.home, failing(), { ...large, maxRatio: 200 });
    await expect(upload).rejects.toThrow("the sender is gone");
    await expect.poll(world.workers).toBe(0);
    expect(readFileSync(join(world.home, "second"), "utf8")).toBe("old\n");
    expect(readdirSync(world.home).filter((name) => name !== "first")).toEqual(["second"]);
  });

  test("onto a full disk, or where the user may not write, is refused with the entry's path", async () => {
    const world = await inside();
    const small = join(world.home, "small");
    mounted(small, "size=1m,mode=1777");
    const bytes = archive(entry("dir/large", { content: Buffer.alloc(3 * MiB, 1) }));
    await expect(up(world, small, bytes)).rejects.toMatchObject({
      reason: "FILE_NO_SPACE",
      details: { metadata: { path: join(small, "dir/large") } },
    });
    expect(readdirSync(join(small, "dir"))).toEqual([]);
    await expect(up(world, "/etc", archive(entry("x", { content: "" })))).rejects.toEqual(
      refusal("FILE_NOT_ALLOWED"),
    );
    await expect(up(world, "/dev/null", archive())).rejects.toEqual(refusal("FILE_WRONG_TYPE"));
  });

  test("while a program swaps a directory for a link, nothing is written through it", async () => {
    const world = await inside();
    sh(world.home, "mkdir -p to/dir outside");
    const to = join(world.home, "to");
    const names = Array.from({ length: 100 }, (_, index) => entry(`dir/file${index}`, { content: "x" }));
    const loop = spawn(
      "sh",
      [
        "-c",
        "while :; do mv dir kept 2>/dev/null; ln -s ../outside dir 2>/dev/null; rm -f dir 2>/dev/null; mv kept dir 2>/dev/null; done",
      ],
      { cwd: to, uid, gid: uid, stdio: "ignore" },
    );
    try {
      for (let round = 0; round < 5; round += 1)
        await up(world, to, archive(...names)).catch((error) =>
          expect(error).toEqual(refusal("ARCHIVE_REFUSED")),
        );
    } finally {
      loop.kill("SIGKILL");
    }
    expect(readdirSync(join(world.home, "outside"))).toEqual([]);
  });
});

describe("names", () => {
  test("that are no UTF-8 come back as they were", async () => {
    const world = await inside();
    const name = Buffer.from(join(world.home, "from/a\xff\x80"), "latin1");
    mkdirSync(join(world.home, "from"));
    writeFileSync(name, "x");
    chownSync(name, uid, uid);
    symlinkSync(Buffer.from("t\xfe", "latin1"), join(world.home, "from/link"));
    await up(world, join(world.home, "to"), await down(world, join(world.home, "from")));
    expect(readdirSync(join(world.home, "to"), "latin1").sort()).toEqual(["a\xff\x80", "link"]);
    expect(readlinkSync(join(world.home, "to/link"), "latin1")).toBe("t\xfe");
  });
});

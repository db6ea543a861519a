// What the daemon loads, since all of it stays in memory: needs no engine, only the bundled program.
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { pinnedNode } from "../../tools/lib/node.mjs";

const bundle = join(import.meta.dirname, "../../dist/bundle");

/** What is loaded with the daemon: files, and Node's own modules. */
async function loaded(): Promise<{ readonly files: readonly string[]; readonly builtin: readonly string[] }> {
  const script = `
    import { registerHooks } from "node:module";
    const files = [];
    registerHooks({ load: (url, context, next) => { files.push(url); return next(url, context); } });
    await import(${JSON.stringify(join(bundle, "serve.js"))});
    console.log(JSON.stringify({
      files: files.filter((url) => !url.startsWith("node:")),
      builtin: process.moduleLoadList,
    }));
  `;
  const { stdout } = await promisify(execFile)(pinnedNode, ["--input-type=module", "--eval", script]);
  const { files, builtin } = JSON.parse(stdout);
  return { files: files.map((url: string) => fileURLToPath(url)), builtin };
}

/** The modules that went into this file of the bundle. */
function sourcesOf(file: string): readonly string[] {
  const map = `${file}.map`;
  return existsSync(map) ? JSON.parse(readFileSync(map, "utf8")).sources : [];
}

test("of large libraries, the daemon loads only what it uses", async () => {
  const { files, builtin } = await loaded();
  const names = [...files.flatMap(sourcesOf), ...builtin];
  expect(names.some((name) => name.includes("/dockerode/"))).toBe(true);
  const unwanted = [
    "ssh2",
    "protobufjs",
    "@grpc/grpc-js",
    "systeminformation",
    "connect-node",
    "dev-scheduler",
    "undici",
    "msgpack",
  ];
  for (const one of unwanted) expect(names.filter((name) => name.includes(one))).toEqual([]);
});

test("the daemon needs no file but those of its bundle, in letters that take one byte each in memory", async () => {
  const { files } = await loaded();
  expect(files.length).toBeGreaterThan(0);
  expect(files.filter((file) => !file.startsWith(`${bundle}/`))).toEqual([]);
  const wide = files.filter((file) => /[^\p{ASCII}]/u.test(readFileSync(file, "utf8")));
  expect(wide).toEqual([]);
});

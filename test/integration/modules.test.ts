// What the daemon loads, since all of it stays in memory: needs no engine, only the compiled program.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { pinnedNode } from "../../tools/lib/node.mjs";

const program = join(import.meta.dirname, "../../dist/src/serve.js");

/** Names of everything that is loaded with the daemon: files, and Node's own modules. */
async function loaded(): Promise<readonly string[]> {
  const script = `
    import { registerHooks } from "node:module";
    const names = [];
    registerHooks({ load: (url, context, next) => { names.push(url); return next(url, context); } });
    await import(${JSON.stringify(program)});
    console.log(JSON.stringify([...names, ...process.moduleLoadList]));
  `;
  const { stdout } = await promisify(execFile)(pinnedNode, ["--input-type=module", "--eval", script]);
  return JSON.parse(stdout);
}

test("of large libraries, the daemon loads only what it uses", async () => {
  const names = await loaded();
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

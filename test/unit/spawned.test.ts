import { execFileSync, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { spawned } from "../../src/spawned.ts";

test("a program that is there is at hand at once, with its pipes", async () => {
  const program = await spawned(spawn("cat", { stdio: ["pipe", "pipe", "ignore"] }));
  program.stdin.end("hello");
  let output = "";
  for await (const part of program.stdout) output += String(part);
  expect(output).toBe("hello");
});

test("one that is not there is an exception", async () => {
  await expect(spawned(spawn("/no/such/program"))).rejects.toMatchObject({ code: "ENOENT" });
});

test("where no descriptor is left, programs of the host fail by their promise, and the process goes on", () => {
  const source = (path: string) => fileURLToPath(new URL(`../../src/${path}`, import.meta.url));
  const script = `
    const { runHere } = await import(${JSON.stringify(source("network/program.ts"))});
    const { runTool } = await import(${JSON.stringify(source("workspace/backend/tool.ts"))});
    const { openSync } = await import("node:fs");
    try { for (;;) openSync("/dev/null", "r"); } catch {}
    const said = await Promise.all([runHere(["true"]), runTool("true", [])].map((one) => one.catch(({ message }) => message)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    process.stdout.write(said.join("; "));`;
  const command = `ulimit -n 64; exec ${process.execPath} --input-type=module -e '${script}'`;
  const output = execFileSync("sh", ["-c", command], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  expect(output).toBe("true: spawn sh EMFILE; true: spawn sh EMFILE");
});

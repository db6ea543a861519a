import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { readBootId, readMachineId } from "../../../src/monitor/host-id.ts";
import { readInventory } from "../../../src/monitor/inventory.ts";

/** A program in the place of the real one. Its text can name its own directory as DIRECTORY. */
function programOf(text: string): { readonly directory: string; readonly program: string } {
  const directory = mkdtempSync(join(tmpdir(), "inventory-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const program = join(directory, "program.mjs");
  writeFileSync(program, text.replaceAll("DIRECTORY", JSON.stringify(directory)));
  return { directory, program };
}

/** Starts a child of its own, notes the child's pid, and never ends. */
const hanging = `
  import { spawn } from "node:child_process";
  import { renameSync, writeFileSync } from "node:fs";
  const { pid } = spawn("sleep", ["1000"], { stdio: "inherit" });
  writeFileSync(DIRECTORY + "/new", String(pid));
  renameSync(DIRECTORY + "/new", DIRECTORY + "/pid");
  setInterval(() => {}, 1000);
`;

/** The pid that a hanging program has noted, once it has. */
function childOf(directory: string): Promise<number> {
  return vi.waitFor(() => Number(readFileSync(join(directory, "pid"), "utf8")), { timeout: 10_000 });
}

const parts = {
  cpu: { model: "model", logical: 2 },
  memoryBytes: 1_024,
  os: { distribution: "d", release: "", kernel: "k", architecture: "x64" },
};

describe("the inventory", { timeout: 30_000 }, () => {
  it("is what the library knows, asked in a program of its own", async () => {
    const inventory = await readInventory({ timeoutMs: 25_000 });
    expect(inventory).toMatchObject({ source: "systeminformation", os: { kernel: release() } });
    expect(inventory.cpu.logical).toBeGreaterThan(0);
    expect(inventory.memoryBytes).toBeGreaterThan(0);
  });

  it.each([
    ["fails", "process.exit(3)", "the program ended with 3"],
    ["is killed", "process.kill(process.pid, 'SIGKILL')", "the program ended with SIGKILL"],
    ["prints no JSON", "console.log('lscpu: not found')", "JSON"],
    ["prints nothing", "", "JSON"],
    [
      "prints other values",
      `console.log('${JSON.stringify({ ...parts, memoryBytes: "much" })}')`,
      "not a count",
    ],
    ["leaves something out", `console.log('${JSON.stringify({ ...parts, os: {} })}')`, "not a text"],
    ["prints without end", "setInterval(() => console.log('x'.repeat(10_000)))", "more than 65536 bytes"],
  ])("is node's own knowledge, and says why, when the program %s", async (_, text, problem) => {
    const inventory = await readInventory({ timeoutMs: 25_000, ...programOf(text) });
    expect(inventory).toMatchObject({ source: "node", problem: expect.stringContaining(problem) });
    expect(inventory.cpu.logical).toBeGreaterThan(0);
    expect(inventory.memoryBytes).toBeGreaterThan(0);
    expect(inventory.os.kernel).toBe(release());
  });

  it("ends a program that takes too long, with what it has started", async () => {
    const { directory, program } = programOf(hanging);
    const reading = readInventory({ timeoutMs: 3_000, program });
    const child = await childOf(directory);
    expect(await reading).toMatchObject({ source: "node", problem: "no answer within 3000 ms" });
    await vi.waitFor(() => expect(isAlive(child)).toBe(false));
  });

  it("ends the program when it is wanted no longer", async () => {
    const { directory, program } = programOf(hanging);
    const abort = new AbortController();
    const reading = readInventory({ signal: abort.signal, program });
    const child = await childOf(directory);
    abort.abort();
    expect(await reading).toMatchObject({ source: "node", problem: "no longer wanted" });
    await vi.waitFor(() => expect(isAlive(child)).toBe(false));
    expect((await readInventory({ signal: abort.signal, program })).source).toBe("node");
  });

  it("shows the program nothing of the environment but where programs are", async () => {
    vi.stubEnv("SANDBOXD_SECRET", "hidden");
    onTestFinished(() => void vi.unstubAllEnvs());
    const { directory, program } = programOf(`
      import { writeFileSync } from "node:fs";
      writeFileSync(DIRECTORY + "/env", JSON.stringify(Object.keys(process.env).sort()));
    `);
    await readInventory({ program });
    expect(JSON.parse(readFileSync(join(directory, "env"), "utf8"))).toEqual(["LANG", "PATH"]);
  });
});

/** Whether the process is there and not merely waiting to be reaped. */
function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    // gone, which is the answer
    return false;
  }
}

describe("the host's identity", () => {
  it("has a boot id that is the kernel's", async () => {
    expect(await readBootId()).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  });

  it("has a machine id that lasts, differs by machine, and doesn't give the secret one away", async () => {
    const directory = mkdtempSync(join(tmpdir(), "machine-id-"));
    const path = join(directory, "machine-id");
    const idOf = (contents: string) => {
      writeFileSync(path, contents);
      return readMachineId({ path });
    };
    const secret = "0123456789abcdef0123456789abcdef";
    const id = await idOf(`${secret}\n`);
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(id).not.toBe(secret);
    expect(await idOf(`${secret}\n`)).toBe(id);
    expect(await idOf(`${secret.replace("0", "f")}\n`)).not.toBe(id);
    expect(await idOf("uninitialized\n")).toBeUndefined();
    expect(await idOf("")).toBeUndefined();
    rmSync(directory, { recursive: true });
    expect(await readMachineId({ path })).toBeUndefined();
  });
});

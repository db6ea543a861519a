import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readBootId, readMachineId } from "../../../src/monitor/host-id.ts";
import { createInventory, type InventoryLibrary } from "../../../src/monitor/inventory.ts";

const never = new Promise<never>(() => {});

describe("the inventory", () => {
  it("is node's own knowledge, and says why, when the library fails", async () => {
    const inventory = await createInventory({ load: () => Promise.reject(new Error("no lsblk")) }).get();
    expect(inventory).toMatchObject({ source: "node", problem: "no lsblk", disks: [] });
    expect(inventory.cpu.logical).toBeGreaterThan(0);
    expect(inventory.memoryBytes).toBeGreaterThan(0);
    expect(inventory.os.kernel).not.toBe("");
  });

  it("is node's own knowledge when the library takes too long", async () => {
    const inventory = await createInventory({ timeoutMs: 20, load: () => never }).get();
    expect(inventory.source).toBe("node");
    expect(inventory.problem).toMatch(/timeout/i);
  });

  it("is gathered once, however often it is asked for", async () => {
    let loads = 0;
    const source = createInventory({
      load: () => {
        loads++;
        return Promise.reject(new Error("absent"));
      },
    });
    const [first, second] = await Promise.all([source.get(), source.get()]);
    expect(second).toBe(first);
    expect(loads).toBe(1);
  });

  it("goes on being gathered for others when one who waits gives up", async () => {
    const library = Promise.withResolvers<InventoryLibrary>();
    const source = createInventory({ load: () => library.promise });
    const impatient = new AbortController();
    const given = source.get({ signal: impatient.signal });
    impatient.abort(new Error("gave up"));
    await expect(given).rejects.toThrow("gave up");
    library.reject(new Error("absent"));
    expect((await source.get()).problem).toBe("absent");
  });
});

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

import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Backend } from "../../../../src/workspace/backend/backend.ts";
import { createProjectQuota } from "../../../../src/workspace/backend/project-quota.ts";
import { fails, type PlayedHost, playHost, space } from "./project-kernel.ts";

let host: PlayedHost;
let backend: Backend;
beforeEach(() => {
  host = playHost();
  backend = createProjectQuota(host);
});
afterEach(() => host.close());

const one = space();
const layout = [
  "spaces/one",
  "spaces/one/data",
  ...["cache", "projects", "tmp"].map((name) => `spaces/one/data/${name}`),
];
const snapshotId = 2 ** 31 + 7;

/** As after a restart of the daemon. */
const restarted = () => {
  host.before = () => {};
  host.after = () => {};
  return createProjectQuota(host);
};

const inData = (name: string) => join(host.home.contentOf("one"), name);
const write = (name: string, text: string) => writeFileSync(inData(name), text);
const read = (name: string) => readFileSync(inData(name), "utf8");
const isInUse = { isInUse: true };

describe("a space in a project", () => {
  test("is made by one program, which puts the empty folder into the project and sets both limits", async () => {
    await backend.create(one);
    expect(host.calls).toHaveLength(1);
    expect(host.calls[0]).toContain("limit -p bhard=1024k ihard=100 7");
    expect(host.tree()).toEqual(layout);
    expect(statSync(host.home.folderOf("one")).mode & 0o777).toBe(0o711);
    expect([...host.projects.keys()]).toEqual([7]);
  });

  test("has no more bytes than were asked for, where they are no whole blocks", async () => {
    await backend.create(space({ bytes: 1_048_575 }));
    const kib = host.projects.get(7)?.kib ?? 0;
    expect(kib).toBeLessThan(1_024);
    expect(kib).toBeGreaterThanOrEqual(1_024 - 64);
  });

  test.each([{ limits: { bytes: 0 } }, { limits: { bytes: 1_000 } }, { limits: { inodes: 0 } }])(
    "is refused limits that the kernel would take for none: $limits",
    async ({ limits }) => {
      await expect(backend.create(space(limits))).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
      expect(host.tree()).toEqual([]);
    },
  );

  test.each([0, -1, 1.5, 2 ** 31 - 1, 2 ** 31])("cannot be in project %s", async (projectId) => {
    await expect(backend.create({ ...one, projectId })).rejects.toThrow(`${projectId} cannot be the project`);
    expect(host.tree()).toEqual([]);
  });

  test("is refused if the kernel holds another limit, and nothing of it is left", async () => {
    host.heldKib = 4;
    await expect(backend.create(one)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringContaining("the kernel holds 4096 bytes and 100 inodes"),
    });
    expect(host.tree()).toEqual([]);
    expect(host.projects.get(7)).toMatchObject({ kib: 0, inodes: 0 });
  });

  test("is refused if the kernel counts but does not enforce", async () => {
    host.isEnforced = false;
    await expect(backend.create(one)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      details: { hint: expect.stringContaining("prjquota") },
    });
    expect(host.tree()).toEqual([]);
  });

  test("is refused if its folder did not come into the project", async () => {
    host.ignoresFolders = true;
    await expect(backend.create(one)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringContaining("is not in project 7"),
    });
    expect(host.tree()).toEqual([]);
  });

  test.each([
    { what: "fails", break: () => (host.before = fails), says: "the disk is on fire", reason: "INTERNAL" },
    {
      what: "prints nonsense",
      break: () => (host.says = "#7 many few"),
      says: "#7 many few",
      reason: "LIMIT_UNENFORCEABLE",
    },
    {
      what: "prints nothing",
      break: () => (host.says = ""),
      says: "said nothing",
      reason: "LIMIT_UNENFORCEABLE",
    },
  ])(
    "is refused if the program $what, in its words, and nothing is left",
    async ({ break: breakIt, says, reason }) => {
      breakIt();
      await expect(backend.create(one)).rejects.toMatchObject({
        reason,
        message: expect.stringContaining(says),
      });
      expect(host.tree()).toEqual([]);
    },
  );

  test("made again, it is what it was", async () => {
    await backend.create(one);
    write("projects/kept", "kept");
    await restarted().create(one);
    expect(read("projects/kept")).toBe("kept");
    expect(host.calls.at(-1), "what is in it would not come into the project").not.toContain("project -s");
  });

  test("is ready with the limits that it is to have, whatever the kernel held", async () => {
    await backend.create(one);
    await backend.resize(space({ bytes: 2_097_152 }), isInUse);
    await expect(restarted().ready(one)).resolves.toMatchObject({ path: host.home.contentOf("one") });
    expect(host.projects.get(7)?.kib).toBe(1_024);
  });

  test("is not ready without its directory, or out of its project", async () => {
    await expect(backend.ready(one)).rejects.toMatchObject({ reason: "WORKSPACE_UNAVAILABLE" });
    await backend.create(one);
    host.projects.get(7)?.folders.clear();
    await expect(backend.ready(one)).rejects.toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
  });

  test("has its use told as the kernel counts it", async () => {
    await backend.create(one);
    write("projects/file", "x".repeat(3_000));
    await expect(backend.usage(one)).resolves.toEqual({ bytes: 3_072, inodes: 6 });
  });

  test("that no project is known of has no use of 0", async () => {
    await expect(backend.usage(one)).rejects.toMatchObject({ reason: "WORKSPACE_UNAVAILABLE" });
  });
});

describe("its limits", () => {
  beforeEach(async () => {
    await backend.create(one);
    write("projects/file", "x".repeat(300_000));
  });

  test("are changed for larger and for smaller ones", async () => {
    await backend.resize(space({ bytes: 8_388_608, inodes: 200 }), isInUse);
    expect(host.projects.get(7)).toMatchObject({ kib: 8_192, inodes: 200 });
    await backend.resize(space({ bytes: 327_680, inodes: 6 }), isInUse);
    expect(host.projects.get(7)).toMatchObject({ kib: 320, inodes: 6 });
  });

  test.each([{ bytes: 262_144 }, { inodes: 5 }])("do not go below what it holds: %o", async (limits) => {
    await expect(backend.resize(space(limits), isInUse)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
      message: expect.stringContaining("it holds 300032 bytes and 6 inodes"),
    });
    expect(host.projects.get(7)).toMatchObject({ kib: 1_024, inodes: 100 });
  });

  test("are put back if more was written before the new ones held", async () => {
    host.after = ({ program, index }) => {
      if (program === "xfs_quota" && index === 4) write("projects/more", "x".repeat(100_000));
    };
    await expect(backend.resize(space({ bytes: 327_680 }), isInUse)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
    });
    expect(host.projects.get(7)).toMatchObject({ kib: 1_024, inodes: 100 });
  });

  test("are put back if the kernel does not take the new ones", async () => {
    host.heldKib = 1_024;
    await expect(backend.resize(space({ bytes: 8_388_608, inodes: 200 }), isInUse)).rejects.toMatchObject({
      reason: "LIMIT_UNENFORCEABLE",
    });
    expect(host.projects.get(7)).toMatchObject({ kib: 1_024, inodes: 100 });
  });
});

describe("its snapshots", () => {
  beforeEach(async () => {
    await backend.create(one);
    write("projects/file", "first");
  });

  test("are in a project of their own, which has room for one more", async () => {
    await expect(backend.snapshot(one, "a")).resolves.toEqual({ bytes: 1_024, inodes: 5 });
    await expect(backend.usage(one)).resolves.toEqual({ bytes: 1_024, inodes: 6 });
    expect(host.projects.get(snapshotId)).toMatchObject({ kib: 1_024 + 64, inodes: 101 });
    await expect(backend.snapshot(one, "b")).resolves.toEqual({ bytes: 1_024, inodes: 5 });
    expect(host.projects.get(snapshotId)).toMatchObject({ kib: 1_024 + 64, inodes: 107 });
  });

  test("bring back what was, and stay", async () => {
    await backend.snapshot(one, "a");
    write("projects/file", "second");
    write("projects/new", "new");
    await backend.restore(one, "a");
    expect(read("projects/file")).toBe("first");
    expect(() => read("projects/new")).toThrow("ENOENT");
    expect(host.projects.get(7)).toMatchObject({ kib: 1_024, inodes: 100 });
    const { path } = await backend.openSnapshot(one, "a");
    expect(readFileSync(join(path, "projects/file"), "utf8")).toBe("first");
  });

  test("are not made of what is another user's", async () => {
    host.foreign = "/somewhere/passwd\n";
    await expect(backend.snapshot(one, "a")).rejects.toMatchObject({
      reason: "WORKSPACE_UNAVAILABLE",
      message: expect.stringContaining("/somewhere/passwd"),
    });
    expect(host.tree().filter((name) => name.startsWith("snapshots/one/"))).toEqual([]);
  });

  test("that are not there are an error to open and to restore, and none to remove", async () => {
    const absent = { reason: "WORKSPACE_UNAVAILABLE" };
    await expect(backend.restore(one, "a")).rejects.toMatchObject(absent);
    await expect(backend.openSnapshot(one, "a")).rejects.toMatchObject(absent);
    await expect(backend.removeSnapshot(one, "a")).resolves.toBeUndefined();
  });

  test.each(["..", "a/b", ".copying", ""])("have no name like %j", async (name) => {
    await expect(backend.snapshot(one, name)).rejects.toThrow("not the name");
    await expect(backend.removeSnapshot(one, name)).rejects.toThrow("not the name");
  });

  test("go with their space, and with both its projects", async () => {
    await backend.snapshot(one, "a");
    await backend.remove(one);
    expect(host.tree()).toEqual([]);
    expect([...host.projects.values()].filter(({ kib, inodes }) => kib + inodes > 0)).toEqual([]);
    const { length } = host.calls;
    await backend.remove(one);
    expect(host.calls, "gone is success").toHaveLength(length);
  });
});

const steps = {
  create: (backend: Backend) => backend.create(one),
  resize: (backend: Backend) => backend.resize(space({ bytes: 2_097_152 }), isInUse),
  snapshot: (backend: Backend) => backend.snapshot(one, "b").then(() => {}),
  restore: (backend: Backend) => backend.restore(one, "a"),
  removeSnapshot: (backend: Backend) => backend.removeSnapshot(one, "a"),
  remove: (backend: Backend) => backend.remove(one),
} as const;

const programs: Readonly<Record<keyof typeof steps, number>> = {
  create: 1,
  resize: 4,
  snapshot: 6,
  restore: 7,
  removeSnapshot: 1,
  remove: 3,
};

/** Every call of a program in every step, failing without having done anything, or after all was done. */
const failures = Object.entries(programs).flatMap(([name, count]) =>
  Array.from({ length: count }, (_, index) => index + 1).flatMap((index) =>
    (["before", "after"] as const).map((when) => ({ step: name as keyof typeof steps, index, when })),
  ),
);

describe("a step that breaks off", () => {
  /** With a snapshot to go back to, and something that it does not have. */
  async function prepare(step: keyof typeof steps): Promise<void> {
    if (step === "create") return;
    await backend.create(one);
    write("projects/file", "first");
    await backend.snapshot(one, "a");
    write("projects/file", "second");
  }

  test.each(failures)(
    "$step, $when program $index: is finished by the next, with nothing left",
    async ({ step, index, when }) => {
      await prepare(step);
      host.calls.length = 0;
      // and all that come after it: what is done about the failure fails as well, as if there were no daemon any more
      host[when] = (call) => {
        if (call.index >= index) fails();
      };
      await expect(steps[step](backend)).rejects.toMatchObject({
        reason: "INTERNAL",
        message: expect.stringContaining("the disk is on fire"),
      });
      const next = restarted();
      if (step === "restore") {
        await next.ready(one);
        expect(["first", "second"]).toContain(read("projects/file"));
        expect(host.tree().filter((name) => /restoring|replaced/.test(name))).toEqual([]);
        expect(host.projects.get(7)).toMatchObject({ kib: 1_024, inodes: 100 });
      }
      const isDone = step === "remove" && index === programs.remove && when === "after";
      if (step === "remove") expect(await next.list()).toEqual(isDone ? [] : ["one"]);
      await steps[step](next);
      if (step === "restore") expect(read("projects/file")).toBe("first");
      if (step === "snapshot" || step === "restore") await next.removeSnapshot(one, "b");
      const kept = { create: [], remove: [], removeSnapshot: ["snapshots/one"] }[String(step)];
      const snapshots = host.tree().filter((name) => /^(snapshots|trash)\/[^/]+(\/[^/]+)?$/.test(name));
      expect(snapshots).toEqual(kept ?? ["snapshots/one", "snapshots/one/a"]);
      await next.remove(one);
      expect(host.tree()).toEqual([]);
      expect([...host.projects.values()].filter(({ kib, inodes }) => kib + inodes > 0)).toEqual([]);
    },
  );

  test("is not a step more than these", async () => {
    for (const [name, count] of Object.entries(programs)) {
      await backend.remove(one);
      await prepare(name as keyof typeof steps);
      host.calls.length = 0;
      await steps[name as keyof typeof steps](backend);
      expect(host.calls, name).toHaveLength(count);
    }
  });

  test("a restore that failed leaves what was, within its limits", async () => {
    await prepare("restore");
    host.before = ({ program }) => {
      if (program === "setpriv") fails();
    };
    await expect(backend.restore(one, "a")).rejects.toThrow("the disk is on fire");
    expect(read("projects/file")).toBe("second");
    expect(host.tree().filter((name) => name.startsWith("spaces/"))).toEqual(
      [...layout, "spaces/one/data/projects/file"].sort(),
    );
    expect(host.projects.get(7)).toMatchObject({ kib: 1_024, inodes: 100 });
  });

  test("what was half removed is in the list, and makes way for a new one", async () => {
    mkdirSync(join(host.home.directory, "trash/one/data/old"), { recursive: true });
    expect(await backend.list()).toEqual(["one"]);
    await backend.create(one);
    expect(host.tree()).toEqual(layout);
  });
});

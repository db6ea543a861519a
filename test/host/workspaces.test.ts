// Workspaces under project quotas, by the kernel of a whole host: on XFS and on ext4, with what the daemon's service may do.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Space, SpaceUsage } from "../../src/workspace/backend/backend.ts";
import { bundled } from "../harness/bundled.ts";
import { type GuestHost, isGuestMissing, releaseDirectory, startGuestHost } from "../harness/guest.ts";
import { mebibyte, present } from "../harness/sandboxes.ts";

const program = "/root/backend-steps.mjs";

/** What binds what the service starts, too. */
const inherited =
  /^(NoNewPrivileges|CapabilityBoundingSet|Restrict\w+|SystemCall\w+|LockPersonality|ProtectHostname|UMask)=(.+)$/gm;

type Step = readonly [name: string, ...args: unknown[]];
/** What a step came to, and how many programs it ran. */
interface Result {
  readonly value?: unknown;
  readonly reason?: string;
  readonly message?: string;
  readonly calls: number;
}

/** What a step is to have told. */
const amountsOf = (result: Result | undefined): SpaceUsage => present(result).value as SpaceUsage;

const one: Space = {
  name: "one",
  uid: 20_000,
  projectId: 4_001,
  limits: { bytes: 8 * mebibyte + 1_000, inodes: 60 },
};
/** Of its limits, what is held: whole blocks. */
const held = { bytes: 8 * mebibyte, inodes: 60 };
const within = (bytes: number, inodes: number): Space => ({ ...one, limits: { bytes, inodes } });

describe.skipIf(isGuestMissing)("workspaces under project quotas", () => {
  let host: GuestHost;
  let properties: string;

  beforeAll(async () => {
    host = await startGuestHost();
    await host.guest.run(`cat >${program}`, { input: await bundled("backend-steps.ts") });
    // the engine's directory is its own
    await host.guest.run(
      "mkdir -p /var/lib/docker/kept /srv/on-xfs /srv/on-ext4 && mount --bind /var/lib/docker/kept /srv/on-xfs",
    );
    properties = propertiesIn(await host.guest.run("systemctl cat sandboxd"));
  });
  afterAll(() => host?.close());

  const shell = (command: string) => host.guest.run(command);

  function steps(
    directory: string,
    list: readonly Step[],
    kill?: { readonly atCall: number },
  ): Promise<string> {
    const input = JSON.stringify({ directory, steps: list, kill });
    const node = `${releaseDirectory}/node_modules/node/bin/node`;
    const run = `systemd-run --quiet --pipe --wait --collect ${properties} ${node} ${program}`;
    return shell(`${run} '${input}'${kill === undefined ? "" : " || test $? != 0"}`);
  }

  test("there is an obstacle where the file system has none", async () => {
    const results = JSON.parse(await steps("/run/kept", [["obstacle"]]));
    expect(results[0].value).toMatch(/tmpfs/);
    await shell("umount /run/kept");
  });

  /** A home of workspaces in the guest, with one in it, or none yet. */
  function placeIn(directory: string) {
    const data = `${directory}/spaces/one/data`;
    /** Each by a backend of its own: as after a restart of the daemon. */
    const all = async (...list: readonly Step[]): Promise<readonly Result[]> =>
      JSON.parse(await steps(directory, list));
    return {
      directory,
      data,
      all,
      only: async (...step: Step): Promise<Result> => present((await all(step))[0]),
      /** Kills the daemon once it has called so many programs. */
      async killed(atCall: number, step: Step): Promise<void> {
        expect(await steps(directory, [step], { atCall })).toBe("");
      },
      /** As the user whose it is. Resolves to all that it says. */
      asUser: (command: string) =>
        shell(
          `cd ${data} && setpriv --reuid=20000 --regid=20000 --clear-groups -- sh -c '${command}' 2>&1 || true`,
        ),
      /** The projects that workspaces are in, as the kernel has them: used and hard, of KiB and of inodes. */
      async report() {
        const text = await shell(`xfs_quota -f -x -c "report -p -n -N -b -i" ${directory}`);
        return text
          .split("\n")
          .map((line) => line.split(/\s+/))
          .filter(([id = ""]) => /^#(4001|2147487649)$/.test(id))
          .map(([id, kib, , hardKib, , , inodes, , hardInodes]) => ({
            id,
            used: [Number(kib), Number(inodes)],
            hard: [Number(hardKib), Number(hardInodes)],
          }));
      },
      /** All that is in a tree, but for times. */
      look: (path: string) =>
        shell(
          `cd ${path} && find . -printf '%P %y %m %U:%G %n %l\\n' | sort && find . -type f | sort | xargs cksum`,
        ),
    };
  }

  describe.each([
    { type: "XFS", directory: "/srv/on-xfs/home", full: "No space left on device" },
    { type: "ext4", directory: "/srv/on-ext4/home", full: "Disk quota exceeded" },
  ])("on $type", ({ directory, full }) => {
    const { data, all, only, asUser, report, look } = placeIn(directory);

    test("a workspace is made by one program, within its limits, and is its user's", async () => {
      const [obstacle, created, ready, usage, listed] = await all(
        ["obstacle"],
        ["create", one],
        ["ready", one],
        ["usage", one],
        ["list"],
      );
      expect(obstacle).toMatchObject({ calls: 1 });
      expect(obstacle?.value).toBeUndefined();
      expect(created).toMatchObject({ calls: 1 });
      expect(created?.reason).toBeUndefined();
      const [device, inode] = (await shell(`stat -c '%d %i' ${data}`)).trim().split(" ").map(Number);
      expect(ready).toMatchObject({ value: { path: data, identity: { device, inode } }, calls: 0 });
      expect(usage).toMatchObject({ value: { inodes: 5 }, calls: 0 });
      expect(listed?.value).toEqual(["one"]);
      const modes = `stat -c '%a %u:%g' ${directory} ${directory}/spaces/one ${data} ${data}/projects ${data}/tmp ${data}/cache`;
      const [home, folder, ...tree] = (await shell(modes)).trim().split("\n");
      expect([home, folder]).toEqual(["711 0:0", "711 0:0"]);
      expect(tree).toEqual(Array.from({ length: 4 }, () => "700 20000:20000"));
      expect(await shell(`findmnt -no OPTIONS ${directory} | tail -1`)).toMatch(/nosuid,nodev/);
      expect(await report()).toMatchObject([{ id: "#4001", hard: [held.bytes / 1_024, held.inodes] }]);
    });

    test("its user has no byte and no file beyond them, and usage is what is there", async () => {
      expect(await asUser("head -c 20000000 /dev/zero >tmp/big")).toContain(full);
      expect(Number(await shell(`stat -c %s ${data}/tmp/big`))).toBeLessThanOrEqual(held.bytes);
      expect(amountsOf(await only("usage", one)).bytes).toBeGreaterThan(held.bytes - 64 * 1_024);
      await asUser("rm tmp/big");
      // as does one that knows of capabilities, on ext4 as well
      expect(
        await asUser("for i in $(seq 100); do mkdir tmp/$i || break; done; rmdir tmp/1; ls tmp | wc -l"),
      ).toMatch(new RegExp(`${full}[^]*\\n${held.inodes - 6}\\n$`));
      const usage = await only("usage", one);
      expect(usage.value).toMatchObject({ inodes: held.inodes - 1 });
      await asUser("rmdir tmp/*; head -c 3000000 /dev/zero >projects/held; sync projects/held");
    });

    test("limits grow and shrink in use, but not below what is held", async () => {
      const isInUse = { isInUse: true };
      const [larger, usage, tooSmall, tooFew, again, smaller] = await all(
        ["resize", within(16 * mebibyte, 200), isInUse],
        ["usage", within(16 * mebibyte, 200)],
        ["resize", within(2 * mebibyte, 200), isInUse],
        ["resize", within(16 * mebibyte, 5), isInUse],
        ["ready", within(16 * mebibyte, 200)],
        ["resize", within(4 * mebibyte, 100), isInUse],
      );
      expect(larger?.reason).toBeUndefined();
      expect(usage).toMatchObject({ value: { inodes: 6 }, calls: 0 });
      expect(tooSmall).toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
      expect(tooSmall?.message).toMatch(/cannot have 2097152 bytes .* holds 30\d+ bytes and 6 inodes/);
      expect(tooFew).toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
      expect(again, "nothing was changed").toMatchObject({ calls: 0 });
      expect(smaller?.reason).toBeUndefined();
      expect(await report()).toMatchObject([{ hard: [4_096, 100] }]);
      expect(await asUser("head -c 2000000 /dev/zero >tmp/more; rm tmp/more")).toContain(full);
    });

    test("limits beyond the file system are held as they are, and what is used is told all the same", async () => {
      const huge = within(2 ** 42, 2 ** 31);
      const [resized, ready, usage] = await all(
        ["resize", huge, { isInUse: false }],
        ["ready", huge],
        ["usage", huge],
      );
      expect(resized?.reason).toBeUndefined();
      expect(ready).toMatchObject({ value: { path: data } });
      expect(usage).toMatchObject({ value: { inodes: 6 }, calls: 1 });
      expect(amountsOf(usage).bytes).toBeLessThan(4 * mebibyte);
      expect(await report()).toMatchObject([{ hard: [2 ** 32, 2 ** 31] }]);
      expect((await only("resize", one, { isInUse: false })).reason).toBeUndefined();
    });

    test("a snapshot is counted apart from its workspace, and restored with all that was", async () => {
      await asUser(
        'cd projects && mkdir -p a/b && echo text >a/b/f && ln a/b/f a/hard && ln -s /etc/shadow a/link && mkfifo a/p && mkdir g && chmod 2775 g && echo x >secret && chmod 0 secret && mkdir "with blank" && chmod 555 a/b',
      );
      const before = await look(data);
      const [kept, usage] = await all(["snapshot", one, "first"], ["usage", one]);
      expect(kept?.reason, kept?.message).toBeUndefined();
      const { bytes, inodes = 0 } = amountsOf(usage);
      // less the folder, which is not in the snapshot
      expect(kept?.value).toMatchObject({ inodes: inodes - 1 });
      expect(Math.abs(amountsOf(kept).bytes - bytes)).toBeLessThanOrEqual(8_192);
      const [, second] = await report();
      expect(second?.id).toBe(`#${2 ** 31 + 4_001}`);

      await asUser("chmod 755 projects/a/b; rm -r projects/a; echo new >projects/new");
      expect((await only("restore", one, "first")).message).toBeUndefined();
      expect(await look(data)).toBe(before);
      const [opened, after] = await all(["openSnapshot", one, "first"], ["usage", one]);
      expect(opened?.value).toMatchObject({ path: `${directory}/snapshots/one/first` });
      expect(await look(`${directory}/snapshots/one/first`)).toBe(before);
      expect(after?.value).toMatchObject({ inodes });
      expect((await report())[0]).toMatchObject({ hard: [held.bytes / 1_024, held.inodes] });
    });

    test("a snapshot that does not fit any more is refused, and the workspace is as it was", async () => {
      await asUser("rm projects/held");
      const before = await look(data);
      const small = within(mebibyte, 60);
      const [, restored, ready, opened] = await all(
        ["resize", small, { isInUse: false }],
        ["restore", small, "first"],
        ["ready", small],
        ["openSnapshot", small, "none"],
      );
      expect(restored).toMatchObject({ reason: "LIMIT_UNENFORCEABLE" });
      expect(restored?.message).toContain(full);
      expect(ready, "its limits are its own again").toMatchObject({ calls: 0 });
      expect(opened).toMatchObject({ reason: "WORKSPACE_UNAVAILABLE" });
      expect(await look(data)).toBe(before);
      expect(await shell(`ls ${directory}/spaces/one`)).toBe("data\n");
      await only("resize", one, { isInUse: false });
    });

    test("a copy with what is not its user's is no snapshot", async () => {
      await shell(`echo root >${data}/tmp/foreign`);
      expect(await only("snapshot", one, "foreign")).toMatchObject({ reason: "WORKSPACE_UNAVAILABLE" });
      expect(await shell(`ls -A ${directory}/snapshots/one`)).toBe("first\n");
      await shell(`rm ${data}/tmp/foreign`);
    });

    test("removed, it leaves no file and no project", async () => {
      const [removed, listed, again] = await all(["remove", one], ["list"], ["remove", one], ["close"]);
      expect(removed?.message).toBeUndefined();
      expect(listed?.value).toEqual([]);
      expect(again, "gone is success").toMatchObject({ calls: 0 });
      expect(await shell(`find ${directory} -mindepth 2`)).toBe("");
      // XFS ends what was removed a moment later
      await shell(`sync -f ${directory}; sleep 1`);
      expect(await report()).toEqual([]);
      expect(await shell(`findmnt -no TARGET ${directory} || true`)).toBe("");
    });
  });

  describe("killed at any step", () => {
    const { directory, data, all, only, killed, asUser, report, look } = placeIn("/srv/on-xfs/killed");

    test("a restore leaves a workspace whole: as it was, or as the snapshot", async () => {
      await all(["create", one]);
      await asUser("echo text >projects/a; head -c 100000 /dev/zero >projects/b");
      await all(["snapshot", one, "first"]);
      const first = await look(data);
      await asUser("echo changed >projects/changed");
      const changed = await look(data);
      const { calls } = await only("restore", one, "first");
      expect(calls).toBeGreaterThan(4);
      const seen = new Set<string>();
      for (let atCall = 1; atCall <= calls; atCall += 2) {
        await asUser("echo changed >projects/changed");
        await killed(atCall, ["restore", one, "first"]);
        const [ready, usage] = await all(["ready", one], ["usage", one]);
        expect(ready?.message, `after call ${atCall}`).toBeUndefined();
        const now = await look(data);
        expect([first, changed]).toContain(now);
        seen.add(now);
        // nothing of it is left, or counted
        expect(await shell(`ls -A ${directory}/spaces/one`)).toBe("data\n");
        expect(amountsOf(usage).inodes).toBe(now === first ? 7 : 8);
      }
      expect(seen.size, "before and after").toBe(2);
      expect((await report())[0]).toMatchObject({ hard: [held.bytes / 1_024, held.inodes] });
    });

    test("a snapshot is made by the next try, and nothing is left of the first", async () => {
      const [made] = await all(["snapshot", one, "second"], ["removeSnapshot", one, "second"]);
      for (let atCall = 1; atCall <= present(made).calls; atCall += 2) {
        await killed(atCall, ["snapshot", one, "second"]);
        const [again, removed] = await all(["snapshot", one, "second"], ["removeSnapshot", one, "second"]);
        expect(again?.value, `after call ${atCall}`).toEqual(made?.value);
        expect(removed?.message).toBeUndefined();
        expect(await shell(`ls -A ${directory}/snapshots/one`)).toBe("first\n");
      }
    });

    test("a removal is finished by the next, which leaves no file and no project", async () => {
      for (const atCall of [1, 2, 3]) {
        await all(["create", one], ["snapshot", one, "last"]);
        await killed(atCall, ["remove", one]);
        const [, removed, listed] = await all(["list"], ["remove", one], ["list"]);
        expect(removed?.message, `after call ${atCall}`).toBeUndefined();
        expect(listed?.value).toEqual([]);
        expect(await shell(`find ${directory} -mindepth 2`)).toBe("");
        await shell(`sync -f ${directory}; sleep 1`);
        expect(await report()).toEqual([]);
      }
    });
  });
});

/** As arguments of systemd-run: of a setting that stands there twice, both. */
function propertiesIn(unit: string): string {
  const settings = new Map<string, string>();
  for (const [, name = "", value = ""] of unit.matchAll(inherited)) {
    settings.set(name, `${settings.get(name) ?? ""} ${value}`.trim());
  }
  return [...settings].map(([name, value]) => `--property='${name}=${value}'`).join(" ");
}

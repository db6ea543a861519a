import { expect, test } from "vitest";
import { isWithin, mountOf, nearest, parseMounts } from "../../../../src/workspace/backend/mount-table.ts";

const table = parseMounts(`22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
40 22 7:0 / /data rw - xfs /dev/loop0 rw,attr2,prjquota
41 40 7:0 /srv/a /data/a\\040b rw,nosuid,nodev shared:2 master:1 - xfs /dev/loop0 rw,prjquota
42 22 0:44 /@sub /data2 rw,relatime - btrfs /dev/sdb ro,subvolid=256
this is no mount
43 22 0:45 / /half rw -
`);

test("a mount has its path, what of it is seen, its kind and both sorts of options", () => {
  expect(table[2]).toEqual({
    path: "/data/a b",
    root: "/srv/a",
    type: "xfs",
    source: "/dev/loop0",
    options: ["rw", "nosuid", "nodev"],
    superOptions: ["rw", "prjquota"],
  });
});

test("what cannot be read is no mount", () => {
  expect(table.map(({ path }) => path)).toEqual(["/", "/data", "/data/a b", "/data2"]);
  expect(parseMounts("")).toEqual([]);
});

test("a name that is not ASCII is read as the kernel writes it", () => {
  const [mount] = parseMounts("1 1 0:1 / /caf\\303\\251\\134 rw - ext4 /dev/a rw");
  expect(mount?.path).toBe("/café\\");
});

test("a path is on the mount that is closest above it", () => {
  expect(mountOf(table, "/data/x")?.path).toBe("/data");
  expect(mountOf(table, "/data/a b/c")?.path).toBe("/data/a b");
  expect(mountOf(table, "/data2/x")?.path).toBe("/data2");
  expect(mountOf(table, "/database")?.path).toBe("/");
  expect(mountOf([], "/data")).toBeUndefined();
});

test("of two mounts on one path, the later is seen", () => {
  const twice = parseMounts("1 1 0:1 / /a rw - ext4 one rw\n2 1 0:2 / /a rw,nodev - ext4 two rw");
  expect(mountOf(twice, "/a/b")?.source).toBe("two");
});

test("a directory is within itself, and not within one whose name begins like it", () => {
  expect([isWithin("/a", "/a"), isWithin("/a/b", "/a"), isWithin("/ab", "/a"), isWithin("/a", "/")]).toEqual([
    true,
    true,
    false,
    true,
  ]);
});

test("the closest directory of a path that is not there is one above it", async () => {
  expect(await nearest("/proc/self/../no-such/at/all")).toBe("/proc");
});

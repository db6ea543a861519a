import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { mountsOf } from "../../../src/sandbox/mount-plan.ts";
import type { Mounts } from "../../../src/sandbox/record.ts";
import { configOf } from "../config/fixture.ts";
import { recordOf } from "./fixture.ts";

const mebibyte = 2 ** 20;
const hostId = "h.1";

function plannedOf(mounts: Mounts, toml = "", imageVolumes: readonly string[] = []) {
  const { spec, uid } = recordOf();
  const record = { spec: { ...spec, ...mounts }, uid, tenant: "acme", imageVolumes };
  return mountsOf(record, undefined, { hostId, sources: configOf(toml) });
}

describe("the mounts of a plan", () => {
  test("are in order of target", () => {
    const tmpfs = ["/b", "/a/c", "/a-c"].map((path) => ({ path, sizeBytes: mebibyte, inodes: 16 }));
    expect(plannedOf({ tmpfs }).map(({ target }) => target)).toEqual(["/a-c", "/a/c", "/b"]);
  });

  test("a tenant's volume in memory is its user's alone, and one of the host is everybody's", () => {
    const toml = ["tenant", "host"]
      .map((scope) => `[volumes.${scope}]\ndriver = "tmpfs"\nsize_bytes = 65536\nscope = "${scope}"\n`)
      .join("");
    const [everybodys, own] = plannedOf(
      {
        volumes: [
          { name: "tenant", path: "/tenant", readOnly: false },
          { name: "host", path: "/host", readOnly: true },
        ],
      },
      toml,
    );
    const size = { bytes: 65_536, inodes: 16_384 };
    const device = { type: "tmpfs", device: "tmpfs" };
    expect(own).toEqual({
      kind: "volume",
      name: "sandboxd-h.1_volume_tenant_acme",
      options: {
        ...device,
        o: "size=65536,nr_inodes=16384,uid=20001,gid=20001,mode=0700,nosuid,nodev,private",
      },
      labels: { "sandboxd.host": hostId, "sandboxd.volume": "sandboxd-h.1_volume_tenant_acme" },
      target: "/tenant",
      readOnly: false,
      size,
    });
    expect(everybodys).toMatchObject({
      name: "sandboxd-h.1_volume_host",
      options: { ...device, o: "size=65536,nr_inodes=16384,uid=0,gid=0,mode=1777,nosuid,nodev,private" },
      readOnly: true,
    });
  });

  test("a server's directory is the tenant's, and another volume where it cannot be written to", () => {
    const toml = '[volumes.home]\ndriver = "nfs"\naddress = "nas"\nexport = "/export/{tenant}/{tenant}"';
    const mount = (readOnly: boolean) =>
      plannedOf({ volumes: [{ name: "home", path: "/h", readOnly }] }, toml)[0];
    expect(mount(false)).toMatchObject({
      name: "sandboxd-h.1_volume_home_acme",
      options: { type: "nfs", device: ":/export/acme/acme", o: "addr=nas,vers=4,nosuid,nodev,private" },
    });
    expect(mount(true)).toMatchObject({
      name: "sandboxd-h.1_volume_home_acme_ro",
      options: { o: "addr=nas,vers=4,ro,nosuid,nodev,private" },
    });
  });

  test("what is no longer configured cannot be had", () => {
    for (const mounts of [
      { shared: [{ name: "gone", path: "/gone" }] },
      { volumes: [{ name: "gone", path: "/gone", readOnly: false }] },
    ])
      expect(() => plannedOf(mounts)).toThrow(expect.objectContaining({ reason: "HARDENING_MISMATCH" }));
  });

  test("an image's VOLUME inside of one is refused; at one, or above, it gives way", () => {
    const tmpfs = [{ path: "/data/sets", sizeBytes: mebibyte, inodes: 16 }];
    expect(() => plannedOf({ tmpfs }, "", ["/data/sets/below"])).toThrow(
      expect.objectContaining({ reason: "IMAGE_UNSUPPORTED" }),
    );
    expect(plannedOf({ tmpfs }, "", ["/data/sets", "/data", "/data/sets2"])).toHaveLength(1);
  });
});

const isRoot = process.getuid?.() === 0;

describe.skipIf(!isRoot)(`a shared directory (${isRoot ? "root" : "not root"})`, () => {
  function directory(): string {
    // nobody else's to write to, all the way up
    const made = mkdtempSync("/run/sandboxd-shared-");
    onTestFinished(() => rmSync(made, { recursive: true }));
    mkdirSync(join(made, "above/data"), { recursive: true });
    return made;
  }
  const planned = (source: string) =>
    plannedOf({ shared: [{ name: "data", path: "/data" }] }, `[shared.data]\ndirectory = "${source}"`)[0];
  const refusal = (why: string) =>
    expect.objectContaining({ reason: "HARDENING_MISMATCH", message: expect.stringContaining(why) });

  test("is a volume of the engine that shows it read-only, and is known again", () => {
    const source = join(directory(), "above/data");
    const { dev: device, ino: inode } = statSync(source);
    expect(planned(source)).toEqual({
      kind: "volume",
      name: "sandboxd-h.1_shared_data",
      options: { type: "none", device: source, o: "bind,ro,nosuid,nodev,private" },
      labels: { "sandboxd.host": hostId, "sandboxd.volume": "sandboxd-h.1_shared_data" },
      target: "/data",
      readOnly: true,
      identity: { device, inode },
    });
  });

  test("is none that others can exchange", () => {
    const made = directory();
    const source = join(made, "above/data");
    chmodSync(source, 0o777);
    expect(planned(source)).toBeDefined();
    chmodSync(join(made, "above"), 0o1777);
    expect(() => planned(source)).toThrow(refusal(`${made}/above is not root's alone to write to`));
  });

  test("is no link and not behind one, no file, and there", () => {
    const made = directory();
    symlinkSync(join(made, "above"), join(made, "link"));
    expect(() => planned(join(made, "link"))).toThrow(refusal("is a link"));
    expect(() => planned(join(made, "link/data"))).toThrow(refusal(`${made}/link is a link`));
    expect(() => planned(join(made, "nothing"))).toThrow(refusal("ENOENT"));
  });
});

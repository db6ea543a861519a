import { describe, expect, test } from "vitest";
import { configOf, errorsOf } from "./fixture.ts";

const shared = '[shared.data]\ndirectory = "/srv/data"\n';
const memory = '[volumes.cache]\ndriver = "tmpfs"\nsize_bytes = "1MiB"\n';
const nfs = '[volumes.home]\ndriver = "nfs"\naddress = "nas"\nexport = "/export/{tenant}"\n';

describe("mounts in a configuration", () => {
  test("are directories, volumes, and what templates take of them", () => {
    const config = configOf(
      `${shared}${memory}${nfs}options = ["vers=4.2", "soft"]
      [templates.a.tmpfs.scratch]
      size_bytes = "1MiB"
      [templates.a.shared.data]
      path = "/data/sets"
      [templates.a.volumes.home]
      read_only = true`,
    );
    expect(config.shared).toEqual({ data: { directory: "/srv/data" } });
    expect(config.volumes["cache"]).toMatchObject({ driver: "tmpfs", scope: "tenant", sizeBytes: 2 ** 20 });
    expect(config.volumes["home"]).toMatchObject({ readOnly: false, options: ["vers=4.2", "soft"] });
    const { tmpfs, shared: own, volumes } = config.templates["a"] ?? {};
    expect(tmpfs).toEqual({ scratch: { path: undefined, sizeBytes: 2 ** 20, inodes: undefined } });
    expect(own).toEqual({ data: { path: "/data/sets" } });
    expect(volumes).toEqual({ home: { path: undefined, readOnly: true } });
  });

  test.each([
    ["a directory of no name", "[shared.data]", "shared.data.directory: is missing"],
    ["a relative directory", '[shared.data]\ndirectory = "srv"', "shared.data.directory"],
    ["the root", '[shared.data]\ndirectory = "/"', "shared.data.directory"],
    ["a directory by another name", '[shared.data]\ndirectory = "/srv/../etc"', "shared.data.directory"],
    ["the kernel's files", '[shared.data]\ndirectory = "/proc/1"', "lies in a kernel file system"],
    [
      "the directory of the engine's socket",
      '[shared.data]\ndirectory = "/run"',
      "shared.data.directory: /run holds listen.socket, /run/sandboxd/sandboxd.sock",
    ],
    [
      "a directory within the state",
      '[shared.data]\ndirectory = "/var/lib/sandboxd/data"',
      "is in, at or above state.directory",
    ],
    [
      "a directory that holds the state",
      '[shared.data]\ndirectory = "/var/lib"',
      "is in, at or above state.directory",
    ],
    ["a volume of no driver", "[volumes.v]", "volumes.v.driver: is missing"],
    ["memory of no size", '[volumes.v]\ndriver = "tmpfs"', "volumes.v.size_bytes: is missing"],
    [
      "memory that nobody can write to",
      `${memory}read_only = true`,
      "volumes.cache.read_only: leaves a volume in memory empty for ever",
    ],
    ["memory on a server", `${memory}address = "nas"`, "is no key of a volume of driver tmpfs"],
    [
      "a server of no name",
      '[volumes.v]\ndriver = "nfs"\nexport = "/{tenant}"',
      "volumes.v.address: is missing",
    ],
    ["a server's size", `${nfs}size_bytes = "1MiB"`, "is no key of a volume of driver nfs"],
    [
      "one directory for every tenant",
      '[volumes.v]\ndriver = "nfs"\naddress = "nas"\nexport = "/all"',
      "/all is the same for every tenant, but scope is tenant",
    ],
    ["a tenant's directory for all", `${nfs}scope = "host"`, "is another for each tenant, but scope is host"],
    ["options for the engine in an address", nfs.replace("nas", "nas,suid"), "volumes.home.address"],
    ["a way out of an export", nfs.replace("/export", "/export/.."), "volumes.home.export"],
    ["an option that is not the server's", `${nfs}options = ["suid"]`, "volumes.home.options"],
    ["an option with a second one in it", `${nfs}options = ["vers=4,dev"]`, "volumes.home.options"],
    [
      "options that contradict each other",
      `${nfs}options = ["hard", "soft"]`,
      "says again what another says",
    ],
    ["a template of what there is not", "[templates.a.shared.data]", "there is no [shared.data]"],
    ["a template of no volume", `${memory}[templates.a.volumes.cash]`, "there are: cache"],
    ["a template's memory of no size", "[templates.a.tmpfs.s]", "size_bytes: is missing"],
    [
      "a template's memory above its limit",
      '[templates.a.tmpfs.s]\nsize_bytes = "1GiB"',
      "is more than the template's memory_bytes, 536870912",
    ],
    [
      "a template's memory above the host's",
      '[limits.max]\ntmpfs_bytes = "64MiB"\n[templates.a.tmpfs.s]\nsize_bytes = "65MiB"',
      "is more than limits.max.tmpfs_bytes",
    ],
    [
      "a template's mount in /tmp",
      '[templates.a.tmpfs.s]\nsize_bytes = "1MiB"\npath = "/tmp/s"',
      "lies in /tmp, which is always there",
    ],
    [
      "a template's mount by its name",
      '[templates.a.tmpfs.proc]\nsize_bytes = "1MiB"',
      "/proc lies in /proc",
    ],
    [
      "a template's mount in another",
      `${shared}${memory}[templates.a.shared.data]\n[templates.a.volumes.cache]\npath = "/data/cache"`,
      "/data/cache is at, above or below /data of templates.a.shared.data",
    ],
  ])("refuse %s", (_, toml, message) => {
    const errors = errorsOf(toml);
    expect(errors.join("\n")).toContain(message);
    expect(errors).toHaveLength(1);
  });
});

// Completes package-lock.json: names every platform's optional packages, also those that the registry in use
// doesn't carry. npm 11 refuses in `npm ci` what npm 10 lets pass: an optional package without an entry.
// Run it after `npm install`; it changes nothing when the file is whole.
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));

const systems = ["android", "darwin", "freebsd", "linux", "openharmony", "win32"];
const architectures = {
  aarch64: "arm64",
  arm: "arm",
  arm64: "arm64",
  armv7: "arm",
  ia32: "ia32",
  ppc64: "ppc64",
  riscv64: "riscv64",
  s390x: "s390x",
  wasm32: "wasm32",
  x64: "x64",
};

/**
 * The entry for a package of another platform: version, and the platform that its name tells. It has no hash,
 * for none can be had; npm never fetches it where the platform differs.
 */
function placeholder(name, version, dev) {
  const words = name.split(/[/-]/);
  const cpu = words.map((word) => architectures[word]).find(Boolean);
  const os = words.find((word) => systems.includes(word));
  if (!cpu)
    throw new Error(`no platform in the name of the optional package ${name}: give it an entry by hand`);
  const libc = words.some((word) => word.startsWith("musl")) ? "musl" : undefined;
  return {
    version,
    cpu: [cpu],
    ...(dev ? { dev: true } : {}),
    ...(libc ? { libc: [libc] } : {}),
    optional: true,
    ...(os ? { os: [os] } : {}),
  };
}

let added = 0;
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (!/^\d/.test(version)) continue;
    const known = [`${path}/node_modules/${name}`, `node_modules/${name}`].some((key) => lock.packages[key]);
    if (known) continue;
    lock.packages[`node_modules/${name}`] = placeholder(name, version, entry.dev);
    added += 1;
  }
}
if (added > 0) {
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en"));
  lock.packages = Object.fromEntries(sorted);
  writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
}
console.log(`package-lock.json: ${added} packages of other platforms added`);

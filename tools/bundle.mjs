// What tools/lib/build.mjs runs with the pinned Node: the daemon, sandboxctl and their two helpers with every package that they use, as few files
// in dist/bundle/. Of one file for each of 700 modules Node makes as many records, which took a start 300 ms and 11 MB.
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { rolldown } from "rolldown";
import { root } from "./lib/process.mjs";

/** By the name of their file in dist/bundle/, in which a helper is looked for by who starts it. */
const programs = {
  sandboxd: "src/main.ts",
  sandboxctl: "src/cli/ctl/main.ts",
  "inventory-program": "src/monitor/inventory-program.ts",
  "archive-program": "src/workspace/archive/archive-program.ts",
};

/** What the Docker client brings for engines behind SSH and for builds, which the daemon never does: 1 MB of code. */
const unused = new Set(["ssh2", "protobufjs", "@grpc/grpc-js", "@grpc/proto-loader"]);
const nothing = "\0nothing";

const withoutUnused = {
  name: "without-unused",
  resolveId(name, importer) {
    const isOfClient = /node_modules\/docker(ode|-modem)\//.test(importer ?? "");
    return isOfClient && unused.has(name) ? nothing : null;
  },
  load: (id) => (id === nothing ? "export default {};" : null),
};

/**
 * The same program in ASCII: one letter outside of Latin 1 makes V8 keep a whole file in two bytes a letter. All of them are in literals, comments
 * being left out.
 */
function inAscii(code) {
  return code.replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The folder of the package that this module is of, if it is of one. */
function packageOf(module) {
  return /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(module)?.[0];
}

/** Names, versions and licences of the packages that went in, with the words that most licences ask to be passed on. */
function notices(chunks) {
  const modules = chunks.flatMap(({ moduleIds = [] }) => moduleIds);
  const folders = new Set(modules.map(packageOf).filter((folder) => folder !== undefined));
  return [...folders].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
    const files = readdirSync(folder).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
    const texts = files.sort().map((file) => readFileSync(path.join(folder, file), "utf8").trim());
    return `${[`${name} ${version} (${license})`, ...texts].join("\n\n")}\n`;
  });
}

const target = path.join(root, "dist/bundle");
const partial = `${target}.${process.pid}`;
try {
  await using bundle = await rolldown({
    cwd: root,
    input: programs,
    platform: "node",
    plugins: [withoutUnused],
  });
  const { output } = await bundle.write({
    dir: partial,
    entryFileNames: "[name].js",
    chunkFileNames: "[name].js",
    comments: false,
    sourcemap: true,
  });
  for (const name of readdirSync(partial).filter((name) => name.endsWith(".js"))) {
    const file = path.join(partial, name);
    writeFileSync(file, inAscii(readFileSync(file, "utf8")));
  }
  writeFileSync(path.join(partial, "THIRD-PARTY-NOTICES"), notices(output).join(`\n${"-".repeat(80)}\n\n`));
  rmSync(target, { recursive: true, force: true });
  renameSync(partial, target);
} finally {
  rmSync(partial, { recursive: true, force: true });
}

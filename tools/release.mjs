// npm run release: packs what a host needs into a tar file, which systemd/install.sh of its content installs.
//
//   npm run release -- [FILE]     default: sandboxd-<version>-<hash>.tar in the current folder
import { renameSync } from "node:fs";
import path from "node:path";
import { ensureBuild } from "./lib/build.mjs";
import { ensureDependencies } from "./lib/deps.mjs";
import { main } from "./lib/process.mjs";
import { packRelease } from "./lib/release.mjs";

const log = (line) => console.log(`release: ${line}`);

await main(async () => {
  await ensureDependencies({ log });
  await ensureBuild({ log });
  const partial = path.resolve(`sandboxd-${process.pid}.tar.partial`);
  const id = await packRelease(partial);
  const file = path.resolve(process.argv[2] ?? `sandboxd-${id}.tar`);
  renameSync(partial, file);
  log(`wrote ${file}`);
});

// npm run build: compiles the daemon and the toolbox into dist/ when a source is newer.
import { ensureBuild } from "./lib/build.mjs";
import { ensureDependencies } from "./lib/deps.mjs";
import { main } from "./lib/process.mjs";

const log = (line) => console.log(`build: ${line}`);

await main(async () => {
  await ensureDependencies({ log });
  await ensureBuild({ log });
});

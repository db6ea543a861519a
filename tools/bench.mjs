// npm run bench: runs bench/main.ts under the pinned Node, on a private engine whose socket SANDBOXD_TEST_ENGINE names.
// Arguments go to the benchmark.
import { ensureBuild } from "./lib/build.mjs";
import { ensureDependencies } from "./lib/deps.mjs";
import { pinnedNode } from "./lib/node.mjs";
import { main } from "./lib/process.mjs";
import { withScratch } from "./lib/scratch.mjs";

const log = (line) => console.error(`bench: ${line}`);

await main(async () => {
  await ensureDependencies({ log });
  await ensureBuild({ log });
  return await withScratch(
    { kind: "bench", engine: "required", packages: ["btrfs-progs", "e2fsprogs"], log },
    ({ runChild }) => runChild(pinnedNode, ["bench/main.ts", ...process.argv.slice(2)]),
  );
});

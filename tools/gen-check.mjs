// npm run gen:check: fails when gen/ is not what `npm run gen` makes of proto/.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Advice, main, must, root, run } from "./lib/process.mjs";

await main(async () => {
  const directory = mkdtempSync(path.join(tmpdir(), "sandboxd-gen-"));
  try {
    const bin = path.join(root, "node_modules/.bin");
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
    await must(path.join(bin, "buf"), ["generate", "--output", directory], { quiet: true, env });
    const { status, output } = await run(
      "diff",
      ["-r", path.join(directory, "gen"), path.join(root, "gen")],
      {
        quiet: true,
      },
    );
    if (status !== 0)
      throw new Advice(`gen/ differs from what proto/ says: run 'npm run gen'\n${output.trim()}`);
    console.log("gen/ is what proto/ says");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

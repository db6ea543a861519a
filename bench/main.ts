// npm run bench -- [NAME...] [--json] [--runs N]: measures the daemon against the engine alone and against its goals.

import { registerHooks } from "node:module";

const sources = /^(\.\.\/)+((src|gen)\/.+)\.ts$/;

// Node runs the benchmarks as they are but not the generated code, which has enums: of src/ and gen/, what was compiled
// into dist/ is loaded, the same code that the daemon under measurement runs.
registerHooks({
  resolve(specifier, context, next) {
    const [, , path] = sources.exec(specifier) ?? [];
    if (path === undefined) return next(specifier, context);
    return next(new URL(`../dist/${path}.js`, import.meta.url).href, context);
  },
});

const { runBenchmarks } = await import("./run.ts");
process.exitCode = await runBenchmarks(process.argv.slice(2));

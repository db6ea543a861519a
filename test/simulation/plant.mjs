// Loaded before the simulation: plants the defect whose number SANDBOXD_PLANTED says into the source as it is read.

import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";
import { planted } from "./planted.mjs";

const defect = planted[Number(process.env.SANDBOXD_PLANTED)];
if (defect === undefined) throw new Error("SANDBOXD_PLANTED says no defect");

registerHooks({
  load(url, context, nextLoad) {
    if (!url.endsWith(`/${defect.file}`)) return nextLoad(url, context);
    const source = readFileSync(fileURLToPath(url), "utf8");
    if (source.split(defect.search).length !== 2) {
      throw new Error(`the text to replace for "${defect.name}" is not once in ${defect.file}`);
    }
    return {
      format: "module-typescript",
      source: source.replace(defect.search, () => defect.replace),
      shortCircuit: true,
    };
  },
});

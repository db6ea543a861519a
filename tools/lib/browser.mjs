// A Chromium without a window, for the test of a preview: the one that SANDBOXD_TEST_BROWSER names or that is installed. It is
// large, so only a run that must be complete (CI) installs one.
import { existsSync } from "node:fs";
import path from "node:path";
import { installPackages } from "./packages.mjs";
import { Advice } from "./process.mjs";

const debianPackage = "chromium-headless-shell";
const names = [debianPackage, "chromium", "google-chrome"];

function installed() {
  const directories = (process.env.PATH ?? "").split(path.delimiter);
  return names
    .flatMap((name) => directories.map((directory) => path.join(directory, name)))
    .find((file) => existsSync(file));
}

/** Has SANDBOXD_TEST_BROWSER name one, for this process and its children, if one can be had. */
export async function ensureBrowser({ log }) {
  if (process.env.SANDBOXD_TEST_BROWSER) return;
  if (!installed() && process.env.CI) {
    try {
      await installPackages([debianPackage], { log, why: "the test of previews" });
    } catch (error) {
      if (!(error instanceof Advice)) throw error;
      log(`goes on without a browser: ${error.message}`);
    }
  }
  const found = installed();
  if (found) process.env.SANDBOXD_TEST_BROWSER = found;
}

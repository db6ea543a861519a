// What the tests of the configuration share: loading from texts, and files that vanish with the test.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Config } from "../../../src/config/config.ts";
import { formatConfigError } from "../../../src/config/error.ts";
import { type LoadOptions, loadConfig } from "../../../src/config/load.ts";

/** A directory of the test's own. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "sandboxd-config-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** Writes a file into a directory of the test's own. */
export function temporaryFile(content: string | Uint8Array, mode = 0o600, name = "sandboxd.toml"): string {
  const file = join(temporaryDirectory(), name);
  writeFileSync(file, content, { mode });
  return file;
}

export function load(toml: string, options: Partial<LoadOptions> = {}) {
  return loadConfig({ file: temporaryFile(toml), env: {}, flags: [], dev: false, ...options });
}

/** The configuration of a text that must be valid. */
export function configOf(toml: string, options: Partial<LoadOptions> = {}): Config {
  const loaded = load(toml, options);
  if ("errors" in loaded) throw new Error(loaded.errors.map(formatConfigError).join("\n"));
  return loaded.config;
}

/** The errors of a text, without the directory of the file. */
export function errorsOf(toml: string, options: Partial<LoadOptions> = {}): readonly string[] {
  const loaded = load(toml, options);
  if (!("errors" in loaded)) return [];
  return loaded.errors.map((error) => formatConfigError(error).replace(/^\/\S*\/(?=sandboxd\.toml)/, ""));
}

/** A key and a self-signed certificate for tests alone. */
export const testKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsTCBV2PPK0tiY8RU
byJ4ORA/qHuLIsFX58B9KooE7R+hRANCAAScMr4da1i6Fi2j6F90gI2fXVf1nMQ4
wQBpAvHAS7cnveL0OKQohj60BZu3wyHk3+LKCVkNNRdRB51NksRYH58T
-----END PRIVATE KEY-----
`;

export const testCertificate = `-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUbDjC7S46ckXGgEgZY+WTJbs8ROkwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjMxMTM5MzdaGA8yMTI2MTAzMDExMzkz
N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJwy
vh1rWLoWLaPoX3SAjZ9dV/WcxDjBAGkC8cBLtye94vQ4pCiGPrQFm7fDIeTf4soJ
WQ01F1EHnU2SxFgfnxOjUzBRMB0GA1UdDgQWBBSy5Hu4mwK/6pWz6ff163HuGgJW
2DAfBgNVHSMEGDAWgBSy5Hu4mwK/6pWz6ff163HuGgJW2DAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCzlTeOeLTuFxaOVDdFg0s40z19EwNbYtlH
GVaVEzQLzAIhAPKk0dwBOgPGGtjqVGAUQVgyZ+5NAC9h6TByxd3yvuk3
-----END CERTIFICATE-----
`;

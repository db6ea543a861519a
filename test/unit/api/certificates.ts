// Certificates for tests, made by openssl in a directory of their own.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface KeyPair {
  readonly certFile: string;
  readonly keyFile: string;
}

/** An authority that signs. */
export interface Authority extends KeyPair {
  /** `subject` as openssl takes it ("/CN=x/OU=operator"); `days` may be negative for one that has expired. */
  issue(
    name: string,
    options: {
      readonly subject: string;
      readonly names?: string;
      readonly usage?: "clientAuth" | "serverAuth";
      readonly days?: number;
    },
  ): Promise<KeyPair>;
}

/** Makes an authority whose files begin with `name`. */
export async function createAuthority(directory: string, name: string): Promise<Authority> {
  const own = files(directory, name);
  await run("openssl", [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "2",
    "-subj",
    `/CN=${name}`,
    "-keyout",
    own.keyFile,
    "-out",
    own.certFile,
  ]);
  return {
    ...own,
    async issue(leaf, { subject, names, usage = "clientAuth", days = 1 }) {
      const pair = files(directory, leaf);
      const request = join(directory, `${leaf}.csr`);
      const extensions = join(directory, `${leaf}.ext`);
      await writeFile(
        extensions,
        `extendedKeyUsage=${usage}\n${names === undefined ? "" : `subjectAltName=${names}\n`}`,
      );
      await run("openssl", [
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        subject,
        "-keyout",
        pair.keyFile,
        "-out",
        request,
      ]);
      await run("openssl", [
        "x509",
        "-req",
        "-in",
        request,
        "-CA",
        own.certFile,
        "-CAkey",
        own.keyFile,
        "-CAcreateserial",
        "-extfile",
        extensions,
        "-out",
        pair.certFile,
        "-days",
        String(days),
      ]);
      return pair;
    },
  };
}

/** The pair as Node's TLS options take it. */
export async function loaded(pair: KeyPair): Promise<{ readonly cert: Buffer; readonly key: Buffer }> {
  return { cert: await readFile(pair.certFile), key: await readFile(pair.keyFile) };
}

function files(directory: string, name: string): KeyPair {
  return { certFile: join(directory, `${name}.pem`), keyFile: join(directory, `${name}.key`) };
}

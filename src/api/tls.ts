// The daemon's certificate and the authority that its callers' certificates must come from, read from files.
import { constants } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { SecureContextOptions } from "node:tls";
import { createSecureContext } from "node:tls";
import { messageOf } from "../errors.ts";

/** PEM files. */
export interface TlsFiles {
  /** The daemon's certificate, with intermediates. */
  readonly certificate: string;
  /** Its private key. */
  readonly key: string;
  /** Certificates of the authorities that callers' certificates must come from. */
  readonly clientCa: string;
}

/** Reads the files and checks that they fit together. Throws an error that names the file and what to do. */
export async function loadTls(files: TlsFiles, signal?: AbortSignal): Promise<SecureContextOptions> {
  const [cert, key, ca] = await Promise.all(
    [files.certificate, files.key, files.clientCa].map((file) => readPem(file, signal)),
  );
  if (ca?.includes("-----BEGIN CERTIFICATE-----") !== true) {
    throw new Error(
      `The TLS file ${files.clientCa} holds no certificate.\n` +
        "Hint: it must hold the authorities of the callers' certificates.",
    );
  }
  const context: SecureContextOptions = {
    cert,
    key,
    ca,
    minVersion: "TLSv1.2",
    // A ticket would let a caller back in without its certificate being looked at again, even after a reload.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
  try {
    createSecureContext(context);
  } catch (error) {
    throw new Error(
      `The TLS files ${files.certificate}, ${files.key} and ${files.clientCa} cannot be used: ${messageOf(error)}.\n` +
        "Hint: the key must be the certificate's, and all three must be PEM.",
      { cause: error },
    );
  }
  return context;
}

async function readPem(file: string, signal: AbortSignal | undefined): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file, { signal });
  } catch (error) {
    throw new Error(`The TLS file ${file} cannot be read: ${messageOf(error)}.`, { cause: error });
  }
  if (!bytes.includes("-----BEGIN ")) {
    throw new Error(`The TLS file ${file} is not PEM.\nHint: convert it with "openssl x509 -outform PEM".`);
  }
  return bytes;
}

// The files that the configuration names for TLS: there, readable, kept from others, and fitting each other.

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { messageOf } from "../errors.ts";
import type { Violation } from "./check.ts";
import type { Config } from "./config.ts";

/** What is wrong with the files. Keys' contents are read but never shown. Never throws. */
export function tlsFileViolationsOf({ listen, scheduler, logs }: Config): readonly Violation[] {
  return [
    ...pairHolds("listen.tls", listen.tls),
    ...authorityHolds("listen.tls.client_ca", listen.tls.clientCa),
    ...pairHolds("scheduler.tls", scheduler.tls),
    ...authorityHolds("scheduler.tls.ca", scheduler.tls.ca),
    ...pairHolds("logs.forward.tls", logs.forward.tls),
    ...authorityHolds("logs.forward.tls.ca", logs.forward.tls.ca),
  ];
}

type Outcome<T> = { readonly value: T } | { readonly violation: Violation };

function pairHolds(
  section: string,
  files: { readonly certificate: string | undefined; readonly key: string | undefined },
): readonly Violation[] {
  const keys = { certificate: `${section}.certificate`, key: `${section}.key` };
  const certificate =
    files.certificate === undefined ? undefined : readCertificate(keys.certificate, files.certificate);
  const key = files.key === undefined ? undefined : readKey(keys.key, files.key);
  const violations = [certificate, key].flatMap((outcome) =>
    outcome !== undefined && "violation" in outcome ? [outcome.violation] : [],
  );
  if (certificate === undefined || key === undefined || violations.length > 0) return violations;
  const fits = "value" in certificate && "value" in key && certificate.value.checkPrivateKey(key.value);
  const problem = `${files.key} is not the key of ${files.certificate}`;
  return fits ? [] : [{ keys: [keys.key, keys.certificate], problem }];
}

function authorityHolds(key: string, file: string | undefined): readonly Violation[] {
  const outcome = file === undefined ? undefined : readCertificate(key, file);
  return outcome !== undefined && "violation" in outcome ? [outcome.violation] : [];
}

function readCertificate(key: string, file: string): Outcome<X509Certificate> {
  return attempt(
    key,
    `${file} is no PEM certificate that can be read`,
    () => new X509Certificate(readFileSync(file)),
  );
}

function readKey(key: string, file: string): Outcome<KeyObject> {
  const mode = attempt(key, `${file} cannot be read`, () => statSync(file).mode);
  if ("violation" in mode) return mode;
  if ((mode.value & 0o077) !== 0) {
    const octal = (mode.value & 0o777).toString(8).padStart(4, "0");
    const problem = `${file} is a private key with mode ${octal}, open to other users`;
    return { violation: { keys: [key], problem, hint: `chmod 0600 ${file}` } };
  }
  return attempt(key, `${file} is no PEM private key without a passphrase`, () =>
    createPrivateKey(readFileSync(file)),
  );
}

function attempt<T>(key: string, problem: string, work: () => T): Outcome<T> {
  try {
    return { value: work() };
  } catch (error) {
    return { violation: { keys: [key], problem: `${problem}: ${messageOf(error)}` } };
  }
}

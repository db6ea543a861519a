// The keys of the listener on which browsers reach ports of sandboxes.

import type { Violation } from "./check.ts";
import type { Config } from "./config.ts";
import { section, type TextRule, text } from "./field.ts";
import * as rule from "./rule.ts";

/** Of a host name in DNS, less the label before it and its dot. */
const mostDomain = 253 - 64;

const domainName = "the name of a domain in lower-case letters, digits, hyphens and dots";

const domain: TextRule = {
  name: domainName,
  read(given) {
    const part = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    const isName = new RegExp(String.raw`^${part}(\.${part})*$`).test(given) && !/(^|\.)\d+$/.test(given);
    return isName && given.length <= mostDomain
      ? { value: given }
      : { problem: `is not ${domainName}`, hint: 'for example "preview.example.com"' };
  },
};

export const previewSection = () =>
  section("A listener on which browsers reach ports of sandboxes, with tokens of CreatePreview.", {
    address: text(rule.tcpAddress, {
      meaning: "Where it listens. Not where sandboxes can reach it. Left out: there is none.",
    }),
    domain: text(domain, {
      default: "localhost",
      meaning:
        "Each port of a sandbox has a name of its own below it, all of which must lead to the listener: *.preview.example.com in DNS, and in the certificate. Browsers take every name below localhost for their own machine.",
    }),
    tls: section("HTTPS. Both keys, or none: then it is plain HTTP.", {
      certificate: text(rule.absolutePath, {
        meaning: "Certificate for every name below the domain, and its chain. PEM file.",
      }),
      key: text(rule.absolutePath, { meaning: "Its private key. PEM file that only its owner can read." }),
    }),
  });

export function previewHolds({ preview: { tls } }: Config): readonly Violation[] {
  if ((tls.certificate === undefined) === (tls.key === undefined)) return [];
  const at = (key: string) => `preview.tls.${key}`;
  const [given, missing] = tls.certificate === undefined ? ["key", "certificate"] : ["certificate", "key"];
  return [{ keys: [at(given), at(missing)], problem: `needs ${at(missing)}` }];
}

// The keys that say where the output of sandboxes is sent to, and what must hold between them.

import type { Violation } from "./check.ts";
import type { Config } from "./config.ts";
import { duration, flag, section, size, type TextRule, text } from "./field.ts";
import * as rule from "./rule.ts";

const mebibyte = 1024 * 1024;

const tagPlaceholders = ["tenant", "sandbox", "host", "template"] as const;

/** Parts that stand for what a record is of. */
export type TagPlaceholder = (typeof tagPlaceholders)[number];

/** "host:port", or a unix socket as fluentd's own clients write it. */
const receiverAddress: TextRule<rule.ListenAddress> = {
  name: '"host:port", "[IPv6 address]:port" or "unix:///path"',
  read(given) {
    if (!given.startsWith("unix:")) return rule.tcpAddress.read(given);
    const reading = rule.socketPath.read(given.replace(/^unix:(\/\/)?/, ""));
    return "problem" in reading ? reading : { value: { kind: "unix", path: reading.value } };
  },
};

const tagName = `parts of letters, digits, "_", "-" and {${tagPlaceholders.join("}, {")}}, separated by "."`;

/** A tag of fluentd: its parts are what an operator's `<match>` goes by. */
const forwardTag: TextRule = {
  name: tagName,
  read(given) {
    const part = String.raw`([A-Za-z0-9_-]|\{(${tagPlaceholders.join("|")})\})+`;
    return given.length <= 256 && new RegExp(String.raw`^${part}(\.${part})*$`).test(given)
      ? { value: given }
      : { problem: `is not ${tagName}` };
  },
};

export const logsSection = () =>
  section("What sandboxes write to standard output and standard error.", {
    forward: section("Sends it on to fluentd, fluent-bit or another receiver of the Forward protocol.", {
      address: text(receiverAddress, { meaning: "The receiver. Left out: nothing is sent." }),
      tag: text(forwardTag, {
        default: "sandboxd.{tenant}",
        meaning: "Tag of each record. A sandbox without a template has the one of the name none.",
      }),
      buffer_bytes: size({
        min: 64 * 1024,
        max: 1024 * mebibyte,
        default: 8 * mebibyte,
        meaning:
          "Most bytes of records that are held in memory while the receiver does not take them; then the oldest are dropped, and counted.",
      }),
      flush_interval: duration({
        min: "10ms",
        max: "1m",
        default: "1s",
        meaning: "The longest that a record waits for others to be sent with.",
      }),
      ack: flag({
        default: true,
        meaning:
          "Whether the receiver confirms what it took, so that what it did not is sent again. Without: sent is done.",
      }),
      tls: section("How the daemon and the receiver know each other. ca alone, all three, or none.", {
        ca: text(rule.absolutePath, {
          meaning: "Authorities that the receiver's certificate must be from. PEM file.",
        }),
        certificate: text(rule.absolutePath, {
          meaning: "The daemon's client certificate and its chain. PEM file.",
        }),
        key: text(rule.absolutePath, {
          meaning: "Its private key. PEM file that only its owner can read.",
        }),
      }),
    }),
  });

export function logShippingHolds({ logs: { forward } }: Config): readonly Violation[] {
  const at = (key: string) => `logs.forward.tls.${key}`;
  const { ca, certificate, key } = forward.tls;
  const violations: Violation[] = [];
  if ((certificate === undefined) !== (key === undefined)) {
    const [given, missing] = certificate === undefined ? ["key", "certificate"] : ["certificate", "key"];
    violations.push({ keys: [at(given), at(missing)], problem: `needs ${at(missing)}` });
  }
  if (ca === undefined && certificate !== undefined)
    violations.push({ keys: [at("certificate"), at("ca")], problem: `needs ${at("ca")}` });
  if (ca !== undefined && forward.address?.kind === "unix") {
    violations.push({
      keys: [at("ca"), "logs.forward.address"],
      problem: "logs.forward.address is a unix socket, on which there is no TLS",
    });
  }
  return violations;
}

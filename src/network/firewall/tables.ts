// The tables, of packets here and of frames in `bridge-table.ts`: their rules are the same whatever they hold, and the kernel looks up in their sets whose a packet is and what is
// allowed to it. What a packet of a connection that goes on meets is kept short: it is what throughput depends on. Where it is to, the kernel's routes are asked
// (`fib`) for the first packet only: one to an address of the host is refused, and so none of them begins a connection.

import { fenceMark } from "./fence.ts";
import { ofAddresses } from "./policies.ts";
import { type Refusal, refusals } from "./rules.ts";

/** Sets that packets and answers of the resolver fill. */
export const livingSets = ["denied", "sampled", "tried", "learned", "asking", "dialing"] as const;

/** How long what was refused is counted on after the last packet. Seconds. */
export const countedSeconds = 600;
/** How long a destination is kept as a sample. Seconds. */
export const sampleSeconds = 15;
/** What the set of learned addresses can hold, expired ones among them. */
const mostLearned = 262_144;

/** New connections of one sandbox whose server name is read, whatever its own bounds are: each is work for the daemon. */
const dialsPerSecond = 100;

/** A chain that holds nothing: that it is written to tells that a transaction is in the kernel. */
export const signalChain = "signal";

/** Marks the packet with the reason, and goes to what counts and drops it. */
export const refuse = (reason: Refusal) => `meta mark set ${refusals[reason]} goto refuse`;

/** Packets have the number of their sandbox's policy as their mark while they are judged, and 0 if they have no sandbox. */
const markOfSource = "meta mark set iifname . ip saddr map @sandboxes";
const markOfDestination = "meta mark set oifname . ip daddr map @sandboxes";

/**
 * Bridges of sandboxes, of this daemon or another, known to the tables or not yet. Other networks of the host may be in a pool too: they have
 * the mark, so that the fence is not theirs.
 */
const ownBridges = "sbx*";

const toResolver = "meta l4proto { tcp, udp } th dport 53 iifname . ip daddr @gateways";

/** What the rules say of this host. */
export interface TableSettings {
  /** Packets of one sandbox that reach the resolver at all. Each costs the daemon some 10 µs even if it is not answered. */
  readonly questionsPerSecond: number;
  /** Of the gateways: who checks server names listens there. */
  readonly sniPort: number;
}

export function inetTable(table: string, { questionsPerSecond, sniPort }: TableSettings): string {
  return `table inet ${table} {
  set bridges {
    type ifname
  }
  map sandboxes {
    type ifname . ipv4_addr : mark
  }
  set gateways {
    type ifname . ipv4_addr
  }
  set peers {
    type ifname . ifname
  }
  set pools {
    type ipv4_addr
    flags interval
  }
  set reserved {
    type ipv4_addr
    flags interval
  }
  set packets {
    type ifname . ipv4_addr
    flags dynamic
  }
  set rates {
    type ifname . ipv4_addr
    flags dynamic
  }
  set connections {
    type ifname . ipv4_addr
    flags dynamic
  }
  set ports {
    type mark . inet_proto . inet_service
    flags interval
  }
  set allowed {
    type mark . ipv4_addr
    flags interval
  }
  set refused {
    type mark . ipv4_addr
    flags interval
  }
  set public {
    type mark
  }
  set proxied {
    type mark
  }
  set checked {
    type mark
  }
  set heirs {
    type mark . mark
  }
  set current {
    type mark . mark
  }
  set learned {
    type mark . ipv4_addr
    flags timeout
    size ${mostLearned}
  }
  set denied {
    type ether_addr . mark
    flags dynamic,timeout
    timeout ${countedSeconds}s
    size 65535
    counter
  }
  set asking {
    type ifname . ipv4_addr
    flags dynamic,timeout
    timeout 60s
    size 65535
  }
  set dialing {
    type ifname . ipv4_addr
    flags dynamic,timeout
    timeout 60s
    size 65535
  }
  set sampled {
    type ether_addr
    flags dynamic,timeout
    timeout 10s
    size 65535
  }
  set tried {
    type ether_addr . ipv4_addr . inet_proto . inet_service . mark
    flags dynamic,timeout
    timeout ${sampleSeconds}s
    size 16384
  }
  chain ${signalChain} {
  }
  chain refuse {
    update @denied { ether saddr . meta mark counter }
    add @sampled { ether saddr limit rate 1/second burst 1 packets } add @tried { ether saddr . ip daddr . meta l4proto . th dport . meta mark }
    drop
  }
  chain early {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges jump sent
    iifname != "${ownBridges}" ip saddr @pools meta mark set meta mark | ${fenceMark}
  }
  chain sent {
    meta nfproto != ipv4 drop
    meta mark set 0
    ${markOfSource}
    meta mark 0 ${refuse("spoofed")}
    iifname . ip saddr @packets ${refuse("packets")}
    ${toResolver} jump asked
    meta mark set ${fenceMark}
  }
  chain asked {
    update @asking { iifname . ip saddr limit rate over ${questionsPerSecond}/second burst ${2 * questionsPerSecond} packets } ${refuse("packets")}
    notrack
  }
  chain prerouting {
    type filter hook prerouting priority mangle - 10; policy accept;
    iifname @bridges ct state != established fib daddr type vmap { local : jump host, broadcast : drop, anycast : drop, multicast : drop }
  }
  chain named {
    type nat hook prerouting priority dstnat; policy accept;
    iifname @bridges tcp dport 443 jump divert
  }
  chain divert {
    meta mark set 0
    ${markOfSource}
    meta mark @checked meta mark . meta l4proto . th dport @ports meta mark . ip daddr != @refused meta mark . ip daddr != @allowed meta mark . ip daddr @learned goto lead
    meta mark set ${fenceMark}
  }
  chain lead {
    update @dialing { iifname . ip saddr limit rate over ${dialsPerSecond}/second burst ${2 * dialsPerSecond} packets } ${refuse("connections")}
    meta mark set ${fenceMark}
    meta l4proto tcp redirect to :${sniPort}
  }
  chain returning {
    type filter hook prerouting priority dstnat + 10; policy accept;
    iifname != @bridges ip daddr @pools meta mark set meta mark | ${fenceMark}
  }
  chain input {
    type filter hook input priority filter - 10; policy accept;
    iifname @bridges jump host
  }
  chain host {
    ${toResolver} accept
    ct direction reply ct state { established, related } accept
    meta mark set 0
    ${markOfSource}
    meta mark @proxied meta mark . meta l4proto . th dport @ports meta mark . ip daddr @allowed meta mark set ${fenceMark} accept
    meta mark @checked tcp dport ${sniPort} ct status dnat goto admit
    ${refuse("host")}
  }
  chain output {
    type filter hook output priority raw; policy accept;
    oifname . ip saddr @gateways meta l4proto { tcp, udp } th sport 53 notrack
  }
  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    iifname @bridges goto out
    oifname @bridges goto back
  }
  chain among {
    iifname . oifname @peers accept
    ${refuse("peer")}
  }
  chain out {
    meta mark set 0
    ${markOfSource}
    ct state established ct mark . meta mark @current goto pass
    oifname @bridges goto among
    ip daddr @pools ${refuse("peer")}
    ct state invalid drop
    meta mark . ip daddr @refused ${refuse("policy")}
    meta mark . meta l4proto . th dport @ports jump reach
    ct state related meta l4proto icmp drop
    ${refuse("policy")}
  }
  chain reach {
    meta mark . ip daddr @allowed goto judged
    ip daddr @reserved return
    meta mark @public goto judged
    meta mark @checked th dport 443 return
    ct state established ct mark . meta mark @heirs goto admit
    meta mark . ip daddr @learned ct mark set meta mark goto admit
  }
  chain judged {
    ct mark . meta mark @heirs goto admit
    ct mark set meta mark ^ ${ofAddresses}
    goto admit
  }
  chain admit {
    ct state new jump begun
    goto pass
  }
  chain pass {
    meta mark set ${fenceMark}
    accept
  }
  chain begun {
    iifname . ip saddr @rates ${refuse("connections")}
    iifname . ip saddr @connections ${refuse("connections")}
  }
  chain back {
    meta mark set 0
    ${markOfDestination}
    ct direction reply ct state established ct mark . meta mark @current goto deliver
    ct direction reply ct state related icmp type { destination-unreachable, time-exceeded, parameter-problem } goto deliver
    ct direction original drop
    ct state != established drop
    meta mark . ip saddr @refused drop
    meta mark . meta l4proto . th sport @ports jump answer
    drop
  }
  chain answer {
    meta mark . ip saddr @allowed goto deliver
    ip saddr @reserved return
    meta mark @public goto deliver
    meta mark @checked th sport 443 return
    ct mark . meta mark @heirs goto deliver
    meta mark . ip saddr @learned goto deliver
  }
  chain deliver {
    meta mark set 0
    accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    iifname @bridges oifname != @bridges masquerade
  }
}`;
}

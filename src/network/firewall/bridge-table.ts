// The table of frames. Between ports of one bridge, frames do not pass the other one. The type is asked of the frame itself (`ether type`): for nft the protocol of
// one with a VLAN tag is what the tag is on.

import { fenceMark } from "./fence.ts";
import { countedSeconds, refuse, sampleSeconds } from "./tables.ts";

export function bridgeTable(table: string): string {
  return `table bridge ${table} {
  set macs {
    type ether_addr
    flags interval
  }
  set places {
    type ether_addr . ipv4_addr
  }
  set gateways {
    type ipv4_addr
  }
  set peers {
    type ether_addr
    flags interval
  }
  set denied {
    type ether_addr . mark
    flags dynamic,timeout
    timeout ${countedSeconds}s
    size 65535
    counter
  }
  set sampled {
    type ether_addr
    flags dynamic,timeout
    timeout 10s
    size 65535
  }
  set tried {
    type ether_addr . ipv4_addr
    flags dynamic,timeout
    timeout ${sampleSeconds}s
    size 16384
  }
  chain refuse {
    update @denied { ether saddr . meta mark counter }
    add @sampled { ether saddr limit rate 1/second burst 1 packets } add @tried { ether saddr . arp daddr ip }
    drop
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    ether type ip ether saddr . ip saddr @places ether daddr != @macs accept
    ether type arp meta mark set meta mark | ${fenceMark}
    ether saddr @macs jump sent
  }
  chain sent {
    ether type != { ip, arp } drop
    ether saddr . ip saddr != @places ${refuse("spoofed")}
    arp saddr ether . arp saddr ip != @places ${refuse("spoofed")}
    ether saddr @peers accept
    ether daddr @macs ${refuse("peer")}
    arp operation request arp daddr ip != @gateways ${refuse("peer")}
  }
  chain forward {
    type filter hook forward priority -300; policy accept;
    ether saddr @peers accept
    ether saddr @macs drop
    ether daddr @macs drop
  }
}`;
}

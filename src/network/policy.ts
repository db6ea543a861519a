// What tenants and sandboxes may have of networks, as plain values that are stored as JSON. Addresses are IPv4; CIDRs are canonical,
// "192.0.2.0/24"; names are in lower case without a final dot.

/** How a sandbox is connected; mirrors `sandboxd.v1.NetworkMode`. */
export const networkModes = ["NONE", "INTERNAL", "EGRESS"] as const;
export type NetworkMode = (typeof networkModes)[number];

/** Ports of a protocol, both ends included. */
export interface PortRange {
  readonly protocol: "TCP" | "UDP";
  readonly first: number;
  readonly last: number;
}

/** Where connections out of a sandbox may go; complete. Mirrors `sandboxd.v1.EgressPolicy`. */
export interface EgressPolicy {
  readonly scope: "PUBLIC" | "LISTED";
  readonly ports: readonly PortRange[];
  readonly allowCidrs: readonly string[];
  readonly denyCidrs: readonly string[];
  /** Exact, or every name below one: "*.example.com". Where there are any, the resolver answers those and no others. */
  readonly allowDomains: readonly string[];
  /** Whether TLS connections to those names are made by the daemon, by the name that they ask for. Absent: no. */
  readonly checkSni?: true;
}

/** Bounds of a sandbox's traffic; what is absent is not bounded. Mirrors `sandboxd.v1.NetworkLimits`. */
export interface NetworkLimits {
  readonly transmitBytesPerSecond?: number;
  readonly receiveBytesPerSecond?: number;
  readonly connections?: number;
  readonly newConnectionsPerSecond?: number;
  readonly packetsPerSecond?: number;
}

/** Under the contract's names of them. */
export const limitNames = {
  transmitBytesPerSecond: "transmit_bytes_per_second",
  receiveBytesPerSecond: "receive_bytes_per_second",
  connections: "connections",
  newConnectionsPerSecond: "new_connections_per_second",
  packetsPerSecond: "packets_per_second",
} as const satisfies Record<keyof NetworkLimits, string>;

export type LimitKey = keyof typeof limitNames;

export const limitKeys = Object.keys(limitNames) as readonly LimitKey[];

/** What the sandboxes of a tenant may have; complete. Mirrors `sandboxd.v1.TenantNetwork`. */
export interface TenantNetwork {
  readonly modes: readonly NetworkMode[];
  readonly allowPeers: boolean;
  readonly egress: EgressPolicy;
  /** Of TCP: those that callers may reach through the daemon. */
  readonly forwardPorts: readonly PortRange[];
  readonly limits: NetworkLimits;
  /** A proxy of the host's configuration: then egress is that proxy and nothing else. */
  readonly proxy?: string;
}

/** What a spec says of it; absent: the tenant's. */
export interface SandboxNetworkSpec {
  readonly networkMode: NetworkMode;
  readonly egress?: EgressPolicy;
  readonly networkLimits?: NetworkLimits;
}

/** The place of a sandbox on its tenant's bridge, for as long as its container exists. */
export interface NetworkPlace {
  /** The engine's network. */
  readonly network: string;
  /** The interface on the host. */
  readonly bridge: string;
  readonly subnet: string;
  readonly gateway: string;
  readonly address: string;
  /** 06:73 and the four bytes of the address: rules between ports of a bridge know by it who sends. */
  readonly mac: string;
}

/** The default of a policy: every public address, on TCP 443. */
export const defaultEgress: EgressPolicy = {
  scope: "PUBLIC",
  ports: [{ protocol: "TCP", first: 443, last: 443 }],
  allowCidrs: [],
  denyCidrs: [],
  allowDomains: [],
};

/** A policy that allows nothing. */
export const nothing: EgressPolicy = {
  scope: "LISTED",
  ports: [],
  allowCidrs: [],
  denyCidrs: [],
  allowDomains: [],
};

/** What a tenant has whose policy says nothing of networks. */
export const noNetwork: TenantNetwork = {
  modes: ["NONE"],
  allowPeers: false,
  egress: defaultEgress,
  forwardPorts: [{ protocol: "TCP", first: 8080, last: 8080 }],
  limits: {},
};

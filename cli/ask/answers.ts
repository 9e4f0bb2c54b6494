/** The answers of the API as far as the commands read them. */

export interface End {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly workload: string | null;
  readonly address: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly provenance: string | null;
  readonly certainty: string | null;
}

export interface Completeness {
  readonly agentsReporting: number;
  readonly agentsSilent: number;
  readonly agentsSampling: number;
  readonly nodesReporting: number;
  readonly nodesSilent: number;
  readonly batchesMissing: number;
  readonly flowsDropped: number;
  readonly sourcesSilent: number;
  readonly freshestTo: string | null;
  readonly delayMsP99: number | null;
}

export interface Edge {
  readonly source: End;
  readonly destination: End;
  readonly port: number;
  readonly protocol: string;
  readonly verdict: string;
  readonly reason: string;
  readonly rule: { readonly ruleset: string; readonly name: string } | null;
  readonly direction: string;
  readonly severity: string;
  readonly dns: string | null;
  /** Path that explains it; null where a rule speaks of it. */
  readonly explain: string | null;
  readonly pending: number;
  readonly connections: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
}

export interface Seen {
  readonly firstSeen: string | null;
  readonly lastSeen: string | null;
  readonly process: string | null;
}

export interface List<T> {
  readonly items: readonly T[];
  readonly total: number;
  readonly next: string | null;
  readonly window: { readonly since: string; readonly until: string | null };
  readonly table?: string;
  readonly completeness?: Completeness;
}

interface Sums {
  readonly connections: number;
  readonly bytes: number;
  readonly edges: number;
}

export interface Covered {
  readonly coverage: {
    readonly connections: number | null;
    readonly bytes: number | null;
    readonly edges: number | null;
  };
  readonly allowed: Sums;
  readonly denied: Sums;
  readonly unexplained: Sums;
}

export interface CoveredGroups {
  readonly groups: readonly (Covered & { readonly value: string })[];
  readonly others: (Covered & { readonly groups: number }) | null;
}

export interface Coverage extends CoveredGroups {
  readonly total: Covered;
  readonly reasons: readonly (Sums & { readonly reason: string })[];
  readonly groupBy: string | null;
  readonly ingress: (CoveredGroups & { readonly groupBy: string }) | null;
  readonly series: readonly (Covered & { readonly time: string })[];
  readonly uncovered: readonly Edge[];
  readonly window: List<never>['window'];
  readonly table: string;
  readonly completeness: Completeness;
}

export interface Ledger {
  readonly totals: Readonly<Record<string, number | null>>;
  readonly naming: {
    readonly flows: number;
    readonly pending: number;
    readonly oldestPending: string | null;
    readonly repaired: number;
    readonly ambiguous: number;
    readonly late: number;
    readonly unnamed: number;
    readonly unresolved: number;
    readonly unresolvedShare: number | null;
  };
  readonly sources: readonly {
    readonly source: string;
    readonly completeTo: string | null;
    readonly behindMs: number | null;
    readonly silent: boolean;
  }[];
  readonly causes: readonly { readonly cause: string; readonly batches: number; readonly flows: number }[];
  readonly agents: readonly {
    readonly agent: string;
    readonly cluster: string;
    readonly node: string;
    readonly source: string;
    readonly state: string;
    readonly samplingRate: number;
    readonly lastReceived: string | null;
    readonly batches: number;
    readonly flows: number;
    readonly batchesResent: number;
    readonly batchesMissing: number;
    readonly flowsDropped: number;
    readonly flowsRefused: number;
  }[];
  readonly agentsTotal: number;
  readonly nodes: readonly {
    readonly cluster: string;
    readonly node: string;
    readonly state: string;
    readonly agents: number;
    readonly lastReceived: string | null;
  }[];
  readonly nodesTotal: number;
  readonly gaps: readonly {
    readonly agent: string;
    readonly boot: string;
    readonly firstMissing: string;
    readonly lastMissing: string;
    readonly missing: number;
    readonly from: string | null;
    readonly to: string | null;
  }[];
  readonly window: List<never>['window'];
  readonly completeness: Completeness;
}

export interface Workload {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly network: string;
  readonly address: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly from: string | null;
  readonly to: string | null;
  readonly current: boolean;
}

export interface Who {
  readonly address: string;
  readonly at: string;
  readonly toleranceMs: number;
  readonly settled: boolean | null;
  readonly networks: readonly {
    readonly network: string;
    readonly certainty: string;
    readonly owners: readonly Workload[];
    readonly candidates: readonly Workload[];
    readonly before: Workload | null;
    readonly after: Workload | null;
  }[];
  readonly ranges: readonly {
    readonly network: string;
    readonly name: string;
    readonly cidr: string;
    readonly zone: string;
    readonly labels: Readonly<Record<string, string>>;
  }[];
}

export interface Workloads {
  readonly items: readonly Workload[];
  readonly total: number;
  readonly next: string | null;
  readonly who: Who | null;
}

export interface Alert {
  readonly id: string;
  readonly created: string | null;
  readonly state: string;
  readonly attempts: number;
  readonly lastError: string | null;
  readonly receiver: string;
  readonly payload: unknown;
}

export interface SqlAnswer {
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  readonly rows: readonly (readonly unknown[])[];
  readonly rowCount: number;
  readonly truncated: boolean;
  readonly truncatedBy: string | null;
  readonly error: string | null;
  readonly elapsedMs: number;
  readonly window: List<never>['window'];
  /** Whether the command named no time. */
  readonly windowAssumed: boolean;
  readonly completeness: Completeness;
}

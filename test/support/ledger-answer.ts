/** The answer of GET /api/v1/ledger, as far as tests read it. */
export interface LedgerAnswer {
  totals: Record<string, number | null>;
  naming: Record<string, number | string | null>;
  causes: { cause: string; batches: number; flows: number }[];
  agents: {
    agent: string;
    node: string;
    state: string;
    samplingRate: number;
    boots: number;
    batches: number;
    flows: number;
    batchesResent: number;
    batchesMissing: number;
    flowsDropped: number;
    flowsRefused: number;
  }[];
  nodes: {
    cluster: string;
    node: string;
    state: string;
    inInventory: boolean;
    lastReceived: string | null;
  }[];
  gaps: {
    agent: string;
    boot: string;
    firstMissing: string;
    lastMissing: string;
    missing: number;
    noticed: string | null;
    from: string | null;
    to: string | null;
  }[];
  completeness: Record<string, number | string | null>;
}

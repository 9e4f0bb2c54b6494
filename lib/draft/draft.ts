/** What a policy would change: stored edges judged anew, with coverage before and after. */
import { verdicts } from '../../schemas/closed-lists.ts';
import { type Amount, type EdgeRow, edgeKeyOf, SidedSums } from './edges.ts';
import type { Judge, Judged } from './judge.ts';

export const changeKinds = ['explained', 'denied', 'unexplained'] as const;
/** What an edge newly is. */
export type ChangeKind = (typeof changeKinds)[number];

/** A verdict and the rule that gave it: `rules.id`, "0" for none. */
export interface Said {
  /** Code of the closed list. */
  readonly verdict: number;
  readonly rule: string;
}

export interface ChangedEdge extends Amount {
  readonly kind: ChangeKind;
  /** A row of the edge, for its ends. */
  readonly edge: EdgeRow;
  readonly before: Said;
  readonly after: Said;
  readonly flows: number;
  readonly firstS: number;
  readonly lastS: number;
}

export interface Totals {
  connections: number;
  bytes: number;
  edges: number;
}

/** Totals by verdict; `undecided` is what neither rollups nor single flows could tell. */
export interface Coverage {
  readonly allowed: Totals;
  readonly denied: Totals;
  readonly unexplained: Totals;
  readonly undecided: Totals;
}

export interface DraftResult {
  readonly before: Coverage;
  readonly after: Coverage;
  /** Totals of each kind of change, whether listed or not. */
  readonly changes: Readonly<Record<ChangeKind, Totals>>;
  /** The verdict stays, another rule gives it. */
  readonly otherRule: Totals;
  /** Those with the most connections, most first. */
  readonly changed: Readonly<Record<ChangeKind, readonly ChangedEdge[]>>;
  /** Indexes of the rules of the draft that decided nothing. */
  readonly unusedRules: readonly number[];
  /** What each rule of the draft decided, by index. */
  readonly ruleTotals: readonly Totals[];
  /** Edges that were read from single flows. */
  readonly edgesFromFlows: number;
}

const none = (): Totals => ({ connections: 0, bytes: 0, edges: 0 });
const noCoverage = (): Coverage => ({
  allowed: none(),
  denied: none(),
  unexplained: none(),
  undecided: none(),
});

function count(totals: Totals, { connections, bytes }: Amount): void {
  totals.connections += connections;
  totals.bytes += bytes;
  totals.edges++;
}

const newly: Readonly<Record<(typeof verdicts)[number], ChangeKind>> = {
  allowed: 'explained',
  denied: 'denied',
  unexplained: 'unexplained',
};

function verdictOf(code: number): (typeof verdicts)[number] {
  const verdict = verdicts[code];
  if (verdict === undefined) throw new RangeError(`there is no verdict ${code}`);
  return verdict;
}

/** A row with what is said of it before and after. */
interface JudgedRow {
  readonly row: EdgeRow;
  readonly before: Said & { readonly reason: number };
  readonly after: Judged;
}

/** Sums of rows by a key. */
class Groups<T> {
  readonly entries = new Map<string, { readonly of: T; readonly sums: SidedSums }>();
  add(key: string, of: T, row: EdgeRow): void {
    let entry = this.entries.get(key);
    if (entry === undefined) {
      entry = { of, sums: new SidedSums() };
      this.entries.set(key, entry);
    }
    entry.sums.add(row);
  }
}

/** Keeps the greatest, in bounded memory. */
class Greatest {
  #list: ChangedEdge[] = [];
  readonly #limit: number;
  constructor(limit: number) {
    this.#limit = limit;
  }
  add(edge: ChangedEdge): void {
    this.#list.push(edge);
    if (this.#list.length >= this.#limit * 4 + 1000) this.#list = this.sorted();
  }
  sorted(): ChangedEdge[] {
    return this.#list
      .sort((a, b) => b.connections - a.connections || b.bytes - a.bytes || compareEdges(a, b))
      .slice(0, this.#limit);
  }
}

function compareEdges(a: ChangedEdge, b: ChangedEdge): number {
  const [left, right] = [edgeKeyOf(a.edge), edgeKeyOf(b.edge)];
  return left < right ? -1 : left > right ? 1 : 0;
}

export interface DraftOptions {
  readonly draft: Judge;
  /** The policy that it is held against; null: what was said of the flows when they were stored. */
  readonly against: Judge | null;
  /** Changed edges that are listed of each kind. */
  readonly limit: number;
  /** Told each edge that the draft leaves unexplained. */
  readonly onUnexplained?: (edge: EdgeRow, sums: SidedSums) => void;
}

export class DraftRun {
  readonly #options: DraftOptions;
  readonly #before = noCoverage();
  readonly #after = noCoverage();
  readonly #changes = { explained: none(), denied: none(), unexplained: none() };
  readonly #otherRule = none();
  readonly #changed: Readonly<Record<ChangeKind, Greatest>>;
  readonly #ruleTotals: Totals[];
  /** Edges whose flows are to be read, with what the rollups have of them. */
  readonly #waiting = new Map<string, EdgeRow[]>();
  #edgesFromFlows = 0;

  constructor(options: DraftOptions) {
    this.#options = options;
    this.#changed = {
      explained: new Greatest(options.limit),
      denied: new Greatest(options.limit),
      unexplained: new Greatest(options.limit),
    };
    this.#ruleTotals = options.draft.rules.map(none);
  }

  /** Takes all rows of some edges. Those that need single flows wait for them: see {@link waiting}. */
  take(rows: readonly EdgeRow[]): void {
    const { draft, against } = this.#options;
    const edges = new Map<string, EdgeRow[]>();
    for (const row of rows) {
      const key = edgeKeyOf(row);
      const list = edges.get(key);
      if (list === undefined) edges.set(key, [row]);
      else list.push(row);
    }
    for (const [key, list] of edges) {
      const [first] = list;
      if (first === undefined) continue;
      if (draft.needsFlows(first) || against?.needsFlows(first) === true) {
        this.#waiting.set(key, list);
        continue;
      }
      const after = draft.judge(first);
      this.#account(list.map((row) => ({ row, before: this.#saidBefore(row), after })));
    }
  }

  /** One row of each edge whose single flows are to be read, grouped by address, process and name. */
  waiting(): EdgeRow[] {
    return [...this.#waiting.values()].flatMap((rows) => rows.slice(0, 1));
  }

  /** Takes all single flows of edges that wait; those of other edges are passed over. What is missing stays undecided. */
  takeFlows(flows: readonly EdgeRow[]): void {
    const { draft } = this.#options;
    const byEdge = new Map<string, EdgeRow[]>();
    for (const row of flows) {
      const key = edgeKeyOf(row);
      if (!this.#waiting.has(key)) continue;
      const list = byEdge.get(key);
      if (list === undefined) byEdge.set(key, [row]);
      else list.push(row);
    }
    for (const [key, list] of byEdge) {
      const rollup = this.#waiting.get(key) ?? [];
      const known = list.reduce((sum, row) => sum + row.flows, 0);
      const wanted = rollup.reduce((sum, row) => sum + row.flows, 0);
      if (known < wanted) continue;
      this.#waiting.delete(key);
      this.#edgesFromFlows++;
      this.#account(list.map((row) => ({ row, before: this.#saidBefore(row), after: draft.judge(row) })));
    }
  }

  #saidBefore(row: EdgeRow): JudgedRow['before'] {
    const { against } = this.#options;
    if (against === null) return row;
    const { verdict, reason, rule } = against.judge(row);
    return { verdict, reason, rule: against.idOf(rule) };
  }

  /** Accounts for one edge, all of it. */
  #account(rows: readonly JudgedRow[]): void {
    const { draft, onUnexplained } = this.#options;
    const before = new Groups<number>();
    const after = new Groups<JudgedRow>();
    const changes = new Groups<JudgedRow>();
    for (const judged of rows) {
      const { row, before: said, after: says } = judged;
      before.add(`${said.verdict} ${said.reason} ${said.rule}`, said.verdict, row);
      after.add(`${says.verdict} ${says.rule}`, judged, row);
      changes.add(`${said.verdict} ${said.rule} ${says.verdict} ${says.rule}`, judged, row);
    }
    for (const { of, sums } of before.entries.values()) count(this.#before[verdictOf(of)], sums);
    for (const { of, sums } of after.entries.values()) {
      const verdict = verdictOf(of.after.verdict);
      count(this.#after[verdict], sums);
      const totals = this.#ruleTotals[of.after.rule];
      if (totals !== undefined) count(totals, sums);
      if (verdict === 'unexplained') onUnexplained?.(of.row, sums);
    }
    for (const { of, sums } of changes.entries.values()) {
      const said = { verdict: of.after.verdict, rule: draft.idOf(of.after.rule) };
      if (of.before.verdict === said.verdict) {
        if (of.before.rule !== said.rule) count(this.#otherRule, sums);
        continue;
      }
      const kind = newly[verdictOf(said.verdict)];
      count(this.#changes[kind], sums);
      this.#changed[kind].add({
        kind,
        edge: of.row,
        before: { verdict: of.before.verdict, rule: of.before.rule },
        after: said,
        flows: sums.flows,
        connections: sums.connections,
        bytes: sums.bytes,
        firstS: sums.firstS,
        lastS: sums.lastS,
      });
    }
  }

  /** The result; edges that still wait are undecided. */
  finish(): DraftResult {
    for (const rows of this.#waiting.values()) {
      const before = new Groups<number>();
      const all = new SidedSums();
      for (const row of rows) {
        const { verdict, reason, rule } = this.#options.against === null ? row : { ...row, verdict: -1 };
        before.add(`${verdict} ${reason} ${rule}`, verdict, row);
        all.add(row);
      }
      for (const { of, sums } of before.entries.values())
        count(of < 0 ? this.#before.undecided : this.#before[verdictOf(of)], sums);
      count(this.#after.undecided, all);
    }
    this.#waiting.clear();
    const { explained, denied, unexplained } = this.#changed;
    return {
      before: this.#before,
      after: this.#after,
      changes: this.#changes,
      otherRule: this.#otherRule,
      changed: {
        explained: explained.sorted(),
        denied: denied.sorted(),
        unexplained: unexplained.sorted(),
      },
      unusedRules: this.#ruleTotals.flatMap(({ edges }, rule) => (edges === 0 ? [rule] : [])),
      ruleTotals: this.#ruleTotals,
      edgesFromFlows: this.#edgesFromFlows,
    };
  }
}

/** Cases of `eastwest rules test`: read with their lines, asked of the engine. */
import Type, { type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { isNode, LineCounter, parseDocument } from 'yaml';
import { DnsNames } from '../../lib/inventory/dns-names.ts';
import { parseAddress } from '../../lib/net/address.ts';
import { dnsNamesOf } from '../../lib/policy/dns-names.ts';
import {
  PolicyEngine,
  protocolNumbers,
  reasonCodeOf,
  ruleOf,
  type Selectable,
  verdictCodeOf,
} from '../../lib/policy/engine.ts';
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';

const End = Type.Union([
  Type.String({ minLength: 1 }),
  Type.Record(Type.String({ minLength: 1 }), Type.String(), { minProperties: 1 }),
]);
const Port = Type.Integer({ minimum: 0, maximum: 65_535 });
const protocolWords = ['tcp', 'udp', 'sctp', 'icmp', 'icmpv6'] as const;

export const TestCase = Type.Object(
  {
    name: Type.Optional(Type.String()),
    source: End,
    destination: End,
    port: Type.Optional(Type.Union([Port, Type.Array(Port, { minItems: 1 })])),
    protocol: Type.Optional(Type.Enum([...protocolWords])),
    process: Type.Optional(Type.String()),
    expect: Type.Enum([...verdicts]),
    rule: Type.Optional(Type.String({ minLength: 1 })),
  },
  { additionalProperties: false },
);
export type TestCase = Static<typeof TestCase>;

const TestFile = Type.Object(
  { cases: Type.Array(TestCase, { minItems: 1 }) },
  { additionalProperties: false },
);
const testFile = Compile(TestFile);

export interface CaseProblem {
  /** From 1; 0 where the whole file is meant. */
  readonly line: number;
  readonly message: string;
}

export interface LocatedCase {
  readonly line: number;
  readonly asked: TestCase;
}

export type ReadCases =
  | { readonly ok: true; readonly cases: readonly LocatedCase[] }
  | { readonly ok: false; readonly problems: readonly CaseProblem[] };

function endProblem(end: TestCase['source']): string | null {
  if (typeof end === 'string')
    return parseAddress(end) === null
      ? `"${end}" is no address: write one, or labels such as { app: web }`
      : null;
  if (end.address !== undefined && parseAddress(end.address) === null)
    return `"${end.address}" is no address`;
  return null;
}

/** Reads the text of a file of cases; every problem with its line. */
export function readCases(text: string): ReadCases {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const lineOf = (path: readonly (string | number)[]): number => {
    for (let length = path.length; length > 0; length--) {
      const node = document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range != null) return lines.linePos(node.range[0]).line;
    }
    return 0;
  };
  if (document.errors.length > 0)
    return {
      ok: false,
      problems: document.errors.map(({ pos, message }) => ({
        line: lines.linePos(pos[0]).line,
        message: message.split('\n')[0] ?? 'is not YAML',
      })),
    };
  const value: unknown = document.toJS() ?? {};
  if (!testFile.Check(value)) {
    const seen = new Set<number>();
    const problems = testFile.Errors(value).flatMap(({ instancePath, message }) => {
      const path = instancePath
        .split('/')
        .slice(1)
        .map((part) => (/^\d+$/.test(part) ? Number(part) : part));
      const line = lineOf(path);
      // Of a choice every branch complains: the first word about a line says enough.
      if (seen.has(line)) return [];
      seen.add(line);
      return [{ line, message: `${path.join('.') || 'the file'} ${message}` }];
    });
    return { ok: false, problems };
  }
  const problems = value.cases.flatMap((asked, i) =>
    (['source', 'destination'] as const).flatMap((end) => {
      const message = endProblem(asked[end]);
      return message === null ? [] : [{ line: lineOf(['cases', i, end]), message: `${end}: ${message}` }];
    }),
  );
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, cases: value.cases.map((asked, i) => ({ line: lineOf(['cases', i]), asked })) };
}

interface AskedEnd {
  readonly is: Selectable;
  readonly address: Uint8Array | null;
}

const placeKeys = new Set(['kind', 'cluster', 'namespace', 'name', 'address', 'dns']);

/** Who an end of a case is: by labels, by address alone (then nobody), or by the DNS name that is asked for. */
function endOf(end: TestCase['source'], listed: (dns: string) => string | null): AskedEnd {
  if (typeof end === 'string')
    return {
      is: { kind: 'unknown', cluster: '', namespace: '', name: '', labels: {} },
      address: parseAddress(end),
    };
  const { kind, cluster = '', namespace = '', name = '', address, dns } = end;
  const known = dns === undefined ? null : listed(dns);
  const labels = Object.fromEntries(Object.entries(end).filter(([key]) => !placeKeys.has(key)));
  return {
    is: {
      kind: kind ?? (known !== null ? 'name' : dns !== undefined ? 'range' : 'pod'),
      cluster,
      namespace,
      name: known ?? name,
      labels,
    },
    address: address === undefined ? null : parseAddress(address),
  };
}

export interface CaseResult {
  readonly line: number;
  readonly name: string;
  readonly port: number;
  readonly protocol: string;
  readonly expect: string;
  readonly verdict: string;
  readonly reason: string;
  /** `ruleset/rule`, or null. */
  readonly rule: string | null;
  readonly expectRule: string | null;
  readonly ok: boolean;
}

function endText(end: TestCase['source']): string {
  return typeof end === 'string'
    ? end
    : Object.entries(end)
        .map(([key, value]) => `${key}=${value}`)
        .join(',');
}

/** Asks every case, each of its ports on its own. */
export function runCases(cases: readonly LocatedCase[], policy: PolicyDocument, nowMs: number): CaseResult[] {
  const engine = new PolicyEngine(policy, nowMs);
  const dnsNames = dnsNamesOf(policy);
  const names = new DnsNames();
  dnsNames.forEach((dns, i) => {
    names.set(dns, [dns], i + 1);
  });
  const listed = (dns: string): string | null => dnsNames[names.find(dns) - 1] ?? null;
  const results: CaseResult[] = [];
  let index = 0;
  for (const { line, asked } of cases) {
    const source = endOf(asked.source, listed);
    const destination = endOf(asked.destination, listed);
    const protocol = asked.protocol ?? 'tcp';
    const blocks = ({ address }: AskedEnd): number => (address === null ? 0 : engine.blockSet(address, 0));
    // Each case has ends of its own: the engine remembers them by index.
    const at = index;
    index += 2;
    for (const port of [asked.port ?? 0].flat()) {
      const packed = engine.evaluate(
        at,
        blocks(source),
        source.is,
        at + 1,
        blocks(destination),
        destination.is,
        port,
        protocolNumbers[protocol] ?? 6,
        engine.processClass(asked.process ?? ''),
      );
      const compiled = engine.rules[ruleOf(packed)];
      const rule = compiled === undefined ? null : `${compiled.ruleset.name}/${compiled.rule.name}`;
      const verdict = verdicts[verdictCodeOf(packed)] ?? 'unexplained';
      const expectRule = asked.rule ?? null;
      const isRule = expectRule === null || rule === expectRule || compiled?.rule.name === expectRule;
      results.push({
        line,
        name: asked.name ?? `${endText(asked.source)} -> ${endText(asked.destination)}`,
        port,
        protocol,
        expect: asked.expect,
        verdict,
        reason: reasons[reasonCodeOf(packed)] ?? '',
        rule,
        expectRule,
        ok: verdict === asked.expect && isRule,
      });
    }
  }
  return results;
}

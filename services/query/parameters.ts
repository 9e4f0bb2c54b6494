/** Query parameters: their schemas, and how they become a filter. */
import Type, { type Static } from 'typebox';
import { formatAddress, parseCidr } from '../../lib/net/address.ts';
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import { decodeCursor } from './cursor.ts';
import {
  type AddressSpan,
  directions,
  type FlowFilter,
  type LabelTerm,
  type Page,
  severities,
  type Window,
} from './filters.ts';
import { labelForms, parseLabels } from './labels.ts';
import { badParameter } from './problem.ts';
import { parseProtocol, protocolForms } from './protocols.ts';
import { parseTime, timeForms } from './time.ts';

const text = (description: string) =>
  Type.Optional(Type.String({ minLength: 1, maxLength: 4096, description }));

export const windowParameters = {
  since: text(`Begin of the window: ${timeForms}.`),
  until: text(`End of the window, exclusive; open when absent: ${timeForms}.`),
};

export const pageParameters = {
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 100_000, description: 'Most items of the answer; 100 when absent.' }),
  ),
  cursor: text('Where to go on: `next` of the answer before. Ask the same question again with it.'),
};

const cidrForms = 'an address or CIDR such as 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32';

export const flowParameters = {
  ...windowParameters,
  verdict: Type.Optional(Type.Enum([...verdicts], { description: `One of ${verdicts.join(', ')}.` })),
  reason: Type.Optional(Type.Enum([...reasons], { description: `One of ${reasons.join(', ')}.` })),
  app: text('Value of the label app, at either end.'),
  namespace: text('Namespace of either end.'),
  cluster: text('Cluster of either end.'),
  src: text(`Labels of the source: ${labelForms}. Also as src_<key>=value.`),
  dst: text(`Labels of the destination: ${labelForms}. Also as dst_<key>=value.`),
  ip: text(`Address of either end: ${cidrForms}.`),
  src_ip: text(`Address of the source: ${cidrForms}.`),
  dst_ip: text(`Address of the destination: ${cidrForms}.`),
  port: Type.Optional(
    Type.Integer({ minimum: 0, maximum: 65_535, description: 'Destination port, 0 to 65535.' }),
  ),
  protocol: text(`One of ${protocolForms}.`),
  rule: Type.Optional(Type.String({ pattern: '^\\d{1,20}$', description: 'Id of a rule.' })),
  src_identity: Type.Optional(
    Type.String({ pattern: '^\\d{1,20}$', description: 'Id of the source identity.' }),
  ),
  dst_identity: Type.Optional(
    Type.String({ pattern: '^\\d{1,20}$', description: 'Id of the destination identity.' }),
  ),
  direction: Type.Optional(Type.Enum([...directions], { description: `One of ${directions.join(', ')}.` })),
  severity: Type.Optional(
    Type.Enum([...severities], { description: `This severe or more: one of ${severities.join(', ')}.` }),
  ),
};

/** `src_env=prod` and the like: any label key. */
export const labelParameters = {
  '^(src|dst)_[A-Za-z0-9][A-Za-z0-9._/-]*$': Type.String({ maxLength: 4096 }),
};

const FlowParameters = Type.Object(flowParameters);
export type FlowParameters = Static<typeof FlowParameters>;

export interface Clock {
  readonly nowMs: number;
  /** `query.defaultSince`. */
  readonly defaultSince: string;
}

function timeOf(name: string, value: string, clock: Clock): number {
  const seconds = parseTime(value, clock.nowMs);
  if (seconds === null) throw badParameter(name, value, timeForms);
  return seconds;
}

export function toWindow(parameters: { since?: string; until?: string }, clock: Clock): Window {
  const sinceS = timeOf('since', parameters.since ?? clock.defaultSince, clock);
  const untilS = parameters.until === undefined ? null : timeOf('until', parameters.until, clock);
  if (untilS !== null && untilS <= sinceS) {
    throw badParameter('until', parameters.until ?? '', 'a time after since', ', which is not after since');
  }
  return { sinceS, untilS };
}

export function toSpan(name: string, value: string | undefined): AddressSpan | null {
  if (value === undefined) return null;
  const cidr = parseCidr(value.trim());
  if (cidr === null) throw badParameter(name, value, cidrForms);
  const last = Uint8Array.from(cidr.base);
  for (let bit = cidr.prefix; bit < 128; bit++) last[bit >> 3] = (last[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  return { first: asIpv6(cidr.base), last: asIpv6(last) };
}

/** ClickHouse's IPv6 takes a mapped address only in IPv6 form. */
function asIpv6(bytes: Uint8Array): string {
  const shown = formatAddress(bytes);
  return shown.includes(':') ? shown : `::ffff:${shown}`;
}

export function toLabels(name: string, value: string | undefined): readonly LabelTerm[] {
  if (value === undefined) return [];
  const terms = parseLabels(value);
  if ('wrong' in terms) throw badParameter(name, value, labelForms, `: ${terms.wrong}`);
  return terms;
}

function isTaken(name: string): boolean {
  return name in flowParameters;
}

/** `src_env=prod|uat` of the request, for one end. */
function dynamicTerms(parameters: object, end: 'src' | 'dst'): LabelTerm[] {
  return Object.entries(parameters).flatMap(([name, value]) =>
    name.startsWith(`${end}_`) && !isTaken(name) && typeof value === 'string'
      ? [{ key: name.slice(end.length + 1), negated: false, values: value.split('|') }]
      : [],
  );
}

export function toFlowFilter(parameters: FlowParameters, clock: Clock): FlowFilter {
  const { protocol } = parameters;
  const protocolNumber = protocol === undefined ? null : parseProtocol(protocol);
  if (protocol !== undefined && protocolNumber === null)
    throw badParameter('protocol', protocol, protocolForms);
  const either = (['app', 'namespace', 'cluster'] as const).flatMap((key): LabelTerm[] => {
    const value = parameters[key];
    return value === undefined ? [] : [{ key, negated: false, values: value.split('|') }];
  });
  return {
    window: toWindow(parameters, clock),
    verdict: parameters.verdict ?? null,
    reason: parameters.reason ?? null,
    source: [...toLabels('src', parameters.src), ...dynamicTerms(parameters, 'src')],
    destination: [...toLabels('dst', parameters.dst), ...dynamicTerms(parameters, 'dst')],
    either,
    address: toSpan('ip', parameters.ip),
    sourceAddress: toSpan('src_ip', parameters.src_ip),
    destinationAddress: toSpan('dst_ip', parameters.dst_ip),
    port: parameters.port ?? null,
    protocol: protocolNumber,
    rule: parameters.rule ?? null,
    sourceIdentity: parameters.src_identity ?? null,
    destinationIdentity: parameters.dst_identity ?? null,
    direction: parameters.direction ?? null,
    severity: parameters.severity ?? null,
  };
}

export interface PageRequest {
  readonly page: Page;
  /** The window of the cursor, which stands over the one of the request. */
  readonly window: Window | null;
}

export function toPage(parameters: { limit?: number; cursor?: string }, maxLimit: number): PageRequest {
  const limit = parameters.limit ?? Math.min(100, maxLimit);
  if (limit > maxLimit) throw badParameter('limit', String(limit), `1 to ${maxLimit} (query.maxLimit)`);
  if (parameters.cursor === undefined) return { page: { limit, offset: 0 }, window: null };
  const cursor = decodeCursor(parameters.cursor);
  if (cursor === null)
    throw badParameter('cursor', parameters.cursor, '`next` of the answer before, as it is');
  return { page: { limit, offset: cursor.offset }, window: cursor.window };
}

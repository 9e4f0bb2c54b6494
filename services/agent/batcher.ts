/** Makes FlowBatches of connection reports, within the limits of a batch. */

import { parseWireAddress } from '../../lib/net/address.ts';
import type { FlowBatch } from '../../lib/wire/flow-batch.ts';
import { BatchStrings, encodeFlowBatch, type Flow } from '../../lib/wire/flow-batch.ts';
import type { Side } from '../../schemas/closed-lists.ts';
import type { ConnectionReport } from './connections.ts';
import type { Ends } from './flow-event.ts';

/** Who reports; the same in every batch of an agent. */
export interface ReporterIdentity {
  readonly agentId: string;
  readonly cluster: string;
  readonly node: string;
  readonly network: string;
  readonly sourceKind: string;
}

export interface BatchLimits {
  readonly maxFlowsPerBatch: number;
  readonly maxBatchBytes: number;
}

/** What a batch is to say beside its flows. */
export interface BatchHead extends ReporterIdentity {
  readonly bootId: string;
  readonly sequence: number;
  readonly observedFromMs: number;
  readonly observedToMs: number;
  readonly sourceDroppedCount: number;
  readonly clockOffsetMs: number;
  readonly clockErrorMs: number;
}

/** Longest process name that goes into a batch, characters. */
const maxProcessNameLength = 64;
const noAddress = new Uint8Array(0);

function wireAddress(text: string): Uint8Array {
  const bytes = parseWireAddress(text);
  if (bytes === null) throw new Error(`'${text}' is no IP address`);
  return bytes;
}

function flowOf(
  report: ConnectionReport,
  observedFromMs: number,
  sideOf: (ends: Ends) => Side,
  strings: BatchStrings,
): Flow {
  const { ends } = report;
  return {
    startMs: report.startMs - observedFromMs,
    durationMs: report.endMs - report.startMs,
    sourceAddress: wireAddress(ends.source),
    sourcePort: ends.sourcePort,
    destinationAddress: wireAddress(ends.destination),
    destinationPort: ends.destinationPort,
    protocol: ends.protocol,
    originalDestinationAddress: ends.original === null ? noAddress : wireAddress(ends.original.address),
    originalDestinationPort: ends.original?.port ?? 0,
    reporter: sideOf(ends),
    bytesForward: report.bytesForward,
    bytesReverse: report.bytesReverse,
    packetsForward: report.packetsForward,
    packetsReverse: report.packetsReverse,
    connectionCount: report.connectionCount,
    flags: ends.flags,
    state: report.state,
    // An answer proves that the network let it through; silence doesn't, and a reset may be a firewall's.
    action: report.state === 'open' || report.state === 'closed' ? 'forwarded' : 'unknown',
    actionReason: 0,
    dnsName: 0,
    processName: strings.index(report.processName.slice(0, maxProcessNameLength)),
    sourceHint: strings.index(report.hints.source),
    destinationHint: strings.index(report.hints.destination),
  };
}

/** Encodes one batch. @throws {Error} naming the field where a value does not fit the schema. */
export function encodeReports(
  head: BatchHead,
  reports: readonly ConnectionReport[],
  sideOf: (ends: Ends) => Side,
): Buffer {
  const strings = new BatchStrings();
  const flows = reports.map((report) => flowOf(report, head.observedFromMs, sideOf, strings));
  const batch: FlowBatch = { ...head, samplingRate: 1, strings: strings.list, flows };
  return encodeFlowBatch(batch);
}

export interface EncodedPart {
  readonly flowCount: number;
  readonly bytes: Buffer;
}

/**
 * Splits reports into parts that fit a batch each, in order; no reports are one empty part. `encode` gets the part's
 * number from 0 and may be called anew with fewer reports. A single report always fits; one that can't be encoded is
 * left out and told to `onUnfit`, so that it spoils no other.
 */
export function encodeParts(
  reports: readonly ConnectionReport[],
  limits: BatchLimits,
  encode: (part: readonly ConnectionReport[], number: number) => Buffer,
  onUnfit: (report: ConnectionReport, error: unknown) => void,
): EncodedPart[] {
  const parts: EncodedPart[] = [];
  let from = 0;
  let count = Math.min(limits.maxFlowsPerBatch, reports.length);
  do {
    const part = reports.slice(from, from + count);
    const [only] = part;
    let bytes: Buffer | null = null;
    try {
      bytes = encode(part, parts.length);
    } catch (error) {
      if (part.length === 1 && only !== undefined) onUnfit(only, error);
    }
    if (part.length > 1 && (bytes === null || bytes.length > limits.maxBatchBytes)) {
      count = Math.ceil(part.length / 2);
      continue;
    }
    if (bytes !== null) parts.push({ flowCount: part.length, bytes });
    from += part.length;
    count = Math.min(limits.maxFlowsPerBatch, reports.length - from);
  } while (from < reports.length);
  return parts;
}

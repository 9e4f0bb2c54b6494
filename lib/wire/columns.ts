/**
 * The columnar reader: walks the Avro bytes of a FlowBatch straight into typed arrays, with no object per flow.
 * `schemas/flow-batch.avsc` is the definition; tests hold this reader against avsc on generated batches.
 */
import type { DropCause } from '../../schemas/closed-lists.ts';
import { currentFrame, frameLength } from './flow-batch.ts';
import { TextRefs, utf8 } from './text-refs.ts';

export { TextRefs } from './text-refs.ts';

/** Flows of many batches, column by column; row i of every array is flow i. 64-bit counters are pairs of 32-bit words, low first. */
export interface FlowColumns {
  readonly capacity: number;
  /** Rows in use. */
  count: number;
  /** Begin, ms since the epoch. */
  readonly startMs: Float64Array;
  readonly durationMs: Uint32Array;
  /** 16 bytes a row, IPv4 mapped; `...Words` are the same bytes as 4 words a row in the machine's order. */
  readonly source: Uint8Array;
  readonly sourceWords: Uint32Array;
  readonly destination: Uint8Array;
  readonly destinationWords: Uint32Array;
  readonly originalDestination: Uint8Array;
  readonly originalDestinationWords: Uint32Array;
  readonly sourcePort: Uint16Array;
  readonly destinationPort: Uint16Array;
  readonly originalDestinationPort: Uint16Array;
  readonly protocol: Uint8Array;
  readonly side: Uint8Array;
  readonly state: Uint8Array;
  readonly action: Uint8Array;
  readonly flags: Uint16Array;
  readonly bytesForward: Uint32Array;
  readonly bytesReverse: Uint32Array;
  readonly packetsForward: Uint32Array;
  readonly packetsReverse: Uint32Array;
  readonly connectionCount: Uint32Array;
  /** References into `texts`; 0 is none. */
  readonly actionReason: Uint32Array;
  readonly dnsName: Uint32Array;
  readonly processName: Uint32Array;
  readonly sourceHint: Uint32Array;
  readonly destinationHint: Uint32Array;
  readonly texts: TextRefs;
}

/** What a batch says of itself; times in ms since the epoch. */
export interface BatchHeader {
  agentId: string;
  bootId: string;
  sequence: number;
  cluster: string;
  node: string;
  network: string;
  sourceKind: string;
  observedFromMs: number;
  observedToMs: number;
  sourceDroppedCount: number;
  samplingRate: number;
  /** The agent's clock minus the common clock, ms; every time of the batch is by the agent's clock. */
  clockOffsetMs: number;
  /** How far `clockOffsetMs` may be off, ms; -1 where the agent could not measure. */
  clockErrorMs: number;
}

/** The outcome of reading one message: the rows it added, or why it added none. */
export type ReadResult =
  | { readonly ok: true; readonly header: BatchHeader; readonly firstRow: number; readonly rowCount: number }
  | { readonly ok: false; readonly cause: DropCause; readonly field: string; readonly detail: string };

/** Empty columns for up to `capacity` flows (about 150 bytes each). */
export function makeFlowColumns(capacity: number, texts = new TextRefs()): FlowColumns {
  const address = (): { bytes: Uint8Array; words: Uint32Array } => {
    const words = new Uint32Array(capacity * 4);
    return { bytes: new Uint8Array(words.buffer), words };
  };
  const source = address();
  const destination = address();
  const originalDestination = address();
  return {
    capacity,
    count: 0,
    startMs: new Float64Array(capacity),
    durationMs: new Uint32Array(capacity),
    source: source.bytes,
    sourceWords: source.words,
    destination: destination.bytes,
    destinationWords: destination.words,
    originalDestination: originalDestination.bytes,
    originalDestinationWords: originalDestination.words,
    sourcePort: new Uint16Array(capacity),
    destinationPort: new Uint16Array(capacity),
    originalDestinationPort: new Uint16Array(capacity),
    protocol: new Uint8Array(capacity),
    side: new Uint8Array(capacity),
    state: new Uint8Array(capacity),
    action: new Uint8Array(capacity),
    flags: new Uint16Array(capacity),
    bytesForward: new Uint32Array(capacity * 2),
    bytesReverse: new Uint32Array(capacity * 2),
    packetsForward: new Uint32Array(capacity * 2),
    packetsReverse: new Uint32Array(capacity * 2),
    connectionCount: new Uint32Array(capacity),
    actionReason: new Uint32Array(capacity),
    dnsName: new Uint32Array(capacity),
    processName: new Uint32Array(capacity),
    sourceHint: new Uint32Array(capacity),
    destinationHint: new Uint32Array(capacity),
    texts,
  };
}

/** The same flows (and texts) with room for more; the old columns are not to be used any more. */
export function growFlowColumns(columns: FlowColumns, capacity: number): FlowColumns {
  const larger = makeFlowColumns(capacity, columns.texts);
  larger.count = columns.count;
  larger.startMs.set(columns.startMs);
  larger.durationMs.set(columns.durationMs);
  larger.sourceWords.set(columns.sourceWords);
  larger.destinationWords.set(columns.destinationWords);
  larger.originalDestinationWords.set(columns.originalDestinationWords);
  larger.sourcePort.set(columns.sourcePort);
  larger.destinationPort.set(columns.destinationPort);
  larger.originalDestinationPort.set(columns.originalDestinationPort);
  larger.protocol.set(columns.protocol);
  larger.side.set(columns.side);
  larger.state.set(columns.state);
  larger.action.set(columns.action);
  larger.flags.set(columns.flags);
  larger.bytesForward.set(columns.bytesForward);
  larger.bytesReverse.set(columns.bytesReverse);
  larger.packetsForward.set(columns.packetsForward);
  larger.packetsReverse.set(columns.packetsReverse);
  larger.connectionCount.set(columns.connectionCount);
  larger.actionReason.set(columns.actionReason);
  larger.dnsName.set(columns.dnsName);
  larger.processName.set(columns.processName);
  larger.sourceHint.set(columns.sourceHint);
  larger.destinationHint.set(columns.destinationHint);
  return larger;
}

/** Empties columns for the next block. */
export function clearFlowColumns(columns: FlowColumns): void {
  columns.count = 0;
  columns.texts.clear();
}

const two32 = 4294967296;
/** The word that stands for bytes 8..11 of a mapped IPv4 address, in the machine's order. */
const mappedWord = new Uint32Array(Uint8Array.of(0, 0, 0xff, 0xff).buffer)[0] ?? 0;

/** A position in a message. Reading past the end yields zeros and leaves `at` beyond `end`, which callers check. */
class Cursor {
  readonly bytes: Uint8Array;
  at: number;
  readonly end: number;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
    this.end = bytes.length;
  }

  /** A zigzag varint as a double; NaN where it is over 2^53 or over ten bytes. */
  long(): number {
    const bytes = this.bytes;
    let byte = bytes[this.at++] ?? 0;
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1);
    let value = byte & 0x7f;
    byte = bytes[this.at++] ?? 0;
    value |= (byte & 0x7f) << 7;
    if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    byte = bytes[this.at++] ?? 0;
    value |= (byte & 0x7f) << 14;
    if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    byte = bytes[this.at++] ?? 0;
    value |= (byte & 0x7f) << 21;
    if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    return this.#longRest(value);
  }

  #longRest(low28: number): number {
    // The lowest bit is the sign; without it every value up to 2^54 is exact in a double.
    const odd = low28 & 1;
    let value = low28 - odd;
    let scale = 268435456;
    for (let i = 4; i < 10; i++) {
      const byte = this.bytes[this.at++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        const half = value / 2;
        if (half >= Number.MAX_SAFE_INTEGER) return Number.NaN;
        return odd === 1 ? -half - 1 : half;
      }
      scale *= 128;
    }
    return Number.NaN;
  }
}

interface TextLimit {
  readonly field: string;
  readonly bytes: number;
}
const nameLimit = (field: string): TextLimit => ({ field, bytes: 256 });
const limits = {
  agentId: nameLimit('agentId'),
  bootId: nameLimit('bootId'),
  cluster: nameLimit('cluster'),
  node: nameLimit('node'),
  network: nameLimit('network'),
  sourceKind: nameLimit('sourceKind'),
};
/** Longest text that flows may refer to, bytes. */
const maxTextBytes = 1024;

class BadBatch extends Error {
  readonly reason: DropCause;
  readonly field: string;

  constructor(reason: DropCause, field: string, detail: string) {
    super(detail);
    this.reason = reason;
    this.field = field;
  }
}

function truncated(field: string): BadBatch {
  return new BadBatch('undecodable', field, 'the message ends in the middle');
}

function readText(cursor: Cursor, limit: TextLimit): string {
  const length = cursor.long();
  if (!(length >= 0)) throw new BadBatch('undecodable', limit.field, 'has a negative length');
  if (length > limit.bytes)
    throw new BadBatch('bad-value', limit.field, `has ${length} bytes, over the limit of ${limit.bytes}`);
  const from = cursor.at;
  cursor.at += length;
  if (cursor.at > cursor.end) throw truncated(limit.field);
  return utf8(cursor.bytes, from, cursor.at);
}

function readCount(cursor: Cursor, field: string): number {
  const value = cursor.long();
  if (!(value >= 0)) throw new BadBatch('bad-value', field, 'must be a whole number from 0 to 2^53');
  return value;
}

function readInt(cursor: Cursor, field: string): number {
  const value = cursor.long();
  if (!(value >= -0x80000000 && value <= 0x7fffffff))
    throw new BadBatch('bad-value', field, 'must be a whole number of 32 bits');
  return value;
}

/** Reads the number of items in the next block of an Avro array; 0 ends the array. */
function readBlockCount(cursor: Cursor, field: string): number {
  let count = cursor.long();
  if (count < 0) {
    count = -count;
    cursor.long();
  }
  if (!(count >= 0)) throw new BadBatch('undecodable', field, 'has a broken length');
  if (cursor.at > cursor.end) throw truncated(field);
  return count;
}

function readHeader(cursor: Cursor): BatchHeader {
  return {
    agentId: readText(cursor, limits.agentId),
    bootId: readText(cursor, limits.bootId),
    sequence: readCount(cursor, 'sequence'),
    cluster: readText(cursor, limits.cluster),
    node: readText(cursor, limits.node),
    network: readText(cursor, limits.network),
    sourceKind: readText(cursor, limits.sourceKind),
    observedFromMs: readCount(cursor, 'observedFromMs'),
    observedToMs: readCount(cursor, 'observedToMs'),
    sourceDroppedCount: readCount(cursor, 'sourceDroppedCount'),
    samplingRate: readCount(cursor, 'samplingRate'),
    clockOffsetMs: readInt(cursor, 'clockOffsetMs'),
    clockErrorMs: readInt(cursor, 'clockErrorMs'),
  };
}

function readTexts(cursor: Cursor, texts: TextRefs): number {
  let count = 0;
  for (;;) {
    const items = readBlockCount(cursor, 'strings');
    if (items === 0) return count;
    for (let i = 0; i < items; i++) {
      const length = cursor.long();
      if (!(length >= 0 && length <= maxTextBytes)) {
        throw new BadBatch('bad-value', `strings[${count}]`, `must have 0 to ${maxTextBytes} bytes`);
      }
      texts.add(cursor.at, cursor.at + length);
      cursor.at += length;
      if (cursor.at > cursor.end) throw truncated(`strings[${count}]`);
      count++;
    }
  }
}

function badFlow(row: number, field: string, detail: string): BadBatch {
  return new BadBatch('bad-value', `flows[${row}].${field}`, detail);
}

/** Copies an address of 4 or 16 bytes into row `row`; returns false for any other length. */
function readAddress(cursor: Cursor, into: Uint8Array, words: Uint32Array, row: number): boolean {
  const length = cursor.long();
  const bytes = cursor.bytes;
  const at = cursor.at;
  if (length === 4) {
    const word = row * 4;
    words[word] = 0;
    words[word + 1] = 0;
    words[word + 2] = mappedWord;
    const to = row * 16 + 12;
    into[to] = bytes[at] ?? 0;
    into[to + 1] = bytes[at + 1] ?? 0;
    into[to + 2] = bytes[at + 2] ?? 0;
    into[to + 3] = bytes[at + 3] ?? 0;
  } else if (length === 16) {
    const to = row * 16;
    for (let i = 0; i < 16; i++) into[to + i] = bytes[at + i] ?? 0;
  } else {
    return false;
  }
  cursor.at = at + length;
  return true;
}

function writeCount(words: Uint32Array, row: number, value: number): void {
  const at = row * 2;
  if (value < two32) {
    words[at] = value;
    words[at + 1] = 0;
  } else {
    words[at] = value % two32;
    words[at + 1] = Math.floor(value / two32);
  }
}

/** Whether the value is a whole number from 0 to `to`; false for NaN. */
function within(value: number, to: number): boolean {
  return value >= 0 && value <= to;
}

/** Names the first of the values that is out of its bounds. */
function refuseNumbers(
  index: number,
  fields: readonly (readonly [field: string, value: number, to: number])[],
): BadBatch {
  const [field, value, to] = fields.find(([, found, highest]) => !within(found, highest)) ?? [
    'flow',
    Number.NaN,
    0,
  ];
  const shown = Number.isNaN(value) ? 'over 2^53' : String(value);
  return badFlow(index, field, `is ${shown}, must be from 0 to ${to}`);
}

const maxPort = 65535;
const maxCounter = Number.MAX_SAFE_INTEGER;

/** Reads one flow into row `row`; `index` is its place in the batch, for messages. */
function readFlow(
  cursor: Cursor,
  to: FlowColumns,
  row: number,
  index: number,
  fromMs: number,
  textBase: number,
  textCount: number,
): void {
  const start = cursor.long();
  const duration = cursor.long();
  if (!(start > -two32 * 16 && start < two32))
    throw badFlow(index, 'startMs', 'is too far from observedFromMs');
  if (!within(duration, two32 - 1)) throw refuseNumbers(index, [['durationMs', duration, two32 - 1]]);
  to.startMs[row] = fromMs + start;
  to.durationMs[row] = duration;

  if (!readAddress(cursor, to.source, to.sourceWords, row))
    throw badFlow(index, 'sourceAddress', 'must have 4 or 16 bytes');
  const sourcePort = cursor.long();
  if (!readAddress(cursor, to.destination, to.destinationWords, row)) {
    throw badFlow(index, 'destinationAddress', 'must have 4 or 16 bytes');
  }
  const destinationPort = cursor.long();
  const protocol = cursor.long();
  if (!within(sourcePort, maxPort) || !within(destinationPort, maxPort) || !within(protocol, 255)) {
    throw refuseNumbers(index, [
      ['sourcePort', sourcePort, maxPort],
      ['destinationPort', destinationPort, maxPort],
      ['protocol', protocol, 255],
    ]);
  }
  to.sourcePort[row] = sourcePort;
  to.destinationPort[row] = destinationPort;
  to.protocol[row] = protocol;

  // No original destination is the usual case: one zero byte.
  if (cursor.bytes[cursor.at] === 0) {
    cursor.at++;
    const word = row * 4;
    to.originalDestinationWords[word] = 0;
    to.originalDestinationWords[word + 1] = 0;
    to.originalDestinationWords[word + 2] = 0;
    to.originalDestinationWords[word + 3] = 0;
  } else if (!readAddress(cursor, to.originalDestination, to.originalDestinationWords, row)) {
    throw badFlow(index, 'originalDestinationAddress', 'must have 0, 4 or 16 bytes');
  }
  const originalPort = cursor.long();
  const side = cursor.long();
  const bytesForward = cursor.long();
  const bytesReverse = cursor.long();
  const packetsForward = cursor.long();
  const packetsReverse = cursor.long();
  const connectionCount = cursor.long();
  const flags = cursor.long();
  const state = cursor.long();
  const action = cursor.long();
  if (
    !within(originalPort, maxPort) ||
    !within(side, 2) ||
    !within(bytesForward, maxCounter) ||
    !within(bytesReverse, maxCounter) ||
    !within(packetsForward, maxCounter) ||
    !within(packetsReverse, maxCounter) ||
    !within(connectionCount, two32 - 1) ||
    !within(flags, 65535) ||
    !within(state, 5) ||
    !within(action, 2)
  ) {
    throw refuseNumbers(index, [
      ['originalDestinationPort', originalPort, maxPort],
      ['reporter', side, 2],
      ['bytesForward', bytesForward, maxCounter],
      ['bytesReverse', bytesReverse, maxCounter],
      ['packetsForward', packetsForward, maxCounter],
      ['packetsReverse', packetsReverse, maxCounter],
      ['connectionCount', connectionCount, two32 - 1],
      ['flags', flags, 65535],
      ['state', state, 5],
      ['action', action, 2],
    ]);
  }
  to.originalDestinationPort[row] = originalPort;
  to.side[row] = side;
  writeCount(to.bytesForward, row, bytesForward);
  writeCount(to.bytesReverse, row, bytesReverse);
  writeCount(to.packetsForward, row, packetsForward);
  writeCount(to.packetsReverse, row, packetsReverse);
  to.connectionCount[row] = connectionCount;
  to.flags[row] = flags;
  to.state[row] = state;
  to.action[row] = action;

  const actionReason = cursor.long();
  const dnsName = cursor.long();
  const processName = cursor.long();
  const sourceHint = cursor.long();
  const destinationHint = cursor.long();
  const lastText = textCount - 1;
  if (
    !within(actionReason, lastText) ||
    !within(dnsName, lastText) ||
    !within(processName, lastText) ||
    !within(sourceHint, lastText) ||
    !within(destinationHint, lastText)
  ) {
    throw refuseNumbers(index, [
      ['actionReason', actionReason, lastText],
      ['dnsName', dnsName, lastText],
      ['processName', processName, lastText],
      ['sourceHint', sourceHint, lastText],
      ['destinationHint', destinationHint, lastText],
    ]);
  }
  to.actionReason[row] = actionReason === 0 ? 0 : textBase + actionReason;
  to.dnsName[row] = dnsName === 0 ? 0 : textBase + dnsName;
  to.processName[row] = processName === 0 ? 0 : textBase + processName;
  to.sourceHint[row] = sourceHint === 0 ? 0 : textBase + sourceHint;
  to.destinationHint[row] = destinationHint === 0 ? 0 : textBase + destinationHint;
}

/** Smallest flow there can be, bytes: bounds what a count may promise before it is believed. */
const minFlowBytes = 31;

/**
 * Appends the flows of one framed FlowBatch of the current schema to `into`. All or nothing: after a refusal the columns
 * are as before. The message must stay untouched until the columns are cleared (texts are read from it later).
 * A batch that does not fit into what is left of the capacity is refused as `too-many-flows`.
 */
export function readFlowBatch(message: Uint8Array, into: FlowColumns): ReadResult {
  for (let i = 0; i < frameLength; i++) {
    if (message[i] !== currentFrame[i]) {
      const framed = message.length >= frameLength && message[0] === 0xc3 && message[1] === 0x01;
      return framed
        ? {
            ok: false,
            cause: 'unknown-schema',
            field: 'fingerprint',
            detail: 'was written with another schema',
          }
        : {
            ok: false,
            cause: 'undecodable',
            field: 'frame',
            detail: 'does not begin with C3 01 and a schema fingerprint',
          };
    }
  }
  const cursor = new Cursor(message, frameLength);
  const firstRow = into.count;
  const textsBefore = into.texts.count;
  into.texts.addMessage(message);
  try {
    const header = readHeader(cursor);
    if (cursor.at > cursor.end) throw truncated('header');
    // Text 0 is the empty one: reference = base + index, where index 0 never needs it.
    const textBase = into.texts.count;
    const textCount = Math.max(1, readTexts(cursor, into.texts));
    let row = firstRow;
    for (;;) {
      const items = readBlockCount(cursor, 'flows');
      if (items === 0) break;
      if (items * minFlowBytes > cursor.end - cursor.at) throw truncated('flows');
      if (row + items > into.capacity) {
        throw new BadBatch(
          'too-many-flows',
          'flows',
          `has over ${into.capacity - firstRow} flows, which is all that fits`,
        );
      }
      for (let i = 0; i < items; i++) {
        readFlow(cursor, into, row, row - firstRow, header.observedFromMs, textBase, textCount);
        row++;
      }
      if (cursor.at > cursor.end) throw truncated('flows');
    }
    if (cursor.at !== cursor.end) throw new BadBatch('undecodable', 'message', 'has bytes after its end');
    into.count = row;
    return { ok: true, header, firstRow, rowCount: row - firstRow };
  } catch (error) {
    into.texts.rollback(textsBefore);
    if (error instanceof BadBatch)
      return { ok: false, cause: error.reason, field: error.field, detail: error.message };
    throw error;
  }
}

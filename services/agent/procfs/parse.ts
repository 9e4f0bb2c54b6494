/**
 * Reads /proc/net/{tcp,tcp6,udp,udp6} (Linux, net/ipv4/tcp_ipv4.c get_tcp4_sock): addresses are hexadecimal 32-bit
 * words in the byte order of the machine, ports and states hexadecimal.
 */
import { endianness } from 'node:os';
import { formatAddress, toMapped } from '../../../lib/net/address.ts';

/** Socket states (include/net/tcp_states.h). */
export const socketStates = {
  established: 1,
  synSent: 2,
  synRecv: 3,
  finWait1: 4,
  finWait2: 5,
  timeWait: 6,
  close: 7,
  closeWait: 8,
  lastAck: 9,
  listen: 10,
  closing: 11,
  newSynRecv: 12,
} as const;

export interface Endpoint {
  /** As `lib/net/address.ts` formats it; an IPv4 address mapped into IPv6 is IPv4. */
  readonly address: string;
  readonly port: number;
}

const space = 0x20;
const newline = 0x0a;
const colon = 0x3a;

function skipSpaces(bytes: Uint8Array, at: number): number {
  let i = at;
  while (bytes[i] === space) i++;
  return i;
}

function skipWord(bytes: Uint8Array, at: number): number {
  let i = at;
  for (let byte = bytes[i]; byte !== space && byte !== newline && byte !== undefined; byte = bytes[i]) i++;
  return i;
}

function hexDigit(byte: number): number {
  return byte <= 0x39 ? byte - 0x30 : (byte & 0x0f) + 9;
}

/** Words between the state and the inode: queues, timer, retransmits, uid, timeout. */
const wordsBeforeInode = 5;

/**
 * Calls `onRow` for each socket: both endpoints in the kernel's text (`0100007F:1F90 00000000:0000`), state, inode
 * (0: none). Makes nothing but that text, for this runs every second.
 */
export function parseSocketTable(
  bytes: Buffer,
  length: number,
  onRow: (endpoints: string, state: number, inode: number) => void,
): void {
  let line = bytes.indexOf(newline) + 1;
  while (line > 0 && line < length) {
    const end = bytes.indexOf(newline, line);
    if (end < 0 || end >= length) return;
    let at = bytes.indexOf(colon, line);
    if (at > 0 && at < end) {
      const endpoints = skipSpaces(bytes, at + 1);
      at = skipWord(bytes, skipSpaces(bytes, skipWord(bytes, endpoints)));
      const stateAt = skipSpaces(bytes, at);
      const state = hexDigit(bytes[stateAt] ?? 0x30) * 16 + hexDigit(bytes[stateAt + 1] ?? 0x30);
      let word = skipWord(bytes, stateAt);
      for (let i = 0; i < wordsBeforeInode; i++) word = skipWord(bytes, skipSpaces(bytes, word));
      let inode = 0;
      for (let i = skipSpaces(bytes, word); (bytes[i] ?? 0) >= 0x30; i++)
        inode = inode * 10 + (bytes[i] ?? 0) - 0x30;
      onRow(bytes.toString('latin1', endpoints, at), state, inode);
    }
    line = end + 1;
  }
}

const littleEndian = endianness() === 'LE';

function parseEndpoint(text: string): Endpoint {
  const [hex = '', port = ''] = text.split(':');
  const bytes = Buffer.from(hex, 'hex');
  // Each 32-bit word was printed as a number: on a little-endian machine its bytes are reversed.
  if (littleEndian) bytes.swap32();
  return { address: formatAddress(toMapped(bytes)), port: Number.parseInt(port, 16) };
}

/** Local and remote endpoint of a row's text. */
export function parseEndpoints(text: string): { local: Endpoint; remote: Endpoint } {
  const gap = text.search(/ +/);
  return { local: parseEndpoint(text.slice(0, gap)), remote: parseEndpoint(text.slice(gap).trim()) };
}

export interface TcpActivity {
  /** Connections that this namespace ever began and took. */
  readonly openCount: number;
  /** Another text than before: connections began or ended since. */
  readonly fingerprint: string;
}

/** What /proc/net/snmp counts of TCP (RFC 4022), for a fraction of what reading the tables costs; `null`: nothing. */
export function parseTcpActivity(snmp: string): TcpActivity | null {
  const [names, values] = snmp.split('\n').filter((line) => line.startsWith('Tcp:'));
  if (names === undefined || values === undefined) return null;
  const columns = names.split(' ');
  const figures = values.split(' ');
  const figure = (name: string): number => Number(figures[columns.indexOf(name)]);
  const openCount = figure('ActiveOpens') + figure('PassiveOpens');
  if (!Number.isFinite(openCount)) return null;
  const changes = [openCount, figure('AttemptFails'), figure('EstabResets'), figure('CurrEstab')];
  return { openCount, fingerprint: changes.join(' ') };
}

/** Ports and protocols as firewall rules name them. */

export interface PortRange {
  /** IP protocol number; `any` for all, `tcp-udp` for a port without a protocol. */
  readonly protocol: number | 'any' | 'tcp-udp';
  readonly first: number;
  /** Inclusive. Of ICMP a port is type * 256 + code. */
  readonly last: number;
}

/** A flow matches one of them. */
export type Services = readonly PortRange[];

export const highestPort = 65_535;
export const everyService: Services = [{ protocol: 'any', first: 0, last: highestPort }];

const numbers: Readonly<Record<string, number>> = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  gre: 47,
  esp: 50,
  ah: 51,
  icmpv6: 58,
  'ipv6-icmp': 58,
  sctp: 132,
  udplite: 136,
};
const names = new Map(
  Object.entries(numbers)
    .filter(([name]) => name !== 'ipv6-icmp')
    .map(([name, number]) => [number, name]),
);

/** Protocols with ports that firewalls look at. */
export const portProtocols: readonly number[] = [6, 17, 132, 136];

export function protocolNumber(text: string): number | null {
  const known = numbers[text.toLowerCase()];
  if (known !== undefined) return known;
  return /^\d{1,3}$/.test(text) && Number(text) <= 255 ? Number(text) : null;
}

export function protocolText(number: number): string {
  return names.get(number) ?? String(number);
}

/** Protocols that a range is about; `null` for all. */
export function protocolsOf({ protocol }: PortRange): readonly number[] | null {
  if (protocol === 'any') return null;
  return protocol === 'tcp-udp' ? [6, 17] : [protocol];
}

export const serviceForms = 'a port, 443/tcp, a range such as 8000-8080/tcp, a protocol, or any';

function parsePorts(text: string): readonly [number, number] | null {
  const match = /^(\d{1,5})(?:\s*[-:]\s*(\d{1,5}))?$/.exec(text.trim());
  if (match === null) return null;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  return last > highestPort || first > last ? null : [first, last];
}

/** One item: `443`, `443/tcp`, `tcp/443`, `8000-8080`, `icmp`, `any`, `any/udp`; a text says what is wrong. */
export function parseServiceItem(
  text: string,
  protocol: PortRange['protocol'] = 'tcp-udp',
): PortRange | string {
  const item = text.trim();
  const wrong = `"${item}" is no port; expected ${serviceForms}`;
  const isAny = (part: string): boolean => /^(any|all|\*)$/i.test(part);
  if (isAny(item))
    return { protocol: protocol === 'tcp-udp' ? 'any' : protocol, first: 0, last: highestPort };
  const parts = item.split('/').map((part) => part.trim());
  const [left = '', right] = parts;
  if (parts.length > 2) return wrong;
  if (right === undefined) {
    const ports = parsePorts(left);
    if (ports !== null) return { protocol, first: ports[0], last: ports[1] };
    const named = /^\d/.test(left) ? null : protocolNumber(left);
    return named === null ? wrong : { protocol: named, first: 0, last: highestPort };
  }
  const [portPart, protocolPart] = /^[a-z]/i.test(left) && !isAny(left) ? [right, left] : [left, right];
  const number = protocolNumber(protocolPart);
  if (number === null)
    return `"${item}" names no protocol; expected tcp, udp, icmp, icmpv6, sctp or a number behind the slash`;
  if (isAny(portPart)) return { protocol: number, first: 0, last: highestPort };
  const ports = parsePorts(portPart);
  return ports === null ? wrong : { protocol: number, first: ports[0], last: ports[1] };
}

/** A list joined by `;`; `protocol` is that of ports that name none. */
export function parseServices(text: string, protocol: PortRange['protocol'] = 'tcp-udp'): Services | string {
  const out: PortRange[] = [];
  for (const item of text.split(';')) {
    if (item.trim() === '') continue;
    const range = parseServiceItem(item, protocol);
    if (typeof range === 'string') return range;
    out.push(range);
  }
  return out.length === 0 ? `there is none; expected ${serviceForms}` : out;
}

function isWhole({ first, last }: PortRange): boolean {
  return first === 0 && last === highestPort;
}

export function serviceText(range: PortRange): string {
  const { protocol, first, last } = range;
  if (protocol === 'any' && isWhole(range)) return 'any';
  const suffix = protocol === 'any' ? '/any' : protocol === 'tcp-udp' ? '' : `/${protocolText(protocol)}`;
  if (isWhole(range)) return protocol === 'tcp-udp' ? 'any/tcp;any/udp' : suffix.slice(1);
  if (protocol === 1 || protocol === 58) {
    const whole = first % 256 === 0 && last === first + 255;
    return `${protocolText(protocol)} type ${first >> 8}${whole ? '' : ` code ${first & 255}`}`;
  }
  return `${first === last ? first : `${first}-${last}`}${suffix}`;
}

export function serviceTexts(services: Services): string[] {
  return services.map(serviceText);
}

function common(a: PortRange['protocol'], b: PortRange['protocol']): PortRange['protocol'] | null {
  if (a === 'any' || a === b) return b;
  if (b === 'any') return a;
  const [narrow, wide] = a === 'tcp-udp' ? [b, a] : [a, b];
  return wide === 'tcp-udp' && (narrow === 6 || narrow === 17) ? narrow : null;
}

/** What is in both. */
export function intersectServices(a: Services, b: Services): Services {
  return a.flatMap((left) =>
    b.flatMap((right): PortRange[] => {
      const protocol = common(left.protocol, right.protocol);
      const first = Math.max(left.first, right.first);
      const last = Math.min(left.last, right.last);
      return protocol === null || first > last ? [] : [{ protocol, first, last }];
    }),
  );
}

/** Ports that were seen, gathered to ranges: sorted by protocol, then port. */
export function gatherPorts(seen: Iterable<{ readonly protocol: number; readonly port: number }>): Services {
  const sorted = [...seen].sort((a, b) => a.protocol - b.protocol || a.port - b.port);
  const out: { protocol: number; first: number; last: number }[] = [];
  for (const { protocol, port } of sorted) {
    const before = out.at(-1);
    if (before?.protocol === protocol && port <= before.last + 1) before.last = Math.max(before.last, port);
    else out.push({ protocol, first: port, last: port });
  }
  return out;
}

/** How numbers, times and ends are put into words for people. */
import type { End } from './answers.ts';

const byteUnits = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** `1.2 MB`, in powers of 1000. */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < byteUnits.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${byteUnits[unit]}`;
}

/** `1,234,567`. */
export function countText(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** `3m ago`; `-` for none. */
export function agoText(iso: string | null, nowMs: number): string {
  if (iso === null) return '-';
  const seconds = Math.round((nowMs - Date.parse(iso)) / 1000);
  if (seconds < 0) return 'now';
  if (seconds < 100) return `${seconds}s ago`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)}m ago`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)}h ago`;
  return `${Math.round(seconds / 86_400)}d ago`;
}

/** `93.4 %`; `-` where there was nothing. */
export function shareText(share: number | null): string {
  if (share === null) return '-';
  // What is not whole shall not be shown as whole.
  const percent = Math.floor(share * 1000) / 10;
  return `${share === 1 ? '100' : percent.toFixed(1)} %`;
}

export function millisecondsText(ms: number | null): string {
  if (ms === null) return '-';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 100_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

const order = ['app', 'role', 'env', 'loc'];

/** `payments/api/prod` from the built-in labels; empty where none is set. */
export function labelsText(labels: Readonly<Record<string, string>>): string {
  return order
    .map((key) => labels[key] ?? '')
    .filter((value) => value !== '')
    .join('/');
}

/** Where it lives: `cluster/namespace`, what is known of it. */
export function placeText(end: Pick<End, 'cluster' | 'namespace'>): string {
  return [end.cluster, end.namespace].filter((part) => part !== '').join('/');
}

/** Who it is, in labels if there are any, else by name, place or address. */
export function whoText(end: End): string {
  const labels = labelsText(end.labels);
  if (labels !== '') return labels;
  if (end.name !== '') return end.name;
  const place = placeText(end);
  return place === '' ? (end.address ?? end.kind) : `${end.kind} in ${place}`;
}

/** `host:port`, with IPv6 in brackets. */
export function endpointText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** What a kind is followed by where a name is not a fact. */
const marks: Readonly<Record<string, string>> = { grace: '~', ambiguous: '?', late: '?' };
const openMark = '…';

/** `pod`, `vm`, `service`, `range`, ...: what an end was named as, with a mark where that is not exact. */
export function kindText(end: Pick<End, 'kind' | 'certainty'>, pending: number): string {
  const mark = marks[end.certainty ?? ''] ?? '';
  const open = pending > 0 && end.certainty !== 'exact' && end.certainty !== 'grace';
  return `${end.kind}${open ? openMark : mark}`;
}

const explanations: readonly (readonly [mark: string, text: string])[] = [
  ['~', 'had the address only give or take the tolerance of clocks'],
  ['?', 'one of several that had the address, or a guess'],
  [openMark, 'the inventory is not complete yet, the name may still change'],
];

/** What the marks among `kinds` mean; empty where there are none. */
export function marksText(kinds: readonly string[]): string {
  return explanations
    .filter(([mark]) => kinds.some((kind) => kind.endsWith(mark)))
    .map(([mark, text]) => `${mark} ${text}`)
    .join('; ');
}

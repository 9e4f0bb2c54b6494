/** Times as people write them: `90s`, `5m`, `24h`, `7d` ago, `now`, ISO 8601, or seconds since the epoch. */

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** What to write, for messages. */
export const timeForms =
  'a time ago such as 90s, 5m, 24h or 7d, "now", or ISO 8601 such as 2026-02-01T08:00:00Z';

/** The last second that ClickHouse's DateTime holds. */
const lastSecond = 4_294_967_295;

/** Seconds of `24h` and the like; `null` where the text is no duration. */
export function parseDurationSeconds(text: string): number | null {
  const match = /^(\d{1,9})(s|m|h|d|w)$/.exec(text.trim());
  const unit = unitSeconds[match?.[2] ?? ''];
  return match === null || unit === undefined ? null : Number(match[1]) * unit;
}

/** Milliseconds since the epoch, within what DateTime holds; `null` where the text is no time. A time without a zone is UTC. */
export function parseTimeMs(text: string, nowMs: number): number | null {
  const trimmed = text.trim();
  const within = (ms: number): number => Math.min(lastSecond * 1000, Math.max(0, ms));
  if (trimmed === 'now') return within(nowMs);
  const ago = parseDurationSeconds(trimmed);
  if (ago !== null) return within(nowMs - ago * 1000);
  if (/^\d{9,10}$/.test(trimmed)) return within(Number(trimmed) * 1000);
  if (!/^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?(Z|[+-]\d{2}:?\d{2})?$/.test(trimmed))
    return null;
  const zoned =
    /(Z|[+-]\d{2}:?\d{2})$/.test(trimmed.slice(10)) || trimmed.length === 10 ? trimmed : `${trimmed}Z`;
  const ms = Date.parse(zoned.replace(' ', 'T'));
  return Number.isNaN(ms) ? null : within(ms);
}

/** The same in whole seconds. */
export function parseTime(text: string, nowMs: number): number | null {
  const ms = parseTimeMs(text, nowMs);
  return ms === null ? null : Math.floor(ms / 1000);
}

/** ISO 8601 in UTC to the second. */
export function isoSeconds(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
}

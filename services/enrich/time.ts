/** A time, ms since the epoch, as ClickHouse reads DateTime64(3) from JSON: seconds with three decimals. */
export function dateTime64(timeMs: number): string {
  return (timeMs / 1000).toFixed(3);
}

/** A time, ms since the epoch, as ClickHouse reads DateTime64(3) of UTC from JSON. */
export function dateTime64(timeMs: number): string {
  // A number of seconds is not understood for all times: that of 1970 looks like the begin of a date.
  return new Date(timeMs).toISOString().slice(0, -1).replace('T', ' ');
}

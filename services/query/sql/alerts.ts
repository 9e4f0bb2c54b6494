/** Alerts: what was said to webhooks, or is still being tried. */
import type { Page, Window } from '../filters.ts';
import { allOf, Bindings, type Statement } from './bindings.ts';

export interface AlertFilter {
  readonly window: Window;
  readonly state: string | null;
  readonly receiver: string | null;
}

export function alertsSql(filter: AlertFilter, page: Page): Statement {
  const bindings = new Bindings();
  const where = [`created >= toDateTime(${bindings.bind('UInt32', filter.window.sinceS)})`];
  if (filter.window.untilS !== null)
    where.push(`created < toDateTime(${bindings.bind('UInt32', filter.window.untilS)})`);
  if (filter.state !== null) where.push(`state = ${bindings.bind('String', filter.state)}`);
  if (filter.receiver !== null) where.push(`receiver = ${bindings.bind('String', filter.receiver)}`);
  const sql = `SELECT id AS alert_id, toString(edge) AS edge_id, toUnixTimestamp64Milli(created) AS created_ms, toString(state) AS state_name,
  attempts, last_error, toString(receiver) AS receiver_name, payload, toUnixTimestamp64Milli(updated_at) AS updated_ms, count() OVER () AS total
FROM alerts FINAL
WHERE ${allOf(where)}
ORDER BY created DESC, alert_id, receiver_name
LIMIT ${bindings.bind('UInt32', page.limit)} OFFSET ${bindings.bind('UInt32', page.offset)}`;
  return { sql, params: bindings.values };
}

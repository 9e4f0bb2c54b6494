/** Where commands write: tables and JSON on stdout, what is said about them on stderr. */
import type { Completeness, List } from './answers.ts';
import { type Style, styleFor } from './style.ts';
import { type Cell, type Column, formatTable } from './table.ts';
import { agoText, countText, millisecondsText } from './words.ts';

export interface Screen {
  readonly style: Style;
  readonly nowMs: number;
  table(columns: readonly Column[], rows: readonly (readonly (string | Cell)[])[]): void;
  json(value: unknown): void;
  line(text: string): void;
  /** A remark beside the answer. */
  note(text: string): void;
  /** What may be missing from the answer. */
  completeness(completeness: Completeness): void;
}

/** Terminals narrower than this get lines that wrap. */
const narrowest = 60;

export function openScreen(wide: boolean): Screen {
  const { stdout, stderr } = process;
  const style = styleFor(stdout);
  const aside = styleFor(stderr);
  const width =
    wide || stdout.isTTY !== true ? Number.POSITIVE_INFINITY : Math.max(narrowest, stdout.columns ?? 80);
  const nowMs = Date.now();
  return {
    style,
    nowMs,
    table: (columns, rows) => {
      stdout.write(`${formatTable(columns, rows, { width, style }).join('\n')}\n`);
    },
    json: (value) => {
      stdout.write(`${JSON.stringify(value, null, 2)}\n`);
    },
    line: (text) => {
      stdout.write(`${text}\n`);
    },
    note: (text) => {
      stderr.write(`${aside.paint('dim', text)}\n`);
    },
    completeness(completeness) {
      const { text, whole } = completenessText(completeness, nowMs);
      stderr.write(`${aside.paint(whole ? 'dim' : 'warn', text)}\n`);
    },
  };
}

/** One line, and whether nothing is known to be missing. */
export function completenessText(
  completeness: Completeness,
  nowMs: number,
): { text: string; whole: boolean } {
  const {
    agentsReporting,
    agentsSilent,
    agentsSampling,
    nodesReporting,
    nodesSilent,
    batchesMissing,
    flowsDropped,
    sourcesSilent,
    freshestTo,
    delayMsP99,
  } = completeness;
  if (freshestTo === null)
    return { text: 'no flows were received in this window; see `eastwest doctor`', whole: false };
  const parts = [
    `${countText(agentsReporting)} agents reporting, ${countText(agentsSilent)} silent`,
    ...(nodesSilent === 0
      ? []
      : [`${countText(nodesSilent)} of ${countText(nodesReporting + nodesSilent)} nodes silent`]),
    ...(agentsSampling === 0 ? [] : [`${countText(agentsSampling)} sampling`]),
    `${countText(batchesMissing)} batches missing`,
    `${countText(flowsDropped)} flows dropped`,
    ...(sourcesSilent === 0
      ? []
      : [`${countText(sourcesSilent)} ${sourcesSilent === 1 ? 'source' : 'sources'} of inventory silent`]),
    `fresh to ${agoText(freshestTo, nowMs)}`,
    `queryable after ${millisecondsText(delayMsP99)} (p99)`,
  ];
  const lacks = agentsSilent + agentsSampling + nodesSilent + batchesMissing + flowsDropped + sourcesSilent;
  return { text: parts.join(', '), whole: lacks === 0 };
}

/** `20 of 41 since ..., from edges_1m`. */
export function listText(list: List<unknown>, what: string): string {
  const shown = list.items.length === list.total ? '' : `${countText(list.items.length)} of `;
  const end = list.window.until === null ? '' : ` until ${list.window.until}`;
  const table = list.table === undefined ? '' : `, from ${list.table}`;
  return `${shown}${countText(list.total)} ${what} since ${list.window.since}${end}${table}`;
}

/** `eastwest relabel`: runs it here, and says what became of it. */
import { pino } from 'pino';
import { TotalsError } from '../../lib/relabel/day.ts';
import { type Coverage, NoPolicyError, type RelabelResult, relabel } from '../../lib/relabel/relabel.ts';
import { BusyError } from '../../lib/relabel/runs.ts';
import { loadConfig } from '../../lib/runtime/config.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { StoreConfig } from '../../lib/store/config.ts';
import { openStore } from '../../lib/store/open.ts';
import { parseTime, timeForms } from '../../services/query/time.ts';
import { bytesText, countText, shareText } from '../ask/words.ts';
import type { CliDependencies } from '../dependencies.ts';
import { withBus } from '../with-bus.ts';

export interface RelabelCommandOptions {
  readonly since: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** Longest time for one statement: it may work at all flows of an hour, ms. */
const statementMs = 3_600_000;

function coverageLine(
  what: string,
  pick: (coverage: Coverage) => [number, number],
  result: RelabelResult,
): string {
  const text = (coverage: Coverage): string => {
    const [part, all] = pick(coverage);
    return shareText(all === 0 ? null : part / all);
  };
  return `  ${what.padEnd(12)} ${text(result.before)} -> ${text(result.after)}`;
}

function resultLines(result: RelabelResult): string[] {
  const { dryRun, policy, flows, changed, unknown, left, before } = result;
  const lines = [
    `${countText(changed)} of ${countText(flows)} flows ${dryRun ? 'would get' : 'got'} other labels or another verdict by policy ${policy}`,
    `explained, before -> after:`,
    coverageLine('connections', ({ explained, all }) => [explained.connections, all.connections], result),
    coverageLine('bytes', ({ explained, all }) => [explained.bytes, all.bytes], result),
    coverageLine('flows', ({ explained, all }) => [explained.flows, all.flows], result),
  ];
  if (!dryRun)
    lines.push(
      `totals are unchanged: ${countText(before.all.flows)} flows, ${countText(before.all.connections)} connections, ${bytesText(before.all.bytes)}`,
    );
  if (unknown > 0)
    lines.push(
      `${countText(unknown)} flows have an end that is no longer in the inventory: it keeps its labels`,
    );
  if (left > 0)
    lines.push(
      `${countText(left)} flows came meanwhile with labels of an older policy: run it again once all enrichers have the new one`,
    );
  return lines;
}

/** What went wrong, in words for the operator. */
function explained(error: unknown): unknown {
  if (error instanceof NoPolicyError)
    return new OperatorError(
      'no policy is in force: apply one with `eastwest rules apply <folder>`',
      exitCodes.usage,
    );
  if (error instanceof BusyError) return new OperatorError(error.message);
  if (error instanceof TotalsError)
    return new OperatorError(`nothing was replaced, as totals would have changed: ${error.message}`);
  return error;
}

export async function relabelCommand(
  options: RelabelCommandOptions,
  dependencies: CliDependencies,
): Promise<void> {
  const since = parseTime(options.since, Date.now());
  if (since === null)
    throw new OperatorError(`--since is "${options.since}"; expected ${timeForms}`, exitCodes.usage);
  const { values: config } = loadConfig({ store: StoreConfig }, dependencies.inputs(), dependencies.sections);
  const store = openStore(
    { ...config.store, queryTimeoutMs: statementMs },
    { log: pino({ level: 'silent' }) },
  );
  try {
    const result = await withBus(dependencies, 'eastwest-relabel', (bus) =>
      relabel({
        bus,
        store,
        since,
        dryRun: options.dryRun === true,
        onProgress: (text) => process.stderr.write(`${text}\n`),
      }),
    );
    const text =
      options.json === true ? JSON.stringify(result, undefined, 2) : resultLines(result).join('\n');
    process.stdout.write(`${text}\n`);
  } catch (error) {
    throw explained(error);
  } finally {
    await store.close();
  }
}

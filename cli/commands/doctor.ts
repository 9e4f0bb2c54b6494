/** `eastwest doctor`: what this machine needs, what is wrong, how to mend it. */
import type { Command } from 'commander';
import { loadConfig } from '../../lib/runtime/config.ts';
import { exitCodes } from '../../lib/runtime/exit.ts';
import { formatTable } from '../../lib/runtime/table.ts';
import type { CliDependencies } from '../dependencies.ts';
import type { Finding } from '../doctor/finding.ts';
import { sections } from '../sections.ts';

/** A table of what was found; under each line that is not ok, how to mend it. */
export function formatFindings(findings: readonly Finding[]): string[] {
  const [heading = '', ...rows] = formatTable(
    [{ title: '' }, { title: 'CHECK' }, { title: 'FOUND' }],
    findings.map(({ check, status, detail }) => [status, check, detail]),
  );
  const lines = rows.flatMap((row, index) => {
    const mend = findings[index]?.mend ?? '';
    return mend === '' ? [row] : [row, `      -> ${mend}`];
  });
  const failed = findings.filter(({ status }) => status === 'fail').length;
  const warned = findings.filter(({ status }) => status === 'warn').length;
  const verdict =
    failed + warned === 0
      ? 'everything is well'
      : `${failed} to mend, ${warned} to look at, the rest is well`;
  return [heading, ...lines, '', verdict];
}

export function register(program: Command, dependencies: CliDependencies): void {
  program
    .command('doctor')
    .description('check everything Eastwest needs here, and say how to mend what is wrong')
    .option('--json', 'as JSON')
    .action(async (options: { json?: boolean }) => {
      const { examine } = await import('../doctor/run.ts');
      const { values } = loadConfig(sections, dependencies.inputs());
      const findings = await examine(values);
      const text =
        options.json === true ? JSON.stringify(findings, undefined, 2) : formatFindings(findings).join('\n');
      process.stdout.write(`${text}\n`);
      const failed = findings.some(({ status }) => status === 'fail');
      dependencies.exit(failed ? exitCodes.failure : exitCodes.ok);
    });
}

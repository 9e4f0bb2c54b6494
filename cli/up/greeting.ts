/** What `eastwest up` says when everything runs. */
import { formatTable } from '../../lib/runtime/table.ts';
import { type AllConfig, localUrl } from './plan.ts';

/** How to call the command with the same data folder and ports, for the lines to try. */
function commandFor(config: AllConfig): string {
  return config.query.port === 8080 ? 'npx eastwest' : `npx eastwest --set query.port=${config.query.port}`;
}

/** Lines for the terminal. */
export function greeting(config: AllConfig, options: { demo: boolean; logsDir: string }): string[] {
  const command = commandFor(config);
  const rows = [
    ['page and API', localUrl(config.query)],
    ['flows in', `POST ${localUrl(config.ingest)}/v1/flows`],
    ['data', config.runtime.dataDir],
    ['logs', options.logsDir],
  ];
  const tries = [
    [`${command} unknown --since 5m`, 'connections that no rule explains'],
    [
      `${command} sql 'SELECT src_app, dst_app, count() FROM flows_labeled GROUP BY ALL ORDER BY 3 DESC LIMIT 10'`,
      'ask in SQL',
    ],
    [`${command} ledger`, 'what arrived, what is missing'],
  ];
  const [, ...facts] = formatTable([{ title: '' }, { title: '' }], rows);
  const lines = tries.flatMap(([line, meaning]) => [`    ${line}`, `        ${meaning}`]);
  return [
    '',
    options.demo
      ? 'Eastwest is ready. A generated bank streams in, and the connections of this host with it.'
      : 'Eastwest is ready.',
    '',
    ...facts.map((fact) => `  ${fact}`),
    '',
    '  Try, in another terminal:',
    ...lines,
    '',
    '  Ctrl-C stops everything; the data stays.',
    '',
  ];
}

/** What `eastwest up` says when everything runs. */
import { formatTable } from '../../lib/runtime/table.ts';
import { type AllConfig, localUrl } from './plan.ts';

/** What an asking command needs to find the API; nothing where it looks anyway. */
function whereToAsk(config: AllConfig): string {
  const url = localUrl(config.query);
  return url === 'http://127.0.0.1:8080' ? '' : ` --url ${url}`;
}

/** Lines for the terminal. */
export function greeting(config: AllConfig, options: { demo: boolean; logsDir: string }): string[] {
  const where = whereToAsk(config);
  const rows = [
    ['page and API', localUrl(config.query)],
    ['flows in', `POST ${localUrl(config.ingest)}/v1/flows`],
    ['data', config.runtime.dataDir],
    ['logs', options.logsDir],
  ];
  const tries = [
    [
      `npx eastwest unknown --since 5m${where}`,
      'connections that no rule explains, and how each end is known',
    ],
    [
      `npx eastwest sql 'SELECT src_app, dst_app, count() FROM flows_labeled GROUP BY ALL ORDER BY 3 DESC LIMIT 10'${where}`,
      'ask in SQL',
    ],
    [`npx eastwest ledger${where}`, 'what arrived, what is missing'],
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

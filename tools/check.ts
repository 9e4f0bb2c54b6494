/** `npm run check`: types, lint and format, layout; one summary. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { formatTable } from '../lib/runtime/table.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Check {
  readonly name: string;
  readonly what: string;
  readonly argv: readonly string[];
}

const checks: readonly Check[] = [
  { name: 'types', what: 'tsc --noEmit', argv: ['node_modules/.bin/tsc', '--noEmit', '-p', '.'] },
  {
    name: 'lint',
    what: 'biome check',
    argv: ['node_modules/.bin/biome', 'check', '--error-on-warnings', '.'],
  },
  { name: 'layout', what: 'tools/layout.ts', argv: [process.execPath, 'tools/layout.ts'] },
];

interface Outcome {
  readonly check: Check;
  readonly ok: boolean;
  readonly seconds: number;
}

async function runCheck(check: Check): Promise<Outcome> {
  const began = performance.now();
  const [program = '', ...args] = check.argv;
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  const ok = await new Promise<boolean>((settle) => {
    child.once('error', (error) => {
      process.stderr.write(`${program} cannot be started: ${error.message}; run npm ci first\n`);
      settle(false);
    });
    child.once('close', (code) => settle(code === 0));
  });
  return { check, ok, seconds: (performance.now() - began) / 1000 };
}

if (import.meta.main) {
  const outcomes: Outcome[] = [];
  for (const check of checks) {
    outcomes.push(await runCheck(check));
  }
  const rows = outcomes.map(({ check, ok, seconds }) => [
    check.name,
    ok ? 'ok' : 'FAILED',
    seconds.toFixed(1),
    check.what,
  ]);
  const table = formatTable(
    [{ title: 'CHECK' }, { title: 'RESULT' }, { title: 'SECONDS', align: 'right' }, { title: 'BY' }],
    rows,
  );
  process.stdout.write(`\n${table.join('\n')}\n`);
  process.exitCode = outcomes.every(({ ok }) => ok) ? 0 : 1;
}

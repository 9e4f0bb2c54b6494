/** Runs one service as a process of its own, with its configuration in the environment, so that it can be killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

export interface ServiceProcess {
  readonly pid: number;
  /** Base URL of /readyz and /metrics. */
  readonly probes: string;
  /** What it has logged so far. */
  output(): string;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

const startTimeoutMs = 60_000;

/** Starts `services/<name>/main.ts`; resolves when its probes are served. `settings` are `EASTWEST_...` variables, `nodeArguments` go to Node itself. */
export async function startService(
  name: string,
  settings: Readonly<Record<string, string>>,
  nodeArguments: readonly string[] = [],
): Promise<ServiceProcess> {
  const at = (path: string): string => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
  const program =
    `import { runService } from ${at('lib/runtime/run.ts')};` +
    `import { service } from ${at(`services/${name}/main.ts`)};` +
    'process.exit(await runService(service));';
  const child = spawn(process.execPath, [...nodeArguments, '--input-type=module', '--eval', program], {
    env: {
      PATH: process.env.PATH ?? '',
      EASTWEST_RUNTIME_HTTP_PORT: '0',
      EASTWEST_RUNTIME_LOG_FORMAT: 'json',
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const probes = await new Promise<string>((resolve, reject) => {
    const fail = (why: string): void => reject(new Error(`${name} ${why}:\n${output}`));
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      fail(`did not start within ${startTimeoutMs} ms`);
    }, startTimeoutMs);
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
      const url = /"probes":"([^"]+)"/.exec(output)?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      resolve(url);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('exit', (code) => {
      clearTimeout(timer);
      fail(`ended with ${code}`);
    });
  });
  return {
    pid: child.pid ?? 0,
    probes,
    output: () => output,
    async kill() {
      await ended(child, 'SIGKILL');
    },
    stop: () => ended(child, 'SIGTERM'),
  };
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) {
    const exit = once(child, 'exit');
    child.kill(signal);
    await exit;
  }
  return child.exitCode;
}

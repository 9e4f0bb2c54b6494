/** Runs one of the processes there are; each is loaded only when it is to run. */
import { type RunOptions, runService } from '../lib/runtime/run.ts';

type Runner = (options: RunOptions) => Promise<number>;

const runners: Readonly<Record<string, Runner>> = {
  agent: async (options) => runService((await import('../services/agent/main.ts')).service, options),
  ingest: async (options) => runService((await import('../services/ingest/main.ts')).service, options),
  kubelink: async (options) => runService((await import('../services/kubelink/main.ts')).service, options),
  enrich: async (options) => runService((await import('../services/enrich/main.ts')).service, options),
  query: async (options) => runService((await import('../services/query/main.ts')).service, options),
  alert: async (options) => runService((await import('../services/alert/main.ts')).service, options),
  store: async (options) => runService((await import('./processes/store.ts')).service, options),
  demo: async (options) => runService((await import('../estate/main.ts')).service, options),
  migrate: async (options) =>
    runService((await import('./processes/migrate.ts')).service, { ...options, probes: false }),
};

/** Runs the process `name` here until it ends; resolves with its exit code. */
export async function runProcess(name: string, options: RunOptions): Promise<number> {
  const run = runners[name];
  if (run === undefined) {
    throw new Error(`there is no process ${name}`);
  }
  return run(options);
}

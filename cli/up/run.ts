/** Runs everything on this machine: starts it in order, keeps it alive, and ends it in order. */
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../../lib/runtime/config.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { parentLink } from '../../lib/runtime/parent.ts';
import { createProcessView } from '../../lib/runtime/process-view.ts';
import { createSupervisor, type Supervisor } from '../../lib/runtime/supervisor.ts';
import type { CliDependencies } from '../dependencies.ts';
import { sections } from '../sections.ts';
import { agentToken, folderPaths, holdFolder, removeUpState, writeUpState } from './folder.ts';
import { greeting } from './greeting.ts';
import { type AllConfig, keepsTokens, planUp, type UpPlan } from './plan.ts';
import { portProblems } from './ports.ts';

const script = fileURLToPath(new URL('../eastwest.mjs', import.meta.url));

/** Resolves with what ended the wait: a signal, or the death of who started us. */
function untilStopped(): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => resolve(signal));
  }
  parentLink().onGone(() => resolve('the starting process is gone'));
  return promise;
}

async function supervise(config: AllConfig, plan: UpPlan): Promise<number> {
  const { dataDir } = config.runtime;
  const startedAt = new Date().toISOString();
  const logsDir = folderPaths(dataDir).logs;
  const view = createProcessView({ stream: process.stdout });
  const supervisor: Supervisor = createSupervisor({
    specs: plan.processes,
    config: config.supervisor,
    logsDir,
    view,
    onChange: (all) => writeUpState(dataDir, { pid: process.pid, startedAt, processes: all }),
  });
  const stopped = untilStopped().then((why) => ({ kind: 'stopped' as const, why }));
  const failed = supervisor.failed.then((failure) => ({ kind: 'failed' as const, ...failure }));
  supervisor.start();
  void supervisor.ready.then(() => {
    for (const line of greeting(config, { demo: plan.demo, logsDir })) {
      view.say(line);
    }
  });
  const end = await Promise.race([stopped, failed]);
  if (end.kind === 'failed') {
    view.say(`eastwest: ${end.name} cannot run: ${end.reason}`);
  } else {
    view.say(`eastwest: stopping (${end.why})`);
  }
  await supervisor.stop();
  view.close();
  return end.kind === 'failed' ? exitCodes.failure : exitCodes.ok;
}

/**
 * The `up` command. Resolves with the exit code once nothing is left running.
 * @throws {ConfigError} for a configuration that can't be used, and {OperatorError} when the data folder or a port
 * is taken; nothing was started then.
 */
export async function runUp(dependencies: CliDependencies, options: { demo: boolean }): Promise<number> {
  const { values: config } = loadConfig(sections, dependencies.inputs());
  const { dataDir } = config.runtime;
  const lock = holdFolder(dataDir);
  try {
    const token = keepsTokens(config) ? agentToken(dataDir) : undefined;
    const plan = planUp({
      config,
      script,
      globalArgv: dependencies.globalArgv(),
      demoWanted: options.demo,
      token,
    });
    const problems = await portProblems(plan.ports);
    if (problems.length > 0) {
      throw new OperatorError(problems.join('\neastwest: '));
    }
    return await supervise(config, plan);
  } finally {
    removeUpState(dataDir);
    lock.release();
  }
}

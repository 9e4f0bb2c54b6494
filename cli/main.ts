/** The `eastwest` command: global options, and the commands of `commands/` and `ask/`. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { ConfigError, type ConfigFlag, printConfigError, processInputs } from '../lib/runtime/config.ts';
import { parseSetFlag } from '../lib/runtime/config-sources.ts';
import { exitCodes, OperatorError } from '../lib/runtime/exit.ts';
import manifest from '../package.json' with { type: 'json' };
import { register as registerAsk } from './ask/register.ts';
import { register as registerConfig } from './commands/config.ts';
import { register as registerDoctor } from './commands/doctor.ts';
import { register as registerExport } from './commands/export.ts';
import { register as registerLabels } from './commands/labels.ts';
import { register as registerNetworkPolicy } from './commands/networkpolicy.ts';
import { register as registerRelabel } from './commands/relabel.ts';
import { register as registerRules } from './commands/rules.ts';
import { register as registerServices } from './commands/services.ts';
import { register as registerUp } from './commands/up.ts';
import type { CliDependencies, GlobalOptions } from './dependencies.ts';
import { register as registerDraft } from './draft/register.ts';
import { register as registerFirewall } from './firewall/register.ts';
import { sections } from './sections.ts';

const exitCodeHelp = `
Exit codes:
  0  it worked
  1  it failed; trying again may help
  2  wrong usage or configuration
  3  it worked and found what it was asked to look for (to stop a pipeline)

Configuration: defaults < eastwest.yaml (or --config) < EASTWEST_<SECTION>_<KEY> < --set section.key=value.
'eastwest config' prints what is in force, 'eastwest config --reference' every key.`;

function collectSet(text: string, before: readonly ConfigFlag[]): readonly ConfigFlag[] {
  const flag = parseSetFlag(text);
  if (flag === undefined) {
    throw new InvalidArgumentError('expected section.key=value, for example query.port=8090');
  }
  return [...before, flag];
}

function globalFlags(options: GlobalOptions): ConfigFlag[] {
  const flags = [...options.set];
  if (options.dataDir !== undefined) {
    flags.push({ flag: '--data-dir', key: 'runtime.dataDir', value: options.dataDir });
  }
  if (options.logLevel !== undefined) {
    flags.push({ flag: '--log-level', key: 'runtime.logLevel', value: options.logLevel });
  }
  return flags;
}

function globalArguments(options: GlobalOptions): string[] {
  return [
    ...(options.config === undefined ? [] : ['--config', options.config]),
    ...globalFlags(options).flatMap(({ key, value }) => ['--set', `${key}=${value}`]),
  ];
}

function createProgram(): Command {
  return new Command('eastwest')
    .description('Who talks to whom across clusters, VMs and bare metal, and which of it can nobody explain?')
    .version(manifest.version)
    .option('--config <file>', 'configuration file (default: eastwest.yaml here, if there is one)')
    .option('--set <section.key=value>', 'set a configuration key; may be repeated', collectSet, [])
    .option('--data-dir <folder>', 'folder of everything this machine keeps (runtime.dataDir)')
    .option('--log-level <level>', 'trace, debug, info, warn, error or fatal (runtime.logLevel)')
    .configureHelp({ showGlobalOptions: true })
    .showSuggestionAfterError()
    .addHelpText('after', exitCodeHelp)
    .exitOverride();
}

function explain(error: unknown): number {
  if (error instanceof CommanderError) {
    // Commander has printed it; help and version that were asked for are no errors.
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  }
  if (error instanceof ConfigError) {
    printConfigError(error);
    return exitCodes.usage;
  }
  if (error instanceof OperatorError) {
    process.stderr.write(`eastwest: ${error.message}\n`);
    return error.exitCode;
  }
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  return exitCodes.failure;
}

/** Runs one command line (without node and script) and resolves with its exit code. Never rejects. */
export async function main(argv: readonly string[]): Promise<number> {
  let exitCode: number = exitCodes.ok;
  const program = createProgram();
  const options = (): GlobalOptions => program.opts<GlobalOptions & Record<string, unknown>>();
  const dependencies: CliDependencies = {
    inputs: () => processInputs({ file: options().config, flags: globalFlags(options()) }),
    globalArgv: () => globalArguments(options()),
    sections,
    exit(code) {
      exitCode = code;
    },
  };
  try {
    registerUp(program, dependencies);
    registerServices(program, dependencies);
    registerAsk(program, dependencies);
    registerRules(program, dependencies);
    registerDraft(program, dependencies);
    registerFirewall(program, dependencies);
    registerLabels(program, dependencies);
    registerRelabel(program, dependencies);
    registerNetworkPolicy(program, dependencies);
    registerExport(program, dependencies);
    registerDoctor(program, dependencies);
    registerConfig(program, dependencies);
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    return explain(error);
  }
}

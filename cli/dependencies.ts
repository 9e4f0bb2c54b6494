/** What a command is given: the configuration inputs of the command line, and a place for its exit code. */
import type { ConfigFlag, ConfigInputs } from '../lib/runtime/config.ts';
import type { Sections } from '../lib/runtime/service.ts';

export interface CliDependencies {
  /** File, environment and flags as given to this run; valid inside an action. */
  inputs(): ConfigInputs;
  /** The same global options as arguments, to hand them to another process of ours. */
  globalArgv(): string[];
  /** Every section that the configuration may speak of. */
  readonly sections: Sections;
  /** Sets the exit code of the command; see `exitCodes`. Without a call it is 0. */
  exit(code: number): void;
}

/** The global options as commander hands them over. */
export interface GlobalOptions {
  readonly config?: string;
  readonly set: readonly ConfigFlag[];
  readonly dataDir?: string;
  readonly logLevel?: string;
}

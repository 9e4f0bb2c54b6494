/** The shape every process has: a name, the configuration sections it reads, and a function that runs it. */
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Static, TSchema } from 'typebox';
import type { Memory } from './memory-limit.ts';

export type Sections = Readonly<Record<string, TSchema>>;
export type ConfigOf<S extends Sections> = { readonly [K in keyof S]: Static<S[K]> };

/** What `/readyz` reports: each part by name, `true` or the reason why not yet. */
export interface Readiness {
  set(part: string, state: true | string): void;
}

export interface ServiceContext<S extends Sections> {
  readonly config: ConfigOf<S>;
  readonly log: Logger;
  readonly metrics: Registry;
  readonly readiness: Readiness;
  readonly memory: Memory;
  /** Aborted when the process shall end; `run` then finishes what it holds and returns. */
  readonly signal: AbortSignal;
}

export interface ServiceDefinition<S extends Sections> {
  readonly name: string;
  readonly description: string;
  readonly sections: S;
  /** Runs until `signal` is aborted; a rejection ends the process with exit code 1 after the reason was logged. */
  run(context: ServiceContext<S>): Promise<void>;
}

/** Keeps the literal type of `sections`, so that `context.config` is typed. */
export function defineService<const S extends Sections>(
  definition: ServiceDefinition<S>,
): ServiceDefinition<S> {
  return definition;
}

/** Makes the configured sources, each under its name. */
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Logger } from 'pino';
import { Registry } from 'prom-client';
import type { Bus } from '../../../lib/bus/bus.ts';
import { OperatorError } from '../../../lib/runtime/exit.ts';
import type { KubelinkConfig, SourceConfig } from '../config.ts';
import { FieldError } from '../validate.ts';
import { hostsSource } from './hosts-source.ts';
import { KubernetesSource } from './kubernetes/kubernetes.ts';
import { makeKubernetesMetrics } from './kubernetes/metrics.ts';
import { localHostSource } from './local-host.ts';
import { manifestsSource } from './manifests.ts';
import { putSource } from './put.ts';
import type { Source } from './source.ts';

/** The name of a source: the configured one, or one made of what tells it from others. */
export function sourceName(source: SourceConfig): string {
  if (source.name !== undefined) return source.name;
  switch (source.kind) {
    case 'kubernetes':
      return `kubernetes:${source.cluster}`;
    case 'manifests':
      return `manifests:${source.cluster}`;
    case 'hosts':
      return `hosts:${resolve(source.path)}`;
    case 'local-host':
      return `local-host:${hostname()}`;
    case 'api':
      return 'api';
    case 'retired':
      return source.name;
  }
}

export interface Sources {
  readonly sources: readonly Source[];
  /** Names of former sources, whose entities are to be ended. */
  readonly retired: readonly string[];
}

/** @throws {OperatorError} for names that are used twice and for ranges that do not parse. */
export function makeSources(
  config: KubelinkConfig,
  log: Logger,
  bus: Bus,
  registry: Registry = new Registry(),
): Sources {
  const metrics = makeKubernetesMetrics(registry);
  const names = new Set<string>();
  const sources: Source[] = [];
  const retired: string[] = [];
  for (const [index, source] of config.sources.entries()) {
    const name = sourceName(source);
    if (names.has(name)) {
      throw new OperatorError(
        `kubelink.sources[${index}] has the same name as another source: ${name}. Give one of them a name of its own`,
      );
    }
    names.add(name);
    const sourceLog = log.child({ source: name });
    try {
      switch (source.kind) {
        case 'kubernetes':
          sources.push(new KubernetesSource({ name, source, config, metrics, log: sourceLog }));
          break;
        case 'manifests':
          sources.push(manifestsSource(name, source, config, sourceLog));
          break;
        case 'hosts':
          sources.push(hostsSource(name, source, config, sourceLog));
          break;
        case 'local-host':
          sources.push(localHostSource(name, source));
          break;
        case 'api':
          sources.push(putSource(name, source, config, bus, sourceLog));
          break;
        case 'retired':
          retired.push(name);
      }
    } catch (error) {
      if (error instanceof FieldError) throw new OperatorError(error.message);
      throw error;
    }
  }
  return { sources, retired };
}

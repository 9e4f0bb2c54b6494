/** Every configuration section there is, in one table. */

import { DemoConfig } from '../estate/config.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { RuntimeConfig } from '../lib/runtime/config.ts';
import type { Sections } from '../lib/runtime/service.ts';
import { SupervisorConfig } from '../lib/runtime/supervisor-config.ts';
import { StoreConfig } from '../lib/store/config.ts';
import { AgentConfig } from '../services/agent/config.ts';
import { AlertConfig } from '../services/alert/config.ts';
import { EnrichConfig } from '../services/enrich/config.ts';
import { IngestConfig } from '../services/ingest/config.ts';
import { KubelinkConfig } from '../services/kubelink/config.ts';
import { QueryConfig } from '../services/query/config.ts';

export const sections = {
  runtime: RuntimeConfig,
  bus: BusConfig,
  store: StoreConfig,
  agent: AgentConfig,
  ingest: IngestConfig,
  kubelink: KubelinkConfig,
  enrich: EnrichConfig,
  query: QueryConfig,
  alert: AlertConfig,
  demo: DemoConfig,
  supervisor: SupervisorConfig,
} as const satisfies Sections;

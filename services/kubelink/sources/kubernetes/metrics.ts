/** Metrics of sources that are Kubernetes clusters. */
import { Counter, Gauge, type Registry } from 'prom-client';

export function makeKubernetesMetrics(registry: Registry) {
  const registers = [registry];
  const perKind = ['source', 'kind'];
  return {
    connected: new Gauge({
      name: 'eastwest_kubelink_kubernetes_connected',
      help: 'Whether there is a connection to the API server.',
      labelNames: ['source'],
      registers,
    }),
    connections: new Counter({
      name: 'eastwest_kubelink_kubernetes_connections_total',
      help: 'Connections to the API server that were opened.',
      labelNames: ['source'],
      registers,
    }),
    leader: new Gauge({
      name: 'eastwest_kubelink_kubernetes_leader',
      help: 'Whether this kubelink is the one that publishes the cluster.',
      labelNames: ['source'],
      registers,
    }),
    lists: new Counter({
      name: 'eastwest_kubelink_kubernetes_lists_total',
      help: 'Times all objects of a kind were read, as a stream or in pages.',
      labelNames: perKind,
      registers,
    }),
    relists: new Counter({
      name: 'eastwest_kubelink_kubernetes_expired_total',
      help: 'Times the server no longer knew where a watch or a list was (410), so that all was read anew.',
      labelNames: perKind,
      registers,
    }),
    events: new Counter({
      name: 'eastwest_kubelink_kubernetes_watch_events_total',
      help: 'Events heard from watches.',
      labelNames: perKind,
      registers,
    }),
    failures: new Counter({
      name: 'eastwest_kubelink_kubernetes_failures_total',
      help: 'Lists and watches that failed and are repeated.',
      labelNames: perKind,
      registers,
    }),
    late: new Counter({
      name: 'eastwest_kubelink_kubernetes_late_events_total',
      help: 'Events heard after the source had vouched for their time; 0 unless the server is badly overloaded.',
      labelNames: perKind,
      registers,
    }),
  };
}

export type KubernetesMetrics = ReturnType<typeof makeKubernetesMetrics>;

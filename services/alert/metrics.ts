/** Metrics of the alert service. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { severities } from './event.ts';

export type AlertMetrics = ReturnType<typeof makeAlertMetrics>;

export const deliveryOutcomes = ['delivered', 'retried', 'failed', 'gone'] as const;
export type DeliveryOutcome = (typeof deliveryOutcomes)[number];

export function makeAlertMetrics(registry: Registry) {
  const registers = [registry];
  const metrics = {
    edges: new Counter({
      name: 'eastwest_alert_edges_total',
      help: 'New unexplained edges in scope, by what they became: an event, or a part of a summary',
      labelNames: ['severity', 'as'] as const,
      registers,
    }),
    deliveries: new Counter({
      name: 'eastwest_alert_deliveries_total',
      help: 'Tries to deliver, by outcome',
      labelNames: ['receiver', 'outcome'] as const,
      registers,
    }),
    queued: new Gauge({
      name: 'eastwest_alert_queued',
      help: 'Events held in memory for a receiver',
      labelNames: ['receiver'] as const,
      registers,
    }),
    gone: new Gauge({
      name: 'eastwest_alert_receiver_gone',
      help: '1 while a receiver is out of use because it answered 410',
      labelNames: ['receiver'] as const,
      registers,
    }),
    pollSeconds: new Histogram({
      name: 'eastwest_alert_poll_seconds',
      help: 'Time to find and record new edges',
      buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
      registers,
    }),
    pollErrors: new Counter({
      name: 'eastwest_alert_poll_errors_total',
      help: 'Polls that failed',
      registers,
    }),
    delaySeconds: new Histogram({
      name: 'eastwest_alert_delay_seconds',
      help: 'Time from when an event was made to the 2xx of a receiver',
      buckets: [0.5, 1, 2, 5, 10, 30, 60, 300, 3600, 86_400],
      registers,
    }),
  };
  for (const severity of severities) {
    for (const as of ['event', 'summary']) metrics.edges.inc({ severity, as }, 0);
  }
  return metrics;
}

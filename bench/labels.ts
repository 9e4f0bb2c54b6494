/** From a label changed in a real API server to flows that can be queried with it; nothing where there is no API server. */
import { labelDelays, startLiveCluster } from '../test/support/live-cluster.ts';
import type { Figure } from './report.ts';

const changes = 100;

export async function benchLabels(say: (text: string) => void): Promise<Figure[]> {
  const live = await startLiveCluster();
  if ('skip' in live) {
    say(`left out: ${live.skip}`);
    return [];
  }
  try {
    const delays = await labelDelays(live, changes);
    const at = (share: number): number =>
      delays[Math.min(delays.length - 1, Math.floor(share * delays.length))] ?? 0;
    return [
      { name: 'label change to query, p50', value: at(0.5) / 1000, unit: 's' },
      { name: 'label change to query, p99', value: at(0.99) / 1000, unit: 's' },
    ];
  } finally {
    await live.close();
  }
}

/** Connections that machines make on their own: how many there are, and the few requests that they repeat byte for byte. */
import { type Pattern, type ShapeName, shapes, tcp } from './patterns.ts';
import type { Random } from './random.ts';

/** Size of a request and its answer, with all headers. */
export interface Request {
  readonly forward: number;
  readonly reverse: number;
}

/**
 * Of the allowed connections, those that no application makes (docs/decisions/008): lookups of names, about half of all
 * connections where they were counted, and health checks, two in ten seconds for each container as Kubernetes has it.
 */
const routineShares: Readonly<Partial<Record<ShapeName, number>>> = { lookup: 0.35, probe: 0.2 };

/** Scales the weights of allowed lookups and probes to their shares. */
export function scaleRoutine(list: readonly Pattern[]): void {
  const sums = new Map<ShapeName, number>();
  const allowed = list.filter(({ outcome }) => outcome.verdict === 'allowed');
  for (const { shape, weight } of allowed) sums.set(shape, (sums.get(shape) ?? 0) + weight);
  let rest = 0;
  for (const [shape, sum] of sums) if (routineShares[shape] === undefined) rest += sum;
  const routine = Object.values(routineShares).reduce((sum, share) => sum + share, 0);
  const total = rest / (1 - routine);
  for (const one of allowed) {
    const share = routineShares[one.shape];
    if (share !== undefined) one.weight *= (total * share) / (sums.get(one.shape) ?? 1);
  }
}

/** Gives each pattern that repeats itself the sizes that it repeats. */
export function drawRequests(list: readonly Pattern[], random: Random): void {
  for (const one of list) {
    const { requestCount, forwardMedian, reverseMedian, bytesSigma } = shapes[one.shape];
    if (one.dropped) continue;
    one.requests = Array.from({ length: requestCount }, () => ({
      forward: Math.round(random.logNormal(forwardMedian, bytesSigma)),
      reverse: Math.round(random.logNormal(reverseMedian, bytesSigma)),
    }));
  }
}

/** Share of repeated TCP requests that took an acknowledgement more, and its size. */
const extraAckShare = 0.1;
const ackBytes = 52;

/** One of the requests that a pattern repeats, the first ones most, or null. */
export function pickRequest({ requests, protocol }: Pattern, random: Random): Request | null {
  const request = requests[Math.floor(random.next() ** 2 * requests.length)];
  if (request === undefined) return null;
  if (protocol !== tcp || random.next() >= extraAckShare) return request;
  return { forward: request.forward + ackBytes, reverse: request.reverse };
}

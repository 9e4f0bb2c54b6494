/** Posts one event, signed as Standard Webhooks 1.0 says, and tells what came of it. */
import { Webhook } from 'standardwebhooks';
import type { ReceiverConfig } from './config.ts';

export interface OutgoingEvent {
  readonly id: string;
  readonly payload: string;
}

/** `again`: worth another try, after `afterMs` at least where the receiver asked for it. */
export type SendResult =
  | { readonly outcome: 'delivered' }
  | { readonly outcome: 'gone' }
  | {
      readonly outcome: 'again';
      readonly why: string;
      readonly afterMs: number;
      /** Whether it looks like the receiver as a whole is away, and not like this event's fault. */
      readonly receiverAway: boolean;
    };

/** Seconds or a date (RFC 9110, 10.2.3) as ms from now; 0 where there is none. */
export function retryAfterMs(header: string | null, nowMs: number): number {
  if (header === null) return 0;
  const ms = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - nowMs;
  return Number.isNaN(ms) ? 0 : Math.max(0, ms);
}

export async function sendEvent(
  receiver: Pick<ReceiverConfig, 'url' | 'secret' | 'headers'>,
  event: OutgoingEvent,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<SendResult> {
  const now = new Date();
  const again = (why: string, receiverAway: boolean, afterMs = 0): SendResult => ({
    outcome: 'again',
    why,
    afterMs,
    receiverAway,
  });
  let response: Response;
  try {
    response = await fetch(receiver.url, {
      method: 'POST',
      redirect: 'manual',
      headers: {
        ...receiver.headers,
        'content-type': 'application/json',
        'user-agent': 'eastwest-alert',
        'webhook-id': event.id,
        'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
        'webhook-signature': new Webhook(receiver.secret).sign(event.id, now, event.payload),
      },
      body: event.payload,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    });
    // Nothing is read of the answer but its status.
    await response.body?.cancel();
  } catch (error) {
    return again(failureText(error, timeoutMs), true);
  }
  const { status } = response;
  if (status >= 200 && status < 300) return { outcome: 'delivered' };
  if (status === 410) return { outcome: 'gone' };
  const afterMs = retryAfterMs(response.headers.get('retry-after'), now.getTime());
  return again(`answered ${status}`, status >= 500 || status === 429, afterMs);
}

function failureText(error: unknown, timeoutMs: number): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return `did not answer within ${timeoutMs} ms`;
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

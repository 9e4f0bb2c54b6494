/**
 * Mends a fault of kafkajs 2.2.4: each idle connection sets a timer with a negative wait again and again, which Node
 * takes as one millisecond, so a process at rest burns several percent of a core (and Node 24 prints a warning).
 */
import { createRequire } from 'node:module';

/** As kafkajs has it for a queue that waits, ms. */
const checkPendingMs = 10;

interface RequestQueue {
  throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  readonly pending: readonly unknown[];
  checkPendingRequests(): void;
  scheduleCheckPendingRequests(): void;
}

/** Lets queues set their timer only while a request waits in them. Does nothing to a kafkajs that is built otherwise. */
export function mendRequestQueue(): void {
  const found: unknown = createRequire(import.meta.url)('kafkajs/src/network/requestQueue/index.js');
  if (typeof found !== 'function' || !isRequestQueue(found.prototype)) return;
  found.prototype.scheduleCheckPendingRequests = function (this: RequestQueue): void {
    if (this.throttleCheckTimeoutId || this.pending.length === 0) return;
    this.throttleCheckTimeoutId = setTimeout(
      () => {
        this.throttleCheckTimeoutId = null;
        this.checkPendingRequests();
      },
      Math.max(checkPendingMs, this.throttledUntil - Date.now()),
    );
  };
}

function isRequestQueue(prototype: unknown): prototype is RequestQueue {
  return (
    typeof prototype === 'object' &&
    prototype !== null &&
    'scheduleCheckPendingRequests' in prototype &&
    'checkPendingRequests' in prototype
  );
}

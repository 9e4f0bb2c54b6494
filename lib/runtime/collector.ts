/** How the garbage collector of this process decides. */
import { setFlagsFromString } from 'node:v8';

/**
 * Lets new buffers count as what they are, a part of all memory. Otherwise V8 marks the whole heap again for each 64 MB of
 * them, whatever the heap is: with an inventory of 100,000 workloads that took more processor time than the work itself
 * (docs/decisions/010). For processes that hold a large heap while much passes through buffers.
 */
export function countBuffersAsMemory(): void {
  setFlagsFromString('--external-memory-accounted-in-global-limit');
}

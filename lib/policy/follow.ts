/** Keeps a timeline of policies in step with the messages of the topic `policy`. */
import type { BusMessage } from '../bus/bus.ts';
import { policyOfMessage } from './publish.ts';
import { PolicyTimeline } from './timeline.ts';

export class PolicyFollower {
  readonly policies = new PolicyTimeline();
  readonly #versions = new Map<string, number>();

  /**
   * Takes a message in. Returns whether another policy is the newest now.
   * @throws {Error} where the message is no policy of a known format; everything stays as it was.
   */
  take(message: Pick<BusMessage, 'key' | 'value' | 'offset'>): boolean {
    const key = message.key ?? '';
    const document = policyOfMessage(message);
    if (document === null) {
      const gone = this.#versions.get(key);
      this.#versions.delete(key);
      if (gone !== undefined && ![...this.#versions.values()].includes(gone))
        this.policies.forgetBelow(gone + 1);
      return false;
    }
    this.#versions.set(key, document.version);
    const before = this.policies.newest.version;
    return this.policies.add(document) && document.version > before;
  }
}

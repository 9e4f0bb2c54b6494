/** Identities by small index: what flows carry while they are in memory. Index 0 is the unknown identity. */
import { type IdentityContent, identityId } from './ids.ts';

export interface Identity extends IdentityContent {
  readonly index: number;
  readonly id: bigint;
}

export const unknownIdentity: IdentityContent = {
  kind: 'unknown',
  cluster: '',
  namespace: '',
  name: '',
  zone: 'inside',
  labels: {},
};

export class IdentityTable {
  readonly list: Identity[] = [];
  readonly #byId = new Map<bigint, Identity>();
  /** Ids as pairs of words, low first, for columns. */
  idWords = new Uint32Array(2048);

  constructor() {
    this.intern(unknownIdentity);
  }

  intern(content: IdentityContent): Identity {
    const id = identityId(content);
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    const index = this.list.length;
    const identity: Identity = { ...content, index, id };
    this.list.push(identity);
    this.#byId.set(id, identity);
    if (index * 2 + 2 > this.idWords.length) {
      const larger = new Uint32Array(this.idWords.length * 2);
      larger.set(this.idWords);
      this.idWords = larger;
    }
    this.idWords[index * 2] = Number(id & 0xffffffffn);
    this.idWords[index * 2 + 1] = Number(id >> 32n);
    return identity;
  }
}

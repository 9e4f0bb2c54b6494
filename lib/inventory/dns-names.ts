/** Listed DNS names: exact ones, and `*.example.com` for every name below example.com. The longest match answers. */

/** The form in which names are compared: lower case, without the dot of the root. */
export function canonicalName(name: string): string {
  const lower = name.toLowerCase();
  return lower.endsWith('.') ? lower.slice(0, -1) : lower;
}

interface Listed {
  readonly dns: readonly string[];
  readonly identity: number;
}

export class DnsNames {
  readonly #listed = new Map<string, Listed>();
  #exact = new Map<string, number>();
  #below = new Map<string, number>();
  #isStale = false;
  /** Rises with each change. */
  generation = 0;

  /** Lists the names of one entry, in place of those it had. */
  set(key: string, dns: readonly string[], identity: number): void {
    this.#listed.set(key, { dns, identity });
    this.#isStale = true;
    this.generation++;
  }

  delete(key: string): void {
    if (!this.#listed.delete(key)) return;
    this.#isStale = true;
    this.generation++;
  }

  #build(): void {
    this.#exact = new Map();
    this.#below = new Map();
    // Of two entries with the same name the first by key answers, in whatever order they came.
    const keys = [...this.#listed.keys()].sort();
    for (const key of keys) {
      const listed = this.#listed.get(key);
      for (const text of listed?.dns ?? []) {
        const name = canonicalName(text);
        const into = name.startsWith('*.') ? this.#below : this.#exact;
        const at = name.startsWith('*.') ? name.slice(2) : name;
        if (!into.has(at)) into.set(at, listed?.identity ?? 0);
      }
    }
    this.#isStale = false;
  }

  /** Identity of the entry that matches; 0 for none. */
  find(dnsName: string): number {
    if (this.#isStale) this.#build();
    const name = canonicalName(dnsName);
    const exact = this.#exact.get(name);
    if (exact !== undefined) return exact;
    if (this.#below.size === 0) return 0;
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
      const identity = this.#below.get(name.slice(dot + 1));
      if (identity !== undefined) return identity;
    }
    return 0;
  }
}

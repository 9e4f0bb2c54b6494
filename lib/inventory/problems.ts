/** What was wrong with an event of the inventory; the rest of the event is used. */
export const inventoryProblems = [
  /** An address that does not parse: left out. */
  'bad-address',
  /** An interval that ends before it begins: taken as the moment of its end. */
  'bad-interval',
  /** A CIDR that does not parse: left out. */
  'bad-cidr',
  /** A workload with more address intervals than one may have: the last ones are left out. */
  'too-many-addresses',
  /** An event under another key than its own: left out as a whole, as no tombstone would find it. */
  'wrong-key',
  /** A cluster of this name, but another uid: from now on it counts as the cluster of that name. */
  'cluster-changed',
  /** More sources than are told apart: this one is taken at its word. */
  'too-many-sources',
] as const;
export type InventoryProblem = (typeof inventoryProblems)[number];

/** Uids of estate entities: shaped like UUIDs, and readable, so that a later run knows its own again. */

export type UidKind = 'pod' | 'machine' | 'service' | 'node' | 'hostPod';

const prefixes: Readonly<Record<UidKind, string>> = {
  pod: 'e57a7e00',
  machine: 'e57a7e01',
  service: 'e57a7e02',
  node: 'e57a7e03',
  hostPod: 'e57a7e04',
};

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** @param world 16 bits of the world @param generation which holder of the place (pods), below 2^24 @param place index within its kind */
export function makeUid(kind: UidKind, world: number, generation: number, place: number): string {
  return `${prefixes[kind]}-${hex(world, 4)}-4${hex(generation >>> 12, 3)}-8${hex(generation & 0xfff, 3)}-${hex(place, 12)}`;
}

export interface EstateUid {
  readonly kind: UidKind;
  readonly world: number;
  readonly generation: number;
  readonly place: number;
}

/** Reads a uid of {@link makeUid}; `null` for anybody else's. */
export function readUid(uid: string): EstateUid | null {
  const parts = /^(e57a7e0[0-4])-([0-9a-f]{4})-4([0-9a-f]{3})-8([0-9a-f]{3})-([0-9a-f]{12})$/.exec(uid);
  if (parts === null) return null;
  const [, prefix, world = '', high = '', low = '', place = ''] = parts;
  const kind = (Object.keys(prefixes) as UidKind[]).find((name) => prefixes[name] === prefix);
  if (kind === undefined) return null;
  return {
    kind,
    world: Number.parseInt(world, 16),
    generation: (Number.parseInt(high, 16) << 12) | Number.parseInt(low, 16),
    place: Number.parseInt(place, 16),
  };
}

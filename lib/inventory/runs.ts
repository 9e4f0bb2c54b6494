/**
 * Runs of records in flat memory: a record is a few doubles, a run is some records side by side. Runs come in size
 * classes; each page holds runs of one class, and a page that becomes empty serves any class again, so that runs that all
 * grow together do not leave their small places behind. Memory comes in segments that never move: growing copies nothing.
 */

/** Records a page holds, and with it the longest run. */
export const pageRecords = 4096;
const pageShift = 12;
const segmentShift = 17;
const segmentRecords = 1 << segmentShift;
const pagesPerSegment = segmentRecords >> pageShift;

/** Records of a run of each class: steps of a third to a half, so that little is left over. */
const classRecords: readonly number[] = (() => {
  const sizes = [1];
  for (let size = 2; size <= pageRecords; size *= 2) {
    sizes.push(size);
    if (size * 1.5 <= pageRecords && size > 1) sizes.push(size * 1.5);
  }
  return sizes.sort((a, b) => a - b);
})();

/** Class of the shortest run that holds so many records, by their number. */
const classOfCount = (() => {
  const classes = new Uint8Array(pageRecords + 1);
  let at = 0;
  for (let count = 1; count <= pageRecords; count++) {
    if (count > (classRecords[at] ?? 0)) at++;
    classes[count] = at;
  }
  return classes;
})();

const none = -1;
const noClass = 255;

export class RunPool {
  /** Doubles of one record. */
  readonly stride: number;
  /** The doubles of run `run` begin in `segments[run >>> 17]` at {@link offsetOf}. */
  readonly segments: Float64Array<ArrayBuffer>[] = [];
  /** The same memory as 32-bit words. */
  readonly #words: Uint32Array<ArrayBuffer>[] = [];
  /** By page: class, runs in use, records handed out at least once, first free run (record within the page). */
  #pageClass = new Uint8Array(64);
  #pageUsed = new Uint16Array(64);
  #pageFresh = new Uint16Array(64);
  #pageFree = new Int32Array(64);
  /** Pages of one class with room, or pages without class, as doubly linked lists. */
  #pageNext = new Int32Array(64);
  #pageBefore = new Int32Array(64);
  #pageCount = 0;
  readonly #heads = new Int32Array(noClass + 1).fill(none);

  constructor(stride: number) {
    this.stride = stride;
  }

  /** Bytes held. */
  get byteLength(): number {
    return this.segments.length * segmentRecords * this.stride * 8;
  }

  segmentOf(run: number): Float64Array<ArrayBuffer> {
    const segment = this.segments[run >>> segmentShift];
    if (segment === undefined) throw new RangeError(`no run ${run}`);
    return segment;
  }

  /** The segment of a run as 32-bit words: two for each double. */
  wordsOf(run: number): Uint32Array<ArrayBuffer> {
    const words = this.#words[run >>> segmentShift];
    if (words === undefined) throw new RangeError(`no run ${run}`);
    return words;
  }

  /** Index of the first double of a run within its segment. */
  offsetOf(run: number): number {
    return (run & (segmentRecords - 1)) * this.stride;
  }

  /** Records the run has room for. */
  capacityOf(run: number): number {
    return classRecords[this.#pageClass[run >>> pageShift] ?? 0] ?? 0;
  }

  /** A run for `count` records, 1 to {@link pageRecords}; what is in it is left over from others. */
  allocate(count: number): number {
    const sizeClass = classOfCount[count] ?? 0;
    const size = classRecords[sizeClass] ?? 1;
    let page = this.#heads[sizeClass] ?? none;
    if (page === none) page = this.#openPage(sizeClass);
    this.#pageUsed[page] = (this.#pageUsed[page] ?? 0) + 1;
    const first = page << pageShift;
    const free = this.#pageFree[page] ?? none;
    let run: number;
    if (free !== none) {
      run = first + free;
      this.#pageFree[page] = this.segmentOf(run)[this.offsetOf(run)] ?? none;
    } else {
      const fresh = this.#pageFresh[page] ?? 0;
      run = first + fresh;
      this.#pageFresh[page] = fresh + size;
    }
    if (this.#isFull(page, size)) this.#unlink(page, sizeClass);
    return run;
  }

  free(run: number): void {
    const page = run >>> pageShift;
    const sizeClass = this.#pageClass[page] ?? 0;
    const wasFull = this.#isFull(page, classRecords[sizeClass] ?? 1);
    const used = (this.#pageUsed[page] ?? 0) - 1;
    this.#pageUsed[page] = used;
    if (used === 0) {
      if (!wasFull) this.#unlink(page, sizeClass);
      this.#pageClass[page] = noClass;
      this.#link(page, noClass);
      return;
    }
    this.segmentOf(run)[this.offsetOf(run)] = this.#pageFree[page] ?? none;
    this.#pageFree[page] = run - (page << pageShift);
    if (wasFull) this.#link(page, sizeClass);
  }

  /** Moves the first `count` records of a run to a run with room for `room`; returns it. */
  move(run: number, count: number, room: number): number {
    const to = this.allocate(room);
    const from = this.offsetOf(run);
    this.segmentOf(to).set(this.segmentOf(run).subarray(from, from + count * this.stride), this.offsetOf(to));
    this.free(run);
    return to;
  }

  #isFull(page: number, size: number): boolean {
    return (this.#pageFree[page] ?? none) === none && (this.#pageFresh[page] ?? 0) + size > pageRecords;
  }

  #openPage(sizeClass: number): number {
    if ((this.#heads[noClass] ?? none) === none) this.#addSegment();
    const page = this.#heads[noClass] ?? none;
    this.#unlink(page, noClass);
    this.#pageClass[page] = sizeClass;
    this.#pageUsed[page] = 0;
    this.#pageFresh[page] = 0;
    this.#pageFree[page] = none;
    this.#link(page, sizeClass);
    return page;
  }

  #addSegment(): void {
    const segment = new Float64Array(segmentRecords * this.stride);
    this.segments.push(segment);
    this.#words.push(new Uint32Array(segment.buffer));
    const first = this.#pageCount;
    this.#pageCount += pagesPerSegment;
    if (this.#pageCount > this.#pageClass.length) {
      const size = this.#pageClass.length * 2;
      this.#pageClass = copied(new Uint8Array(size), this.#pageClass);
      this.#pageUsed = copied(new Uint16Array(size), this.#pageUsed);
      this.#pageFresh = copied(new Uint16Array(size), this.#pageFresh);
      this.#pageFree = copied(new Int32Array(size), this.#pageFree);
      this.#pageNext = copied(new Int32Array(size), this.#pageNext);
      this.#pageBefore = copied(new Int32Array(size), this.#pageBefore);
    }
    for (let page = this.#pageCount - 1; page >= first; page--) {
      this.#pageClass[page] = noClass;
      this.#link(page, noClass);
    }
  }

  #link(page: number, list: number): void {
    const next = this.#heads[list] ?? none;
    this.#pageNext[page] = next;
    this.#pageBefore[page] = none;
    if (next !== none) this.#pageBefore[next] = page;
    this.#heads[list] = page;
  }

  #unlink(page: number, list: number): void {
    const next = this.#pageNext[page] ?? none;
    const before = this.#pageBefore[page] ?? none;
    if (before === none) this.#heads[list] = next;
    else this.#pageNext[before] = next;
    if (next !== none) this.#pageBefore[next] = before;
  }
}

function copied<T extends Uint8Array | Uint16Array | Int32Array>(larger: T, old: T): T {
  larger.set(old);
  return larger;
}

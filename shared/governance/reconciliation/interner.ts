import { decodeUtf8, encodeUtf8 } from "./text.ts";

const BLOCK_BYTES = 1 << 24;
const LONGEST = 0xffff;
const RECENT_BITS = 16;

/** Bytes and a view of the same memory: four of them are read at once. */
export interface Bytes {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

const withView = (bytes: Uint8Array): Bytes => ({
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
});

/** All texts of an interner, for another one to take over. */
export interface Texts {
  readonly blocks: readonly Uint8Array[];
  readonly used: number;
  readonly offsets: Uint32Array;
  readonly count: number;
}

/** A hash of the bytes, for `Interner.resolve`. */
export function hashOf(source: Bytes, start: number, length: number): number {
  let hash = length;
  const end = start + length;
  if (length < 4) {
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ source.bytes[i], 0x85ebca6b);
  } else {
    const { view } = source;
    const last = end - 4;
    for (let i = start; i < last; i += 4) {
      hash = Math.imul(hash ^ view.getUint32(i, true), 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    hash = Math.imul(hash ^ view.getUint32(last, true), 0x85ebca6b);
  }
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * Gives each distinct text a small number (0 for the empty one), so that millions of ids cost bytes, not objects,
 * and comparing two is comparing numbers. Texts are compared byte by byte, never by hash alone.
 */
export class Interner {
  /** Texts one after the other, each after its length in two bytes; none straddles two blocks. */
  private readonly blocks: Bytes[] = [];
  private used = BLOCK_BYTES;
  /** Pairs hash, id side by side: a look costs one line of the cache. */
  private table = new Uint32Array(1 << 13);
  private tableUsed = 0;
  /** What `resolve` fetched: kept, so that the fetching is not left out as useless. */
  protected fetched = 0;
  /** The same pairs, of those asked for lately. */
  private readonly recent = new Uint32Array(2 << RECENT_BITS);
  private offsets = new Uint32Array(1 << 12);
  private count = 1;

  /** Numbers given so far: every id is below. */
  get size(): number {
    return this.count;
  }

  /** Makes room for so many more texts that are looked up, so that growing does not have to. */
  reserve(more: number): void {
    let slots = this.table.length;
    while ((this.tableUsed + more) * 4 > slots) slots *= 2;
    if (slots > this.table.length) this.resizeTable(slots);
  }

  /** The same for so many texts in all. */
  reserveTexts(count: number): void {
    if (count > this.offsets.length) this.resizeOffsets(count);
  }

  /** The number of a text; longer ones are cut at 65,535 bytes: no id of Stripe's comes near. */
  intern(source: Bytes, start: number, end: number): number {
    const length = Math.min(end - start, LONGEST);
    if (length <= 0) return 0;
    const hash = hashOf(source, start, length);
    const { recent, table } = this;
    // A small cache of texts that come often: it fits into the processor's, which the table does not.
    const near = (hash >>> (32 - RECENT_BITS)) << 1;
    if (recent[near] === hash && recent[near + 1] !== 0 && this.is(recent[near + 1], source, start, length))
      return recent[near + 1];
    const mask = table.length - 2;
    let slot = (hash << 1) & mask;
    let id = 0;
    for (;;) {
      id = table[slot + 1];
      if (id === 0) {
        id = this.keep(source, start, end);
        this.put(slot, hash, id);
        break;
      }
      if (table[slot] === hash && this.is(id, source, start, length)) break;
      slot = (slot + 2) & mask;
    }
    recent[near] = hash;
    recent[near + 1] = id;
    return id;
  }

  /**
   * Turns kept numbers into the numbers of their texts, in place: what `intern` would have given. Many at once, because
   * the looks into memory that is not at hand then go on side by side.
   */
  resolve(ids: Uint32Array, hashes: Uint32Array, count: number): void {
    this.reserve(count);
    const { table } = this;
    const mask = table.length - 2;
    // All slots are fetched first: one that is not at hand does not wait for what is decided about the one before.
    let fetched = 0;
    for (let i = 0; i < count; i++) fetched ^= table[(hashes[i] << 1) & mask];
    this.fetched = fetched;
    for (let i = 0; i < count; i++) {
      const kept = ids[i];
      const hash = hashes[i];
      let slot = (hash << 1) & mask;
      for (;;) {
        const id = table[slot + 1];
        if (id === 0) {
          this.put(slot, hash, kept);
          break;
        }
        if (table[slot] === hash && this.same(id, kept)) {
          ids[i] = id;
          break;
        }
        slot = (slot + 2) & mask;
      }
    }
  }

  private put(slot: number, hash: number, id: number): void {
    this.table[slot] = hash;
    this.table[slot + 1] = id;
    this.tableUsed++;
    if (this.tableUsed * 4 > this.table.length) this.resizeTable(this.table.length * 2);
  }

  private same(a: number, b: number): boolean {
    if (a === b) return true;
    const offsetA = this.offsets[a];
    const offsetB = this.offsets[b];
    const viewA = this.blocks[offsetA >>> 24].view;
    const viewB = this.blocks[offsetB >>> 24].view;
    const atA = offsetA & 0xffffff;
    const atB = offsetB & 0xffffff;
    const length = viewA.getUint16(atA - 2, true);
    if (viewB.getUint16(atB - 2, true) !== length) return false;
    const last = length - 4;
    for (let i = 0; i < last; i += 4)
      if (viewA.getUint32(atA + i, true) !== viewB.getUint32(atB + i, true)) return false;
    if (length >= 4) return viewA.getUint32(atA + last, true) === viewB.getUint32(atB + last, true);
    for (let i = 0; i < length; i++) if (viewA.getUint8(atA + i) !== viewB.getUint8(atB + i)) return false;
    return true;
  }

  internText(text: string | null | undefined): number {
    if (text === null || text === undefined || text === "") return 0;
    const bytes = encodeUtf8(text);
    return this.intern(withView(bytes), 0, bytes.length);
  }

  /** A number for a text that nothing will ever be compared with: kept, not looked up. */
  keep(source: Bytes, start: number, end: number): number {
    const length = Math.min(end - start, LONGEST);
    if (length <= 0) return 0;
    if (this.used + length + 2 > BLOCK_BYTES) {
      this.blocks.push(withView(new Uint8Array(BLOCK_BYTES)));
      this.used = 0;
    }
    const at = this.used + 2;
    const id = this.count++;
    if (id >= this.offsets.length) this.resizeOffsets(this.offsets.length * 2);
    this.offsets[id] = (this.blocks.length - 1) * BLOCK_BYTES + at;
    const { bytes, view } = this.blocks[this.blocks.length - 1];
    view.setUint16(at - 2, length, true);
    if (length < 4) {
      for (let i = 0; i < length; i++) bytes[at + i] = source.bytes[start + i];
    } else {
      const last = length - 4;
      for (let i = 0; i < last; i += 4) view.setUint32(at + i, source.view.getUint32(start + i, true), true);
      view.setUint32(at + last, source.view.getUint32(start + last, true), true);
    }
    this.used = at + length;
    return id;
  }

  /** Whether these bytes are the text of that number. */
  is(id: number, source: Bytes, start: number, length: number): boolean {
    const offset = this.offsets[id];
    const { view } = this.blocks[offset >>> 24];
    const at = offset & 0xffffff;
    if (view.getUint16(at - 2, true) !== length) return false;
    if (length < 4) {
      for (let i = 0; i < length; i++) if (view.getUint8(at + i) !== source.bytes[start + i]) return false;
      return true;
    }
    const last = length - 4;
    for (let i = 0; i < last; i += 4)
      if (view.getUint32(at + i, true) !== source.view.getUint32(start + i, true)) return false;
    return view.getUint32(at + last, true) === source.view.getUint32(start + last, true);
  }

  text(id: number): string {
    if (id === 0) return "";
    const offset = this.offsets[id];
    const at = offset & 0xffffff;
    const { bytes, view } = this.blocks[offset >>> 24];
    return decodeUtf8(bytes, at, at + view.getUint16(at - 2, true));
  }

  /** True where the text begins with these ASCII letters: cheaper than making the string. */
  startsWith(id: number, prefix: string): boolean {
    if (id === 0) return false;
    const offset = this.offsets[id];
    const { bytes, view } = this.blocks[offset >>> 24];
    const at = offset & 0xffffff;
    if (view.getUint16(at - 2, true) < prefix.length) return false;
    for (let i = 0; i < prefix.length; i++) if (bytes[at + i] !== prefix.charCodeAt(i)) return false;
    return true;
  }

  /** The number of a text that is kept: what `intern` would have given. */
  internKept(id: number): number {
    const ids = Uint32Array.of(id);
    this.resolve(ids, Uint32Array.of(this.hashOfText(id)), 1);
    return ids[0];
  }

  /** The hash of a text that is kept, for `resolve`. */
  hashOfText(id: number): number {
    const offset = this.offsets[id];
    const block = this.blocks[offset >>> 24];
    const at = offset & 0xffffff;
    return hashOf(block, at, block.view.getUint16(at - 2, true));
  }

  /** The texts, for another interner to take over. This one must not be used afterwards. */
  texts(): Texts {
    const { used, offsets, count } = this;
    return { blocks: this.blocks.map(({ bytes }) => bytes), used, offsets, count };
  }

  /** Takes over all texts of another interner; returns the number to add to the numbers that they had there. */
  takeOver({ blocks, used, offsets, count }: Texts): number {
    const base = this.count - 1;
    const before = this.blocks.length * BLOCK_BYTES;
    this.count += count - 1;
    this.reserveTexts(this.count);
    for (let id = 1; id < count; id++) this.offsets[base + id] = before + offsets[id];
    for (const bytes of blocks) this.blocks.push(withView(bytes));
    if (blocks.length > 0) this.used = used;
    return base;
  }

  private resizeOffsets(length: number): void {
    const offsets = new Uint32Array(length);
    offsets.set(this.offsets);
    this.offsets = offsets;
  }

  private resizeTable(slots: number): void {
    const old = this.table;
    const table = new Uint32Array(slots);
    const mask = slots - 2;
    for (let from = 0; from < old.length; from += 2) {
      const id = old[from + 1];
      if (id === 0) continue;
      const hash = old[from];
      let slot = (hash << 1) & mask;
      while (table[slot + 1] !== 0) slot = (slot + 2) & mask;
      table[slot] = hash;
      table[slot + 1] = id;
    }
    this.table = table;
  }
}

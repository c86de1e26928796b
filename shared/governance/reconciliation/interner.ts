import { decodeUtf8, encodeUtf8 } from "./text.ts";

const BLOCK_BYTES = 1 << 24;
const LONGEST = 0xffff;

/**
 * Gives each distinct text a small number (0 for the empty one), so that millions of ids cost bytes, not objects,
 * and comparing two is comparing numbers. Texts are compared byte by byte, never by hash alone.
 */
export class Interner {
  /** Texts one after the other, each after its length in two bytes; none straddles two blocks. */
  private readonly blocks: Uint8Array[] = [];
  private used = BLOCK_BYTES;
  /** Pairs hash, id side by side: a look costs one line of the cache. */
  private table = new Uint32Array(1 << 13);
  private tableUsed = 0;
  private offsets = new Uint32Array(1 << 12);
  private count = 1;

  /** Numbers given so far: every id is below. */
  get size(): number {
    return this.count;
  }

  /** The number of a text; longer ones are cut at 65,535 bytes: no id of Stripe's comes near. */
  intern(bytes: Uint8Array, start: number, end: number): number {
    let length = end - start;
    if (length <= 0) return 0;
    if (length > LONGEST) {
      length = LONGEST;
      end = start + length;
    }
    let hash = length;
    let i = start;
    for (const last = end - 3; i < last; i += 4) {
      const word =
        (bytes[i] as number) |
        ((bytes[i + 1] as number) << 8) |
        ((bytes[i + 2] as number) << 16) |
        ((bytes[i + 3] as number) << 24);
      hash = Math.imul(hash ^ word, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    for (; i < end; i++) hash = Math.imul(hash ^ (bytes[i] as number), 0x85ebca6b);
    hash ^= hash >>> 13;
    hash = Math.imul(hash, 0xc2b2ae35);
    hash = (hash ^ (hash >>> 16)) >>> 0;

    const { table } = this;
    const mask = table.length - 2;
    let slot = (hash << 1) & mask;
    for (;;) {
      const id = table[slot + 1] as number;
      if (id === 0) break;
      if (table[slot] === hash && this.is(id, bytes, start, length)) return id;
      slot = (slot + 2) & mask;
    }
    const id = this.keep(bytes, start, end);
    table[slot] = hash;
    table[slot + 1] = id;
    this.tableUsed++;
    if (this.tableUsed * 4 > table.length) this.growTable();
    return id;
  }

  internText(text: string | null | undefined): number {
    if (text === null || text === undefined || text === "") return 0;
    const bytes = encodeUtf8(text);
    return this.intern(bytes, 0, bytes.length);
  }

  /** A number for a text that nothing will ever be compared with: kept, not looked up. */
  keep(bytes: Uint8Array, start: number, end: number): number {
    const length = Math.min(end - start, LONGEST);
    if (length <= 0) return 0;
    if (this.used + length + 2 > BLOCK_BYTES) {
      this.blocks.push(new Uint8Array(BLOCK_BYTES));
      this.used = 0;
    }
    const block = this.blocks[this.blocks.length - 1] as Uint8Array;
    const id = this.count++;
    if (id >= this.offsets.length) {
      const offsets = new Uint32Array(this.offsets.length * 2);
      offsets.set(this.offsets);
      this.offsets = offsets;
    }
    let at = this.used;
    this.offsets[id] = (this.blocks.length - 1) * BLOCK_BYTES + at;
    block[at++] = length & 0xff;
    block[at++] = length >> 8;
    for (let i = 0; i < length; i++) block[at + i] = bytes[start + i] as number;
    this.used = at + length;
    return id;
  }

  /** Whether these bytes are the text of that number. */
  is(id: number, bytes: Uint8Array, start: number, length: number): boolean {
    const offset = this.offsets[id] as number;
    const block = this.blocks[offset >>> 24] as Uint8Array;
    const at = (offset & 0xffffff) + 2;
    if (((block[at - 2] as number) | ((block[at - 1] as number) << 8)) !== length) return false;
    for (let i = 0; i < length; i++) if (block[at + i] !== bytes[start + i]) return false;
    return true;
  }

  text(id: number): string {
    if (id === 0) return "";
    const offset = this.offsets[id] as number;
    const block = this.blocks[offset >>> 24] as Uint8Array;
    const at = (offset & 0xffffff) + 2;
    return decodeUtf8(block, at, at + ((block[at - 2] as number) | ((block[at - 1] as number) << 8)));
  }

  /** True where the text begins with these ASCII letters: cheaper than making the string. */
  startsWith(id: number, prefix: string): boolean {
    if (id === 0) return false;
    const offset = this.offsets[id] as number;
    const block = this.blocks[offset >>> 24] as Uint8Array;
    const at = (offset & 0xffffff) + 2;
    if (((block[at - 2] as number) | ((block[at - 1] as number) << 8)) < prefix.length) return false;
    for (let i = 0; i < prefix.length; i++) if (block[at + i] !== prefix.charCodeAt(i)) return false;
    return true;
  }

  private growTable(): void {
    const old = this.table;
    const table = new Uint32Array(old.length * 2);
    const mask = table.length - 2;
    for (let from = 0; from < old.length; from += 2) {
      const id = old[from + 1] as number;
      if (id === 0) continue;
      const hash = old[from] as number;
      let slot = (hash << 1) & mask;
      while (table[slot + 1] !== 0) slot = (slot + 2) & mask;
      table[slot] = hash;
      table[slot + 1] = id;
    }
    this.table = table;
  }
}

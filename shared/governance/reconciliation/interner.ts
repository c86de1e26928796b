import { decodeUtf8, encodeUtf8 } from "./text.ts";

const BLOCK_BYTES = 1 << 24;

/**
 * Gives each distinct text a small number (0 for the empty one), so that millions of ids cost bytes, not objects,
 * and comparing two is comparing numbers. Texts are compared byte by byte, never by hash alone.
 */
export class Interner {
  private readonly blocks: Uint8Array[] = [];
  private used = BLOCK_BYTES;
  private table = new Uint32Array(1 << 12);
  private hashes = new Uint32Array(1 << 11);
  private offsets = new Float64Array(1 << 11);
  private lengths = new Uint16Array(1 << 11);
  private count = 1;

  get size(): number {
    return this.count;
  }

  /** Longer texts are cut at 65,535 bytes: no id of Stripe's comes near. */
  intern(bytes: Uint8Array, start: number, end: number): number {
    let length = end - start;
    if (length <= 0) return 0;
    if (length > 0xffff) {
      length = 0xffff;
      end = start + length;
    }
    let hash = length;
    let i = start;
    // Reads past the array give undefined, which | turns into 0; the loop stays within, so that never decides.
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

    const mask = this.table.length - 1;
    let slot = hash & mask;
    for (;;) {
      const id = this.table[slot] as number;
      if (id === 0) break;
      if (this.hashes[id] === hash && this.lengths[id] === length && this.equals(id, bytes, start)) return id;
      slot = (slot + 1) & mask;
    }
    return this.add(bytes, start, end, hash, slot);
  }

  internText(text: string | null | undefined): number {
    if (text === null || text === undefined || text === "") return 0;
    const bytes = encodeUtf8(text);
    return this.intern(bytes, 0, bytes.length);
  }

  text(id: number): string {
    if (id === 0) return "";
    const offset = this.offsets[id] as number;
    const block = this.blocks[Math.floor(offset / BLOCK_BYTES)] as Uint8Array;
    const at = offset % BLOCK_BYTES;
    return decodeUtf8(block, at, at + (this.lengths[id] as number));
  }

  /** True where the text begins with these ASCII letters: cheaper than making the string. */
  startsWith(id: number, prefix: string): boolean {
    if (id === 0 || (this.lengths[id] as number) < prefix.length) return false;
    const offset = this.offsets[id] as number;
    const block = this.blocks[Math.floor(offset / BLOCK_BYTES)] as Uint8Array;
    const at = offset % BLOCK_BYTES;
    for (let i = 0; i < prefix.length; i++) if (block[at + i] !== prefix.charCodeAt(i)) return false;
    return true;
  }

  private equals(id: number, bytes: Uint8Array, start: number): boolean {
    const offset = this.offsets[id] as number;
    const block = this.blocks[Math.floor(offset / BLOCK_BYTES)] as Uint8Array;
    const at = offset % BLOCK_BYTES;
    const length = this.lengths[id] as number;
    for (let i = 0; i < length; i++) if (block[at + i] !== bytes[start + i]) return false;
    return true;
  }

  private add(bytes: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    const length = end - start;
    if (this.used + length > BLOCK_BYTES) {
      this.blocks.push(new Uint8Array(BLOCK_BYTES));
      this.used = 0;
    }
    const block = this.blocks[this.blocks.length - 1] as Uint8Array;
    for (let i = 0; i < length; i++) block[this.used + i] = bytes[start + i] as number;
    const id = this.count++;
    if (id >= this.hashes.length) this.growEntries();
    this.hashes[id] = hash;
    this.offsets[id] = (this.blocks.length - 1) * BLOCK_BYTES + this.used;
    this.lengths[id] = length;
    this.used += length;
    this.table[slot] = id;
    if (this.count * 2 > this.table.length) this.growTable();
    return id;
  }

  private growEntries(): void {
    const capacity = this.hashes.length * 2;
    const hashes = new Uint32Array(capacity);
    hashes.set(this.hashes);
    this.hashes = hashes;
    const offsets = new Float64Array(capacity);
    offsets.set(this.offsets);
    this.offsets = offsets;
    const lengths = new Uint16Array(capacity);
    lengths.set(this.lengths);
    this.lengths = lengths;
  }

  private growTable(): void {
    const table = new Uint32Array(this.table.length * 2);
    const mask = table.length - 1;
    for (let id = 1; id < this.count; id++) {
      let slot = (this.hashes[id] as number) & mask;
      while (table[slot] !== 0) slot = (slot + 1) & mask;
      table[slot] = id;
    }
    this.table = table;
  }
}

/**
 * Looks at four bytes at a time, as one number (Lamport, "Multiple byte processing with full-word instructions"). What is
 * found has the highest bit of each byte that is meant; only of the first it is sure.
 */
const HIGHEST_BITS = 0x80808080 | 0;

/** The byte, four times. */
export const repeat = (byte: number): number => Math.imul(byte, 0x01010101);

/** Bytes less than another, which is given repeated and at most 128. */
export const below = (four: number, others: number): number => (four - others) & ~four & HIGHEST_BITS;

/** Which of the four comes first, of those that were found. */
export const firstOf = (found: number): number => (31 - Math.clz32(found & -found)) >>> 3;

/** Where a byte comes next; `end` or more where it does not. Reads up to three bytes beyond. */
export function findByte(view: DataView, byte: number, from: number, end: number): number {
  const bytes = repeat(byte);
  const ones = repeat(1);
  for (let at = from; at < end; at += 4) {
    const found = below(view.getInt32(at, true) ^ bytes, ones);
    if (found !== 0) return at + firstOf(found);
  }
  return end;
}

import { type Bytes, hashOf, type Interner } from "./interner.ts";

/** Growable typed arrays side by side: a table without an object per row. */

type Typed = Uint8Array | Uint32Array | Int32Array | Float64Array;
export type ColumnSpec = Readonly<Record<string, "u8" | "u32" | "i32" | "f64">>;
type ColumnOf<K> = K extends "u8"
  ? Uint8Array
  : K extends "u32"
    ? Uint32Array
    : K extends "i32"
      ? Int32Array
      : Float64Array;
export type Columns<S extends ColumnSpec> = { [K in keyof S]: ColumnOf<S[K]> };

const make = { u8: Uint8Array, u32: Uint32Array, i32: Int32Array, f64: Float64Array };

export interface Table<S extends ColumnSpec> {
  /** Replaced when the table grows: read it again after `add`. */
  columns: Columns<S>;
  length: number;
  /** Adds a row of zeros; returns its index. */
  add(): number;
  /** Makes room for so many rows in all, so that growing does not have to. */
  reserve(rows: number): void;
  /** The columns that hold more than zeros. */
  written(): Partial<Columns<S>>;
  /** Puts so many rows of another table, its written columns, after our own; the other is not to be used any more. */
  takeOver(columns: Partial<Columns<S>>, length: number): void;
}

function hasContent(column: Typed): boolean {
  for (let i = 0; i < column.length; i++) if (column[i] !== 0) return true;
  return false;
}

export function createTable<S extends ColumnSpec>(spec: S): Table<S> {
  let capacity = 1024;
  const names = Object.keys(spec);
  /** Columns of the capacity, with what was in these; one that has it is taken as it is. */
  const grow = (from: Record<string, Typed> | null): Columns<S> => {
    // From the spec's own object: V8 makes a slow dictionary of one that grows by so many names.
    const columns: Record<string, unknown> = { ...spec };
    for (const name of names) {
      const old = from?.[name];
      if (old?.length === capacity) {
        columns[name] = old;
        continue;
      }
      const column = new make[spec[name] as "u8"](capacity) as Typed;
      // A column that nobody wrote to stays untouched memory, which costs nothing.
      if (old && hasContent(old)) column.set(old as never);
      columns[name] = column;
    }
    return columns as Columns<S>;
  };
  const table: Table<S> = {
    columns: grow(null),
    length: 0,
    add() {
      if (table.length === capacity) {
        capacity = Math.ceil(capacity * 1.5);
        table.columns = grow(table.columns as Record<string, Typed>);
      }
      return table.length++;
    },
    reserve(rows) {
      if (rows <= capacity) return;
      capacity = rows;
      table.columns = grow(table.columns as Record<string, Typed>);
    },
    written() {
      const all = Object.entries(table.columns as Record<string, Typed>);
      return Object.fromEntries(all.filter(([, column]) => hasContent(column))) as Partial<Columns<S>>;
    },
    takeOver(taken, length) {
      const from = table.length;
      const others = taken as Record<string, Typed>;
      if (from === 0) {
        capacity = Object.values(others)[0]?.length ?? capacity;
        table.columns = grow(others);
      } else {
        table.reserve(from + length);
        const columns = table.columns as Record<string, Typed>;
        for (const name in others) columns[name].set(others[name].subarray(0, length) as never, from);
      }
      table.length += length;
    },
  };
  return table;
}

const QUEUE_LENGTH = 4096;

/** A text column of a table by its place in the list that a key queue was made with. */
export type QueuedColumn = number;

/**
 * Ids on their way into columns of a table: kept at once, looked up 4,096 at a time. Until `flush` their column holds a
 * number that has the text, but equals no other.
 */
export function createKeyQueue<S extends ColumnSpec>(
  interner: Interner,
  table: Table<S>,
  names: readonly (keyof S & string)[],
) {
  const ids = new Uint32Array(QUEUE_LENGTH);
  const hashes = new Uint32Array(QUEUE_LENGTH);
  const rows = new Uint32Array(QUEUE_LENGTH);
  const which = new Uint8Array(QUEUE_LENGTH);
  let length = 0;
  let columns: Columns<S> | null = null;
  let arrays: Uint32Array[] = [];
  /** The columns as they are now: a table that grew has others. By number, as looking one up by its name costs more. */
  function current(): Uint32Array[] {
    if (columns !== table.columns) {
      columns = table.columns;
      arrays = names.map((name) => table.columns[name] as Uint32Array);
    }
    return arrays;
  }
  function flush(): void {
    interner.resolve(ids, hashes, length);
    const targets = current();
    for (let i = 0; i < length; i++) targets[which[i]][rows[i]] = ids[i];
    length = 0;
  }
  function enqueue(column: QueuedColumn, row: number, id: number, hash: number): void {
    if (length === QUEUE_LENGTH) flush();
    ids[length] = id;
    hashes[length] = hash;
    rows[length] = row;
    which[length] = column;
    length++;
    current()[column][row] = id;
  }
  return {
    /** Puts the id into a column of a row; returns its number for the time being, 0 for none. */
    push(column: QueuedColumn, row: number, source: Bytes, start: number, end: number): number {
      const id = interner.keep(source, start, end);
      if (id === 0) return 0;
      enqueue(column, row, id, hashOf(source, start, Math.min(end - start, 0xffff)));
      return id;
    },
    /** The same for a text that is kept already. */
    pushKept(column: QueuedColumn, row: number, id: number): void {
      enqueue(column, row, id, interner.hashOfText(id));
    },
    /** Puts a number that needs no looking up. */
    set(column: QueuedColumn, row: number, id: number): void {
      current()[column][row] = id;
    },
    flush,
  };
}

/**
 * Which whole numbers were added: `has` may wrongly answer true, never wrongly false. Of numbers that lie close
 * together, as serial ones do, it does not err at all.
 */
interface Sieve {
  add(value: number): void;
  has(value: number): boolean;
}

/** For so many numbers: eight bits each. */
function createSieve(count: number): Sieve {
  const bits = 2 ** Math.ceil(Math.log2(Math.max(32, count * 8)));
  const words = new Uint32Array(bits / 32);
  const mask = words.length - 1;
  return {
    add(value) {
      words[(value >>> 5) & mask] |= 1 << (value & 31);
    },
    has: (value) => ((words[(value >>> 5) & mask] >>> (value & 31)) & 1) === 1,
  };
}

/** Numbers that may occur more than once, without the one that means none; null where certainly no number does. */
export function findRepeated(
  values: Uint32Array | Float64Array,
  length: number,
  none = Number.NaN,
): Sieve | null {
  const seen = createSieve(length);
  let repeated: Sieve | null = null;
  for (let i = 0; i < length; i++) {
    const value = values[i];
    if (value === none) continue;
    if (seen.has(value)) {
      repeated ??= createSieve(length);
      repeated.add(value);
    } else seen.add(value);
  }
  return repeated;
}

/** Rows with a value, few of many: found without a look at each. */
export function* rowsWith(column: Uint8Array, value: number, length: number): Generator<number> {
  for (let row = column.indexOf(value); row >= 0 && row < length; row = column.indexOf(value, row + 1))
    yield row;
}

/** Where in a list a whole number is, the first of equal ones; −1 for none. */
export function createPlaces(numbers: Float64Array): (value: number) => number {
  const bits = Math.ceil(Math.log2(Math.max(2, numbers.length * 2)));
  const table = new Int32Array(2 ** bits).fill(-1);
  const mask = table.length - 1;
  const slotOf = (value: number): number => Math.imul(value | 0, 0x9e3779b1) >>> (32 - bits);
  for (let place = 0; place < numbers.length; place++) {
    let slot = slotOf(numbers[place]);
    while (table[slot] >= 0 && numbers[table[slot]] !== numbers[place]) slot = (slot + 1) & mask;
    if (table[slot] < 0) table[slot] = place;
  }
  return (value) => {
    for (let slot = slotOf(value); table[slot] >= 0; slot = (slot + 1) & mask)
      if (numbers[table[slot]] === value) return table[slot];
    return -1;
  };
}

/** Rows by key, in typed arrays: `first[key]`, then `next[row]`; −1 ends. Rows come in the order they are listed. */
export interface KeyIndex {
  readonly first: Int32Array;
  readonly next: Int32Array;
}

/** The first row with this key, −1 for none. Keys that came after the index was made have none. */
export const firstOf = (index: KeyIndex | null, key: number): number =>
  index !== null && key < index.first.length ? index.first[key] : -1;

/** Indexes the rows that `include` lets through by `keys[row]`; key 0 (none) is left out. */
export function indexBy(
  keys: Uint32Array,
  length: number,
  keyCount: number,
  include: (row: number) => boolean,
): KeyIndex {
  const first = new Int32Array(keyCount).fill(-1);
  const next = new Int32Array(length).fill(-1);
  for (let row = length - 1; row >= 0; row--) {
    const key = keys[row];
    if (key === 0 || !include(row)) continue;
    next[row] = first[key];
    first[key] = row;
  }
  return { first, next };
}

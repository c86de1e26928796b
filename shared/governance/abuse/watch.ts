import { countWords, foldText, identityText, phraseText } from "../rules/text.ts";

/** What a message looks like beside the account's earlier ones. Counts include the message itself. */
export interface AbuseSignals {
  /** Same folded, space-collapsed text within the window; at most 1,000. */
  readonly identical_messages: number;
  /** Nearly the same text (identical ones included) among the latest 32 messages of the window, this one included. */
  readonly near_identical_messages: number;
  /** To the millisecond; null for the account's first message. */
  readonly seconds_since_last_message: number | null;
  /** Messages in a row, each less than 2 s after the one before; 1 when it is not rapid. */
  readonly rapid_messages: number;
  readonly message_words: number;
}

/** How far a watch looks back, and how many accounts it remembers. */
export interface AbuseSettings {
  /** Minutes within which messages are compared. Default 60. */
  readonly identical_window_minutes?: number;
  /** Accounts remembered at once; the one unseen longest is forgotten. Default 10,000. */
  readonly maximal_accounts?: number;
}

/** A number for a text, 53 bits: two different texts share one once in 10^15. Not for secrets. */
export function hashText(text: string): number {
  let high = 0xdeadbeef;
  let low = 0x41c6ce57;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    high = Math.imul(high ^ unit, 2654435761);
    low = Math.imul(low ^ unit, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}

/** What of a message is compared for likeness: the 64 smallest hashes of its distinct three-letter pieces, ascending. */
export type Likeness = Uint32Array;

const sketchSize = 64;
/** A longer message is as alike as its beginning. */
const comparedCharacters = 10_000;

/**
 * The likeness of a message. Case and separators do not count, nor do words with a digit in them (numbers, codes, the
 * ends of short links), so that "buy 1!" and "BUY 2" are alike. Empty for a message of nothing else.
 */
export function likenessOf(message: string): Likeness {
  const text = phraseText(foldText(message.slice(0, comparedCharacters))).replace(
    / [^ ]*[0-9][^ ]*(?= )/g,
    "",
  );
  const pieces = new Set<number>();
  for (let index = 0; index + 3 <= text.length; index++) {
    let hash = Math.imul(text.charCodeAt(index) ^ 0x9e3779b9, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15) ^ text.charCodeAt(index + 1), 0xc2b2ae35);
    hash = Math.imul(hash ^ (hash >>> 13) ^ text.charCodeAt(index + 2), 0x27d4eb2f);
    pieces.add((hash ^ (hash >>> 16)) >>> 0);
  }
  return Uint32Array.from(pieces).sort().slice(0, sketchSize);
}

/**
 * True for texts that share at least 7 in 10 of all their three-letter pieces: exact for short texts, and for long ones
 * an estimate from 64 pieces. A text without words is like no other. (Bottom-k sketch of the Jaccard index: Broder, "On
 * the resemblance and containment of documents", 1997.)
 */
export function isNearlyIdentical(a: Likeness, b: Likeness): boolean {
  let inA = 0;
  let inB = 0;
  let looked = 0;
  let shared = 0;
  for (; looked < sketchSize && (inA < a.length || inB < b.length); looked++) {
    const left = a[inA] ?? Number.POSITIVE_INFINITY;
    const right = b[inB] ?? Number.POSITIVE_INFINITY;
    if (left === right) shared++;
    if (left <= right) inA++;
    if (right <= left) inB++;
  }
  return looked > 0 && shared >= 0.7 * looked;
}

/** Messages that are compared word for word, and those that are compared for likeness, at most. */
const maximalIdentical = 1_000;
const maximalNear = 32;

/** Messages of one account, as far as they are needed: lists of plain numbers, for there may be many accounts. */
class MessageHistory {
  lastAtMs: number | null = null;
  rapid = 0;
  readonly #times: number[] = [];
  readonly #identities: number[] = [];
  /** Of the latest messages alone, the latest last. */
  readonly #likenesses: Likeness[] = [];

  /** Counts what the window holds of the same and of nearly the same text, and remembers the message. */
  add(atMs: number, fromMs: number, identity: number, likeness: Likeness): { same: number; near: number } {
    let old = Math.max(0, this.#times.length + 1 - maximalIdentical);
    while (old < this.#times.length && (this.#times[old] ?? 0) <= fromMs) old++;
    this.#times.splice(0, old);
    this.#identities.splice(0, old);
    this.#likenesses.splice(0, this.#likenesses.length - Math.min(this.#times.length, maximalNear - 1));
    this.#times.push(atMs);
    this.#identities.push(identity);
    this.#likenesses.push(likeness);
    let same = 0;
    for (const other of this.#identities) if (other === identity) same++;
    let near = 0;
    const first = this.#identities.length - this.#likenesses.length;
    for (const [index, other] of this.#likenesses.entries())
      if (this.#identities[first + index] === identity || isNearlyIdentical(other, likeness)) near++;
    return { same, near };
  }
}

/** Watches messages of many accounts go by, in constant memory. */
export interface AbuseWatch {
  /** Takes a message, in order of time, and tells what it looks like. */
  push(message: { readonly user_id: string; readonly at_ms: number; readonly message: string }): AbuseSignals;
  /** Unblocking forgives: the account's counts start anew. */
  forgive(userId: string): void;
  readonly accounts: number;
}

const rapidMs = 2_000;

/** Makes a watch. Meaning of the counts: docs/RULES.md, "Facts". */
export function watchAbuse(settings: AbuseSettings = {}): AbuseWatch {
  const windowMs = (settings.identical_window_minutes ?? 60) * 60_000;
  const maximal = settings.maximal_accounts ?? 10_000;
  const accounts = new Map<string, MessageHistory>();
  return {
    push({ user_id, at_ms, message }) {
      const history = accounts.get(user_id) ?? new MessageHistory();
      accounts.delete(user_id);
      accounts.set(user_id, history);
      if (accounts.size > maximal) {
        const oldest = accounts.keys().next();
        if (!oldest.done) accounts.delete(oldest.value);
      }
      const since = history.lastAtMs === null ? null : at_ms - history.lastAtMs;
      history.rapid = since !== null && since < rapidMs ? history.rapid + 1 : 1;
      history.lastAtMs = at_ms;
      const { same, near } = history.add(
        at_ms,
        at_ms - windowMs,
        hashText(identityText(message)),
        likenessOf(message),
      );
      return {
        identical_messages: same,
        near_identical_messages: near,
        seconds_since_last_message: since === null ? null : since / 1000,
        rapid_messages: history.rapid,
        message_words: countWords(message),
      };
    },
    forgive: (userId) => void accounts.delete(userId),
    get accounts() {
      return accounts.size;
    },
  };
}

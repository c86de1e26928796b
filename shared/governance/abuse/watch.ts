import { countWords, foldText, identityText, phraseText } from "../rules/text.ts";

/** What a message looks like beside the account's earlier ones. Counts include the message itself. */
export interface AbuseSignals {
  /** Same folded, space-collapsed text within the window; at most 1,000. */
  readonly identical_messages: number;
  /** Nearly the same text (identical ones included) among the latest 64 messages of the window. */
  readonly near_identical_messages: number;
  /** To the millisecond; null for the account's first message. */
  readonly seconds_since_last_message: number | null;
  /** Messages in a row, each less than 2 s after the one before; 1 when it is not rapid. */
  readonly rapid_messages: number;
  readonly message_words: number;
}

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

/** 64 bits of which similar texts share most: two halves of a simhash over the text's three-letter pieces. */
export interface Likeness {
  readonly high: number;
  readonly low: number;
  readonly length: number;
}

/** The likeness of a message. Digits, separators and case do not count, so that "buy 1!" and "BUY 2" are alike. */
export function likenessOf(message: string): Likeness {
  const text = phraseText(foldText(message)).replace(/[0-9 ]+/g, " ");
  const votes = new Int32Array(64);
  for (let index = 0; index + 3 <= text.length; index++) {
    const hash = hashText(text.slice(index, index + 3));
    const low = hash >>> 0;
    const high = Math.imul(low ^ (hash / 4294967296), 2654435761);
    for (let bit = 0; bit < 32; bit++) {
      votes[bit] = (votes[bit] ?? 0) + ((low >>> bit) & 1 ? 1 : -1);
      votes[bit + 32] = (votes[bit + 32] ?? 0) + ((high >>> bit) & 1 ? 1 : -1);
    }
  }
  let low = 0;
  let high = 0;
  for (let bit = 0; bit < 32; bit++) {
    if ((votes[bit] ?? 0) > 0) low |= 1 << bit;
    if ((votes[bit + 32] ?? 0) > 0) high |= 1 << bit;
  }
  return { high, low, length: text.length };
}

function bitCount(bits: number): number {
  let rest = bits - ((bits >>> 1) & 0x55555555);
  rest = (rest & 0x33333333) + ((rest >>> 2) & 0x33333333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** True for texts of which nearly all three-letter pieces are shared. Short texts must be alike in every one. */
export function isNearlyIdentical(a: Likeness, b: Likeness): boolean {
  const apart = bitCount(a.high ^ b.high) + bitCount(a.low ^ b.low);
  return (
    apart <= (Math.min(a.length, b.length) < 40 ? 0 : 8) &&
    Math.abs(a.length - b.length) <= Math.max(a.length, b.length) * 0.2
  );
}

/** Messages of one account, as far as they are needed: at most 1,000 in the window. */
class MessageHistory {
  lastAtMs: number | null = null;
  rapid = 0;
  readonly recent: {
    readonly atMs: number;
    readonly identity: number;
    readonly likeness: Likeness | null;
  }[] = [];

  /** Messages that cannot change a count any more are dropped. */
  trim(fromMs: number): void {
    let drop = Math.max(0, this.recent.length - 1_000);
    while (drop < this.recent.length && (this.recent[drop]?.atMs ?? 0) <= fromMs) drop++;
    if (drop > 0) this.recent.splice(0, drop);
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
      history.trim(at_ms - windowMs);
      const identity = hashText(identityText(message));
      const likeness = likenessOf(message);
      let identical = 1;
      let near = 1;
      for (let index = history.recent.length - 1, looked = 0; index >= 0; index--, looked++) {
        const earlier = history.recent[index];
        if (!earlier) continue;
        const same = earlier.identity === identity;
        if (same) identical++;
        if (
          looked < 64 &&
          (same || (earlier.likeness !== null && isNearlyIdentical(earlier.likeness, likeness)))
        )
          near++;
      }
      history.recent.push({ atMs: at_ms, identity, likeness });
      return {
        identical_messages: Math.min(1_000, identical),
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

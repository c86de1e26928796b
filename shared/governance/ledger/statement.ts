import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../values.ts";
import { sha256, toHex, utf8 } from "./sha256.ts";

/** One ledger entry as the hash covers it. Tokens are whole. Source: supabase/CONVENTIONS.md, `entry_payload`. */
export interface LedgerEntry {
  readonly transaction_id: number;
  /** Microseconds since 1970 UTC. */
  readonly created_at_us: number;
  readonly transaction_type: string;
  readonly amount: number;
  readonly previous_balance: number;
  readonly new_balance: number;
  readonly debt_after: number;
  /** What the entry put into lots and took out of them; the tokens add up to `amount`. */
  readonly lot_changes: readonly { readonly lot_id: number; readonly tokens: number }[];
  readonly decision_id: number | null;
  readonly user_id: string;
  readonly reference: string | null;
  readonly description: string | null;
  /** JSON as the database wrote it; null for none. */
  readonly metadata: string | null;
}

/** One thing that does not hold. `entry` counts from 1. */
export interface LedgerProblem {
  readonly entry: number;
  readonly transaction_id: number | null;
  readonly code:
    | "malformed"
    | "hash"
    | "order"
    | "other_user"
    | "arithmetic"
    | "continuity"
    | "lots"
    | "negative_lot"
    | "seal"
    | "shown_differs"
    | "truncated";
  readonly message: string;
}

/** What a check of a statement found. Balances and debt are tokens. */
export interface StatementReport {
  readonly user_id: string | null;
  readonly entries_checked: number;
  /** Empty when the statement is sound; at most 1,000. */
  readonly problems: readonly LedgerProblem[];
  readonly opening_balance: number | null;
  readonly closing_balance: number | null;
  readonly closing_debt: number | null;
  /** Hash of the last entry: compare it with the one the database has to know that nothing is missing at the end. */
  readonly last_hash: string | null;
}

const whole = /^-?\d{1,16}$/;

function wholeNumber(text: string | undefined): number {
  const value = text !== undefined && whole.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

/** Reads the text that a hash covers; fails with a sentence. The texts in it carry their length in bytes, so nothing in them can be mistaken. */
export function parsePayload(payload: string): Result<LedgerEntry, string> {
  const parts: string[] = [];
  let at = 0;
  for (let field = 0; field < 9; field++) {
    const end = payload.indexOf("|", at);
    if (end < 0) return fail("The payload ends too early.");
    parts.push(payload.slice(at, end));
    at = end + 1;
  }
  const texts: (string | null)[] = [];
  for (let field = 0; field < 4; field++) {
    const last = field === 3;
    if (payload[at] === "-" && (last ? at + 1 === payload.length : payload[at + 1] === "|")) {
      texts.push(null);
      at += 2;
      continue;
    }
    const colon = payload.indexOf(":", at);
    const bytes = colon < 0 ? Number.NaN : wholeNumber(payload.slice(at, colon));
    if (Number.isNaN(bytes) || bytes < 0) return fail("A text in the payload has no length.");
    let end = colon + 1;
    for (let left = bytes; left > 0 && end < payload.length; ) {
      const code = payload.codePointAt(end) ?? 0;
      left -= code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
      end += code < 0x10000 ? 1 : 2;
      if (left < 0) return fail("A text in the payload has a wrong length.");
    }
    const text = payload.slice(colon + 1, end);
    if (utf8(text).length !== bytes || (last ? end !== payload.length : payload[end] !== "|"))
      return fail("A text in the payload has a wrong length.");
    texts.push(text);
    at = end + 1;
  }
  const pairs = parts[7] === "" ? [] : (parts[7] ?? "").split(",").map(wholeNumber);
  const lot_changes: { lot_id: number; tokens: number }[] = [];
  for (let index = 0; index < pairs.length; index += 2)
    lot_changes.push({ lot_id: pairs[index] ?? Number.NaN, tokens: pairs[index + 1] ?? Number.NaN });
  const numbers = [0, 1, 3, 4, 5, 6].map((index) => wholeNumber(parts[index]));
  const decision = parts[8] === "-" ? null : wholeNumber(parts[8]);
  const all = [...numbers, ...lot_changes.flatMap((change) => [change.lot_id, change.tokens]), decision ?? 0];
  if (all.some(Number.isNaN)) return fail("A number in the payload is not whole or not below 2^53.");
  const [
    transaction_id = 0,
    created_at_us = 0,
    amount = 0,
    previous_balance = 0,
    new_balance = 0,
    debt_after = 0,
  ] = numbers;
  const [user_id, reference = null, description = null, metadata = null] = texts;
  if (user_id === null || user_id === undefined) return fail("The payload names no user.");
  return ok({
    transaction_id,
    created_at_us,
    transaction_type: parts[2] ?? "",
    amount,
    previous_balance,
    new_balance,
    debt_after,
    lot_changes,
    decision_id: decision,
    user_id,
    reference,
    description,
    metadata,
  });
}

/** The hash of an entry, hex: SHA-256 over the bytes of the hash before (nothing for the first) and the payload. */
export function entryHash(previousHash: string | null, payload: string): string {
  const text = utf8(payload);
  const before = previousHash === null ? new Uint8Array() : fromHex(previousHash);
  const bytes = new Uint8Array(before.length + text.length);
  bytes.set(before);
  bytes.set(text, before.length);
  return toHex(sha256(bytes));
}

function fromHex(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length >> 1);
  for (let index = 0; index < bytes.length; index++)
    bytes[index] = Number.parseInt(hex.slice(index * 2, index * 2 + 2), 16);
  return bytes;
}

/** Checks a statement as its rows come, oldest first, in memory that grows with the account's lots alone. */
export interface StatementCheck {
  /** Takes one row: an object with `payload` and `hash`, and whatever is shown beside them. */
  push(row: unknown): void;
  report(): StatementReport;
}

/** Keys of a row that must equal the payload, where they are present. */
const shown = [
  "transaction_id",
  "transaction_type",
  "amount",
  "previous_balance",
  "new_balance",
  "description",
] as const;
const maximalProblems = 1_000;

/** The parts of a seal: kind, created, expires, then tokens granted, frozen, expired and clawed back. */
const sealText = /^[a-z]+\|[\d.]+\|(?:-|[\d.]+)\|(\d{1,16})\|(\d{1,16})\|(\d{1,16})\|(\d{1,16})$/;

/**
 * The room that an entry's seal leaves for tokens in the one lot that it names; null where it seals none.
 * Source: supabase/CONVENTIONS.md, *The proof*; `governance.seals_lot`.
 */
function sealedRoom({ transaction_type: type, lot_changes: changes, metadata }: LedgerEntry): number | null {
  const [change, another] = changes;
  if (change === undefined || another !== undefined || metadata === null) return null;
  let given: unknown;
  try {
    given = JSON.parse(metadata);
  } catch {
    return null;
  }
  if (!isRecord(given)) return null;
  const seals =
    change.tokens >= 0 ||
    ["expiry", "refund", "reversal"].includes(type) ||
    (type === "adjustment" && ("difference_id" in given || "cause" in given));
  const sealed = seals ? sealText.exec(String(given["lot_seal"])) : null;
  if (sealed === null) return null;
  const [granted = 0, frozen = 0, expired = 0, clawedBack = 0] = sealed.slice(1).map(Number);
  return granted - frozen - expired - clawedBack;
}

/**
 * Makes a check. A statement that starts in the middle of a history is checked from there when `previousHash` (of the
 * entry before its first) is given; its lots are then not known to be complete, and are not checked for going negative.
 */
export function checkStatement(previousHash: string | null = null): StatementCheck {
  const problems: LedgerProblem[] = [];
  const lots = new Map<number, number>();
  let entries = 0;
  let hash = previousHash;
  let last: LedgerEntry | null = null;
  let userId: string | null = null;
  let opening: number | null = null;

  const problem = (code: LedgerProblem["code"], id: number | null, message: string): void => {
    if (problems.length < maximalProblems)
      problems.push({ entry: entries, transaction_id: id, code, message });
  };

  function checkLots(entry: LedgerEntry): void {
    let sum = 0;
    for (const { lot_id, tokens } of entry.lot_changes) {
      sum += tokens;
      const left = (lots.get(lot_id) ?? 0) + tokens;
      if (left === 0) lots.delete(lot_id);
      else lots.set(lot_id, left);
      if (left < 0 && previousHash === null)
        problem("negative_lot", entry.transaction_id, `Lot ${lot_id} gave ${-left} tokens more than it had.`);
    }
    if (sum !== entry.amount)
      problem("lots", entry.transaction_id, `The lots changed by ${sum}, the entry has ${entry.amount}.`);
    const room = previousHash === null ? sealedRoom(entry) : null;
    const lotId = entry.lot_changes[0]?.lot_id ?? 0;
    const left = lots.get(lotId) ?? 0;
    if (room !== null && left > room)
      problem(
        "seal",
        entry.transaction_id,
        `Lot ${lotId} has ${left} tokens left, its seal leaves room for ${room}.`,
      );
  }

  return {
    push(row) {
      entries++;
      if (
        !isRecord(row) ||
        typeof row["payload"] !== "string" ||
        typeof row["hash"] !== "string" ||
        !/^[0-9a-f]{64}$/.test(row["hash"])
      ) {
        problem("malformed", null, "The row has no payload and hash.");
        return;
      }
      const parsed = parsePayload(row["payload"]);
      const expected = entryHash(hash, row["payload"]);
      hash = row["hash"];
      if (!parsed.ok) {
        problem("malformed", null, parsed.error);
        return;
      }
      const entry = parsed.value;
      const id = entry.transaction_id;
      if (expected !== row["hash"])
        problem(
          "hash",
          id,
          "The hash does not follow from the entry and the one before it: an entry was changed, removed, added or moved.",
        );
      for (const key of shown)
        if (key in row && row[key] !== entry[key] && !(row[key] === undefined && entry[key] === null))
          problem(
            "shown_differs",
            id,
            `${key} is shown as ${JSON.stringify(row[key])}, the entry has ${JSON.stringify(entry[key])}.`,
          );
      userId ??= entry.user_id;
      if (entry.user_id !== userId) problem("other_user", id, "The entry belongs to another user.");
      if (
        entry.new_balance !== entry.previous_balance + entry.amount ||
        entry.new_balance < 0 ||
        entry.debt_after < 0
      )
        problem(
          "arithmetic",
          id,
          `${entry.previous_balance} and ${entry.amount} do not make ${entry.new_balance}.`,
        );
      if (last) {
        if (entry.previous_balance !== last.new_balance)
          problem(
            "continuity",
            id,
            `It starts at ${entry.previous_balance}, the entry before ended at ${last.new_balance}.`,
          );
        if (id <= last.transaction_id) problem("order", id, "The entries are not in order.");
      } else {
        opening = entry.previous_balance;
        if (previousHash === null && opening !== 0)
          problem(
            "truncated",
            id,
            `The first entry starts at ${opening}, not at 0: entries are missing before it.`,
          );
      }
      checkLots(entry);
      last = entry;
    },
    report: () => ({
      user_id: userId,
      entries_checked: entries,
      problems,
      opening_balance: opening,
      closing_balance: last?.new_balance ?? null,
      closing_debt: last?.debt_after ?? null,
      last_hash: entries === 0 ? null : hash,
    }),
  };
}

/** Checks a whole statement: its text, one JSON object a line. */
export function verifyStatement(text: string, previousHash: string | null = null): StatementReport {
  const check = checkStatement(previousHash);
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    try {
      check.push(JSON.parse(line));
    } catch {
      check.push(null);
    }
  }
  return check.report();
}

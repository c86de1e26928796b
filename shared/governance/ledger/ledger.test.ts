import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkStatement, entryHash, parsePayload, sha256, toHex, utf8, verifyStatement } from "../index.ts";

interface Row {
  payload: string;
  hash: string;
  [shown: string]: unknown;
}

const lengthed = (text: string | null): string =>
  text === null ? "-" : `${Buffer.byteLength(text)}:${text}`;

/** A sound statement: amounts move lot 1, ids grow. */
function statement(amounts: readonly number[], description: string | null = "Größe | 3:x 😀"): Row[] {
  const rows: Row[] = [];
  let balance = 0;
  let hash: string | null = null;
  for (const [index, amount] of amounts.entries()) {
    const before = balance;
    balance += amount;
    const payload = [
      index + 10,
      1_763_800_000_000_000 + index,
      amount > 0 ? "purchase" : "usage",
      amount,
      before,
      balance,
      0,
      `1,${amount}`,
      index % 2 ? index : "-",
      lengthed("user-1"),
      lengthed(index % 3 ? `req-${index}` : null),
      lengthed(description),
      lengthed(index % 2 ? '{"a": 1}' : null),
    ].join("|");
    hash = entryHash(hash, payload);
    rows.push({ payload, hash, transaction_id: index + 10, amount, new_balance: balance, description });
  }
  return rows;
}

const text = (rows: readonly unknown[]): string => rows.map((row) => JSON.stringify(row)).join("\n");
const codes = (rows: readonly unknown[]): string[] => [
  ...new Set(verifyStatement(text(rows)).problems.map((problem) => problem.code)),
];

describe("sha256", () => {
  it("gives what the platform gives, for every length and text", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(toHex(sha256(bytes))).toBe(createHash("sha256").update(bytes).digest("hex"));
      }),
    );
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (given) => {
        expect(Buffer.from(utf8(given)).equals(Buffer.from(given))).toBe(true);
      }),
    );
    for (let length = 0; length < 200; length++)
      expect(toHex(sha256(new Uint8Array(length)))).toBe(
        createHash("sha256").update(new Uint8Array(length)).digest("hex"),
      );
  });
});

describe("a statement", () => {
  const rows = statement([1000, -100, -50, 500, -1350]);

  it("is sound as it was exported, and answers its last entry", () => {
    expect(verifyStatement(text(rows))).toEqual({
      user_id: "user-1",
      entries_checked: 5,
      problems: [],
      opening_balance: 0,
      closing_balance: 0,
      closing_debt: 0,
      last_hash: rows[4]?.hash,
    });
  });

  it("reads every payload back, whatever the texts in it hold", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (description) => {
        const parsed = parsePayload(statement([5, -5], description)[1]?.payload ?? "");
        expect(parsed.ok && parsed.value).toMatchObject({
          amount: -5,
          description,
          reference: "req-1",
          decision_id: 1,
        });
      }),
    );
  });

  it.each<[string, (rows: Row[]) => unknown[], string[]]>([
    [
      "an amount in a payload",
      (r) =>
        r.with(1, {
          ...(r[1] as Row),
          payload: (r[1] as Row).payload.replace("|-100|1000|900|", "|-90|1000|910|"),
        }),
      ["hash"],
    ],
    ["an amount that is shown", (r) => r.with(1, { ...(r[1] as Row), amount: -90 }), ["shown_differs"]],
    ["a deleted entry", (r) => r.toSpliced(2, 1), ["hash", "continuity"]],
    ["a swapped pair", (r) => r.with(1, r[2] as Row).with(2, r[1] as Row), ["hash", "continuity", "order"]],
    ["a missing start", (r) => r.slice(1), ["hash", "truncated"]],
    ["an entry twice", (r) => r.toSpliced(2, 0, r[1] as Row), ["hash", "continuity", "order"]],
    ["a hash", (r) => r.with(4, { ...(r[4] as Row), hash: "0".repeat(64) }), ["hash"]],
    ["no payload", (r) => r.with(4, { hash: "0" } as unknown as Row), ["malformed"]],
    ["broken JSON", (r) => [...r, "x".slice(0, 0) as unknown], ["malformed"]],
  ])("shows a planted change: %s", (_name, change, expected) => {
    const found = codes(change(rows));
    for (const code of expected) expect(found).toContain(code);
  });

  it("shows any single changed character of a payload or a hash", () => {
    fc.assert(
      fc.property(
        fc.nat(rows.length - 1),
        fc.constantFrom("payload", "hash"),
        fc.nat(),
        fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 }),
        (row, key, place, by) => {
          const old = rows[row]?.[key] as string;
          const at = place % old.length;
          const changed = `${old.slice(0, at)}${by}${old.slice(at + 1)}`;
          fc.pre(changed !== old);
          expect(codes(rows.with(row, { ...(rows[row] as Row), [key]: changed }))).not.toEqual([]);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("shows a lot that gave more than it had, though every hash is right", () => {
    const forged = statement([100, -40]);
    const payload = (forged[1] as Row).payload.replace("|1,-40|", "|2,-40|");
    const row = { ...(forged[1] as Row), payload, hash: entryHash((forged[0] as Row).hash, payload) };
    expect(codes([forged[0], row])).toEqual(["negative_lot"]);
  });

  it("shows a lot with more in it than its seal leaves room for", () => {
    /** Two entries of 100 tokens in and `tokens` out, the second with metadata. */
    const told = (type: string, tokens: number, metadata: string): string[] => {
      const [granted = { payload: "", hash: "" }, second = granted] = statement([100, tokens], null);
      const payload = second.payload
        .replace(/^(\d+\|\d+)\|\w+\|/, `$1|${type}|`)
        .replace(/[^|]*\|-\|[^|]*$/, `5:req-1|-|${metadata.length}:${metadata}`);
      return codes([granted, { payload, hash: entryHash(granted.hash, payload) }]);
    };
    const seal = (granted: number): string => `"lot_seal": "purchased|1763800000.000000|-|${granted}|0|0|10"`;
    // 60 are left and 10 were clawed back.
    for (const type of ["refund", "reversal", "expiry"]) {
      expect(told(type, -40, `{${seal(70)}}`)).toEqual([]);
      expect(told(type, -40, `{${seal(69)}}`)).toEqual(["seal"]);
    }
    expect(told("adjustment", -40, `{"difference_id": "d", ${seal(69)}}`)).toEqual(["seal"]);
    expect(told("adjustment", 0, `{${seal(109)}}`)).toEqual(["seal"]);
    // What merely spends seals nothing, whatever its caller wrote beside it.
    expect(told("adjustment", -40, `{${seal(69)}}`)).toEqual([]);
    for (const odd of ["[1]", "{", '{"lot_seal": 5}', '{"lot_seal": "full"}'])
      expect(told("refund", -40, odd)).toEqual([]);
  });

  it("can start in the middle when the hash before is known", () => {
    const check = checkStatement(rows[1]?.hash);
    for (const row of rows.slice(2)) check.push(row);
    expect(check.report()).toMatchObject({ problems: [], opening_balance: 900, closing_balance: 0 });
  });

  it("never throws on hostile rows", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(fc.anything(), fc.record({ payload: fc.string(), hash: fc.constant("a".repeat(64)) })),
        ),
        (given) => {
          const check = checkStatement();
          for (const row of given) check.push(row);
          expect(check.report().entries_checked).toBe(given.length);
          if (given.length > 0) expect(check.report().problems).not.toEqual([]);
        },
      ),
    );
  });
});

import { describe, expect, it } from "vitest";
import type { AccountRow } from "../../../../shared/contract/users.ts";
import { keepRow } from "./staying-row.ts";

const row = (id: string): AccountRow => ({ user_id: id }) as unknown as AccountRow;
const [anna, bob, carl] = ["anna", "bob", "carl"].map(row) as [AccountRow, AccountRow, AccountRow];
const ids = (rows: readonly AccountRow[]): string[] => rows.map(({ user_id: id }) => id);

describe("the row one acts on", () => {
  it("stays in its place when it no longer fits the filter", () => {
    const before = keepRow([anna, bob, carl], "bob", null);
    expect(before.isKept).toBe(false);
    const after = keepRow([anna, carl], "bob", before.stay);
    expect(ids(after.rows)).toEqual(["anna", "bob", "carl"]);
    expect(after.isKept).toBe(true);
    expect(ids(keepRow([], "bob", after.stay).rows)).toEqual(["bob"]);
  });
  it("is the list's again as soon as it fits, or another row is opened, or none", () => {
    const { stay } = keepRow([anna, bob, carl], "bob", null);
    expect(keepRow([bob, anna], "bob", stay)).toMatchObject({ isKept: false, stay: { index: 0 } });
    expect(keepRow([anna, carl], "carl", stay)).toMatchObject({ isKept: false, stay: { index: 1 } });
    expect(keepRow([anna, carl], null, stay)).toEqual({ rows: [anna, carl], stay: null, isKept: false });
    // Somebody who was never in this list is not put into it.
    expect(ids(keepRow([anna, carl], "zoe", stay).rows)).toEqual(["anna", "carl"]);
  });
});

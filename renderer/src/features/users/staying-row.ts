import { useState } from "react";
import type { AccountRow } from "../../../../shared/contract/users.ts";

interface Stay {
  readonly row: AccountRow;
  readonly index: number;
}

/**
 * The page with the row that is open, where it stood: an act may take it out of the filter (an unblocked user among the
 * blocked ones), and otherwise the next click would hit another row.
 */
export function keepRow(
  rows: readonly AccountRow[],
  openId: string | null,
  stay: Stay | null,
): { readonly rows: readonly AccountRow[]; readonly stay: Stay | null; readonly isKept: boolean } {
  if (openId === null) return { rows, stay: null, isKept: false };
  const index = rows.findIndex(({ user_id: id }) => id === openId);
  const row = rows[index];
  if (row) return { rows, stay: { row, index }, isKept: false };
  if (stay?.row.user_id !== openId) return { rows, stay: null, isKept: false };
  return { rows: rows.toSpliced(Math.min(stay.index, rows.length), 0, stay.row), stay, isKept: true };
}

/** Another search is another list: nothing stays from the one before. */
export function useStayingRow(
  rows: readonly AccountRow[],
  openId: string | null,
  search: string,
): { readonly rows: readonly AccountRow[]; readonly isKept: boolean } {
  const [kept, setKept] = useState<{ readonly search: string; readonly stay: Stay | null }>({
    search,
    stay: null,
  });
  const found = keepRow(rows, openId, kept.search === search ? kept.stay : null);
  if (kept.search !== search || found.stay?.row !== kept.stay?.row || found.stay?.index !== kept.stay?.index)
    setKept({ search, stay: found.stay });
  return found;
}

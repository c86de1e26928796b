import type { HistoryItem } from "../../../../shared/contract/history.ts";

export interface HistoryRow {
  /** The newest of those that are shown as one. */
  readonly item: HistoryItem;
  readonly count: number;
  /** When the oldest of them was. */
  readonly since: string;
}

/** Calls that were stopped one after the other for one reason are one line: they would hide all the rest. */
export function collapseStops(items: readonly HistoryItem[]): readonly HistoryRow[] {
  const rows: HistoryRow[] = [];
  for (const item of items) {
    const before = rows.at(-1);
    if (
      before?.item.kind === "stopped" &&
      item.kind === "stopped" &&
      before.item.reason === item.reason &&
      before.item.rule_name === item.rule_name
    )
      rows[rows.length - 1] = { item: before.item, count: before.count + 1, since: item.at };
    else rows.push({ item, count: 1, since: item.at });
  }
  return rows;
}

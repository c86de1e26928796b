import { expect, it } from "vitest";
import type { HistoryItem } from "../../../../shared/contract/history.ts";
import { collapseStops } from "./history-rows.ts";

const stopped = (n: number, reason: string): HistoryItem => ({
  kind: "stopped",
  key: `stopped ${n}`,
  at: new Date(Date.UTC(2026, 0, 1, 0, 60 - n)).toISOString(),
  decision_id: n,
  request_id: `r${n}`,
  reason,
  message: null,
  model: "m",
  rule_name: reason,
});
const alert: HistoryItem = {
  kind: "alert",
  key: "alert 1",
  at: "2026-01-01T00:00:00Z",
  alert_event_id: 1,
  alert_kind: "low_balance",
  severity: "warning",
  alert_name: null,
  message: "low",
  threshold: 1_000,
  value: 420,
  period: "",
  details: {},
  acknowledged_by: null,
};

it("calls stopped one after the other for one reason are one line, with their count and since when", () => {
  const items = [stopped(1, "spam"), stopped(2, "spam"), stopped(3, "limit"), alert, stopped(4, "limit")];
  expect(collapseStops(items).map(({ item, count, since }) => [item.key, count, since])).toEqual([
    ["stopped 1", 2, items[1]?.at],
    ["stopped 3", 1, items[2]?.at],
    ["alert 1", 1, alert.at],
    ["stopped 4", 1, items[4]?.at],
  ]);
  expect(collapseStops([])).toEqual([]);
});

import { describe, expect, it } from "vitest";
import type { ConnectionState } from "../../../shared/contract/connection.ts";
import { hitAddress } from "../lib/hit-address.ts";
import { threeWayRows } from "./sync-panel.tsx";
import { standing } from "./top-bar.tsx";

const connection = (status: ConnectionState["status"]): ConnectionState => ({
  profile: null,
  status,
  since: "2026-11-22T12:03:00Z",
  failure: null,
  project: null,
  replica: null,
  last_sync_at: null,
  sample_traffic: null,
});

describe("the connection in words", () => {
  const at = Date.parse("2026-11-22T12:05:00Z");
  it.each([
    ["live", "green", "Live"],
    ["catching_up", "amber", "Catching up…"],
    ["offline", "red", "Offline since 12:03"],
    ["refused", "red", "Refused"],
  ] as const)("%s is %s, %s", (status, tone, words) => {
    expect(
      standing({ transport: "open", transportSinceMs: at, connection: connection(status) }, "UTC"),
    ).toEqual({ tone, words });
  });
  it("says that the console itself is away before anything it said last", () => {
    expect(
      standing({ transport: "lost", transportSinceMs: at, connection: connection("live") }, "UTC").words,
    ).toBe("Console not answering since 12:05");
  });
});

it("shows of a conflict what differs, and who wants what", () => {
  expect(
    threeWayRows(
      { mode: "enforce", priority: 10, version: 3 },
      { mode: "shadow" },
      { mode: "off", priority: 10, version: 4 },
    ),
  ).toEqual([["mode", "enforce", "shadow", "off"]]);
});

it("leads from a hit to its place", () => {
  const hit = (kind: "user" | "rule" | "request" | "payment" | "event" | "case", id: string, more = {}) => ({
    kind,
    id,
    title: id,
    subtitle: null,
    ...more,
  });
  expect(hitAddress(hit("user", "a/b"))).toBe("/users/a%2Fb");
  expect(hitAddress(hit("request", "req_1", { decision_id: 77 }))).toBe("/watch/decisions/77");
  expect(hitAddress(hit("payment", "ch_1", { user_id: "u1" }))).toBe("/users/u1/payments");
});

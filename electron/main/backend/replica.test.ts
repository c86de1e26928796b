import { describe, expect, test } from "vitest";
import { createReplicaRoute, queryParameters, restMs, settleMs } from "./replica.ts";

describe("what is asked of a read replica", () => {
  test("reads go there, everything else to the primary", () => {
    const route = createReplicaRoute();
    expect(route.takes("console_search_accounts", 0)).toBe(true);
    expect(route.takes("usage_events_since", 0)).toBe(true);
    expect(route.takes("block_user", 0)).toBe(false);
    expect(route.takes("console_get_account", 0)).toBe(false);
  });

  test("after an act, reads stay with the primary until the replica must have it; the feed goes on", () => {
    const route = createReplicaRoute();
    route.acted(1_000);
    expect(route.takes("console_search", 1_000 + settleMs - 1)).toBe(false);
    expect(route.takes("usage_events_since", 1_000)).toBe(true);
    expect(route.takes("console_search", 1_000 + settleMs)).toBe(true);
  });

  test("a replica that failed rests for a while, and the feed never goes back to it", () => {
    const route = createReplicaRoute();
    route.failed(1_000);
    expect(route.takes("console_search", 1_000 + restMs - 1)).toBe(false);
    expect(route.takes("console_search", 1_000 + restMs)).toBe(true);
    expect(route.takes("usage_events_since", 1_000 + restMs)).toBe(false);
  });
});

test("parameters are written as PostgREST reads them from an address", () => {
  expect(
    queryParameters({
      p_text: "a b",
      p_none: null,
      p_filter: { a: [1] },
      p_ids: ['x"y', "z\\"],
      p_flag: false,
    }),
  ).toEqual({ p_text: "a b", p_filter: '{"a":[1]}', p_ids: '{"x\\"y","z\\\\"}', p_flag: false });
});

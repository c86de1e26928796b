import { QueryClient } from "@tanstack/react-query";
import { expect, it } from "vitest";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import { startLive } from "./live.ts";

it("what was read while the sample was written is read again once it is whole, and not at each step before", async () => {
  let say: (connection: unknown) => void = () => undefined;
  const client = {
    onStatus: () => () => undefined,
    follow: (name: string, _input: unknown, listener: (item: never) => void) => {
      if (name === "connection") say = listener as never;
      return () => undefined;
    },
  } as unknown as ConsoleClient;
  const queries = new QueryClient();
  const stop = startLive(client, queries, () => undefined);
  const isStale = (): boolean => queries.getQueryState(["finance.revenue"])?.isInvalidated ?? false;
  const tell = (filling: number | null): void =>
    say({ status: "live", profile: { profile_id: "local", kind: "local" }, sample_traffic: { filling } });
  tell(0.2);
  queries.setQueryData(["finance.revenue"], { lines: [] });
  tell(0.6);
  tell(0.99);
  expect(isStale()).toBe(false);
  tell(null);
  expect(isStale()).toBe(true);

  queries.setQueryData(["finance.revenue"], { lines: [] });
  tell(null);
  expect(isStale()).toBe(false);
  stop();
});

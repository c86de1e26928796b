import { act, screen } from "@testing-library/react";
import type { ReactNode } from "react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import { createQueryClient, useCall } from "./console.tsx";
import { startLive } from "./live.ts";

/** A console whose streams the test sends. */
function streaming(client: ConsoleClient): {
  readonly client: ConsoleClient;
  readonly send: (stream: string, item: unknown) => void;
} {
  const followers = new Map<string, (item: never) => void>();
  return {
    client: {
      ...client,
      follow: (name, _input, onItem) => {
        followers.set(name, onItem as (item: never) => void);
        return () => {};
      },
    },
    send: (stream, item) => act(() => followers.get(stream)?.(item as never)),
  };
}

const project = (id: string) => ({ status: "live", profile: { profile_id: id } });

it("at another project forgets what was of the first, and goes on with what is of this machine", async () => {
  const asked = answering({
    "settings.get": () => ({ ok: true, value: { theme: "light" } }),
  });
  const { client, send } = streaming(asked);
  const queries = createQueryClient();
  function Theme(): ReactNode {
    const { data } = useCall("settings.get", {}, { staleMs: Number.POSITIVE_INFINITY });
    return <p>theme {data?.theme}</p>;
  }
  const stop = startLive(client, queries, () => {});
  send("connection", project("a"));
  show(client, <Theme />, queries);
  await screen.findByText("theme light");
  queries.setQueryData(["users.get", { user_id: "u" }], { account: { user_id: "u" } });

  send("connection", project("b"));
  expect(queries.getQueryData(["users.get", { user_id: "u" }])).toBeUndefined();
  send("settings", { theme: "dark" });
  await screen.findByText("theme dark");
  stop();
});

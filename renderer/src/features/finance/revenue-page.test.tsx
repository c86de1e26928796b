import { screen } from "@testing-library/react";
import { afterEach, expect, it } from "vitest";
import { answering, show } from "../../../test-render.tsx";
import { useLive } from "../../lib/live.ts";
import { navigate, startRouter } from "../../lib/router.ts";
import { RevenuePage } from "./revenue-page.tsx";

afterEach(() => history.replaceState(null, "", "#/watch"));

it("names the period of the figures that are shown, not of those that are on their way", async () => {
  let answerJune: (() => void) | null = null;
  const of = (from: string, to: string, sold: number) => ({
    ok: true,
    value: {
      from,
      to,
      step: "day",
      lines: [
        {
          kind: "purchased",
          currency: "usd",
          sold_minor: sold,
          given_back_minor: 0,
          recognised_minor: 0,
          opening_deferred_minor: 0,
          closing_deferred_minor: sold,
        },
      ],
      periods: [],
      as_of: null,
    },
  });
  const client = answering({
    "finance.revenue": ({ from, to }: { from: string; to: string }) =>
      from === "2026-05-01"
        ? of(from, to, 500)
        : new Promise((resolve) => {
            answerJune = () => resolve(of(from, to, 600));
          }),
  });
  history.replaceState(null, "", "#/finance/revenue?from=2026-05-01&to=2026-05-31");
  startRouter();
  show(client, <RevenuePage />);
  await screen.findAllByText("US$5.00");
  expect(screen.getByText("May 2026, days of UTC")).toBeTruthy();

  navigate("/finance/revenue?from=2026-06-01&to=2026-06-30");
  await expect.poll(() => answerJune).not.toBeNull();
  expect(screen.getAllByText("US$5.00").length).toBeGreaterThan(0);
  expect(screen.getByText("May 2026, days of UTC")).toBeTruthy();

  (answerJune as unknown as () => void)();
  await screen.findAllByText("US$6.00");
  expect(screen.getByText("June 2026, days of UTC")).toBeTruthy();
});

it("does not say that nothing was sold while the sample's past is still being written", async () => {
  const client = answering({
    "finance.revenue": ({ from, to }: { from: string; to: string }) => ({
      ok: true,
      value: { from, to, step: "day", lines: [], periods: [], as_of: null },
    }),
  });
  const filling = (part: number | null): void =>
    useLive.setState({
      connection: {
        profile: { kind: "local" },
        sample_traffic: { running: true, calls: 1, filling: part },
      } as never,
    });
  filling(0.64);
  show(client, <RevenuePage />);
  await screen.findByText(/The sample's past is still being written/);
  expect(screen.queryByText("Nothing was ever sold here.")).toBeNull();

  filling(null);
  await screen.findByText("Nothing was ever sold here.");
});

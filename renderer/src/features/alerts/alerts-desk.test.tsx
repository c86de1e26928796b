import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, it } from "vitest";
import { answering, show } from "../../../test-render.tsx";
import { navigate } from "../../lib/router.ts";
import { AlertsDesk } from "./alerts-desk.tsx";

const delivery = { queued: 0, overdue_since: null, failed: 0, upkeep_at: new Date().toISOString() };
const page = (change: object) => ({
  ok: true,
  value: { alerts: [], next_before_id: null, delivery, as_of: null, ...change },
});
afterEach(() => navigate("/watch"));

it("says that nothing is open, and asks for open alerts alone", async () => {
  navigate("/alerts?show=each");
  const client = answering({ "alerts.list": () => page({}) });
  show(client, <AlertsDesk />);
  expect(await screen.findByText("No open alerts")).toBeTruthy();
  expect(client.asked[0]).toEqual({
    name: "alerts.list",
    input: { show: "open", before_id: null, limit: 100, filter: {} },
  });
});

it("says that nobody delivers, and what could not be delivered, with the way there", async () => {
  navigate("/alerts?show=each");
  const overdue = { queued: 12, overdue_since: "2026-11-25T09:12:00Z", failed: 1, upkeep_at: null };
  show(answering({ "alerts.list": () => page({ delivery: overdue }) }), <AlertsDesk />);
  expect(await screen.findByText(/12 messages wait/)).toBeTruthy();
  expect(screen.getByText(/1 message could not be delivered/)).toBeTruthy();
  expect(screen.getByText(/Upkeep has never run/)).toBeTruthy();
  expect(screen.getByRole("link", { name: "See which" }).getAttribute("href")).toBe(
    "#/alerts?show=undelivered",
  );
});

it("shows what was last seen, with its age, while the project is away", async () => {
  navigate("/alerts?show=each");
  show(answering({ "alerts.list": () => page({ as_of: "2026-11-25T09:12:00Z" }) }), <AlertsDesk />);
  expect(await screen.findByText(/From this machine's store/)).toBeTruthy();
});

it("says what went wrong, and tries again", async () => {
  navigate("/alerts?show=each");
  let works = false;
  const error = { code: "busy", message: "The project is busy.", advice: "Wait a moment.", details: null };
  const client = answering({ "alerts.list": () => (works ? page({}) : { ok: false, error }) });
  show(client, <AlertsDesk />);
  expect(await screen.findByText("The project is busy.")).toBeTruthy();
  works = true;
  screen.getByRole("button", { name: "Try again" }).click();
  await waitFor(() => expect(screen.queryByText("The project is busy.")).toBeNull());
  expect(await screen.findByText("No open alerts")).toBeTruthy();
});

it("shows the alerts that are set, how far each has come, and when it was last raised", async () => {
  navigate("/alerts?show=set");
  const set = {
    alert_name: "monthly_budget",
    metric: "cost_micros",
    scope_kind: "all",
    scope_id: null,
    period: "month",
    budget: 500_000_000,
    thresholds: [50, 75, 90],
    channels: ["email", "slack"],
    is_active: true,
    last_triggered_at: null,
    value: 65_000_000,
    percent: 13,
    currency: "gbp",
  };
  show(
    answering({ "alerts.set": () => ({ ok: true, value: { alerts: [set], as_of: null } }) }),
    <AlertsDesk />,
  );
  const row = (await screen.findByText("Monthly budget")).closest("tr");
  expect(row?.textContent).toContain("cost of all, a month");
  expect(row?.textContent).toContain("50, 75, 90 % of £500.00");
  expect(row?.textContent).toContain("13 %");
  expect(row?.textContent).toContain("email, slack");
  expect(row?.textContent).toContain("never");
});

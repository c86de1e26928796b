import { screen } from "@testing-library/react";
import { expect, it } from "vitest";
import type { CaseFilter } from "../../../../shared/contract/finance.ts";
import { answering, show } from "../../../test-render.tsx";
import { useLive } from "../../lib/live.ts";
import { NoCases } from "./cases.tsx";

const filter: CaseFilter = {
  run_id: null,
  status: null,
  undecided: true,
  class: null,
  assigned_to: null,
  older_than_days: null,
  text: null,
  sort: null,
  descending: true,
};

it("does not say that every difference is decided while those of the last run are on this machine alone", () => {
  const rail = { open_alerts: 0, flagged: 0, blocked: 0, pending: 0, conflicts: 0, differences: 21 };
  useLive.setState({ rail });
  const { unmount } = show(answering({}), <NoCases filter={filter} isFirst={false} />);
  expect(screen.getByText(/On this machine alone, of the last reconciliation: 21 differences/)).toBeTruthy();
  expect(screen.queryByText(/Every difference is verified/)).toBeNull();
  unmount();

  useLive.setState({ rail: { ...rail, differences: 0 } });
  show(answering({}), <NoCases filter={filter} isFirst={false} />);
  expect(screen.getByText(/Every difference is verified/)).toBeTruthy();
});

it("does not say that every difference is decided in a project that has had none", () => {
  useLive.setState({
    rail: { open_alerts: 0, flagged: 0, blocked: 0, pending: 0, conflicts: 0, differences: 0 },
  });
  const { unmount } = show(answering({}), <NoCases filter={filter} isFirst />);
  expect(screen.queryByText(/Every difference is verified/)).toBeNull();
  expect(screen.getByRole("link", { name: "Reconcile" }).getAttribute("href")).toBe("#/finance/new");
  unmount();

  // A run of its own had none: nothing is left to do there.
  show(answering({}), <NoCases filter={{ ...filter, run_id: "r" }} isFirst />);
  expect(screen.queryByText("No differences yet")).toBeNull();
});

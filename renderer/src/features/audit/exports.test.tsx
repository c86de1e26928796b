import { act, fireEvent, screen } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import { answering, openProject, show } from "../../../test-render.tsx";
import { Log } from "./audit-log.tsx";
import { ManyAct } from "./many.tsx";

const saved: string[] = [];
vi.mock("../../lib/csv.ts", async (original) => ({
  ...(await original<typeof import("../../lib/csv.ts")>()),
  saveFile: (name: string) => saved.push(name),
}));
afterEach(() => void (saved.length = 0));

/** Another project is opened while the second page is read. */
async function opensAnother(pages: { readonly length: number }, second: () => void): Promise<void> {
  const button = await screen.findByRole<HTMLButtonElement>("button", { name: "Export" });
  await expect.poll(() => button.disabled).toBe(false);
  fireEvent.click(button);
  await expect.poll(() => pages.length).toBe(2);
  act(() => openProject("b"));
  second();
  await screen.findByText(/Another project was opened meanwhile/);
  expect(pages).toHaveLength(2);
  expect(saved).toEqual([]);
}

it("exports no log of two projects", async () => {
  openProject("a");
  const pages: unknown[] = [];
  let second = (): void => {};
  const entry = {
    audit_id: 1,
    at: "2026-11-22T12:00:00Z",
    operator: "Ann",
    action: "flag_user",
    details: {},
  };
  const page = (next: number | null) => ({
    ok: true,
    value: { entries: [entry], next_before_id: next, as_of: null },
  });
  const client = answering({
    "audit.list": async ({ limit }: { readonly limit: number }) => {
      if (limit === 1000 && pages.push(limit) === 2) await new Promise<void>((resolve) => (second = resolve));
      return page(pages.length < 3 ? 1 : null);
    },
  });
  show(client, <Log query={new URLSearchParams()} />);
  await opensAnother(pages, () => second());
});

it("exports no result of an act on many users with rows of another project's", async () => {
  openProject("a");
  const pages: unknown[] = [];
  let second = (): void => {};
  const bulk = {
    bulk_id: 7,
    kind: "note",
    fields: {},
    status: "done",
    accounts: 1,
    done: 1,
    refused: 0,
    undone: 0,
    tokens: 0,
    plan: { tokens: 0 },
    operator: "Ann",
    reason: "A ticket",
    created_at: "2026-11-22T12:00:00Z",
    can_undo: false,
  };
  const page = (next: number | null) => ({
    ok: true,
    value: { bulk, rows: [], next_after_id: next, is_driven: false, operator: "Ann" },
  });
  const client = answering({
    "bulk.get": async ({ limit }: { readonly limit: number }) => {
      if (limit === 1000 && pages.push(limit) === 2) await new Promise<void>((resolve) => (second = resolve));
      return page(pages.length < 3 ? 1 : null);
    },
  });
  show(client, <ManyAct bulkId={7} />);
  await opensAnother(pages, () => second());
});

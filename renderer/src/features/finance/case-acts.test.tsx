import { fireEvent, screen } from "@testing-library/react";
import { expect, it, vi } from "vitest";
import type { FinanceCase } from "../../../../shared/contract/finance.ts";
import { answering, show } from "../../../test-render.tsx";
import { CaseActs } from "./case-acts.tsx";

vi.mock("../../lib/live.ts", async (original) => ({
  ...(await original<typeof import("../../lib/live.ts")>()),
  useMayAct: () => true,
}));

const of = (difference_id: string) =>
  ({ difference_id, status: "open", version: 1, correction: {}, assigned_to: null }) as FinanceCase;

it("keeps a note where a key or a click beside it closes its form, of this difference alone; Cancel forgets it", async () => {
  const open = (id: string) =>
    show(answering({}), <CaseActs of={of(id)} operator="Ann" assignees={[]} onPost={() => {}} />);
  const note = async (): Promise<HTMLTextAreaElement> => {
    fireEvent.click(screen.getByRole("button", { name: /^Note/ }));
    return await screen.findByRole<HTMLTextAreaElement>("textbox", { name: "Note" });
  };
  let desk = open("d1");
  fireEvent.change(await note(), { target: { value: "Asked the bank" } });
  desk.unmount();

  desk = open("d2");
  expect((await note()).value).toBe("");
  desk.unmount();

  desk = open("d1");
  expect((await note()).value).toBe("Asked the bank");
  fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
  desk.unmount();

  open("d1");
  expect((await note()).value).toBe("");
});

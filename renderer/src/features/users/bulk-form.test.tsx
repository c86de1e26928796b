import { fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, show } from "../../../test-render.tsx";
import { BulkForm } from "./bulk-form.tsx";

it("keeps what was typed where a key or a click beside it closes the form; Cancel forgets it", async () => {
  const failure = { code: "x", message: "Not now.", advice: null, details: null };
  const client = answering({ "bulk.preview": () => ({ ok: false, error: failure }) });
  const open = () => show(client, <BulkForm ids={["u1", "u2"]} onClose={() => {}} />);
  const field = (name: string) => screen.getByRole<HTMLInputElement>("textbox", { name });
  let form = open();
  fireEvent.change(field("Tokens"), { target: { value: "250" } });
  fireEvent.change(field("Reason"), { target: { value: "The outage of Monday" } });
  form.unmount();

  form = open();
  expect([field("Tokens").value, field("Reason").value]).toEqual(["250", "The outage of Monday"]);
  fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
  form.unmount();

  open();
  expect([field("Tokens").value, field("Reason").value]).toEqual(["", ""]);
});

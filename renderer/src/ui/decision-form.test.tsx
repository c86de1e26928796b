import { TextInput } from "@mantine/core";
import { fireEvent, screen } from "@testing-library/react";
import type { ComponentProps } from "react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { DecisionForm } from "./decision-form.tsx";

type Props = ComponentProps<typeof DecisionForm>;

const showForm = (props: Partial<Props> & Pick<Props, "form">) =>
  show(
    answering({}),
    <DecisionForm
      title="Give tokens"
      button="Give"
      reasons={[]}
      isDangerous={false}
      preview={null}
      failure={null}
      isReady
      done="Given"
      failed="Not given"
      send={(async () => ({ ok: true, value: { act: { status: "done" } } })) as never}
      onDone={() => {}}
      {...props}
    />,
  );

it("Enter sends no form that moves tokens; its button does, and Ctrl with Enter", async () => {
  const sent: string[] = [];
  const send = async (_client: unknown, _id: string, reason: string) => {
    sent.push(reason);
    return { ok: false, error: { code: "x", message: "Not now.", advice: null, details: null } };
  };
  showForm({
    form: "give_tokens u1",
    send: send as never,
    children: <TextInput label="Tokens" />,
  });
  const reason = screen.getByLabelText("Reason");
  fireEvent.change(reason, { target: { value: "Broken calls" } });
  fireEvent.keyDown(reason, { key: "Enter" });
  // A field's Enter is kept from the form, which would send it by itself.
  expect(fireEvent.keyDown(screen.getByLabelText("Tokens"), { key: "Enter" })).toBe(false);
  expect(sent).toEqual([]);
  fireEvent.keyDown(reason, { key: "Enter", ctrlKey: true });
  await expect.poll(() => sent).toEqual(["Broken calls"]);
});

it("keeps the reason where the form is closed unsent, until it is sent or cancelled", async () => {
  const open = (onDone = () => {}) => showForm({ form: "give_tokens kept", onDone });
  const reason = () => screen.getByLabelText<HTMLTextAreaElement>("Reason");
  let form = open();
  fireEvent.change(reason(), { target: { value: "Broken calls" } });
  form.unmount();

  let isDone = false;
  form = open(() => (isDone = true));
  expect(reason().value).toBe("Broken calls");
  fireEvent.click(screen.getByRole("button", { name: "Give" }));
  await expect.poll(() => isDone).toBe(true);
  form.unmount();

  open();
  expect(reason().value).toBe("");
});

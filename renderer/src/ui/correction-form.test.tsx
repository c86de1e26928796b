import { fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { CorrectionButton } from "./correction-form.tsx";

const failure = { code: "x", message: "Not now.", advice: null, details: null };
const asking = () => answering({ "users.preview": () => ({ ok: false, error: failure }) });

const open = (
  client: ReturnType<typeof asking>,
  kind: "give_tokens" | "raise_limit",
  userId: string,
): { readonly close: () => void } => {
  const shown = show(client, <CorrectionButton kind={kind} userId={userId} plan="pro" opened />);
  return { close: () => shown.unmount() };
};

const type = (label: string, value: string): void => {
  fireEvent.change(screen.getByLabelText(label), { target: { value } });
};
const pressed = (): readonly (string | null)[] =>
  screen.getAllByRole("button", { pressed: true }).map((button) => button.textContent);
const daysAway = (input: unknown, field: string): number => {
  const { correction } = input as { correction: Record<string, string> };
  return Math.round((Date.parse(correction[field] ?? "") - Date.now()) / 86_400_000);
};

it("shows the expiry that it will send, where the form was closed unsent and is opened again", async () => {
  const client = asking();
  const form = open(client, "give_tokens", "kept");
  await screen.findByText("They expire");
  type("Tokens", "500");
  fireEvent.click(screen.getByRole("button", { name: "in 7 days" }));
  form.close();

  open(client, "give_tokens", "kept");
  await screen.findByText("They expire");
  expect(pressed()).toEqual(["promotional", "in 7 days"]);
  await expect.poll(() => client.asked.length).toBeGreaterThan(0);
  expect(daysAway(client.asked.at(-1)?.input, "expires_at")).toBe(7);
});

it("keeps a moment that was typed, and says what is wrong with one that cannot be", async () => {
  const client = asking();
  const form = open(client, "raise_limit", "typed");
  await screen.findByText("Daily limit");
  type("Daily limit", "5000");
  fireEvent.click(screen.getByRole("button", { name: "other…" }));
  type("Until", "2020-01-01T10:00");
  screen.getByText("This time has passed.");
  type("Until", "9000-01-01T10:00");
  screen.getByText("At most 365 days from now.");
  form.close();

  open(client, "raise_limit", "typed");
  await screen.findByText("Daily limit");
  expect(screen.getByLabelText<HTMLInputElement>("Until").value).toBe("9000-01-01T10:00");
  screen.getByText("At most 365 days from now.");
  expect(client.asked).toEqual([]);
});

it("asks nothing of the project before a limit is typed", async () => {
  const client = asking();
  open(client, "raise_limit", "empty");
  await screen.findByText("Daily limit");
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect(client.asked).toEqual([]);
  type("Monthly limit", "5000");
  await expect.poll(() => client.asked.length).toBe(1);
});

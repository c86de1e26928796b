import { fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, show } from "../../../test-render.tsx";
import { StripeAccount } from "../finance/stripe-account.tsx";
import { AddProject } from "./add-project.tsx";
import { PrepareProject } from "./prepare-project.tsx";

/** An answer that the test lets come. */
function later<T>(value: T): { readonly answer: () => Promise<T>; readonly come: () => void } {
  let come = (): void => {};
  return { answer: () => new Promise((resolve) => (come = () => resolve(value))), come: () => come() };
}
const type = (label: string | RegExp, value: string) =>
  fireEvent.change(screen.getByLabelText(label), { target: { value } });
const button = (name: string) => screen.findByRole<HTMLButtonElement>("button", { name });

it("offers to apply migrations to a database that was looked at, not to the address that was typed since", async () => {
  const look = later({ ok: true, value: { server_version: "18", missing: ["1_a"], in_the_way: [] } });
  const plan = { address: "postgresql://one", migrations: ["1_a"], makes: { tables: 1, functions: 1 } };
  const client = answering({
    "setup.plan": () => ({ ok: true, value: plan }),
    "setup.look": look.answer,
  });
  show(client, <PrepareProject url="https://one" missing={["1_a"]} onApplied={() => {}} />);
  fireEvent.click(await button("Look at the database"));
  type("Database address", "postgresql://two");
  look.come();
  await expect.poll(async () => (await button("Look at the database")).disabled).toBe(false);
  expect((await button("Apply the migration")).disabled).toBe(true);

  // What was looked at is there again.
  type("Database address", "postgresql://one");
  expect((await button("Apply the migration")).disabled).toBe(false);
});

it("calls no project checked whose address was typed after the question", async () => {
  const check = later({
    ok: true,
    value: {
      role: "service_role",
      project: { schema_version: "1", accounts: 3, server_version: "18" },
      missing_migrations: [],
    },
  });
  show(answering({ "connection.check": check.answer }), <AddProject onDone={() => {}} />);
  type("Project URL", "https://one.supabase.co");
  type("Service-role key", "sb_secret_1");
  fireEvent.click(await button("Check"));
  type("Project URL", "https://two.supabase.co");
  check.come();
  await expect.poll(async () => (await button("Check")).ariaDisabled).toBeNull();
  expect(screen.queryByText(/The key works/)).toBeNull();
  type("Project URL", "https://one.supabase.co");
  await screen.findByText(/The key works/);
});

it("adds a project once, though Enter is pressed again while it is added", async () => {
  const client = answering({
    "connection.check": () => ({
      ok: true,
      value: {
        role: "service_role",
        project: { schema_version: "1", accounts: 3, server_version: "18" },
        missing_migrations: [],
      },
    }),
    "connection.add": () => new Promise(() => {}),
  });
  show(client, <AddProject onDone={() => {}} />);
  type("Project URL", "https://one.supabase.co");
  type("Service-role key", "sb_secret_1");
  const form = screen.getByRole("form", { name: "Connect a Supabase project" });
  fireEvent.submit(form);
  await screen.findByText(/The key works/);
  for (let press = 0; press < 2; press += 1) fireEvent.submit(form);
  await expect
    .poll(() => client.asked.map(({ name }) => name))
    .toEqual(["connection.check", "connection.add"]);
});

it("connects no Stripe key that was typed after the question", async () => {
  const permission = { name: "charge_read", row: "Charges" };
  const check = later({
    ok: true,
    value: {
      account_id: "acct_1",
      account_name: "One",
      mode: "live",
      permissions: [{ ...permission, is_granted: true }],
    },
  });
  const client = answering({
    "finance.stripe": () => ({
      ok: true,
      value: { connection: null, api_version: "1", create_key_url: "https://x", permissions: [permission] },
    }),
    "finance.stripe_check": check.answer,
  });
  show(client, <StripeAccount isUsed={false} onUse={() => {}} />);
  fireEvent.click(await button("Connect Stripe"));
  type("Restricted key", "rk_live_1");
  fireEvent.click(await button("Check"));
  type("Restricted key", "rk_live_2");
  check.come();
  await expect.poll(async () => (await button("Check")).ariaDisabled).toBeNull();
  expect((await button("Connect")).disabled).toBe(true);
});

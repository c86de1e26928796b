/** A finance person connects Stripe itself, reconciles, prints, saves a workbook, and takes the key away again. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { charge, checkoutSession, event, type Purchase } from "../support/stripe/events.ts";
import { emptyAccount, startStripeServer, type StripeAccount } from "../support/stripe/server.ts";
import { connectProject, enter, expect, makeUser, startConsole, test } from "./console.ts";

const key = `rk_live_${"a1B2".repeat(8)}`;
const lacking = `rk_live_${"c3D4".repeat(8)}`;

function atStripe(account: StripeAccount, p: Purchase): void {
  const paid = charge(p) as { readonly id: string; readonly created: number };
  account.lists.charges.push({ ...paid });
  account.lists["checkout/sessions"].push(checkoutSession(p) as never);
  account.lists.balance_transactions.push({
    id: `txn_${p.name}`,
    object: "balance_transaction",
    created: paid.created,
    amount: p.amountMinor,
    fee: 45,
    net: p.amountMinor - 45,
    currency: p.currency,
    reporting_category: "charge",
    source: paid.id,
  });
}

test("finance connects Stripe, reconciles without a file, prints the result and removes the key", async ({
  browser,
  workshop: { project },
}) => {
  const stamp = Date.now().toString(36);
  const account = emptyAccount("acct_1NuzflB0DBR1HOyc", "Example AI Ltd");
  const purchase = (name: string, created: number): Purchase => ({
    name: `${name}${stamp}`,
    userId: `api-buyer-${stamp}`,
    packId: "tokens-500k",
    tokens: 500_000,
    amountMinor: 500,
    currency: "usd",
    created,
  });
  const now = Math.floor(Date.now() / 1000);
  await makeUser(project, `api-buyer-${stamp}`, "Bea Buyer");
  const bought = purchase("bought", now - 60);
  const { data, error } = await project.client.rpc("process_stripe_event", {
    p_event: event("checkout.session.completed", checkoutSession(bought)),
  });
  expect(error).toBeNull();
  expect((data as { status: string }).status).toBe("processed");
  const missing = purchase("missing", now - 3 * 86_400);
  for (const p of [bought, missing]) atStripe(account, p);

  const stripe = await startStripeServer({
    [key]: { account },
    [lacking]: { account, lacks: ["rak_dispute_read"] },
  });
  const folder = mkdtempSync(join(tmpdir(), "governance-stripe-"));
  process.env["STRIPE_API_BASE"] = `http://127.0.0.1:${stripe.endpoint.port}`;
  const console_ = await startConsole(folder, "--no-sample-data");
  delete process.env["STRIPE_API_BASE"];
  const page = await browser.newPage();
  try {
    await enter(page, console_.ready[1] ?? "");
    await page.goto(page.url().replace(/#.*/, "#/settings/connections"));
    await connectProject(page, project, "Stripe bench");

    await page.goto(page.url().replace(/#.*/, "#/finance/new"));
    const card = page.getByRole("region", { name: "Stripe's API" });
    await card.getByRole("button", { name: "Connect Stripe" }).click();
    const field = card.getByRole("textbox", { name: "Restricted key" });
    await field.fill(`sk_live_${"x".repeat(30)}`);
    await card.getByRole("button", { name: "Check", exact: true }).click();
    await expect(card.getByText("This is a secret key")).toBeVisible();
    await field.fill(lacking);
    await card.getByRole("button", { name: "Check", exact: true }).click();
    await expect(card.getByText(/It lacks Disputes/)).toBeVisible();
    await expect(card.getByRole("button", { name: "Connect", exact: true })).toBeDisabled();
    await field.fill(key);
    await card.getByRole("button", { name: "Check", exact: true }).click();
    await expect(card.getByText("It may read all that is needed.")).toBeVisible();
    await card.getByRole("button", { name: "Connect", exact: true }).click();
    await expect(card.getByRole("checkbox", { name: "Use this account" })).toBeChecked();
    await expect(card.getByText("live mode")).toBeVisible();
    await expect(card.getByText("Nothing was read yet.")).toBeVisible();

    const day = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 10);
    await page.getByRole("radio", { name: "Other days" }).click();
    await page.getByLabel("From").fill(day(now - 7 * 86_400));
    await page.getByLabel("To, included").fill(day(now));
    await page.getByRole("button", { name: "Read Stripe and start" }).click();
    await expect(page.getByText("Not tied out")).toBeVisible();
    const classes = page.getByRole("table", { name: "Differences by class" });
    await expect(classes.getByRole("row").filter({ hasText: "Paid, not granted" })).toContainText("US$5.00");
    await page.getByRole("link", { name: "Inputs and matching" }).click();
    await expect(page.getByText("acct_1NuzflB0DBR1HOyc, live mode").first()).toBeVisible();

    const tab = page.context().waitForEvent("page");
    await page.getByRole("button", { name: "Export" }).click();
    await page.getByRole("menuitem", { name: "Page to print and sign" }).click();
    const printed = await tab;
    await expect(printed.getByRole("heading", { level: 1 })).toContainText(day(now));
    await expect(printed.getByText("Approved by")).toBeVisible();
    await expect(printed.getByText(`ch_${missing.name}`).first()).toBeVisible();
    await printed.close();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Export" }).click();
    await page.getByRole("menuitem", { name: "Workbook (XLSX)" }).click();
    const saved = await download;
    expect(saved.suggestedFilename()).toMatch(/\.xlsx$/);
    expect(readFileSync(await saved.path()).subarray(0, 4)).toEqual(Buffer.from("PK\u0003\u0004", "latin1"));

    await page.goto(page.url().replace(/#.*/, "#/finance/new"));
    await expect(card.getByText(/objects are kept here, complete through/)).toBeVisible();
    expect(
      await page.evaluate(() => Object.values(localStorage).join("\n") + document.body.innerHTML),
    ).not.toContain(key);
    await card.getByRole("button", { name: "Remove the key of Example AI Ltd" }).click();
    await page.getByRole("checkbox", { name: "Also forget what was read with it" }).check();
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await expect(card.getByRole("button", { name: "Connect Stripe" })).toBeVisible();
  } finally {
    await page.close();
    await console_.stop();
    await stripe.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

/** The main job of each person, from end to end: in the browser (*-job.spec.ts) and in the window (electron.spec.ts). */
import { readFileSync } from "node:fs";
import { type Page, test } from "@playwright/test";
import { authorize, expect, goToDesk, makeUser, type Project } from "./console.ts";

/** Support: from a stopped user to why, a block, and back. */
export async function stopARepeater(page: Page, project: Project): Promise<void> {
  const stamp = Date.now();
  const userId = `spammer-${stamp}`;
  // Of its own: other tests on the same project do this job too.
  const name = `Robin Repeats ${stamp}`;
  await makeUser(project, userId, name);

  // The product's backend is asked fifteen times with one message: the feed shows the refusals as they happen.
  await page.goto(page.url().replace(/#.*/, "#/watch"));
  await expect(page.getByRole("heading", { name: "Watch" })).toBeVisible();
  await expect(page.getByText(/\d calls?|No calls yet/).first()).toBeVisible();
  // A pointer over the rows would hold the list.
  await page.mouse.move(5, 400);
  const reasons: (string | null)[] = [];
  for (let count = 0; count < 15; count += 1)
    reasons.push((await authorize(project, userId, "win money now")).reason);
  const answeredMs = performance.now();
  expect(reasons.slice(0, 9).every((reason) => reason === null)).toBe(true);
  expect(reasons.slice(9).every((reason) => reason === "spam_identical")).toBe(true);
  const blockedRow = page.getByRole("row").filter({ hasText: name }).filter({ hasText: "blocked" });
  await expect(blockedRow).toHaveCount(6);
  const seenMs = Math.round(performance.now() - answeredMs);
  test.info().annotations.push({ type: "refusal seen after", description: `${seenMs} ms` });
  console.log(`  the refusals were on the screen ${seenMs} ms after the answer`);

  // Find the user by the keyboard alone.
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("textbox", { name: "Search everything" })).toBeFocused();
  await page.keyboard.type(name.toLowerCase());
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(new RegExp(`#/users/${userId}`));
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByRole("heading", { name })).toBeVisible();

  // Why: the receipt says the rule, its version, and when it clears.
  await detail.getByRole("row").filter({ hasText: "blocked" }).first().click();
  await expect(detail.getByText(/Stopped by/)).toContainText(/Stopped by spam identical \(v\d+\)/);
  await expect(detail.getByText(/Clears at (\d{4}-\d\d-\d\d )?\d\d:\d\d Europe\/London/)).toBeVisible();
  await page.keyboard.press("Escape");

  // Block for a day, with a reason: over the rule's own short block, which the key b would lift.
  await detail.getByRole("button", { name: "Block", exact: true }).click();
  await page.getByRole("textbox", { name: "Reason" }).fill("Spam");
  await page.getByRole("button", { name: "24 hours" }).click();
  await page.getByRole("form", { name: "Block" }).getByRole("button", { name: "Block", exact: true }).click();
  await expect(detail.getByText(/for another (23 h 5\d m|1 d|24 h)/)).toBeVisible();
  // The screen shows it at once; the project decides by it once it has answered.
  await expect
    .poll(() => authorize(project, userId, "another text"))
    .toMatchObject({ decision: "block", reason: "user_blocked", http_status: 403 });
  await goToDesk(page, "w", "Watch");
  await expect(
    page.getByRole("row").filter({ hasText: name }).filter({ hasText: "operator's block" }).first(),
  ).toBeVisible();

  // Unblocking forgives: the next call passes. Both acts are in the audit under the operator's name.
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}/audit`));
  await expect(detail.getByRole("button", { name: /^Unblock/ })).toBeVisible();
  await page.keyboard.press("b");
  await page.getByRole("textbox", { name: "Reason" }).fill("Resolved with the user");
  await page.keyboard.press("Enter");
  await expect(
    detail
      .getByText("Unblock user")
      .or(detail.getByText(/Unblock/))
      .first(),
  ).toBeVisible();
  await expect(detail.getByRole("button", { name: "Block", exact: true })).toBeVisible();
  // The screen shows it at once; the audit, when it is done.
  const audit = detail.getByRole("table", { name: "Audit, newest first" });
  await expect(audit).toContainText("Resolved with the user");
  expect((await authorize(project, userId, "win money now")).decision).toBe("allow");
  await expect(audit).toContainText("Spam");
}

/** Admin: a rule into shadow, seen in receipts, and back. */
export async function tryARuleInShadow(page: Page, project: Project): Promise<void> {
  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/rules`);
  const row = page.getByRole("row").filter({ hasText: "Spam identical" });
  await expect(row).toContainText("when at least 10 identical messages");
  await row.getByRole("button", { name: "Shadow" }).click();
  await expect(page.getByText(/Spam identical is now shadow/)).toBeVisible();
  await expect(page.getByText(/1 in shadow/)).toBeVisible();

  const userId = `shadow-${Date.now()}`;
  await makeUser(project, userId, "Sam Shadow");
  for (let count = 0; count < 12; count += 1) {
    expect((await authorize(project, userId, "the same again")).decision).toBe("allow");
  }
  // The shadow shows in the receipt, marked as such.
  await page.goto(`${origin}#/users/${userId}`);
  await page
    .getByRole("table", { name: /Decisions/ })
    .getByRole("row")
    .nth(1)
    .click();
  await expect(page.getByText(/Allowed/)).toBeVisible();
  const matched = page.locator("section").filter({ hasText: "Rules that matched" });
  await expect(matched).toContainText("spam identical");
  await expect(matched).toContainText("shadow");

  // Undo, from the note that the switch itself leaves.
  await page.goto(`${origin}#/rules/spam_identical`);
  await page.getByRole("complementary", { name: "Rule" }).getByRole("button", { name: "Enforce" }).click();
  await expect(page.getByText(/Spam identical is now enforced/)).toBeVisible();
  expect((await authorize(project, userId, "the same again")).reason).toBe("spam_identical");
  await page.keyboard.press("o");
  await expect(page.getByText(/Spam identical is now off/)).toBeVisible();
  await page.getByRole("button", { name: "Undo" }).last().click();
  await expect(
    page.getByRole("complementary", { name: "Rule" }).getByRole("button", { name: "Enforce", pressed: true }),
  ).toBeVisible();
}

/** Stripe's default payments export (Dashboard, "Default" columns), as it is downloaded. */
const HEADER =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Decline Reason,Description,Fee,Refunded date (UTC),Statement Descriptor,Status,Seller Message,Taxes On Fee,Card ID,Customer ID,Customer Description,Customer Email,Invoice ID,Transfer";

function paymentLine(charge: string, at: Date, amount: string, fee: string, email: string): string {
  const when = at.toISOString().slice(0, 16).replace("T", " ");
  return `${charge},${when},${amount},0.00,usd,true,${amount},0.00,usd,,500K tokens,${fee},,EXAMPLE AI,Paid,Payment complete.,0.00,card_${charge.slice(3)},cus_${charge.slice(3)},,${email},,`;
}

/** A paid checkout as Stripe tells it to the product's webhook. */
async function buyPack(project: Project, userId: string, charge: string, at: Date): Promise<void> {
  const created = Math.floor(at.getTime() / 1000);
  const key = charge.slice(3);
  const send = async (type: string, object: unknown): Promise<void> => {
    const { data, error } = await project.client.rpc("process_stripe_event", {
      p_event: {
        id: `evt_${type.replaceAll(".", "_")}_${key}`,
        object: "event",
        api_version: "2025-03-31.basil",
        created,
        livemode: true,
        pending_webhooks: 1,
        request: { id: null, idempotency_key: null },
        type,
        data: { object },
      },
    });
    if (error) throw new Error(`process_stripe_event: ${error.message}`);
    expect(["processed", "ignored"]).toContain((data as { status: string }).status);
  };
  await send("checkout.session.completed", {
    id: `cs_live_${key}`,
    object: "checkout.session",
    amount_total: 500,
    currency: "usd",
    client_reference_id: userId,
    created,
    customer: `cus_${key}`,
    livemode: true,
    metadata: { user_id: userId, pack_id: "tokens-500k", tokens: "500000" },
    mode: "payment",
    payment_intent: `pi_${key}`,
    payment_status: "paid",
    status: "complete",
  });
  await send("charge.succeeded", {
    id: charge,
    object: "charge",
    amount: 500,
    amount_captured: 500,
    amount_refunded: 0,
    captured: true,
    created,
    currency: "usd",
    customer: `cus_${key}`,
    livemode: true,
    metadata: {},
    paid: true,
    payment_intent: `pi_${key}`,
    refunded: false,
    status: "succeeded",
  });
}

/** Finance: from Stripe's export to what matched and what did not. */
export async function dropAnExport(page: Page, project: Project): Promise<void> {
  const stamp = Date.now().toString(36);
  const userId = `buyer-${stamp}`;
  await makeUser(project, userId, "Bea Buyer");
  const now = new Date();
  const bought = [`ch_a${stamp}`, `ch_b${stamp}`];
  for (const charge of bought) await buyPack(project, userId, charge, now);
  const older = new Date(now.getTime() - 3 * 86_400_000);
  const missing = `ch_lost${stamp}`;
  const csv = [
    HEADER,
    ...bought.map((charge) => paymentLine(charge, now, "5.00", "0.45", "bea@example.com")),
    paymentLine(missing, older, "5.00", "0.45", "lost@example.com"),
  ].join("\n");

  await page.goto(page.url().replace(/#.*/, "#/finance/new"));
  await page.getByTestId("stripe-files").setInputFiles([
    { name: "unified_payments.csv", mimeType: "text/csv", buffer: Buffer.from(csv) },
    { name: "empty.csv", mimeType: "text/csv", buffer: Buffer.alloc(0) },
  ]);
  await expect(page.getByText("The file is empty.")).toBeVisible();
  await page.getByRole("button", { name: "Drop empty.csv" }).click();
  await expect(page.getByText(/sha [0-9a-f]{10}/)).toBeVisible();
  await page.getByRole("button", { name: "Start with 1 file" }).click();

  await expect(page.getByText(/^(Not tied out|Tied out)$/)).toBeVisible();
  await expect(page.getByText("Not tied out")).toBeVisible();
  const classes = page.getByRole("table", { name: "Differences by class" });
  await expect(classes.getByRole("row").filter({ hasText: "Paid, not granted" })).toContainText(
    // The window has the system's locale, the browser's tests their own.
    /(US)?\$5\.00/,
  );
  await classes.getByRole("link", { name: "Paid, not granted" }).click();
  await page.getByRole("grid", { name: "Differences" }).getByRole("row").nth(1).click();
  const detail = page.getByRole("complementary", { name: "Difference" });
  await expect(detail.getByText("Proposed:")).toBeVisible();
  await expect(detail).toContainText(missing.slice(0, 8));
  await expect(detail).toContainText("Nothing there.");

  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export" }).click();
  await page.getByRole("menuitem", { name: "Differences as CSV" }).click();
  const saved = await (await download).path();
  expect(readFileSync(saved, "utf8")).toContain(missing);

  await page.getByRole("link", { name: "Inputs and matching" }).click();
  await expect(page.getByText("Payments (Dashboard)")).toBeVisible();
}

import { readFileSync } from "node:fs";
import { expect, makeUser, type Project, test } from "./console.ts";

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

test("finance drops Stripe's default export, sees what matched and what did not, and exports it", async ({
  page,
  workshop: { project },
}) => {
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

  await expect(page.getByText(/^(Not tied out|Tied out)$/)).toBeVisible({ timeout: 60_000 });
  await expect(page.getByText("Not tied out")).toBeVisible();
  const classes = page.getByRole("table", { name: "Differences by class" });
  await expect(classes.getByRole("row").filter({ hasText: "Paid, not granted" })).toContainText("US$5.00");
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
});

test("a file that is no Stripe export is refused in one clear sentence", async ({ page }) => {
  for (const [name, content] of [
    ["shopping.csv", "milk,eggs\n1,2\n"],
    ["picture.csv", "\u0000\u0001\u0002\u0003binary\u0000"],
  ] as const) {
    await page.goto(page.url().replace(/#.*/, "#/finance/new"));
    await page
      .getByTestId("stripe-files")
      .setInputFiles({ name, mimeType: "text/csv", buffer: Buffer.from(content) });
    const start = page.getByRole("button", { name: "Start with 1 file" });
    await expect(start.or(page.getByText("not taken"))).toBeVisible();
    if (await start.isVisible()) await start.click();
    await expect(page.getByRole("alert").or(page.getByText("not taken")).first()).toBeVisible({
      timeout: 30_000,
    });
    // Leave nothing behind for the next file.
    const drop = page.getByRole("button", { name: `Drop ${name}` });
    if (await drop.isVisible()) await drop.click();
  }
});

import { createHash, randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Locator, type Page, test as plainTest } from "@playwright/test";
import { createClient } from "@supabase/supabase-js";
import { connectProject, enter, expect, type Project, run, startConsole, test } from "./console.ts";
import { dropAnExport } from "./jobs.ts";

test("finance drops Stripe's default export, sees what matched and what did not, and exports it", async ({
  page,
  workshop,
}) => {
  await dropAnExport(page, workshop.project);
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
    await expect(page.getByRole("alert").or(page.getByText("not taken")).first()).toBeVisible();
    // Leave nothing behind for the next file.
    const drop = page.getByRole("button", { name: `Drop ${name}` });
    if (await drop.isVisible()) await drop.click();
  }
});

/** Every difference that the screen lists, by its class. */
const grid = (page: Page): Locator => page.getByRole("grid", { name: "Differences" });
const rowOf = (page: Page, name: string): Locator =>
  grid(page)
    .getByRole("row")
    .filter({ has: page.getByRole("gridcell", { name, exact: true }) });
const detailOf = (page: Page): Locator => page.getByRole("complementary", { name: "Difference" });

/** Opens a difference and waits until its own detail, as it is now, is there to take keys. */
async function openCase(page: Page, name: string, status: string): Promise<void> {
  await rowOf(page, name).click();
  await expect(
    detailOf(page).getByRole("heading", { level: 2, name: new RegExp(`^${name}\\s*${status}$`) }),
  ).toBeVisible();
}

async function becomeOperator(page: Page, name: string): Promise<void> {
  const back = page.url();
  await page.goto(back.replace(/#.*/, "#/settings/preferences"));
  await page.getByRole("textbox", { name: "Your name" }).fill(name);
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("button", { name: "Save" })).toBeDisabled();
  await page.goto(back);
}

/** Days from the first to the last, both included, of a sample that ended at this moment; its last hour is not among them. */
function periodOf(endsAt: number): readonly [from: string, to: string] {
  const day = (hoursAgo: number): string =>
    new Date(endsAt - hoursAgo * 3_600_000).toISOString().slice(0, 10);
  return [day(46 * 24), day(25)];
}

/** Drops the sample's files for a period, and waits for the result. */
async function reconcileSample(
  page: Page,
  folder: string,
  [from, to]: readonly [from: string, to: string],
): Promise<void> {
  await page.goto(page.url().replace(/#.*/, "#/finance/new"));
  await page.getByTestId("stripe-files").setInputFiles(readdirSync(folder).map((name) => join(folder, name)));
  await page.getByLabel("From", { exact: true }).fill(from);
  await page.getByLabel("To, included").fill(to);
  await page.getByRole("button", { name: "Start with 3 files" }).click();
  await expect(page.getByText(/^(Not tied out|Tied out)$/)).toBeVisible();
}

async function keepRun(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Keep in the project" }).click();
  await expect(page.getByText(/^Kept with \d+ differences?$/)).toBeVisible();
  await expect(page.getByRole("region", { name: "Keep this run" })).toBeHidden();
}

/** One act on all that is listed; the screen leaves out what cannot be. */
async function bulk(page: Page, action: string, reason?: string): Promise<number> {
  await page.getByRole("button", { name: "Select all" }).click();
  await page
    .getByRole("toolbar", { name: "Selected differences" })
    .getByRole("button", { name: `${action}…` })
    .click();
  const dialog = page.getByRole("dialog");
  if (reason) await dialog.getByLabel("Reason").fill(reason);
  const confirm = dialog.getByRole("button", { name: new RegExp(`^${action} \\d+$`) });
  const count = Number((await confirm.innerText()).replace(/\D/g, ""));
  await confirm.click();
  await expect(dialog).toBeHidden();
  return count;
}

plainTest("a finance person goes from a dropped export to a closed period", async ({ page }) => {
  page.setDefaultTimeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), "governance-close-"));
  const local = await run(
    ["tests/support/sample-project.ts", join(folder, "project"), "80", "45"],
    /(\{"url".*\})/,
  );
  const { url, serviceRoleKey } = JSON.parse(local.ready[1] ?? "") as Project;
  const client = createClient(url, serviceRoleKey, { auth: { persistSession: false } });
  const console_ = await startConsole(join(folder, "console"), "--no-sample-data");
  const files = join(folder, "project", "sample-stripe");
  const period = periodOf(Date.now());
  try {
    await enter(page, console_.ready[1] ?? "");
    await connectProject(page, { url, serviceRoleKey, client }, "Sample shop");
    await becomeOperator(page, "Fay");

    await reconcileSample(page, files, period);
    await keepRun(page);
    await page.getByRole("link", { name: /^Differences \(\d+\)$/ }).click();
    const toDecide = await page.getByRole("combobox", { name: "Status" }).inputValue();
    const total = Number(/\((\d+)\)/.exec(toDecide)?.[1]);
    expect(total).toBeGreaterThan(15);
    await expect(grid(page).locator("[role=row][aria-rowindex]")).toHaveCount(total);

    // One of each kind opens to both sides, by keyboard alone.
    const seen = new Set<string>();
    await grid(page).focus();
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    for (let row = 0; row < total; row++) {
      const open = grid(page).locator('[role=row][aria-selected="true"]');
      await expect(open).toHaveAttribute("aria-rowindex", String(row + 1));
      const name = await open.getByRole("gridcell").nth(1).innerText();
      await expect(
        detailOf(page).getByRole("heading", { level: 2, name: new RegExp(`^${name}`) }),
      ).toBeVisible();
      await expect(detailOf(page).getByRole("heading", { name: "Stripe", exact: true })).toBeVisible();
      await expect(detailOf(page).getByRole("heading", { name: "Ledger", exact: true })).toBeVisible();
      await expect(detailOf(page).getByText("Correction:")).toBeVisible();
      seen.add(name);
      if (row + 1 < total) await page.keyboard.press("j");
    }
    expect(seen.size).toBe(total);
    await page.keyboard.press("Escape");
    await expect(detailOf(page)).toBeHidden();

    // Fay proposes: what books something for somebody, all at once; what lacks its user, by naming it.
    const proposed = await bulk(page, "Propose");
    expect(proposed).toBeGreaterThan(8);
    expect(proposed).toBeLessThan(total - 2);
    for (const [name, tokens] of [
      ["Paid, not granted", null],
      ["Period not granted", "500000"],
    ] as const) {
      await openCase(page, name, "open");
      await expect(detailOf(page).getByText("Nobody has done anything yet")).toBeVisible();
      await page.keyboard.press("p");
      const form = page.getByRole("dialog");
      await form.getByRole("combobox", { name: "User" }).fill("sample-0007");
      await page.getByRole("option").first().click();
      if (tokens) await form.getByLabel("Tokens").fill(tokens);
      await form.getByRole("button", { name: "Propose" }).click();
      await expect(detailOf(page).getByText("proposed the correction")).toBeVisible();
    }

    // The exact effect, then the entry; and what one person may not do alone is refused by the project.
    await openCase(page, "Granted twice", "proposed");
    await page.keyboard.press("b");
    const preview = page.getByRole("region", { name: "What posting does" });
    await expect(preview.getByRole("table", { name: "Entries" })).toContainText("−500,000");
    await expect(preview.getByRole("list", { name: "Lots" })).toContainText("clawed back 0 → 500,000");
    await preview.getByRole("button", { name: "Post to the ledger" }).click();
    await expect(detailOf(page).getByText("posted the correction")).toBeVisible();
    await openCase(page, "Dispute won, still held", "proposed");
    await page.keyboard.press("b");
    await expect(preview).toContainText("needs the approval of a second person");
    await expect(preview.getByRole("button", { name: "Post to the ledger" })).toBeDisabled();
    await detailOf(page).getByRole("button", { name: "Approve" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Approve" }).click();
    await expect(page.getByText("Somebody else must approve what you proposed.")).toBeVisible();
    await page.keyboard.press("Escape");
    await detailOf(page).getByRole("button", { name: "Close" }).click();

    // Moe approves all that waits, and posts it.
    await becomeOperator(page, "Moe");
    await expect(grid(page)).toBeVisible();
    expect(await bulk(page, "Approve")).toBe(proposed + 1);
    const posted = await bulk(page, "Post");
    expect(posted).toBe(proposed + 1);

    // What is no matter for the ledger: one waits for Stripe, the others are not worth more work.
    await openCase(page, "Charged twice", "open");
    await page.keyboard.press("c");
    await page.getByRole("dialog").getByLabel("Reason").fill("Refunded in Stripe on Monday");
    await page.keyboard.press("Enter");
    await expect(rowOf(page, "Charged twice")).toBeHidden();
    await expect(detailOf(page).getByText("carried forward", { exact: true })).toBeVisible();
    await page.keyboard.press("Escape");
    expect(await bulk(page, "Write off", "Looked at with the bank: nothing to book")).toBe(
      total - posted - 1 - 1,
    );

    // Posted is not proven: the same files again must find nothing left.
    await page.getByRole("link", { name: "Close the period" }).click();
    const checklist = page.getByRole("list", { name: "Checklist" });
    await expect(checklist).toContainText(`${posted + 1} posted, not verified`);
    await expect(page.getByRole("button", { name: "Close the period…" })).toBeDisabled();
    const firstRun = page.url();
    await checklist.getByRole("link", { name: "Reconcile again" }).click();
    await reconcileSample(page, files, period);
    await keepRun(page);
    await expect(page.getByText(`${posted + 1} posted corrections verified`)).toBeVisible();
    await expect(page.getByText("Tied out, but for what was decided")).toBeVisible();
    await expect(page.getByText(/^Zero unexplained, and every difference is decided/)).toBeVisible();

    await page.getByRole("navigation", { name: "Report" }).getByRole("link", { name: "Compare" }).click();
    await expect(page.getByText(`0 new, ${posted + 1} gone, 0 changed`)).toBeVisible();

    await page
      .getByRole("navigation", { name: "Report" })
      .getByRole("link", { name: "Close the period" })
      .click();
    await page.getByLabel(/^What you sign, as Moe/).fill("Reconciled, decided and agreed with Fay");
    await page.getByRole("button", { name: "Close the period…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Close and seal" }).click();
    await expect(page.getByText("seal fits")).toBeVisible();
    const seal = await page
      .locator("code")
      .filter({ hasText: /^[0-9a-f]{64}$/ })
      .innerText();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Check and download" }).click();
    const sealed = readFileSync(await (await download).path());
    expect(createHash("sha256").update(sealed).digest("hex")).toBe(seal);
    await expect(page.getByText("this console worked out the same SHA-256")).toBeVisible();

    // Once is all: by the run that closed it, and by any other.
    await page.goto(firstRun);
    await expect(checklist).toContainText("is closed already (by Moe)");
    await page.getByLabel(/^What you sign/).fill("Once more");
    await expect(page.getByRole("button", { name: "Close the period…" })).toBeDisabled();
    const again = await client.rpc("console_close_period", {
      p_command_id: randomUUID(),
      p_run_id: firstRun.split("/").at(-2),
      p_operator: "Moe",
    });
    expect(again.error?.hint).toBe("already_closed");
    const { data: sound } = await client.rpc("verify_ledger");
    expect((sound as { problems: unknown[] }).problems).toEqual([]);
    // Carried forward came over: it is what the next period begins with.
    await page.goto(firstRun.replace(/#.*/, "#/finance/cases"));
    await expect(grid(page).locator("[role=row][aria-rowindex]")).toHaveCount(1);
    await openCase(page, "Charged twice", "open");
    await expect(detailOf(page)).toContainText("it came over as a late item");
  } finally {
    await console_.stop();
    await local.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

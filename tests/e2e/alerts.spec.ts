import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import { startLocalProject } from "../../local-project/index.ts";
import type { Page } from "@playwright/test";
import { authorize, connectProject, expect, goToDesk, makeUser, test } from "./console.ts";

async function setBudgetAndRoute(page: Page, origin: string): Promise<void> {
  // The threshold is raised where it is set, which says before it is saved when it would have been reached.
  await page.goto(`${origin}#/alerts?show=set`);
  await page.getByRole("link", { name: "Daily budget" }).click();
  await expect(page.getByRole("textbox", { name: "Budget" })).toHaveValue("25");
  await page.getByRole("textbox", { name: "Budget" }).fill("100");
  const ahead = page.getByRole("list", { name: "Whom it touches" });
  await expect(ahead.getByText(/it would have raised 0 alerts/)).toBeVisible();
  await expect(ahead.getByText("As it is now: 1 alert.")).toBeVisible();
  await page.getByRole("textbox", { name: "Why" }).fill("a dear model is meant here");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByText(/daily_budget is saved/)).toBeVisible();
  await page.goto(`${origin}#/alerts?show=set`);
  await expect(page.getByRole("table", { name: "Alerts that are set" })).toContainText("$100");

  // Who is notified of it.
  await page.getByRole("link", { name: "New route" }).click();
  await page.getByLabel("Name", { exact: true }).fill("on_call");
  await page.getByLabel("From severity").selectOption("critical");
  await page.getByLabel("Upkeep was not run").check();
  await page.getByLabel("Sent by").fill("pager");
  await expect(ahead.getByText("It would have sent 1 alert in the last 30 days.")).toBeVisible();
  await page.getByRole("textbox", { name: "Why" }).fill("nights");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByText(/on_call is saved/)).toBeVisible();
  await page.goto(`${origin}#/alerts?show=set`);
  await expect(page.getByRole("table", { name: "Routes of alerts" })).toContainText("on_call");
}

test("an operator works through the open alerts by keyboard, sees who was notified, and sends again what was not", async ({
  page,
  workshop: { project },
}) => {
  const userId = `alerted-${Date.now()}`;
  const ask = async (name: string, parameters: Record<string, unknown> = {}): Promise<unknown> => {
    const { data, error } = await project.client.rpc(name, parameters);
    if (error) throw new Error(`${name}: ${error.message}`);
    return data;
  };
  await makeUser(project, userId, "Alma Alert");
  // A call with high usage, and one so large that a person must look at it: operators get an e-mail about that.
  for (const tokens of [60_000, 20_000_000]) {
    const { request_id: requestId } = await authorize(project, userId, `a call of ${tokens}`);
    await ask("settle_usage", { p_request_id: requestId, p_input_tokens: tokens, p_output_tokens: 0 });
  }
  await ask("run_maintenance");
  const queued = (await ask("claim_notifications", { p_channel: "email" })) as { notification_id: number }[];
  expect(queued.length).toBeGreaterThan(0);
  for (const { notification_id: id } of queued)
    await ask("finish_notification", {
      p_notification_id: id,
      p_error: "550 5.1.1 no such mailbox",
      p_is_final: true,
    });

  // The count has its list behind it.
  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/watch`);
  await page.getByRole("link", { name: /Open alerts/ }).click();
  await page.getByText("One by one", { exact: true }).click();
  const rows = page.getByRole("grid", { name: /Alerts/ }).locator("[role=row][aria-rowindex]");
  const mine = rows.filter({ hasText: "Alma Alert" });
  const settlement = mine.filter({ hasText: "Settlement waits for a decision" });
  const highUsage = mine.filter({ hasText: "High usage" });
  await expect(settlement).toContainText("not delivered");
  await expect(highUsage).toContainText("60,000");
  await expect(page.getByText(/message.? could not be delivered/)).toBeVisible();

  // Read on with j and k; follow an alert to its decision, and come back.
  await highUsage.click();
  const detail = page.getByRole("complementary", { name: "Alert" });
  await expect(detail.getByText("One call used 60,000 tokens, more than 50,000.")).toBeVisible();
  await page.keyboard.press("k");
  await expect(detail.getByText("550 5.1.1 no such mailbox")).toBeVisible();
  await detail.getByRole("link", { name: "Open decision" }).click();
  await expect(page.getByText(/Allowed/)).toBeVisible();
  await page.goBack();

  // Send again, then acknowledge: the list goes on to the next one.
  await detail.getByRole("button", { name: "Send again" }).click();
  await expect(page.getByText("Queued again: the next deliverer sends it")).toBeVisible();
  await expect(detail.getByText(/next try/)).toBeVisible();
  await page.keyboard.press("a");
  await expect(settlement).toHaveCount(0);
  await expect(detail.getByText(/more than 50,000/)).toBeVisible();
  await page.keyboard.press("a");
  await expect(highUsage).toHaveCount(0);
  await page.keyboard.press("Escape");
  await expect(detail).toHaveCount(0);

  // They stay in the record, with the name of who saw to them; the act is in the user's audit.
  await page.getByText("All", { exact: true }).click();
  await expect(settlement).toHaveCount(1);
  await expect(highUsage).toHaveCount(1);
  await page.goto(`${origin}#/users/${userId}/audit`);
  await expect(page.getByRole("table", { name: /Audit/ }).getByText("Acknowledge alert")).toHaveCount(2);

  // What is watched stands beside it.
  await page.goto(`${origin}#/alerts?show=set`);
  await expect(page.getByRole("table", { name: "Alerts that are set" })).toContainText("Monthly budget");
  // Alerts are a desk of their own; the way to Watch is the one from every desk.
  await goToDesk(page, "w", "Watch");
  await expect(page.getByRole("grid", { name: "Calls, newest first" })).toBeVisible();
});

test("on call: two hundred users at their limits do not hide stuck upkeep, and a cost spike leads to its user, model and rule", async ({
  page,
}) => {
  const folder = mkdtempSync(join(tmpdir(), "alerts-e2e-"));
  const local = await startLocalProject({ dataDir: folder, port: 0, upkeepIntervalMs: null });
  const client = createClient(local.url, local.serviceRoleKey, { auth: { persistSession: false } });
  const ask = async (name: string, parameters: Record<string, unknown> = {}): Promise<unknown> => {
    const { data, error } = await client.rpc(name, parameters);
    if (error) throw new Error(`${name}: ${error.message}`);
    return data;
  };
  const call = async (user: string, output: number): Promise<void> => {
    const id = crypto.randomUUID();
    await ask("authorize_usage", {
      p_request_id: id,
      p_user_id: user,
      p_model: "gpt-4o",
      p_estimated_tokens: 10,
    });
    await ask("settle_usage", { p_request_id: id, p_input_tokens: 10, p_output_tokens: output });
  };
  try {
    await ask("run_maintenance");
    await connectProject(page, { url: local.url, serviceRoleKey: local.serviceRoleKey, client }, "On call");
    const origin = page.url().replace(/#.*/, "");
    await page.goto(`${origin}#/alerts`);
    await expect(page.getByText("Nothing waits for an operator")).toBeVisible();

    // Each of them uses up nearly all that the plan gives.
    const names = Array.from({ length: 200 }, (_, n) => `burst-${n}`);
    await ask("authorize_usage_many", {
      p_calls: names.map((id) => ({
        request_id: id,
        user_id: id,
        model: "gpt-4o-mini",
        estimated_tokens: 1,
      })),
    });
    await ask("settle_usage_many", {
      p_calls: names.map((id) => ({ request_id: id, input_tokens: 49_900, output_tokens: 0 })),
    });
    const lines = page.getByRole("grid", { name: /Open alerts/ }).locator("[role=row][aria-rowindex]");
    await expect(lines.filter({ hasText: "and 198 more" }).first()).toBeVisible();

    // Upkeep was not run for twenty minutes: the deliverer finds out.
    await local.run(
      "update governance.maintenance_state set updated_at = now() - interval '20 minutes' where key = 'rounds'",
    );
    const raisedAt = Date.now();
    await ask("claim_notifications");
    const stuck = lines.filter({ hasText: "Upkeep was not run" });
    await expect(stuck).toBeVisible();
    test.info().annotations.push({ type: "raised to screen", description: `${Date.now() - raisedAt} ms` });
    await expect(lines.first()).toContainText("Upkeep was not run");
    await expect(page.getByRole("link", { name: /Alerts/ })).toContainText("1");
    await stuck.click();
    const detail = page.getByRole("complementary", { name: "Alert" });
    await detail.getByRole("button", { name: "Take" }).click();
    await expect(detail.getByRole("button", { name: "Give up" })).toBeVisible();
    await detail.getByRole("button", { name: "Resolve…" }).click();
    await page.getByLabel("What became of it").fill("the cron job is back");
    await page.getByRole("button", { name: "Resolve", exact: true }).click();
    await expect(stuck).toHaveCount(0);

    // The two hundred go in one act.
    await lines.filter({ hasText: "users' own" }).first().getByRole("checkbox").check();
    await page
      .getByRole("button", { name: /^Acknowledge/ })
      .first()
      .click();
    await expect(page.getByText(/alerts? acknowledged/)).toBeVisible();

    // One user makes the day's cost, with a dear model that a rule lets pass with a warning.
    await ask("save_rule", {
      p_command_id: crypto.randomUUID(),
      p_rule: {
        rule_name: "dear_model_passes",
        rule_type: "limit",
        priority: 1,
        conditions: { all: [{ fact: "model", op: "=", value: "gpt-4o" }] },
        action: { warn: { message: "This model is dear." } },
      },
    });
    for (const name of ["Petra Spike", "Quiet Quentin"])
      await ask("upsert_account", {
        p_user_id: name.split(" ")[0]?.toLowerCase(),
        p_plan_id: "business",
        p_display_name: name,
      });
    await call("quiet", 1_000);
    await call("petra", 2_000_000);
    await ask("run_maintenance");
    const spike = lines.filter({ hasText: "Daily budget" });
    await expect(spike).toContainText("warning");
    await spike.click();
    const cause = (table: string) => detail.getByRole("table", { name: table }).getByRole("link").first();
    await expect(cause("Users")).toHaveText(/Petra Spike/);
    await expect(cause("Models")).toHaveText("gpt-4o");
    await expect(cause("Rules that matched")).toHaveText(/dear model passes/i);
    await cause("Users").click();
    await expect(page.getByRole("heading", { name: "Petra Spike" })).toBeVisible();
    await page.goBack();
    await cause("Rules that matched").click();
    await expect(page.getByText("This model is dear.").first()).toBeVisible();
    await page.goBack();
    await cause("Models").click();
    const calls = page.getByRole("grid", { name: "Calls, newest first" });
    await expect(calls.getByText("Petra Spike").first()).toBeVisible();

    await setBudgetAndRoute(page, origin);
  } finally {
    await local.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

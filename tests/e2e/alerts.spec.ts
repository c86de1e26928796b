import { authorize, expect, makeUser, test } from "./console.ts";

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
  await page.keyboard.press("g");
  await page.keyboard.press("w");
  await expect(page.getByRole("grid", { name: "Calls, newest first" })).toBeVisible();
});

test("two hundred users at their limits do not hide what waits for an operator: it comes by itself, is taken and resolved", async ({
  page,
  workshop: { project },
}) => {
  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/alerts`);
  await expect(page.getByText(/waits? for an operator|Nothing waits/)).toBeVisible();
  const ask = async (name: string, parameters: Record<string, unknown>): Promise<unknown> => {
    const { data, error } = await project.client.rpc(name, parameters);
    if (error) throw new Error(`${name}: ${error.message}`);
    return data;
  };
  // Each of them uses up nearly all that the free plan gives a day.
  const names = Array.from({ length: 200 }, (_, n) => `burst-${Date.now()}-${n}`);
  const limits = (await ask("authorize_usage", {
    p_request_id: `${names[0]}-probe`,
    p_user_id: names[0],
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 1,
  })) as { balance: { available: number } };
  const used = Math.floor(limits.balance.available * 0.999);
  await ask("authorize_usage_many", {
    p_calls: names.map((id) => ({ request_id: id, user_id: id, model: "gpt-4o-mini", estimated_tokens: 1 })),
  });
  await ask("settle_usage_many", {
    p_calls: names.map((id) => ({ request_id: id, input_tokens: used, output_tokens: 0 })),
  });
  const grid = page.getByRole("grid", { name: /Open alerts/ });
  await expect(grid.locator("[role=row]").filter({ hasText: "and 1" }).first()).toBeVisible();

  // A settlement so large that a person must decide: from the settle to the screen.
  const stuck = `stuck-${Date.now()}`;
  await ask("authorize_usage", {
    p_request_id: stuck,
    p_user_id: stuck,
    p_model: "gpt-4o",
    p_estimated_tokens: 10,
  });
  const before = await grid
    .locator("[role=row][aria-rowindex]")
    .filter({ hasText: stuck.slice(0, 12) })
    .count();
  expect(before).toBe(0);
  const settledAt = Date.now();
  await ask("settle_usage", { p_request_id: stuck, p_input_tokens: 900_000_000, p_output_tokens: 0 });
  const line = grid
    .locator("[role=row][aria-rowindex]")
    .filter({ hasText: "Settlement waits for a decision" });
  await expect(line).toContainText(stuck.slice(0, 12), { timeout: 10_000 });
  test.info().annotations.push({ type: "alert on screen", description: `${Date.now() - settledAt} ms` });
  // Above all of the users' own, however many.
  await expect(grid.locator("[role=row][aria-rowindex]").first()).toContainText("critical");

  await line.click();
  const detail = page.getByRole("complementary", { name: "Alert" });
  await detail.getByRole("button", { name: "Take" }).click();
  await expect(detail.getByRole("button", { name: "Give up" })).toBeVisible();
  await detail.getByRole("button", { name: "Resolve…" }).click();
  await page.getByLabel("What became of it").fill("settled by hand");
  await page.getByRole("button", { name: "Resolve", exact: true }).click();
  await expect(line).toHaveCount(0);

  // The two hundred go in one act.
  const own = grid.locator("[role=row][aria-rowindex]").filter({ hasText: "users' own" });
  await own.first().getByRole("checkbox").check();
  await page
    .getByRole("button", { name: /^Acknowledge/ })
    .first()
    .click();
  await expect(page.getByText(/alerts? acknowledged/)).toBeVisible();
});

import { expect, goToDesk, makeUser, test } from "./console.ts";

test("an on-call admin goes from a cost spike to the user, the model and the rules behind it", async ({
  page,
  workshop: { project },
}) => {
  const ask = async (name: string, parameters: Record<string, unknown>): Promise<void> => {
    const { error } = await project.client.rpc(name, parameters);
    if (error) throw new Error(`${name}: ${error.message}`);
  };
  const userId = `spike-${Date.now()}`;
  await makeUser(project, userId, "Sven Spike");
  // One huge call; the next one is stopped by what it used.
  for (const call of [1, 2])
    await ask("authorize_usage", {
      p_request_id: `${userId}-${call}`,
      p_user_id: userId,
      p_model: "gpt-4o",
      p_estimated_tokens: 100,
      p_task_type: "summary",
    }).then(() =>
      call === 1
        ? ask("settle_usage", {
            p_request_id: `${userId}-1`,
            p_input_tokens: 1_000_000,
            p_output_tokens: 1_500_000,
          })
        : undefined,
    );

  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/watch`);
  await goToDesk(page, "c", "Costs");
  const chart = page.getByRole("figure", { name: /^Cost a day/ });
  await expect(chart).toBeVisible();
  // The day that stands out, by its bar; then all that is shown is of that day.
  const plot = chart.getByRole("img").locator("svg");
  await expect(plot).toBeVisible();
  const { width, height } = (await plot.boundingBox()) ?? { width: 0, height: 0 };
  await plot.click({ position: { x: width - 26, y: height - 40 } });
  await expect(page).toHaveURL(/from=(\d{4}-\d{2}-\d{2})&to=\1/);
  await page.getByRole("radiogroup", { name: "Made of" }).getByText("User", { exact: true }).click();
  const byUser = page.getByRole("table", { name: "Costs by user" });
  const row = byUser.getByRole("row").filter({ hasText: "Sven Spike" });
  await expect(row).toBeVisible();
  await expect(row).toContainText("%");

  // Its figure, its table and its words are of one source.
  await row.click();
  await expect(page).toHaveURL(new RegExp(`only_user=${userId}`));
  const byModel = page.getByRole("table", { name: "Costs by model" });
  await expect(byModel.getByRole("row").filter({ hasText: "gpt-4o" })).toContainText("2,500,000");
  await chart.getByRole("button", { name: "Show as table" }).click();
  await expect(chart.getByRole("table")).toContainText("2,500,000");

  // On to the user, and from one of the calls to the rules that were looked at.
  await page.goBack();
  await row.getByRole("link", { name: "open the user" }).click();
  await expect(page.getByRole("heading", { name: /Sven Spike/ })).toBeVisible();
  await page.goto(`${origin}#/users/${userId}/decisions`);
  await page.getByRole("row").filter({ hasText: "gpt-4o" }).first().click();
  await expect(page.getByText(/Stopped by/).first()).toBeVisible();
});

import { authorize, expect, makeUser, test } from "./console.ts";

test("who is stopped most is found over any time, narrowed to their calls by one address, and acted on where they stand", async ({
  page,
  workshop: { project },
}) => {
  const userId = `stopped-${Date.now()}`;
  await makeUser(project, userId, "Wanda Watch", 100_000);
  const used = await authorize(project, userId, "a call that is used", 200);
  const settled = await project.client.rpc("settle_usage", {
    p_request_id: used.request_id,
    p_input_tokens: 30,
    p_output_tokens: 12,
  });
  expect(settled.error).toBeNull();
  for (const n of [1, 2, 3]) await authorize(project, userId, `far too much ${n}`, 90_000_000);

  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/watch?user=${userId}`);
  const list = page.getByRole("grid", { name: "Calls, newest first" });
  const rows = list.getByRole("row").filter({ hasText: "Wanda Watch" });
  // One row a call: the one that was asked for and then settled is one.
  await expect(rows).toHaveCount(4);
  await expect(rows.filter({ hasText: "settled" })).toHaveCount(1);

  // A reason is a door to its rows; so is a bar; both stand in the address, and the way back undoes one at a time.
  await page.getByRole("button", { name: /^Too few tokens/ }).click();
  await expect(page).toHaveURL(/user=stopped-\d+&decision=block&reason=insufficient_tokens/);
  await expect(rows).toHaveCount(3);
  await page.getByRole("combobox", { name: "Time" }).click();
  await page.getByRole("option", { name: "last 30 days" }).click();
  const chart = page.getByRole("figure", { name: /^Tokens per day/ });
  await expect(chart).toBeVisible();
  const plot = chart.getByRole("img").locator("svg");
  await expect(plot).toBeVisible();
  const { width, height } = (await plot.boundingBox()) ?? { width: 0, height: 0 };
  await plot.click({ position: { x: width - 30, y: height - 40 } });
  await expect(page).toHaveURL(/from=\d{4}-\d{2}-\d{2}T00%3A00%3A00/);
  await expect(rows).toHaveCount(3);
  await page.goBack();
  await page.goBack();
  await page.goBack();
  await expect(page).toHaveURL(new RegExp(`#/watch\\?user=${userId}$`));
  await expect(rows).toHaveCount(4);

  // The same address opens the same elsewhere; the acts stand behind the name.
  await page.goto(`${origin}#/watch?user=${userId}&last=10080`);
  await page.reload();
  await page
    .getByRole("button", { name: /Wanda Watch/ })
    .filter({ hasText: "3" })
    .click();
  const acts = page.getByRole("dialog");
  await expect(acts).toContainText("3 stopped, mostly: too few tokens");
  await acts.getByRole("button", { name: "Block", exact: true }).click();
  await acts.getByRole("textbox", { name: /^Reason/ }).fill("asks for far too much");
  await acts.getByRole("button", { name: /^Block/ }).click();
  await expect
    .poll(async () => (await authorize(project, userId, "and again", 10)).reason)
    .toBe("user_blocked");
});

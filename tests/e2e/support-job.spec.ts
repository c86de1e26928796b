import { authorize, expect, makeUser, test } from "./console.ts";

test("support finds a stopped user, understands why, blocks until a time, sees it, and unblocks", async ({
  page,
  workshop: { project },
}) => {
  const userId = `spammer-${Date.now()}`;
  await makeUser(project, userId, "Robin Repeats");

  // The product's backend is asked fifteen times with one message: the feed shows the refusals as they happen.
  await page.goto(page.url().replace(/#.*/, "#/watch"));
  await expect(page.getByRole("heading", { name: "Watch" })).toBeVisible();
  await expect(page.getByText(/events?, |No calls yet/).first()).toBeVisible();
  const reasons: (string | null)[] = [];
  for (let count = 0; count < 15; count += 1)
    reasons.push((await authorize(project, userId, "win money now")).reason);
  const answeredMs = performance.now();
  expect(reasons.slice(0, 9).every((reason) => reason === null)).toBe(true);
  expect(reasons.slice(9).every((reason) => reason === "spam_identical")).toBe(true);
  const blockedRow = page
    .getByRole("row")
    .filter({ hasText: "Robin Repeats" })
    .filter({ hasText: "blocked" });
  await expect(blockedRow).toHaveCount(6, { timeout: 10_000 });
  const seenMs = Math.round(performance.now() - answeredMs);
  test.info().annotations.push({ type: "refusal seen after", description: `${seenMs} ms` });
  console.log(`  the refusals were on the screen ${seenMs} ms after the answer`);

  // Find the user by the keyboard alone.
  await page.keyboard.press("Control+k");
  await page.keyboard.type("robin rep");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(new RegExp(`#/users/${userId}`));
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByRole("heading", { name: /Robin Repeats/ })).toBeVisible();

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
  expect(await authorize(project, userId, "another text")).toMatchObject({
    decision: "block",
    reason: "user_blocked",
    http_status: 403,
  });
  await page.keyboard.press("g");
  await page.keyboard.press("w");
  await expect(
    page
      .getByRole("row")
      .filter({ hasText: "Robin Repeats" })
      .filter({ hasText: "operator's block" })
      .first(),
  ).toBeVisible();

  // Unblocking forgives: the next call passes. Both acts are in the audit under the operator's name.
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}/audit`));
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
  expect((await authorize(project, userId, "win money now")).decision).toBe("allow");
  const audit = detail.getByRole("table", { name: "Audit, newest first" });
  await expect(audit).toContainText("Resolved with the user");
  await expect(audit).toContainText("Spam");
});

test("a flag is given a reason and shows on the user at once", async ({ page, workshop: { project } }) => {
  const userId = `flagged-${Date.now()}`;
  await makeUser(project, userId, "Fiona Flag");
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}`));
  await page.getByRole("button", { name: "Flag" }).click();
  await page.getByRole("button", { name: "Flag for review" }).click();
  await expect(page.getByText(/Give a reason of at least 3 characters/)).toBeVisible();
  await page.getByRole("textbox", { name: "Reason" }).fill("Unusual use");
  await page.getByRole("button", { name: "Flag for review" }).click();
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByText("flagged", { exact: true })).toBeVisible();
  await expect(detail.getByText("“Unusual use”")).toBeVisible();
});

test("undo takes a block back", async ({ page, workshop: { project } }) => {
  const userId = `undo-${Date.now()}`;
  await makeUser(project, userId, "Una Undo");
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}`));
  await expect(page.getByRole("button", { name: "Block" })).toBeVisible();
  await page.keyboard.press("b");
  await page.getByRole("textbox", { name: "Reason" }).fill("Wrong person");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByRole("button", { name: "Block", exact: true })).toBeVisible();
  expect((await authorize(project, userId, "hello")).decision).toBe("allow");
});

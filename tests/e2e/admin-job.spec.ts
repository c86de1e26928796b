import { authorize, expect, makeUser, test } from "./console.ts";

test("an admin puts a rule into shadow, sees that calls pass, and takes it back", async ({
  page,
  workshop: { project },
}) => {
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
});

test("the feed can be paused without loss, and does not move under the pointer", async ({
  page,
  workshop: { project },
}) => {
  const userId = `pauser-${Date.now()}`;
  await makeUser(project, userId, "Paula Pause");
  await page.goto(page.url().replace(/#.*/, "#/watch"));
  await authorize(project, userId, "one");
  const rows = page.getByRole("row").filter({ hasText: "Paula Pause" });
  await expect(rows).toHaveCount(1);
  await page.keyboard.press("p");
  for (const text of ["two", "three", "four"]) await authorize(project, userId, text);
  await expect(page.getByRole("button", { name: "Go on, 3 wait" })).toBeVisible();
  await expect(rows).toHaveCount(1);
  await page.keyboard.press("p");
  await expect(rows).toHaveCount(4);

  await rows.first().hover();
  const before = await rows.first().boundingBox();
  await authorize(project, userId, "five");
  const pill = page.getByRole("button", { name: "1 new" });
  await expect(pill).toBeVisible();
  expect(await rows.first().boundingBox()).toEqual(before);
  // Leaving the rows lets it in.
  await page.mouse.move(5, 400);
  await expect(rows).toHaveCount(5);
});

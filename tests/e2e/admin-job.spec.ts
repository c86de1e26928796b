import { authorize, expect, makeUser, test } from "./console.ts";
import { tryARuleInShadow } from "./jobs.ts";

test("an admin puts a rule into shadow, sees that calls pass, and takes it back", async ({
  page,
  workshop,
}) => {
  await tryARuleInShadow(page, workshop.project);
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

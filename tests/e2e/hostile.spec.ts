import { authorize, expect, makeUser, rightEdgeOf, test, widthOf } from "./console.ts";

const names = {
  markup: `<img src=x onerror="document.title='owned'"><b>Bold</b>`,
  direction: "Invoice\u202egnp.exe\u202c \u2066end",
  control: "Bell\u0007 Tab\tLine\nBreak",
  endless: "W".repeat(10_000),
};

test("hostile names are shown as text, on one line, and leave the page as it was", async ({
  page,
  workshop: { project },
}) => {
  const stamp = Date.now();
  const dialogs: string[] = [];
  page.on("dialog", (dialog) => {
    dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  const made: string[] = [];
  for (const [kind, name] of Object.entries(names)) {
    const userId = `hostile-${kind}-${stamp}`;
    // A name that the project refuses is refused whole; then the id stands for it.
    await makeUser(project, userId, name).catch(() =>
      makeUser(project, userId, name.slice(0, 200).replaceAll(/\p{Cc}/gu, " ")),
    );
    await authorize(project, userId, "hi");
    made.push(userId);
  }
  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/users`);
  await page.getByRole("textbox", { name: "Search users" }).fill(`hostile-`);
  await expect(page.getByRole("row").filter({ hasText: "<img src=x" })).toHaveCount(1);
  expect(await page.locator("main img").count()).toBe(0);
  await expect(page).toHaveTitle(/^(\(\d+\) )?Test bench - Token Governance$/);
  const rows = page.getByRole("grid", { name: "Users" }).locator("[role=row][aria-rowindex]");
  // A row of the list before the search may leave while it is measured.
  const heights = (): Promise<number[]> =>
    rows.evaluateAll((each) => each.map((row) => row.getBoundingClientRect().height));
  await expect.poll(async () => new Set(await heights()).size).toBe(1);
  // Nothing of direction or control is left in what is shown.
  const shown = await page.locator("main").innerText();
  expect(shown).not.toMatch(/[\u202a-\u202e\u2066-\u2069]/);
  for (const userId of made) {
    await page.goto(`${origin}#/users/${userId}`);
    const detail = page.getByRole("complementary", { name: "User" });
    await expect(detail.getByRole("button", { name: "Block", exact: true })).toBeVisible();
    // The buttons stay in reach whatever the name's length.
    await expect
      .poll(() => rightEdgeOf(detail.getByRole("button", { name: "Close" })))
      .toBeLessThanOrEqual(1280);
    await expect
      .poll(() => page.evaluate(() => document.documentElement.scrollWidth))
      .toBeLessThanOrEqual(1280);
  }
  // What was done to one of them does not push the reasons of all out of sight.
  const flagged = await project.client.rpc("flag_user", {
    p_command_id: crypto.randomUUID(),
    p_user_id: `hostile-endless-${stamp}`,
    p_reason: "Endless name",
    p_operator: "tests",
  });
  expect(flagged.error).toBeNull();
  await page.goto(`${origin}#/audit`);
  const reason = page.getByRole("cell", { name: /Endless name/ });
  await expect(reason).toBeVisible();
  await expect.poll(() => rightEdgeOf(reason)).toBeLessThanOrEqual(1280);
  await page.goto(`${origin}#/watch`);
  await expect(page.getByRole("row").filter({ hasText: "<img src=x" }).first()).toBeVisible();
  expect(dialogs).toEqual([]);
});

test("who is blocked and flagged has a name that can be read in the smallest window, where words are longer too", async ({
  page,
  workshop: { project },
}) => {
  const userId = `signs-${Date.now()}`;
  await makeUser(project, userId, "Sofía Ferreira");
  // The rule blocks and flags.
  for (let count = 0; count < 10; count += 1) await authorize(project, userId, "again and again");
  await page.addInitScript(() => localStorage.setItem("console.language", JSON.stringify("pseudo")));
  await page.setViewportSize({ width: 1024, height: 700 });
  const origin = new URL(page.url()).origin;
  await page.goto(`${origin}/#/users/${userId}`);
  await page.reload();
  const heading = page.getByRole("heading", { name: /Sofía Ferreira.*blocked.*flagged/ });
  await expect(heading).toBeVisible();
  await expect.poll(() => widthOf(heading.getByText("Sofía Ferreira"))).toBeGreaterThan(80);
  await page.goto(`${origin}/#/users?q=${userId}`);
  const row = page.getByRole("row").filter({ hasText: "Sofía Ferreira" });
  await expect(row).toContainText("flagged");
  await expect.poll(() => widthOf(row.getByText("Sofía Ferreira"))).toBeGreaterThan(60);
});

test("an address that leads nowhere shows a page about it", async ({ page }) => {
  const origin = page.url().replace(/#.*/, "");
  for (const [address, shown] of [
    ["#/users/nobody-at-all", "There is no such user in this project."],
    ["#/rules/no_such_rule", "There is no such rule"],
    ["#/nowhere", "There is nothing at this address"],
    ["#/users/%E0%A4%A", "There is no such user in this project."],
  ] as const) {
    await page.goto(`${origin}${address}`);
    await expect(page.getByText(shown)).toBeVisible();
  }
});

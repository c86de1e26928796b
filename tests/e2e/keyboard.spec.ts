import { expect, goToDesk, makeUser, test } from "./console.ts";

test("every desk, the list, a detail and the way back are reached without a mouse", async ({
  page,
  workshop: { project },
}) => {
  for (const name of ["Ada Key", "Bela Key", "Cleo Key"])
    await makeUser(project, `key-${name.slice(0, 4).trim().toLowerCase()}`, name);
  for (const [key, heading] of [
    ["w", "Watch"],
    ["r", "Rules"],
    ["f", "Finance"],
    ["s", "Settings"],
    ["u", "Users"],
  ] as const)
    await goToDesk(page, key, heading);
  await page.keyboard.press("/");
  await expect(page.getByRole("textbox", { name: "Search users" })).toBeFocused();
  await page.keyboard.type(" key");
  await page.keyboard.press("Enter");
  // Until they are found, the list before stands there, and keys act on none of its rows.
  const list = page.locator('[role="grid"][aria-busy="false"]');
  await expect(list.getByRole("row").filter({ hasText: "Key" })).toHaveCount(3);
  await expect(list.getByRole("row")).toHaveCount(4);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail).toBeVisible();
  const first = await detail.getByRole("heading").first().textContent();
  await page.keyboard.press("k");
  await expect(detail.getByRole("heading").first()).not.toHaveText(first ?? "");
  await page.keyboard.press("Escape");
  await expect(detail).toBeHidden();

  // Whoever came by a click on the rail has the focus there; Enter still means the row under the cursor.
  await page.getByRole("link", { name: /^Users\b/ }).click();
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await expect(detail).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(detail).toBeHidden();

  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog", { name: "Keyboard" })).toBeHidden();
});

test("focus is always visible, on every control that Tab reaches", async ({ page }) => {
  for (const desk of ["watch", "users", "rules", "finance", "settings"]) {
    await page.goto(page.url().replace(/#.*/, `#/${desk}`));
    await expect(page.locator("h1").first()).toBeVisible();
    await page.locator("body").click({ position: { x: 2, y: 300 } });
    for (let count = 0; count < 14; count += 1) {
      await page.keyboard.press("Tab");
      const seen = await page.evaluate(() => {
        const element = document.activeElement;
        if (!element || element === document.body) return "page";
        const own = getComputedStyle(element);
        const holder = element.parentElement ? getComputedStyle(element.parentElement) : own;
        const ring = (style: CSSStyleDeclaration): boolean =>
          style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 1;
        // Text boxes show it by their border.
        const isBox = element.matches("input, textarea");
        return isBox || ring(own) || ring(holder) ? "ring" : element.outerHTML.slice(0, 200);
      });
      expect(["ring", "page"]).toContain(seen);
    }
  }
});

/** The second language: chosen by a person, whole on every screen, with numbers as it writes them. */
import { type Page } from "@playwright/test";
import { authorize, expect, makeUser, test, widthOf } from "./console.ts";

async function speak(page: Page, language: string): Promise<void> {
  await page.addInitScript(
    (value) => localStorage.setItem("console.language", JSON.stringify(value)),
    language,
  );
}

test("German is chosen under Settings, without a restart, with its numbers and typed amounts", async ({
  page,
  workshop,
}) => {
  await makeUser(workshop.project, "language-1", "Una Example", 1_234_567);
  const origin = new URL(page.url()).origin;
  await page.goto(`${origin}/#/settings/preferences`);
  await page.getByRole("radiogroup", { name: "Language" }).getByText("Deutsch").click();
  const desks = page.getByRole("navigation", { name: "Bereiche" });
  await expect(desks).toBeVisible();
  await expect(page.locator("html")).toHaveAttribute("lang", "de");
  // Its words are longer; without words the rail is as narrow as in English.
  const size = page.viewportSize();
  await page.setViewportSize({ width: 1024, height: 640 });
  await expect.poll(() => widthOf(desks)).toBeLessThan(60);
  if (size) await page.setViewportSize(size);
  await desks.getByRole("link", { name: /^Benutzer\b/ }).click();
  await page.goto(`${origin}/#/users/language-1`);
  await expect(page.getByText("1.234.567").first()).toBeVisible();
  await page.getByRole("button", { name: "Tokens geben" }).click();
  const tokens = page.getByRole("textbox", { name: "Tokens" });
  // As typed while it is typed, and with the groups of the language once it is left; those are read too.
  await tokens.fill("5000");
  await tokens.press("Tab");
  await expect(tokens).toHaveValue("5.000");
  await tokens.fill("5,5");
  await expect(page.getByText("Schreiben Sie eine ganze Zahl, etwa 12.000.")).toBeVisible();
  await tokens.fill("5.000");
  await expect(page.getByRole("table", { name: "Was sich ändert" })).toContainText("1.239.567");
  await page.goto(`${origin}/#/settings/preferences`);
  await page.getByRole("radiogroup", { name: "Sprache" }).getByText("Wie das System").click();
  await expect(page.getByRole("navigation", { name: "Desks" })).toBeVisible();
});

const places = [
  ..."/watch /alerts /alerts?show=all /alerts?show=undelivered /alerts?show=set /users /users/language-2".split(
    " ",
  ),
  ..."history decisions ledger lots payments acts usage audit"
    .split(" ")
    .map((tab) => `/users/language-2/${tab}`),
  ..."/users/nobody /rules /rules?do=new /rules?do=history /rules?do=import /plans /plans?do=prices".split(
    " ",
  ),
  ..."/finance/new /finance/cases /finance/events /finance/payments /finance/revenue /finance/periods".split(
    " ",
  ),
  ..."/costs /health /audit /audit/mine /audit/waiting /audit/many /nowhere".split(" "),
  ..."/settings/connections /settings/preferences /settings/about".split(" "),
];

/** Words that no name, id or code has: a text with one of them was written by us. */
const ours =
  /\b(?:the|of|is|are|was|and|or|not|no|for|with|this|that|by|from|what|when|yet|nothing|nobody|search|choose|show|new|open|close|last|all|any|every|more|left|used|needs?|none|never|now|once|before|after)\b/i;

test("every text of a screen is in the catalogue: a look-up marks it, and nothing of ours is without the mark", async ({
  page,
  workshop,
}) => {
  await makeUser(workshop.project, "language-2", "Una Example");
  await authorize(workshop.project, "language-2", "Good morning");
  const origin = new URL(page.url()).origin;
  await speak(page, "pseudo");
  await page.goto(`${origin}/#/watch`);
  await page.reload();
  await expect(page.getByRole("navigation", { name: "⟦Desks⟧" })).toBeVisible();
  const found: string[] = [];
  for (const place of places) {
    await page.goto(`${origin}/#${place}`);
    await expect(page.locator("main")).toContainText("⟦");
    await expect(page.getByRole("status", { name: "⟦Loading⟧" })).toHaveCount(0);
    for (const text of await unmarked(page)) if (ours.test(text)) found.push(`${place}: ${text}`);
  }
  expect([...new Set(found)]).toEqual([]);
});

/** Visible words outside the marks, and those that are read out. Names and other people's words are in `bdi`. */
async function unmarked(page: Page): Promise<readonly string[]> {
  return await page.evaluate(() => {
    const strip = (text: string): string => {
      let kept = text;
      for (let before = ""; before !== kept; ) [before, kept] = [kept, kept.replace(/⟦[^⟦⟧]*⟧/g, " ")];
      return kept.replace(/[⟦⟧]/g, " ").trim();
    };
    const found: string[] = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!element || element.closest("bdi, code, pre, time, style, script, textarea")) continue;
      if (element.getClientRects().length === 0 || !/\p{L}/u.test(node.textContent ?? "")) continue;
      // Words around an element belong to one text with it.
      const whole = element.textContent ?? "";
      const own = [...element.querySelectorAll("bdi, code, pre, time")].reduce(
        (text, each) => text.replace(each.textContent ?? "", " "),
        whole.includes("⟦") ? whole : (node.textContent ?? ""),
      );
      found.push(strip(own));
    }
    for (const name of ["aria-label", "title", "placeholder"])
      for (const element of document.querySelectorAll(`[${name}]:not(bdi, time)`))
        found.push(strip(element.getAttribute(name) ?? ""));
    // A rule that is begun is worded by the console's process, in English until it is whole.
    return found.filter((text) => /\p{L}{2}/u.test(text) && !text.startsWith("… when"));
  });
}

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, type Page, test } from "@playwright/test";
import { seriousFaults } from "./accessible.ts";
import { enter, startConsole } from "./console.ts";
import { faintTexts } from "./readable.ts";

/**
 * Every screen of the console on its sample data, in both themes and two sizes: photographed to be looked at by a person,
 * and, in the smaller size, read by axe.
 */
const PICTURES = "test-results/screens";
const sizes = [
  { width: 1280, height: 800 },
  { width: 1600, height: 1000 },
] as const;

interface Screen {
  readonly name: string;
  readonly address: string;
  readonly before?: (page: Page) => Promise<void>;
}

const firstRow = (page: Page) => page.getByRole("grid").locator("[role=row][aria-rowindex]").first();

const screens: readonly Screen[] = [
  { name: "watch", address: "/watch" },
  {
    name: "watch-receipt",
    address: "/watch",
    before: async (page) => {
      await page.getByRole("combobox", { name: "Decision" }).click();
      await page.getByRole("option", { name: "blocked" }).click();
      await firstRow(page).click();
      await expect(page.getByText(/Stopped by/)).toBeVisible({ timeout: 60_000 });
    },
  },
  {
    name: "alert",
    address: "/alerts?show=all",
    before: async (page) => {
      // Upkeep raises what the history gives cause for, within its first minutes.
      await firstRow(page).click({ timeout: 180_000 });
      await expect(page.getByRole("button", { name: /Acknowledge/ })).toBeVisible();
    },
  },
  { name: "alerts-undelivered", address: "/alerts?show=undelivered" },
  { name: "alerts-set", address: "/alerts?show=set" },
  { name: "users", address: "/users" },
  { name: "users-flagged", address: "/users?filter=flagged" },
  {
    name: "users-many",
    address: "/users?q=sample-000",
    before: async (page) => {
      await page.getByRole("button", { name: "Correct many…" }).click();
      const form = page.getByRole("form", { name: "Correct many users" });
      await form.getByRole("combobox", { name: "What" }).click();
      await page.getByRole("option", { name: "Flag for review" }).click();
      await expect(form.getByText("Changes")).toBeVisible({ timeout: 60_000 });
    },
  },
  { name: "user", address: "/users/sample-0007" },
  { name: "user-history", address: "/users/sample-0007/history" },
  { name: "user-decisions", address: "/users/sample-0007/decisions" },
  {
    name: "user-ledger",
    address: "/users/sample-0007/ledger",
    before: async (page) => {
      await page.getByRole("button", { name: "Verify this account" }).click();
      await expect(page.getByText(/entries, hash by hash/)).toBeVisible({ timeout: 60_000 });
    },
  },
  { name: "user-lots", address: "/users/sample-0007/lots" },
  { name: "user-payments", address: "/users/sample-0007/payments" },
  { name: "user-acts", address: "/users/sample-0007/acts" },
  { name: "user-usage", address: "/users/sample-0007/usage" },
  { name: "user-audit", address: "/users/sample-0007/audit" },
  {
    name: "user-block",
    address: "/users/sample-0001",
    before: async (page) => {
      await expect(page.getByRole("button", { name: "Flag" })).toBeVisible({ timeout: 60_000 });
      await page.keyboard.press("b");
      await expect(page.getByRole("textbox", { name: "Reason" })).toBeVisible();
    },
  },
  {
    name: "user-give",
    address: "/users/sample-0001",
    before: async (page) => {
      await expect(page.getByRole("button", { name: "Give tokens" })).toBeEnabled({ timeout: 60_000 });
      await page.keyboard.press("t");
      await page.getByRole("textbox", { name: "Tokens" }).fill("5000");
      await expect(page.getByRole("table", { name: "What changes" })).toBeVisible();
    },
  },
  {
    name: "notice",
    address: "/users/sample-0003",
    before: async (page) => {
      await expect(page.getByRole("button", { name: "Note" })).toBeVisible({ timeout: 60_000 });
      await page.keyboard.press("n");
      await page.getByRole("textbox", { name: "Reason" }).fill("Called back");
      await page.keyboard.press("Enter");
      await expect(page.getByRole("button", { name: "Close this notice" }).first()).toBeVisible();
    },
  },
  { name: "user-unknown", address: "/users/nobody" },
  { name: "rules", address: "/rules" },
  { name: "rule", address: "/rules/offpeak_routing" },
  { name: "finance-new", address: "/finance/new" },
  { name: "finance-differences", address: "/finance/cases" },
  { name: "finance-events", address: "/finance/events" },
  { name: "finance-periods", address: "/finance/periods" },
  { name: "costs", address: "/costs" },
  { name: "health", address: "/health" },
  { name: "audit", address: "/audit" },
  { name: "audit-mine", address: "/audit/mine" },
  { name: "audit-waiting", address: "/audit/waiting" },
  { name: "audit-many", address: "/audit/many" },
  {
    name: "audit-checked",
    address: "/audit",
    before: async (page) => {
      await page.getByRole("button", { name: "Check the chain" }).click();
      await expect(page.getByRole("status", { name: "Result of the check" })).toContainText("Sound", {
        timeout: 60_000,
      });
    },
  },
  { name: "settings-connections", address: "/settings/connections" },
  {
    name: "settings-add",
    address: "/settings/connections",
    before: async (page) => {
      await page.getByRole("button", { name: "Connect a Supabase project" }).click();
      await page.getByLabel("Project URL").fill("https://example.invalid");
      await page.getByLabel("Service-role key").fill("sb_publishable_not_a_secret");
      await page.getByRole("button", { name: "Check" }).click();
      await expect(page.getByRole("form").getByRole("alert")).toBeVisible({ timeout: 30_000 });
    },
  },
  { name: "settings-preferences", address: "/settings/preferences" },
  { name: "settings-about", address: "/settings/about" },
  {
    name: "search",
    address: "/rules",
    before: async (page) => {
      await page.keyboard.press("Control+k");
      await page.keyboard.type("ma");
      await expect(page.getByText("Users", { exact: true }).last()).toBeVisible();
    },
  },
  {
    name: "help",
    address: "/rules",
    before: async (page) => {
      await page.keyboard.press("?");
    },
  },
];

/**
 * Waits until nothing loads or moves, and the page has stayed as it is for a tenth of a second: half a second at most,
 * since a desk that shows live traffic never rests.
 */
async function settle(page: Page): Promise<void> {
  await expect(page.getByRole("status", { name: "Loading" })).toHaveCount(0, { timeout: 60_000 });
  await page.evaluate(async () => {
    const moves = document
      .getAnimations()
      .filter((each) => each.effect?.getComputedTiming().endTime !== Number.POSITIVE_INFINITY);
    await Promise.allSettled(moves.map(({ finished }) => finished));
    await new Promise<void>((resolve) => {
      let rest = setTimeout(resolve, 100);
      setTimeout(resolve, 500);
      new MutationObserver(() => {
        clearTimeout(rest);
        rest = setTimeout(resolve, 100);
      }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    });
  });
  await expect(page.getByRole("status", { name: "Loading" })).toHaveCount(0, { timeout: 60_000 });
}

let folder = "";
let console_: Awaited<ReturnType<typeof startConsole>> | null = null;
let page: Page;
let origin = "";
const thrown: string[] = [];

test.describe.configure({ mode: "serial", timeout: 900_000 });

test.beforeAll(async ({ browser }) => {
  test.setTimeout(600_000);
  mkdirSync(PICTURES, { recursive: true });
  folder = mkdtempSync(join(tmpdir(), "governance-screens-"));
  console_ = await startConsole(folder);
  page = await browser.newPage();
  page.on("pageerror", (error) => thrown.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") thrown.push(message.text());
  });
  await enter(page, console_.ready[1] ?? "");
  origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/users`);
  // The past fills in by itself; the people that the pictures show come first.
  const rows = page.getByRole("grid", { name: "Users" }).locator("[role=row][aria-rowindex]");
  await expect(rows.nth(19)).toBeAttached({ timeout: 300_000 });
  await page.goto(`${origin}#/users/sample-0007`);
  await expect(page.getByRole("complementary", { name: "User" }).getByText("sample-0007")).toBeVisible({
    timeout: 60_000,
  });
});

test.afterAll(async () => {
  await console_?.stop();
  rmSync(folder, { recursive: true, force: true });
});

for (const theme of ["light", "dark"] as const) {
  test(`every screen can be read and fits, ${theme}`, async () => {
    const problems = new Set<string>();
    await page.setViewportSize(sizes[0]);
    // Whatever the round before left open would lie over the page.
    await page.keyboard.press("Escape");
    await page.goto(`${origin}#/settings/preferences`);
    await page.getByText(theme === "light" ? "Light" : "Dark", { exact: true }).click();
    await expect(page.locator("html")).toHaveAttribute("data-mantine-color-scheme", theme);
    for (const screen of screens) {
      await page.setViewportSize(sizes[0]);
      // Each picture starts from a desk just opened, with nothing remembered but the session.
      await page.evaluate(() => {
        for (const key of Object.keys(localStorage))
          if (key.startsWith("console.")) localStorage.removeItem(key);
      });
      await page.keyboard.press("Escape");
      await page.goto(`${origin}#/settings/about`);
      await expect(page.getByRole("heading", { name: "Settings" })).toBeVisible({ timeout: 60_000 });
      await page.goto(`${origin}#${screen.address}`);
      await expect(page.locator("main h1, main h2").first()).toBeVisible({ timeout: 60_000 });
      await settle(page);
      await screen.before?.(page);
      // The window grows while the screen is open, as a person's does.
      for (const size of sizes) {
        await page.setViewportSize(size);
        await settle(page);
        const name = `${screen.name}-${theme}-${size.width}`;
        await page.screenshot({ path: `${PICTURES}/${name}.png` });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) problems.add(`${name}: ${wide} px wider than the window`);
        for (const faint of await faintTexts(page)) problems.add(`${name}: ${faint}`);
        if (size === sizes[0])
          for (const fault of await seriousFaults(page)) problems.add(`${name}: ${fault}`);
      }
    }
    expect([...problems]).toEqual([]);
    expect(thrown).toEqual([]);
  });
}

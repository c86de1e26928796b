import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, type Page, test } from "@playwright/test";
import { seriousFaults } from "./accessible.ts";
import { enter, run, startConsole } from "./console.ts";
import { faintTexts } from "./readable.ts";

/**
 * Every screen of the console on its sample data: photographed to be looked at by a person, in both themes at the smaller
 * size and once more in a larger window. axe reads each screen at the smaller size; every text must be readable in both
 * themes.
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
      await expect(page.getByText(/Stopped by/)).toBeVisible();
    },
  },
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
      await expect(form.getByText("Changes")).toBeVisible();
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
      await expect(page.getByText(/entries, hash by hash/)).toBeVisible();
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
      await expect(page.getByRole("button", { name: "Flag" })).toBeVisible();
      await page.keyboard.press("b");
      await expect(page.getByRole("textbox", { name: "Reason" })).toBeVisible();
    },
  },
  {
    name: "user-give",
    address: "/users/sample-0001",
    before: async (page) => {
      await expect(page.getByRole("button", { name: "Give tokens" })).toBeEnabled();
      await page.keyboard.press("t");
      await page.getByRole("textbox", { name: "Tokens" }).fill("5000");
      await expect(page.getByRole("table", { name: "What changes" })).toBeVisible();
    },
  },
  {
    name: "notice",
    address: "/users/sample-0003",
    before: async (page) => {
      await expect(page.getByRole("button", { name: "Note" })).toBeVisible();
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
      await expect(page.getByRole("status", { name: "Result of the check" })).toContainText("Sound");
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
      await expect(page.getByRole("form").getByRole("alert")).toBeVisible();
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
  {
    name: "alert",
    address: "/alerts?show=all",
    before: async (page) => {
      // Upkeep raises what the history gives cause for, within its first minutes: so these come last.
      await firstRow(page).click({ timeout: 180_000 });
      await expect(page.getByRole("button", { name: /Acknowledge/ })).toBeVisible();
    },
  },
  { name: "alerts-undelivered", address: "/alerts?show=undelivered" },
  { name: "alerts-set", address: "/alerts?show=set" },
];

/**
 * Waits until nothing loads or moves, and the page has stayed as it is for a tenth of a second: half a second at most,
 * since a desk that shows live traffic never rests. Nor does Chromium always say that an animation is over, where its
 * element left the page as the window grew: two seconds at most.
 */
async function settle(page: Page): Promise<void> {
  await expect(page.locator("[role=status][aria-busy=true]")).toHaveCount(0);
  await page.evaluate(async () => {
    const moves = document
      .getAnimations()
      .filter((each) => each.effect?.getComputedTiming().endTime !== Number.POSITIVE_INFINITY);
    await Promise.race([
      Promise.allSettled(moves.map(({ finished }) => finished)),
      new Promise((resolve) => setTimeout(resolve, 2_000)),
    ]);
    await new Promise<void>((resolve) => {
      let rest = setTimeout(resolve, 100);
      setTimeout(resolve, 500);
      new MutationObserver(() => {
        clearTimeout(rest);
        rest = setTimeout(resolve, 100);
      }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    });
  });
  await expect(page.locator("[role=status][aria-busy=true]")).toHaveCount(0);
}

let folder = "";
let console_: Awaited<ReturnType<typeof startConsole>> | null = null;
let page: Page;
let origin = "";
const thrown: string[] = [];

test.describe.configure({ mode: "serial", timeout: 900_000 });

test.beforeAll(async ({ browser }) => {
  mkdirSync(PICTURES, { recursive: true });
  folder = mkdtempSync(join(tmpdir(), "governance-screens-"));
  // A past that is all there; the console goes on from it with live traffic.
  const sample = await run(
    ["tests/support/sample-project.ts", join(folder, "local-project"), "80", "45"],
    /(\{"url".*\})/,
  );
  await sample.stop();
  console_ = await startConsole(folder);
  page = await browser.newPage();
  page.on("pageerror", (error) => thrown.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") thrown.push(message.text());
  });
  await enter(page, console_.ready[1] ?? "");
  origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/users`);
  const rows = page.getByRole("grid", { name: "Users" }).locator("[role=row][aria-rowindex]");
  await expect(rows.nth(19)).toBeAttached({ timeout: 300_000 });
  await page.goto(`${origin}#/users/sample-0007`);
  await expect(page.getByRole("complementary", { name: "User" }).getByText("sample-0007")).toBeVisible();
});

test.afterAll(async () => {
  await console_?.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** The other theme on the open screen, as when the system changes: nothing closes or loads again. */
async function changeTheme(theme: "light" | "dark"): Promise<void> {
  await page.emulateMedia({ colorScheme: theme });
  await expect(page.locator("html")).toHaveAttribute("data-mantine-color-scheme", theme);
  await settle(page);
}

/** Opens a screen as from a desk just opened, with nothing remembered but the session. */
async function open(screen: Screen): Promise<void> {
  await page.setViewportSize(sizes[0]);
  await page.evaluate(() => {
    for (const key of Object.keys(localStorage)) if (key.startsWith("console.")) localStorage.removeItem(key);
  });
  await page.keyboard.press("Escape");
  await page.goto(`${origin}#/settings/about`);
  await expect(page.getByRole("heading", { name: "Settings" })).toBeVisible();
  await page.goto(`${origin}#${screen.address}`);
  await expect(page.locator("main h1, main h2").first()).toBeVisible();
  await settle(page);
  await screen.before?.(page);
  await settle(page);
}

test("the theme is the one chosen in the preferences, or the system's", async () => {
  const theme = page.locator("html");
  await page.goto(`${origin}#/settings/preferences`);
  for (const [choice, shown] of [
    ["Dark", "dark"],
    ["Light", "light"],
    ["As the system", "light"],
  ] as const) {
    await page.getByRole("radiogroup", { name: "Theme" }).getByText(choice, { exact: true }).click();
    await expect(theme).toHaveAttribute("data-mantine-color-scheme", shown);
  }
  await changeTheme("dark");
  await changeTheme("light");
});

test("every screen can be read and fits, in both themes", async () => {
  const problems = new Set<string>();
  const add = (name: string, found: readonly string[]): void => {
    for (const problem of found) problems.add(`${name}: ${problem}`);
  };
  const [small, large] = sizes;
  const look = async (name: string): Promise<void> => {
    await page.screenshot({ path: `${PICTURES}/${name}.png` });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (wide > 0) add(name, [`${wide} px wider than the window`]);
  };
  // Each screen in the theme that the one before it ended with, and then in the other.
  let [first, second] = ["light", "dark"] as ["light" | "dark", "light" | "dark"];
  for (const screen of screens) {
    await open(screen);
    const before = `${screen.name}-${first}-${small.width}`;
    await look(before);
    add(before, await faintTexts(page));
    add(before, await seriousFaults(page));
    await changeTheme(second);
    const after = `${screen.name}-${second}-${small.width}`;
    await look(after);
    add(after, await faintTexts(page));
    // The window grows while the screen is open, as a person's does.
    await page.setViewportSize(large);
    await settle(page);
    await look(`${screen.name}-${second}-${large.width}`);
    [first, second] = [second, first];
  }
  await changeTheme("light");
  await page.setViewportSize(small);
  expect([...problems]).toEqual([]);
  expect(thrown).toEqual([]);
});

/** The smallest desk, the largest, and a window of 1280 × 800 at 200 %. */
const extremes = [
  { width: 1024, height: 640 },
  { width: 2560, height: 1440 },
  { width: 640, height: 400 },
] as const;

/** Chooses the language as a person does. The page loads again where it changes. */
async function speak(language: "en" | "de"): Promise<void> {
  await page.goto(`${origin}#/settings/preferences`);
  await page
    .getByRole("radiogroup", { name: /^(Language|Sprache)$/ })
    .getByText(language === "en" ? "English" : "Deutsch")
    .click();
  await expect(page.locator("html")).toHaveAttribute("lang", language);
  await expect(page.locator("main h1").first()).toBeVisible();
}

/** Also in German, whose words are longer. */
for (const language of ["en", "de"] as const)
  test(`from the smallest to the largest window, and at 200 %, nothing is cut, covered or lost (${language})`, async () => {
    const problems = new Set<string>();
    await page.keyboard.press("Escape");
    await speak(language);
    for (const address of [
      "/watch",
      "/alerts",
      "/users/sample-0007",
      "/rules/offpeak_routing",
      "/plans",
      "/costs",
      "/finance/payments",
      "/finance/cases",
      "/health",
      "/audit",
      "/settings/preferences",
    ]) {
      await page.goto(`${origin}#${address}`);
      await expect(page.locator("main h1, main h2").first()).toBeVisible();
      for (const size of extremes) {
        await page.setViewportSize(size);
        await settle(page);
        const found = await page.evaluate(() => {
          const faults: string[] = [];
          const box = (element: Element): DOMRect => element.getBoundingClientRect();
          if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
          const project = document.querySelector("header bdi");
          if (project && project.scrollWidth > project.clientWidth) faults.push("the project's name is cut");
          for (const link of document.querySelectorAll("nav[aria-label=Desks] a")) {
            const [icon, count] = [link.querySelector("svg"), link.querySelector("[data-tone]")];
            if (!icon || box(icon).height < 12) faults.push(`no icon at ${link.textContent}`);
            else if (count && box(count).top < box(icon).bottom && box(count).left < box(icon).right)
              faults.push(`a count covers the icon of ${link.textContent}`);
          }
          for (const detail of document.querySelectorAll("main aside"))
            if (box(detail).width < 230) faults.push(`a detail ${Math.round(box(detail).width)} px wide`);
          // A few pixels are a fault; a table that needs more room is scrolled.
          for (const grid of document.querySelectorAll("main [role=grid]")) {
            const over = grid.scrollWidth - grid.clientWidth;
            if (over > 0 && over < 8) faults.push(`a table that can be scrolled by ${over} px`);
          }
          for (const cell of document.querySelectorAll("main [role=gridcell]")) {
            const isExact = cell.querySelector("time") ?? cell.matches("[data-align=right]");
            if (isExact && cell.scrollWidth > cell.clientWidth) faults.push(`cut: ${cell.textContent}`);
          }
          const list = document.querySelector("main [role=grid]");
          const detail = document.querySelector("main aside [role=tablist], main aside h2");
          if (list && detail && box(list).width > 0.6 * innerWidth && innerWidth > 2000)
            faults.push(`the list takes ${Math.round(box(list).width)} px beside its detail`);
          // The parts of a desk stand below one another, never over one another.
          const parts = [
            ...(document.querySelector("main h1")?.parentElement?.parentElement?.children ?? []),
          ];
          const bar = document.querySelector("main h1")?.parentElement;
          for (const each of bar?.children ?? [])
            if (bar && box(each).bottom > box(bar).bottom + 1) faults.push("controls hang out of their bar");
          if (list && innerHeight <= 400 && box(list).height < 200) faults.push("a list without rows");
          return parts.length === 0 ? ["an empty desk"] : faults;
        });
        if (language === "de")
          await page.screenshot({
            path: `${PICTURES}/de-${address.slice(1).replaceAll("/", "-")}-${size.width}.png`,
          });
        for (const fault of found) problems.add(`${address} at ${size.width} × ${size.height}: ${fault}`);
      }
    }
    await page.setViewportSize(sizes[0]);
    await speak("en");
    expect([...problems]).toEqual([]);
  });

test("with forced colours what is chosen and focused is seen; without motion nothing moves", async () => {
  await page.emulateMedia({ forcedColors: "active", reducedMotion: "reduce" });
  try {
    await page.goto(`${origin}#/users`);
    const grid = page.getByRole("grid", { name: "Users" });
    await expect(firstRow(page)).toBeVisible();
    await grid.focus();
    await page.keyboard.press("j");
    await expect(grid.locator("[role=row][data-cursor]")).toBeVisible();
    const seen = await page.evaluate(() => {
      const style = (selector: string): CSSStyleDeclaration | null => {
        const element = document.querySelector(selector);
        return element && getComputedStyle(element);
      };
      const [cursor, desk] = [style("[role=row][data-cursor]"), style("nav [aria-current=page]")];
      const ground = getComputedStyle(document.body).backgroundColor;
      const moves = [...document.querySelectorAll("*")].filter((each) =>
        /[1-9]/.test(getComputedStyle(each).transitionDuration.replaceAll(/1e-05s|0\.00001s/g, "")),
      );
      return {
        cursor: cursor?.outlineStyle,
        isDeskSeen: desk !== null && (desk.backgroundColor !== ground || desk.outlineStyle === "solid"),
        moves: moves.length,
      };
    });
    expect(seen).toEqual({ cursor: "solid", isDeskSeen: true, moves: 0 });
  } finally {
    await page.emulateMedia({ forcedColors: null, reducedMotion: null });
  }
});

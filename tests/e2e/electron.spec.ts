/**
 * The built main, preload and renderer in their window: on Electron where its runtime is and can show one, elsewhere on
 * the stand-in (tests/electron). docs/DESKTOP.md says how the two differ.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repositoryDir } from "../../cli/build.ts";
import { checks } from "../electron/checks.ts";
import { type Desktop, isStandIn, launchDesktop, pageOrigin, runtimeInWords } from "../electron/launch.ts";
import { grouped, plantedApp, plants } from "../electron/plants.ts";
import { sized } from "../support/size.ts";
import type { Page } from "@playwright/test";
import { connectProject, expect, test } from "./console.ts";
import { dropAnExport, stopARepeater, tryARuleInShadow } from "./jobs.ts";

let desktop: Desktop;
const folder = mkdtempSync(join(tmpdir(), "electron-e2e-"));
const dataDir = join(folder, "data");

test.beforeAll(async () => {
  console.log(`  ${runtimeInWords}.`);
  desktop = await launchDesktop({ dataDir, args: ["--no-sample-data"] });
});
test.afterAll(async () => {
  await desktop?.close();
  rmSync(folder, { recursive: true, force: true });
});

for (const [name, check] of Object.entries(checks)) {
  test(`in the window, ${name}`, async () => {
    await check(desktop);
  });
}

test("the window is the application's own page, and the local project comes up behind it", async () => {
  expect(desktop.page.url().startsWith(`${pageOrigin}/`)).toBe(true);
  expect(
    await desktop.app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0]?.webContents.getURL()),
  ).toMatch(/^app:\/\/console\//);
  await expect(desktop.page.getByRole("button", { name: "Live" })).toBeVisible();
});

const place = (): Promise<string> => desktop.page.evaluate(() => location.hash);

/** What a click on a link, or a drop on the icon, does: the program is started once more, and hands over to the first. */
function startAgain(what: string): void {
  const command = desktop.app.process().spawnfile;
  const args = [repositoryDir, `--data-dir=${dataDir}`, "--no-sample-data", what];
  expect(spawnSync(command, args).status).toBe(0);
}

test("a link from elsewhere opens its screen in the window that is there; a bad one opens nothing", async () => {
  startAgain("token-governance://users/42/ledger");
  await expect.poll(place).toBe("#/users/42/ledger");
  startAgain("token-governance://elsewhere/42");
  startAgain("token-governance://rules");
  await expect.poll(place).toBe("#/rules");
  expect(await desktop.app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows().length)).toBe(1);
});

test("the menu leads to the desks without loading the page again", async () => {
  await desktop.page.evaluate(() => ((globalThis as { isSamePage?: boolean }).isSamePage = true));
  await desktop.app.evaluate(({ Menu }) => Menu.getApplicationMenu()?.getMenuItemById("go-finance")?.click());
  await expect.poll(place).toBe("#/finance");
  expect(await desktop.page.evaluate(() => (globalThis as { isSamePage?: boolean }).isSamePage)).toBe(true);
});

test("the window finds on its page, copies links that open it, and takes exports dropped anywhere", async () => {
  const { app, page } = desktop;
  await page.evaluate(() => void (location.hash = "#/finance"));
  await expect(page.getByText(/Stripe/).first()).toBeVisible();
  await app.evaluate(({ Menu }) => Menu.getApplicationMenu()?.getMenuItemById("find")?.click());
  const find = page.getByRole("search", { name: "Find on this page" });
  await find.getByRole("textbox", { name: "Find" }).fill("stripe");
  await expect(find.getByRole("status")).toHaveText(/^1 of \d+$/);
  await page.keyboard.press("Enter");
  await expect(find.getByRole("status")).toHaveText(/^2 of \d+$/);
  await page.screenshot({ path: "test-results/window-find.png" });
  await page.keyboard.press("Escape");
  await expect(find).toBeHidden();

  await page.evaluate(() => void (location.hash = "#/users"));
  await page.getByRole("button", { name: "Copy as" }).click();
  await page.getByRole("menuitem", { name: "Copy the link" }).click();
  await expect.poll(() => page.evaluate(() => document.body.innerText)).toContain("Link copied");

  const files = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(["id,Amount\n"], "payments.csv", { type: "text/csv" }));
    return transfer;
  });
  await page.dispatchEvent("main", "drop", { dataTransfer: files });
  await expect.poll(place).toBe("#/finance/new");
  await expect(page.getByText("payments.csv")).toBeVisible();
  await page.getByRole("button", { name: "Drop payments.csv" }).click();
  await expect(page.getByText("payments.csv")).toBeHidden();
});

test("in the window, support, an admin and finance each do their main job", async ({
  workshop: { project },
}) => {
  await connectProject(desktop.page, project, "Test bench");
  await stopARepeater(desktop.page, project);
  await tryARuleInShadow(desktop.page, project);
  await dropAnExport(desktop.page, project);
});

/** The windows that are there, by the project in their title. */
async function windowOf(project: string): Promise<Page> {
  let found: Page | undefined;
  await expect
    .poll(async () => {
      for (const page of desktop.app.windows()) if ((await page.title()).includes(project)) found = page;
      return found !== undefined;
    })
    .toBe(true);
  return found as Page;
}
const placeIn = (page: Page): Promise<string> => page.evaluate(() => location.hash);

test("each project has a window of its own, and a link opens in that of its project", async () => {
  const bench = desktop.page;
  await bench.evaluate(() => void (location.hash = "#/settings/connections"));
  await bench.getByRole("button", { name: "Open Local project in a window of its own" }).click();
  const local = await windowOf("Local project");
  await expect(local.getByRole("banner").getByText("Local project")).toBeVisible();
  await expect(bench.getByRole("banner").getByText("Test bench")).toBeVisible();
  await expect(local.getByRole("button", { name: "Live" })).toBeVisible();
  await bench.screenshot({ path: "test-results/window-connections.png" });

  startAgain("token-governance://rules?project=local");
  await expect.poll(() => placeIn(local)).toBe("#/rules");
  await bench.evaluate(() => void (location.hash = "#/audit"));
  await local.getByRole("button", { name: /^Change to (dark|light) theme$/ }).click();
  const scheme = (page: Page): Promise<string | null> =>
    page.locator("html").getAttribute("data-mantine-color-scheme");
  await expect.poll(async () => (await scheme(bench)) === (await scheme(local))).toBe(true);

  // Opened where it is open already.
  await local.evaluate(() => void (location.hash = "#/settings/connections"));
  const row = local.getByRole("listitem").filter({ hasText: "Test bench" });
  await row.getByRole("button", { name: "Open", exact: true }).click();
  const inFront = (): Promise<string | undefined> =>
    desktop.app.evaluate(({ BrowserWindow }) => BrowserWindow.getFocusedWindow()?.webContents.getURL());
  await expect.poll(inFront).toContain("#/audit");
  expect(desktop.app.windows()).toHaveLength(2);
  await expect(local.getByRole("banner").getByText("Local project")).toBeVisible();
});

test("a file that the program is started with goes to Finance's import", async () => {
  const path = join(folder, "from the icon.csv");
  writeFileSync(path, "id,Amount\nch_1,100\n");
  startAgain(path);
  await expect.poll(() => placeIn(desktop.page)).toBe("#/finance/new");
  await expect(desktop.page.getByText("from the icon.csv")).toBeVisible();
  await desktop.page.getByRole("button", { name: "Drop from the icon.csv" }).click();
});

test("a main process that is killed leaves its data folder fit for the next start, each window at its place", async () => {
  await desktop.page.evaluate(() => void (location.hash = "#/audit"));
  const kept = (): string => readFileSync(join(dataDir, "window.json"), "utf8");
  await expect.poll(kept).toContain("/audit");
  const ended = new Promise((resolve) => desktop.app.process().once("exit", resolve));
  desktop.app.process().kill("SIGKILL");
  await ended;
  desktop = await launchDesktop({ dataDir, args: ["--no-sample-data"] });
  await checks["the screen is there"](desktop);
  await checks["an operation is answered"](desktop);
  expect(await placeIn(await windowOf("Local project"))).toBe("#/settings/connections");
  expect(await placeIn(await windowOf("Test bench"))).toBe("#/audit");
});

test("a page that crashes comes back where the person was, with a report on this machine", async () => {
  await desktop.page.evaluate(() => void (location.hash = "#/settings/about"));
  const inPage = (code: string): Promise<unknown> =>
    desktop.app.evaluate(
      async ({ BrowserWindow }, text) =>
        (await BrowserWindow.getAllWindows()[0]?.webContents.executeJavaScript(text)) as unknown,
      code,
    );
  await desktop.app.evaluate(({ BrowserWindow }) =>
    BrowserWindow.getAllWindows()[0]?.webContents.forcefullyCrashRenderer(),
  );
  const logs = join(dataDir, "logs");
  await expect
    .poll(() => existsSync(logs) && readdirSync(logs).some((name) => name.startsWith("crash-")))
    .toBe(true);
  await expect
    .poll(() =>
      inPage("location.hash + ' ' + (document.querySelector('h1')?.textContent ?? '')").catch(() => ""),
    )
    .toBe("#/settings/about Settings");
});

test.describe("made worse in one place,", () => {
  // The checks are what is tested here: once for the runtime that is always there is enough.
  test.skip(!isStandIn, "the plants are for the stand-in");
  const isWhole = sized(0, 1) === 1;
  for (const group of isWhole ? plants.map((plant) => [plant]) : grouped(plants)) {
    test(`${group.map(({ what }) => what).join(", ")}: each is noticed`, async () => {
      const appDir = plantedApp(mkdtempSync(join(folder, "planted-")), group);
      const worse = await launchDesktop({
        dataDir: join(folder, "other"),
        args: ["--no-sample-data"],
        appDir,
      });
      try {
        for (const { what, noticedBy } of group) {
          const check: (desktop: Desktop) => Promise<void> = checks[noticedBy];
          const seen = await check(worse).then(
            () => "nothing",
            () => "that it is worse",
          );
          expect(`${noticedBy}, after ${what}: ${seen}`).toBe(
            `${noticedBy}, after ${what}: that it is worse`,
          );
        }
      } finally {
        await worse.close();
      }
    });
  }
});

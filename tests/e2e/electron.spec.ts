/**
 * The built main, preload and renderer in their window: on Electron where its runtime is and can show one, elsewhere on
 * the stand-in (tests/electron). docs/DESKTOP.md says how the two differ.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repositoryDir } from "../../cli/build.ts";
import { checks } from "../electron/checks.ts";
import { type Desktop, isStandIn, launchDesktop, pageOrigin, runtimeInWords } from "../electron/launch.ts";
import { grouped, plantedApp, plants } from "../electron/plants.ts";
import { sized } from "../support/size.ts";
import { connectProject, expect, test } from "./console.ts";
import { dropAnExport, stopARepeater, tryARuleInShadow } from "./jobs.ts";

let desktop: Desktop;
const folder = mkdtempSync(join(tmpdir(), "electron-e2e-"));
const dataDir = join(folder, "data");

test.beforeAll(async () => {
  test.setTimeout(180_000);
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
  await expect(desktop.page.getByRole("button", { name: "Live" })).toBeVisible({ timeout: 60_000 });
});

const place = (): Promise<string> => desktop.page.evaluate(() => location.hash);

test("a link from elsewhere opens its screen in the window that is there; a bad one opens nothing", async () => {
  const start = (link: string): void => {
    const command = desktop.app.process().spawnfile;
    const args = [repositoryDir, `--data-dir=${dataDir}`, "--no-sample-data", link];
    expect(spawnSync(command, args, { timeout: 30_000 }).status).toBe(0);
  };
  start("token-governance://users/42/ledger");
  await expect.poll(place).toBe("#/users/42/ledger");
  start("token-governance://elsewhere/42");
  start("token-governance://rules");
  await expect.poll(place).toBe("#/rules");
  expect(await desktop.app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows().length)).toBe(1);
});

test("the menu leads to the desks without loading the page anew", async () => {
  await desktop.page.evaluate(() => ((globalThis as { isSamePage?: boolean }).isSamePage = true));
  await desktop.app.evaluate(({ Menu }) => Menu.getApplicationMenu()?.getMenuItemById("go-finance")?.click());
  await expect.poll(place).toBe("#/finance");
  expect(await desktop.page.evaluate(() => (globalThis as { isSamePage?: boolean }).isSamePage)).toBe(true);
});

test("in the window, support, an admin and finance each do their main job", async ({
  workshop: { project },
}) => {
  await connectProject(desktop.page, project, "Test bench");
  await stopARepeater(desktop.page, project);
  await tryARuleInShadow(desktop.page, project);
  await dropAnExport(desktop.page, project);
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

test("a main process that is killed leaves its data folder fit for the next start, at the same place", async () => {
  const again = join(folder, "killed");
  const first = await launchDesktop({
    dataDir: again,
    args: ["--no-sample-data", "token-governance://audit"],
  });
  await expect.poll(() => first.page.evaluate(() => location.hash)).toBe("#/audit");
  const ended = new Promise((resolve) => first.app.process().once("exit", resolve));
  // Chromium writes what a page keeps within seconds, not at once.
  await first.page.waitForTimeout(6_000);
  first.app.process().kill("SIGKILL");
  await ended;
  const second = await launchDesktop({ dataDir: again, args: ["--no-sample-data"] });
  try {
    await checks["the screen is there"](second);
    await checks["an operation is answered"](second);
    await expect.poll(() => second.page.evaluate(() => location.hash)).toBe("#/audit");
  } finally {
    await second.close();
  }
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

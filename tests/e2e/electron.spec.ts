/**
 * The built main, preload and renderer in their window: on Electron where its runtime is and can show one, elsewhere on
 * the stand-in (tests/electron). docs/DESKTOP.md says how the two differ.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

test("in the window, support, an admin and finance each do their main job", async ({
  workshop: { project },
}) => {
  await connectProject(desktop.page, project, "Test bench");
  await stopARepeater(desktop.page, project);
  await tryARuleInShadow(desktop.page, project);
  await dropAnExport(desktop.page, project);
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

/**
 * The real window, wherever Electron's runtime is installed and a display is there; elsewhere it says why not. What
 * can be checked without it is in electron/main/shell/shell.test.ts and electron/packaging.test.ts.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { _electron, type ElectronApplication, expect, type Page, test } from "@playwright/test";
import { ensureBuilt, repositoryDir } from "../../cli/build.ts";
import { installedRuntime, windowObstacle } from "../../cli/electron-runtime.ts";

const runtime = installedRuntime();
const obstacle = runtime === null ? "Electron's runtime is not installed here" : windowObstacle();
if (obstacle !== null) console.warn(`The Electron window is NOT tested: ${obstacle}.`);
test.skip(obstacle !== null, `${obstacle}`);
test.describe.configure({ mode: "serial" });

let app: ElectronApplication;
let page: Page;
const dataDir = mkdtempSync(join(tmpdir(), "electron-e2e-"));

test.beforeAll(async () => {
  test.setTimeout(180_000);
  await ensureBuilt(() => {});
  app = await _electron.launch({
    executablePath: runtime ?? "",
    args: [repositoryDir, `--data-dir=${dataDir}`, "--no-sample-data"],
  });
  page = await app.firstWindow();
});
test.afterAll(async () => {
  await app?.close();
  rmSync(dataDir, { recursive: true, force: true });
});

test("the window shows the console on its own protocol, and the local project comes up behind it", async () => {
  await expect(page.getByRole("navigation", { name: "Desks" })).toBeVisible();
  expect(new URL(page.url()).origin).toBe("app://console");
  const state = async (): Promise<string> =>
    page.evaluate(async () => {
      const { consoleBridge } = globalThis as unknown as {
        consoleBridge: {
          operations: Record<string, (input: unknown) => Promise<{ value: { status: string } }>>;
        };
      };
      return (await consoleBridge.operations["connection.state"]?.({}))?.value.status ?? "";
    });
  await expect.poll(state, { timeout: 60_000 }).toBe("live");
});

test("the page has neither Node nor Electron", async () => {
  const globals = await page.evaluate(() =>
    ["require", "process", "module", "Buffer", "electron"].filter((name) => name in globalThis),
  );
  expect(globals).toEqual([]);
});

test("the page can go nowhere and open nothing", async () => {
  const before = page.url();
  await page.evaluate(() => {
    location.href = "https://example.com/";
  });
  await page.waitForTimeout(500);
  expect(page.url()).toBe(before);
  expect(await page.evaluate(() => window.open("https://example.com/"))).toBeNull();
  expect(app.windows()).toHaveLength(1);
  await expect(page.evaluate(() => fetch("https://example.com/"))).rejects.toThrow();
});

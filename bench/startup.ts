/**
 * The built program's window against the browser host, each from nothing to living rows on the screen, on the same data
 * folder. Where Electron cannot run, the window is the stand-in's: the figure says which. Both programs compile PGlite
 * quickly, as in the tests.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Page } from "@playwright/test";
import configuration from "../playwright.config.ts";
import { ensureBuilt } from "../cli/build.ts";
import { enter, startConsole } from "../tests/e2e/console.ts";
import { launchDesktop, runtimeInWords } from "../tests/electron/launch.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

const rounds = 3;

/** The newest call is of this minute: the rows live. */
async function untilRowsLive(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Live" }).waitFor({ timeout: 120_000 });
  await page.getByRole("row").nth(1).waitFor({ timeout: 120_000 });
}

export async function run(): Promise<readonly BenchResult[]> {
  await ensureBuilt(() => {});
  const dataDir = mkdtempSync(join(tmpdir(), "bench-startup-"));
  try {
    const figures = await alternate(
      rounds,
      async () => {
        const start = performance.now();
        const desktop = await launchDesktop({ dataDir });
        await untilRowsLive(desktop.page);
        const seconds = (performance.now() - start) / 1000;
        await desktop.close();
        return seconds;
      },
      async () => {
        const start = performance.now();
        const running = await startConsole(dataDir);
        const browser = await chromium.launch(configuration.use?.launchOptions ?? {});
        const page = await browser.newPage();
        await enter(page, running.ready[1] ?? "");
        await untilRowsLive(page);
        const seconds = (performance.now() - start) / 1000;
        await browser.close();
        await running.stop();
        return seconds;
      },
    );
    return [
      {
        bench: "startup, window against browser host",
        ratio: round(figures.ratio, 3),
        better: "lower",
        required: 1.1,
        figures: {
          window_seconds: round(figures.ours, 2),
          browser_host_seconds: round(figures.floor, 2),
          runtime: runtimeInWords,
        },
      },
    ];
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

import { existsSync } from "node:fs";
import { chromium, defineConfig } from "@playwright/test";

/**
 * Playwright's own browser where it was installed, else one that the machine has. The one without windows comes first:
 * it takes a sixth less of the processor.
 */
function findBrowser(): string | undefined {
  if (existsSync(chromium.executablePath())) return undefined;
  const candidates = [
    process.env["CHROMIUM_PATH"],
    "/usr/bin/chromium-headless-shell",
    "/usr/bin/chromium",
    "/usr/bin/google-chrome",
  ];
  return candidates.find((path) => path && existsSync(path));
}

const executablePath = findBrowser();

export default defineConfig({
  testDir: "tests/e2e",
  outputDir: "test-results",
  // A console and a project for each worker: three, on a machine of two cores too, since each waits half of its time.
  // Tests of one file run in order.
  workers: 3,
  // Limits are for what never comes: a busy machine may be ten times slower.
  timeout: 600_000,
  expect: { timeout: 120_000 },
  reporter: "list",
  // The file that takes longest begins first, so that both workers end together.
  projects: [
    { name: "screens", testMatch: "screens.spec.ts" },
    { name: "jobs", testIgnore: "screens.spec.ts" },
  ],
  use: {
    viewport: { width: 1280, height: 800 },
    // Dates and numbers as the specs write them.
    locale: "en-GB",
    // Each step of what failed, and the page at its end. The page at each step costs about a tenth of the time, so it is kept
    // where it is asked for: `npm run test:one -- NAME --trace on`.
    trace: { mode: "retain-on-failure", screenshots: false, snapshots: false },
    // A click waits until what it is for has come to rest. What moves, and that it need not, is in screens.spec.ts.
    contextOptions: { reducedMotion: "reduce" },
    screenshot: "only-on-failure",
    launchOptions: {
      ...(executablePath ? { executablePath } : {}),
      args: [
        ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
});

import { existsSync } from "node:fs";
import { chromium, defineConfig } from "@playwright/test";

/** Playwright's own browser where it was installed, else one that the machine has. */
function findBrowser(): string | undefined {
  if (existsSync(chromium.executablePath())) return undefined;
  const candidates = [process.env["CHROMIUM_PATH"], "/usr/bin/chromium", "/usr/bin/google-chrome"];
  return candidates.find((path) => path && existsSync(path));
}

const executablePath = findBrowser();

export default defineConfig({
  testDir: "tests/e2e",
  outputDir: "test-results",
  // A console and a project for each worker: two, on a machine of two cores too. Tests of one file run in order.
  workers: 2,
  // Limits are for what never comes: a busy machine is slow.
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: "list",
  // The file that takes longest begins first, so that both workers end together.
  projects: [
    { name: "screens", testMatch: "screens.spec.ts" },
    { name: "jobs", testIgnore: "screens.spec.ts" },
  ],
  use: {
    viewport: { width: 1280, height: 800 },
    trace: "retain-on-failure",
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

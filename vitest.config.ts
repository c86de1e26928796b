import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./tests/support/longest-first.ts";

/** What every project shares. The files of all run in one queue, three at a time, on a machine of two cores too: they often wait. */
const shared = {
  maxWorkers: 3,
  // What a test waits for comes, however busy the machine: a limit is for what never does.
  expect: { poll: { timeout: 60_000 } },
} as const;

/**
 * unit: pure or in-process, everywhere. renderer: React under jsdom. database: on a real PostgreSQL, one
 * server for the run (tests/support/database-setup.ts), each file in databases of its own.
 */
export default defineConfig({
  test: {
    maxWorkers: shared.maxWorkers,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          ...shared,
          name: "unit",
          environment: "node",
          include: [
            "{shared,electron,local-project,cli,bench}/**/*.test.ts",
            "tests/{boundaries,packages,support}/**/*.test.ts",
          ],
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        plugins: [react()],
        test: {
          ...shared,
          name: "renderer",
          environment: "jsdom",
          include: ["renderer/**/*.test.{ts,tsx}"],
          setupFiles: ["renderer/test-setup.ts"],
          testTimeout: 120_000,
        },
      },
      {
        test: {
          ...shared,
          name: "database",
          environment: "node",
          include: ["tests/database/**/*.test.ts"],
          globalSetup: ["tests/support/database-setup.ts"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});

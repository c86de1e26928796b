import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { compileQuickly } from "./tests/support/compile-quickly.ts";
import { LongestFirst } from "./tests/support/longest-first.ts";
import { testTimeout } from "./tests/support/size.ts";

/**
 * What every project shares. The files of all run in one queue, three at a time, on a machine of two cores too:
 * they often wait. Where there is no page, a process runs many files: to start one and to load the program takes a second.
 */
const shared = {
  maxWorkers: 3,
  execArgv: [compileQuickly],
  // What a test waits for comes, however busy the machine: a limit is for what never does.
  expect: { poll: { timeout: 60_000 } },
};

/**
 * pure: functions of their input alone. unit: in-process, everywhere. renderer: React under jsdom. database: on a real PostgreSQL, one
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
          name: "pure",
          environment: "node",
          isolate: false,
          // A test of the renderer that needs a page is a .tsx.
          include: ["shared/**/*.test.ts", "renderer/**/*.test.ts"],
          testTimeout: 120_000,
        },
      },
      {
        test: {
          ...shared,
          name: "unit",
          environment: "node",
          isolate: false,
          include: [
            "{electron,local-project,cli,bench}/**/*.test.ts",
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
          include: ["renderer/**/*.test.tsx"],
          setupFiles: ["renderer/test-setup.ts"],
          testTimeout: 120_000,
        },
      },
      {
        test: {
          ...shared,
          name: "database",
          environment: "node",
          isolate: false,
          include: ["tests/database/**/*.test.ts"],
          globalSetup: ["tests/support/database-setup.ts"],
          testTimeout: testTimeout(300_000),
          hookTimeout: 300_000,
        },
      },
    ],
  },
});

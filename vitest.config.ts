import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

/**
 * unit: pure or in-process, everywhere. renderer: React under jsdom. database: on a real PostgreSQL, one
 * server for the run (tests/support/database-setup.ts), each file in databases of its own.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          environment: "node",
          include: [
            "{shared,electron,local-project,cli,bench}/**/*.test.ts",
            "tests/{boundaries,support}/**/*.test.ts",
          ],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        plugins: [react()],
        test: {
          name: "renderer",
          environment: "jsdom",
          include: ["renderer/**/*.test.{ts,tsx}"],
          setupFiles: ["renderer/test-setup.ts"],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: "database",
          environment: "node",
          include: ["tests/database/**/*.test.ts"],
          globalSetup: ["tests/support/database-setup.ts"],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
        },
      },
    ],
  },
});

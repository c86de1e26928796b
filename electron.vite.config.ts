import react from "@vitejs/plugin-react";
import { defineConfig } from "electron-vite";
import { languagePlugin } from "./cli/language/plugin.ts";
import { operationNames, streamNames } from "./shared/contract/names.ts";

/** The preload carries the names of the contract, not its schemas. */
const namesOnly = {
  name: "names-only",
  enforce: "pre",
  load: (id: string) =>
    id.endsWith("/shared/contract/names.ts")
      ? `export const operationNames = ${JSON.stringify(operationNames)};
         export const streamNames = ${JSON.stringify(streamNames)};`
      : null,
} as const;

/**
 * Three builds into out/: the main process (and its workers, beside it), the preload as one CommonJS file for the
 * sandbox, and the renderer, which the browser host serves too.
 */
export default defineConfig({
  main: {
    build: {
      outDir: "out/main",
      rollupOptions: {
        // An optional dependency: loaded where it is installed.
        external: ["keytar"],
        input: {
          index: "electron/main/index.ts",
          "local-project-worker": "local-project/worker.ts",
          "reconciliation-worker": "electron/main/console/finance/worker.ts",
          "reconciliation-part-worker": "electron/main/console/finance/part-worker.ts",
          "replay-worker": "electron/main/console/rules/replay-worker.ts",
        },
        output: { format: "es", entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" },
      },
    },
  },
  preload: {
    plugins: [namesOnly],
    build: {
      outDir: "out/preload",
      externalizeDeps: false,
      rollupOptions: {
        input: { index: "electron/preload/index.ts" },
        output: { format: "cjs", entryFileNames: "[name].cjs" },
      },
    },
  },
  renderer: {
    root: "renderer",
    plugins: [languagePlugin(), react()],
    build: {
      outDir: "out/renderer",
      minify: true,
      rollupOptions: { input: { index: "renderer/index.html" } },
    },
  },
});

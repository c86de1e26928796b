/** What Electron's own binary does: finds the application on the command line, runs its main module, becomes ready. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { app } from "./app.ts";

const given = process.argv.slice(2);
const folder = given.find((each) => !each.startsWith("-"));
if (!folder) throw new Error("Which application? Give its folder.");
process.argv = [process.argv[0] ?? "", ...given];
Object.assign(process, {
  defaultApp: !app.isPackaged,
  type: "browser",
  resourcesPath: process.env.STAND_IN_RESOURCES ?? resolve(folder),
});
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => app.quit());
const main = app.loadPackage(resolve(folder));
await import(pathToFileURL(main).href);
await app.start();

/** `npm run dev` with a console that only writes down its life: how it is started again and stopped. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { repositoryDir } from "./build.ts";

const consoleOfTest = `
import { appendFileSync } from "node:fs";
const note = (word) => appendFileSync(process.env.LIFE, word + " ");
note("start");
process.on("message", () => process.send({ type: "ready", port: 1, link: "http://127.0.0.1:1/" }));
process.on("SIGTERM", () => {
  note("asked");
  setTimeout(() => (note("end"), process.exit(0)), 100);
});
`;
const rendererOfTest = `
export const noncePlaceholder = "nonce";
export const serveRenderer = async () => ({ port: 1, close: async () => undefined });
`;

const started: { readonly folder: string; readonly child: ChildProcess }[] = [];
afterEach(() => {
  for (const { folder, child } of started.splice(0)) {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
});

/** The command on a folder of its own, once its console runs. */
async function dev() {
  const folder = mkdtempSync(join(tmpdir(), "governance-dev-"));
  for (const watched of ["cli", "electron", "local-project", "shared", "supabase"])
    mkdirSync(join(folder, watched));
  for (const file of ["dev.ts", "build.ts", "open-browser.ts", "when-asked-to-end.ts"])
    cpSync(join(repositoryDir, "cli", file), join(folder, "cli", file));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  writeFileSync(join(folder, "cli/dev-console.ts"), consoleOfTest);
  writeFileSync(join(folder, "cli/dev-renderer.ts"), rendererOfTest);
  symlinkSync(join(repositoryDir, "node_modules"), join(folder, "node_modules"));
  const life = join(folder, "life");
  appendFileSync(life, "");
  const child = spawn(process.execPath, [join(folder, "cli/dev.ts"), "--no-open"], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, LIFE: life, npm_lifecycle_event: undefined },
  });
  started.push({ folder, child });
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  await new Promise<void>((resolve) =>
    child.stdout.on("data", (said) => /ready/.test(String(said)) && resolve()),
  );
  return {
    save: () => writeFileSync(join(folder, "shared/saved.ts"), String(Math.random())),
    interrupt: () => child.kill("SIGINT"),
    life: () => readFileSync(life, "utf8").trim(),
    ended,
  };
}

/** Its console was started once. One that is slow to end so that the next may start is killed. */
const stopped = /^start( asked)+( end)?$/;

test("a saved file starts the console again, once the one before has ended", async () => {
  const { save, life, interrupt, ended } = await dev();
  save();
  await expect.poll(life).toMatch(/^start asked (end )?start$/);
  interrupt();
  expect(await ended).toBe(0);
  expect(life()).toMatch(/^start asked (end )?start asked end$/);
});

test("no console is started while it stops: asked to right after a file was saved", async () => {
  const { save, life, interrupt, ended } = await dev();
  save();
  // The change is noticed, and waited on for 50 ms.
  await new Promise((resolve) => setTimeout(resolve, 20));
  interrupt();
  expect(await ended).toBe(0);
  expect(life()).toMatch(stopped);
});

test("no console is started while it stops: asked to while one ends to be started again", async () => {
  const { save, life, interrupt, ended } = await dev();
  save();
  await expect.poll(life, { interval: 5 }).toBe("start asked");
  interrupt();
  expect(await ended).toBe(0);
  expect(life()).toMatch(stopped);
});

/** The command as a person runs it: what it prints and how it ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, afterEach, expect, test } from "vitest";
import { compileQuickly } from "../tests/support/compile-quickly.ts";
import { repositoryDir } from "./build.ts";
import { windowObstacle } from "./electron-runtime.ts";
import { hasScreen, writeRedirect } from "./open-browser.ts";

const folder = mkdtempSync(join(tmpdir(), "console-start-"));
const children: ChildProcess[] = [];
afterEach(async () => {
  await Promise.all(
    children.splice(0).map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return null;
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      return gone;
    }),
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Running {
  stdout: string;
  stderr: string;
  readonly ended: Promise<number | null>;
}

function start(...args: readonly string[]): Running {
  const child = spawn(
    process.execPath,
    [compileQuickly, "cli/start.ts", "--browser", "--no-open", "--no-sample-data", ...args],
    {
      cwd: repositoryDir,
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  children.push(child);
  const running: Running = {
    stdout: "",
    stderr: "",
    ended: new Promise((resolve) => child.once("close", resolve)),
  };
  child.stdout.on("data", (chunk) => (running.stdout += chunk));
  child.stderr.on("data", (chunk) => (running.stderr += chunk));
  return running;
}

test("it prints exactly one line, and the page answers at its address", async () => {
  const console_ = start("--data-dir", join(folder, "one"));
  await expect.poll(() => console_.stdout, { timeout: 120_000 }).toContain("\n");
  expect(console_.stdout).toMatch(/^Console ready at http:\/\/127\.0\.0\.1:\d+\/#token=[\w-]{40,}\n$/);
  const address = console_.stdout.replace("Console ready at ", "").trim();
  const page = await fetch(address);
  expect(page.status).toBe(200);
  expect(await page.text()).toContain("<div id=");
  // A second console on the same data folder, and one on the same port, are told why they cannot start.
  const second = start("--data-dir", join(folder, "one"));
  expect(await second.ended).toBe(1);
  expect(second.stderr).toContain("Another console is using the data folder");
  expect(second.stdout).toBe("");
  const samePort = start("--data-dir", join(folder, "two"), "--port", new URL(address).port);
  expect(await samePort.ended).toBe(1);
  expect(samePort.stderr).toContain("is in use");
  expect(console_.stderr + second.stderr + samePort.stderr).not.toContain(new URL(address).hash);
  children[0]?.kill("SIGTERM");
  expect(await console_.ended).toBe(0);
}, 180_000);

test.each([
  [["--port", "70000"], "70000 is not a port"],
  [["--port", "http"], "http is not a port"],
  [["--nonsense"], "nonsense"],
  [["more"], "more"],
])("wrong arguments %j end with 2 and say what is wrong", async (args, words) => {
  const console_ = start(...args);
  expect(await console_.ended).toBe(2);
  expect(console_.stderr).toContain(words);
  expect(console_.stdout).toBe("");
});

test("a data folder that cannot be used ends it with 1, one sentence and what to do", async () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  const unwritable = start("--data-dir", join(file, "below"));
  expect(await unwritable.ended).toBe(1);
  expect(unwritable.stderr).toContain("cannot be written");
  expect(unwritable.stderr).toContain("--data-dir");

  const newer = join(folder, "newer");
  mkdirSync(newer);
  const database = new DatabaseSync(join(newer, "console.sqlite"));
  database.exec("pragma user_version = 999");
  database.close();
  const refused = start("--data-dir", newer);
  expect(await refused.ended).toBe(1);
  expect(refused.stderr).toContain("newer console");
});

test("a port somebody else holds is said before anything is built or made", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  const { port } = taken.address() as { port: number };
  const console_ = start("--data-dir", join(folder, "three"), "--port", String(port));
  expect(await console_.ended).toBe(1);
  expect(console_.stderr).toContain(`Port ${port} is in use.`);
  taken.close();
}, 120_000);

test("a window is not tried where there is no display, or as root on Linux", () => {
  expect(windowObstacle("linux", {}, 1000)).toBe("there is no display");
  expect(windowObstacle("linux", { DISPLAY: ":0" }, 0)).toBe("the user is root");
  expect(windowObstacle("linux", { WAYLAND_DISPLAY: "wayland-0" }, 1000)).toBeNull();
  expect(windowObstacle("darwin", {}, 501)).toBeNull();
  expect(windowObstacle("win32", {}, undefined)).toBeNull();
});

test("a browser is opened only where somebody sits at a screen", () => {
  expect(hasScreen("linux", {})).toBe(false);
  expect(hasScreen("linux", { DISPLAY: ":0" })).toBe(true);
  expect(hasScreen("darwin", { SSH_CONNECTION: "x" })).toBe(false);
  expect(hasScreen("win32", { CI: "1" })).toBe(false);
  expect(hasScreen("win32", {})).toBe(true);
});

test.skipIf(process.platform === "win32")(
  "the browser is given a file that only its owner may read, and that leads to the link",
  () => {
    const link = "http://127.0.0.1:5000/#token=abc&x=1";
    const page = writeRedirect(link, folder);
    expect(page).not.toContain("abc");
    expect(statSync(page).mode & 0o777).toBe(0o600);
    expect(statSync(join(page, "..")).mode & 0o777).toBe(0o700);
    expect(readFileSync(page, "utf8")).toContain(
      'http-equiv="refresh" content="0; url=http://127.0.0.1:5000/#token=abc&amp;x=1"',
    );
  },
);

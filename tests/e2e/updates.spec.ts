/** The built program meets a server of newer versions on this machine; the runtime may be the stand-in. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "@playwright/test";
import { stringify } from "yaml";
import { ensureBuilt, repositoryDir } from "../../cli/build.ts";
import { type Desktop, isStandIn, launchDesktop } from "../electron/launch.ts";

test.skip(
  !isStandIn || process.platform !== "linux",
  "an AppImage is put in place by the stand-in, on Linux",
);

const folder = mkdtempSync(join(tmpdir(), "updates-e2e-"));
const feed = join(folder, "feed");
const appDir = join(folder, "app");
const resources = join(folder, "resources");
const installed = join(folder, "TokenGovernance.AppImage");
const started = join(folder, "started");
const asked: string[] = [];
let server: Server;
let desktop: Desktop;

/** A program that leaves a note of how it was started. */
const program = (version: string): string =>
  `#!/bin/sh\n[ -n "$APPIMAGE_EXIT_AFTER_INSTALL" ] || echo ${version} >> "${started}"\n`;

/** What electron-builder leaves in dist for a version, then signed as the release is. */
function release(channel: string, version: string, signing: readonly string[] = []): void {
  const name = `TokenGovernance-${version}.AppImage`;
  writeFileSync(join(feed, name), program(version));
  const sha512 = createHash("sha512").update(program(version)).digest("base64");
  const size = program(version).length;
  writeFileSync(
    join(feed, `${channel}-linux.yml`),
    stringify({
      version,
      files: [{ url: name, sha512, size }],
      path: name,
      sha512,
      releaseDate: "2026-11-28T00:00:00Z",
      releaseNotes: `What is new in ${version}.`,
    }),
  );
  execFileSync(process.execPath, ["cli/sign-feed.ts", feed, "--key", join(folder, "key.pem"), ...signing], {
    cwd: repositoryDir,
  });
}

test.beforeAll(async () => {
  await ensureBuilt(() => {});
  for (const made of [feed, appDir, resources, join(appDir, "build")]) mkdirSync(made, { recursive: true });
  execFileSync(
    process.execPath,
    [join(repositoryDir, "cli/sign-feed.ts"), "--new-key", join(folder, "key.pem")],
    { cwd: appDir },
  );
  for (const name of ["package.json", "out", "supabase"])
    cpSync(join(repositoryDir, name), join(appDir, name), { recursive: true });
  for (const name of ["node_modules", "local-project"])
    symlinkSync(join(repositoryDir, name), join(appDir, name));
  server = createServer((request, response) => {
    const file = join(feed, new URL(request.url ?? "/", "http://x").pathname.slice(1));
    asked.push(request.url ?? "");
    if (!existsSync(file)) return void response.writeHead(404).end();
    response.end(readFileSync(file));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  writeFileSync(
    join(resources, "app-update.yml"),
    stringify({
      provider: "generic",
      url: `http://127.0.0.1:${port}/`,
      updaterCacheDirName: "token-governance-updater",
    }),
  );
  desktop = await open();
});
test.afterAll(async () => {
  await desktop?.close().catch(() => {});
  server?.close();
  rmSync(folder, { recursive: true, force: true });
});

async function open(): Promise<Desktop> {
  writeFileSync(installed, program("0.1.0"));
  chmodSync(installed, 0o755);
  const opened = await launchDesktop({
    dataDir: join(folder, "data"),
    appDir,
    args: ["--no-sample-data"],
    env: {
      STAND_IN_PACKAGED: "1",
      STAND_IN_RESOURCES: resources,
      APPIMAGE: installed,
      XDG_CACHE_HOME: join(folder, "cache"),
    },
  });
  await opened.page.evaluate(() => void (location.hash = "#/settings/about"));
  return opened;
}

const look = () => desktop.page.getByRole("button", { name: "Look for a newer version" });

test("a feed that somebody else signed is refused, and nothing is fetched", async () => {
  release("latest", "1.0.0");
  const signed = readFileSync(join(feed, "latest-linux.yml"), "utf8");
  writeFileSync(join(feed, "latest-linux.yml"), signed.replaceAll("1.0.0", "6.6.6"));
  await look().click();
  await expect(desktop.page.getByText("not signed by the maker of this program")).toBeVisible();
  expect(asked.filter((url) => url.includes("AppImage"))).toEqual([]);
});

test("a version that is offered to nobody yet is not fetched", async () => {
  release("latest", "1.0.0", ["--percentage", "0"]);
  await look().click();
  await expect(desktop.page.getByText(/You have 0\.1\.0\. Last looked/)).toBeVisible();
  expect(asked.filter((url) => url.includes("AppImage"))).toEqual([]);
});

test("beta versions come to those who take them", async () => {
  release("beta", "1.1.0-beta.1");
  await desktop.page.getByText("Beta versions too").click();
  await expect(desktop.page.getByText("Version 1.1.0-beta.1 is ready.")).toBeVisible();
  await desktop.page.getByText("Stable versions").click();
  await expect(desktop.page.getByText(/You have 0\.1\.0/)).toBeVisible();
  // Nor does it come when the program ends.
  await desktop.close();
  expect(readFileSync(installed, "utf8")).toBe(program("0.1.0"));
  desktop = await open();
});

test("a newer version is fetched, shown with its notes, and put in place between two acts", async () => {
  release("latest", "1.0.0", ["--percentage", "100", "--earlier", "0.0.9"]);
  release("latest", "0.0.9");
  release("latest", "1.0.0", ["--percentage", "100", "--earlier", "0.0.9"]);
  await look().click();
  await expect(desktop.page.getByText("Version 1.0.0 is ready.")).toBeVisible();
  await desktop.page.getByText("What 1.0.0 brings").click();
  await expect(desktop.page.getByText("What is new in 1.0.0.")).toBeVisible();
  // Pressed, and asked for again, as where the answer is lost on a slow machine.
  await desktop.page.getByRole("button", { name: "Restart with 1.0.0" }).evaluate((button: HTMLElement) => {
    button.click();
    const { consoleBridge } = globalThis as unknown as {
      consoleBridge: { operations: Record<string, (input: object) => Promise<unknown>> };
    };
    void consoleBridge.operations["updates.restart"]?.({});
  });
  await expect.poll(() => existsSync(started) && readFileSync(started, "utf8")).toBe("1.0.0\n");
  // Also once the program before has ended, and started once.
  await desktop.close().catch(() => {});
  expect(readFileSync(installed, "utf8")).toBe(program("1.0.0"));
  expect(readFileSync(started, "utf8")).toBe("1.0.0\n");
});

test("one goes back to an earlier version by hand, and stays there", async () => {
  await desktop.close().catch(() => {});
  rmSync(started, { force: true });
  desktop = await open();
  await look().click();
  await expect(desktop.page.getByText("Version 1.0.0 is ready.")).toBeVisible();
  await desktop.page.getByRole("combobox", { name: "Go back to an earlier version" }).click();
  await desktop.page.getByRole("option", { name: "0.0.9" }).click();
  await expect(desktop.page.getByText("Version 0.0.9 is ready.")).toBeVisible();
  await desktop.page.getByRole("button", { name: "Restart with 0.0.9" }).click();
  await expect.poll(() => existsSync(started) && readFileSync(started, "utf8")).toBe("0.0.9\n");
});

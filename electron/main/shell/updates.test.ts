/** The real electron-updater on a stand-in for Electron, with a server whose answers the test can hold back. */
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request, type RequestOptions, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { stringify } from "yaml";
import { createUpdates, type ShellUpdates } from "./updates.ts";
import type { UpdateState } from "../../../shared/contract/index.ts";

const folder = mkdtempSync(join(tmpdir(), "updates-"));
const installed = join(folder, "TokenGovernance.AppImage");
const keys = generateKeyPairSync("ed25519");
const files = new Map<string, string>();
/** Paths that are not answered yet, and who waits for them. */
const held = new Map<string, ServerResponse[]>();
let onQuit: ((exitCode: number) => void) | null = null;

const server = createServer((asked, response) => {
  const name = new URL(asked.url ?? "/", "http://x").pathname.slice(1);
  const waiting = held.get(name);
  if (waiting) waiting.push(response);
  else if (files.has(name)) response.end(files.get(name));
  else response.writeHead(404).end();
});

const electron = {
  app: {
    isPackaged: true,
    whenReady: () => Promise.resolve(),
    getVersion: () => "1.0.0",
    getName: () => "Token Governance",
    getAppPath: () => folder,
    getPath: () => folder,
    quit: () => {},
    once: (_quit: string, handler: (event: null, exitCode: number) => void) => {
      onQuit = (exitCode) => handler(null, exitCode);
    },
  },
  session: { fromPartition: () => ({}) },
  net: {
    request: ({
      session: _session,
      redirect: _redirect,
      ...options
    }: RequestOptions & Record<string, unknown>) => request(options),
  },
};

const program = (version: string): string => `#!/bin/sh\n# ${version}\n`;

function release(channel: string, version: string): void {
  const name = `TokenGovernance-${version}.AppImage`;
  const text = program(version);
  const sha512 = createHash("sha512").update(text).digest("base64");
  const feed = stringify({
    version,
    files: [{ url: name, sha512, size: text.length }],
    path: name,
    sha512,
    releaseDate: "2026-11-28T00:00:00Z",
  });
  files.set(name, text);
  files.set(`${channel}-linux.yml`, feed);
  files.set(`${channel}-linux.yml.sig`, sign(null, Buffer.from(feed), keys.privateKey).toString("base64"));
}

function letGo(name: string): void {
  const waiting = held.get(name) ?? [];
  held.delete(name);
  for (const response of waiting) response.end(files.get(name));
}

const before = { ...process.env };
let updates: ShellUpdates;
let state: UpdateState;

beforeAll(async () => {
  const require = createRequire(import.meta.url);
  const path = require.resolve("electron");
  require.cache[path] = {
    id: path,
    filename: path,
    loaded: true,
    exports: electron,
  } as unknown as NodeJS.Module;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  Object.assign(process, { resourcesPath: folder });
  Object.assign(process.env, { APPIMAGE: installed, XDG_CACHE_HOME: join(folder, "cache") });
  mkdirSync(join(folder, "build"));
  writeFileSync(join(folder, "build/update-key.pem"), keys.publicKey.export({ type: "spki", format: "pem" }));
  writeFileSync(
    join(folder, "app-update.yml"),
    stringify({ provider: "generic", url: `http://127.0.0.1:${port}/`, updaterCacheDirName: "updater" }),
  );
});
afterAll(() => {
  process.env = before;
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => {
  rmSync(join(folder, "updates.json"), { force: true });
  rmSync(join(folder, "cache"), { recursive: true, force: true });
  writeFileSync(installed, program("1.0.0"));
  chmodSync(installed, 0o755);
  updates = createUpdates({
    dataDir: folder,
    resourcesDir: folder,
    appDir: folder,
    isPackaged: true,
    version: "1.0.0",
    log: () => {},
    underWay: () => null,
    end: () => Promise.resolve(),
  });
  updates.follow((now) => (state = now));
});
afterEach(async () => {
  // There is one in a process.
  const { autoUpdater } = (await import("electron-updater")).default;
  autoUpdater.removeAllListeners();
  files.clear();
  held.clear();
});

/** Ends the program; answers the version that starts the next time. */
function nextStart(): string | undefined {
  onQuit?.(0);
  return /# (.*)\n/.exec(readFileSync(installed, "utf8"))?.[1];
}

it.runIf(process.platform === "linux")(
  "looks again for what was chosen while it was looking for something else",
  async () => {
    release("latest", "1.3.0");
    release("beta", "1.4.0-beta.1");
    held.set("latest-linux.yml", []);
    const first = updates.check();
    await expect.poll(() => held.get("latest-linux.yml")?.length).toBe(1);
    const second = updates.setChannel("beta");
    letGo("latest-linux.yml");
    await Promise.all([first, second]);
    await expect.poll(() => [state.status, state.version]).toEqual(["ready", "1.4.0-beta.1"]);
  },
);

it.runIf(process.platform === "linux")(
  "does not put a version in place at the end of the program after something else was chosen",
  async () => {
    release("latest", "1.3.0");
    release("1.0.0", "1.0.0");
    await updates.check();
    await expect.poll(() => state.status).toBe("ready");
    await updates.stayAt("1.0.0");
    expect([state.status, state.version, state.stays_at]).toEqual(["idle", null, "1.0.0"]);
    expect(nextStart()).toBe("1.0.0");
  },
);

it.runIf(process.platform === "linux")(
  "stops fetching a version when another is chosen, and puts that in place",
  async () => {
    release("latest", "1.3.0");
    release("1.2.0", "1.2.0");
    held.set("TokenGovernance-1.3.0.AppImage", []);
    await updates.check();
    await expect.poll(() => held.get("TokenGovernance-1.3.0.AppImage")?.length).toBeGreaterThan(0);
    expect([state.status, state.version]).toEqual(["downloading", "1.3.0"]);
    const chosen = updates.stayAt("1.2.0");
    setTimeout(() => letGo("TokenGovernance-1.3.0.AppImage"), 500);
    await chosen;
    await expect.poll(() => [state.status, state.version]).toEqual(["ready", "1.2.0"]);
    expect(nextStart()).toBe("1.2.0");
  },
);

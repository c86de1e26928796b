/**
 * The packaged app, made with a stand-in for Electron's runtime (whose download cannot be had everywhere): what lies
 * in it, which fuses are set, and that the local project starts from its content alone.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { extractAll, listPackage } from "@electron/asar";
import { FuseV1Options, getCurrentFuseWire } from "@electron/fuses";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { ensureBuilt, repositoryDir } from "../cli/build.ts";

const folder = mkdtempSync(join(tmpdir(), "console-package-"));
const unpacked = join(folder, "dist/linux-unpacked");
const asar = join(unpacked, "resources/app.asar");
const content = join(folder, "content");
let files: Set<string>;

function run(script: string, args: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [join(repositoryDir, script), ...args], {
    cwd: repositoryDir,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  child.stderr.on("data", (chunk) => (output += chunk));
  return new Promise((resolve, reject) => {
    child.once("exit", (code) => (code === 0 ? resolve() : reject(new Error(output.slice(-4_000)))));
  });
}

/** What electron-builder needs of Electron's distribution: the names, and a binary with a fuse wire. */
function makeStandIn(): string {
  const dist = join(folder, "electron-dist");
  mkdirSync(join(dist, "locales"), { recursive: true });
  mkdirSync(join(dist, "resources"));
  const sentinel = "dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX";
  writeFileSync(join(dist, "electron"), `#!/bin/sh\n# ${sentinel}\x01\x09101010101r\n`, "latin1");
  chmodSync(join(dist, "electron"), 0o755);
  for (const name of ["LICENSE", "LICENSES.chromium.html", "locales/en-US.pak"])
    writeFileSync(join(dist, name), "");
  const { version } = JSON.parse(
    readFileSync(join(repositoryDir, "node_modules/electron/package.json"), "utf8"),
  ) as {
    version: string;
  };
  writeFileSync(join(dist, "version"), version);
  return dist;
}

beforeAll(async () => {
  await ensureBuilt(() => {});
  await run("node_modules/electron-builder/cli.js", [
    "--linux",
    "dir",
    "--config",
    "electron-builder.config.ts",
    `-c.electronDist=${makeStandIn()}`,
    `-c.directories.output=${join(folder, "dist")}`,
  ]);
  files = new Set(listPackage(asar, { isPack: false }).map((name) => name.replaceAll("\\", "/").slice(1)));
  extractAll(asar, content);
}, 240_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("the package has the built processes and their workers", () => {
  const { main } = JSON.parse(readFileSync(join(content, "package.json"), "utf8")) as { main: string };
  for (const file of [
    main,
    "out/main/local-project-worker.js",
    "out/main/reconciliation-worker.js",
    "out/main/reconciliation-part-worker.js",
    "out/main/replay-worker.js",
    "out/preload/index.cjs",
    "out/renderer/index.html",
  ]) {
    expect(files.has(file), file).toBe(true);
  }
});

test("the package has every migration and preset, and what makes a local project", () => {
  for (const part of ["supabase/migrations", "supabase/presets"]) {
    for (const name of readdirSync(join(repositoryDir, part)))
      expect(files.has(`${part}/${name}`), name).toBe(true);
  }
  expect(files.has("local-project/bootstrap.sql")).toBe(true);
  expect(files.has("local-project/realtime.sql")).toBe(true);
  expect([...files].some((name) => name.endsWith("pglite.wasm"))).toBe(true);
});

test("the package has no sources, no tests, no tools and no renderer libraries", () => {
  const foreign = [...files].filter(
    (name) =>
      /^(electron|shared|renderer|cli|tests|bench|docs|\.)/.test(name) ||
      /^node_modules\/(react|@mantine|echarts|vite|electron|typescript|playwright)\//.test(name) ||
      (/\.tsx?$/.test(name) && !name.endsWith(".d.ts")) ||
      /(^|\/)\.env/.test(name),
  );
  expect(foreign).toEqual([]);
});

test("every module that the main process imports is in the package", () => {
  for (const name of readdirSync(join(content, "out/main")).filter((one) => one.endsWith(".js"))) {
    const code = readFileSync(join(content, "out/main", name), "utf8");
    const imported = [...code.matchAll(/(?:^import .*? from |^import |import\()"([^"./][^"]*)"/gm)].map(
      ([, from]) => from ?? "",
    );
    for (const specifier of imported) {
      if (specifier.startsWith("node:") || specifier === "electron" || specifier === "keytar") continue;
      const parts = specifier.split("/");
      const module = specifier.startsWith("@") ? parts.slice(0, 2).join("/") : parts[0];
      expect(
        existsSync(join(content, "node_modules", module ?? "", "package.json")),
        `${name}: ${specifier}`,
      ).toBe(true);
    }
  }
});

test("native modules lie unpacked beside the package, where the system can load them", () => {
  const native = [...files].filter((name) => name.endsWith(".node"));
  expect(native.length).toBeGreaterThan(0);
  for (const name of native)
    expect(existsSync(join(unpacked, "resources/app.asar.unpacked", name)), name).toBe(true);
});

test("the preload is one CommonJS file that requires nothing but electron", () => {
  expect([...files].filter((name) => /^out\/preload\/.+/.test(name))).toEqual(["out/preload/index.cjs"]);
  const code = readFileSync(join(content, "out/preload/index.cjs"), "utf8");
  expect([...code.matchAll(/\brequire\((.+?)\)/g)].map(([, name]) => name)).toEqual(['"electron"']);
  expect(code).not.toMatch(/^\s*(import|export)\s/m);
  // The names of the contract, and none of its schemas.
  expect(code.length).toBeLessThan(10_000);
});

test("the preload gives the page named functions and nothing of Electron", () => {
  const code = readFileSync(join(content, "out/preload/index.cjs"), "utf8");
  const exposed: Record<string, unknown> = {};
  const sent: unknown[][] = [];
  const ipcRenderer = {
    on: () => {},
    invoke: (...args: unknown[]) => void sent.push(args),
    send: (...args: unknown[]) => void sent.push(args),
  };
  const contextBridge = { exposeInMainWorld: (name: string, value: unknown) => (exposed[name] = value) };
  // oxlint-disable-next-line no-implied-eval -- runs the built file as the sandbox does.
  new Function("require", "module", "exports", code)(
    () => ({ contextBridge, ipcRenderer }),
    { exports: {} },
    {},
  );
  const { operations, streams } = exposed.consoleBridge as Record<
    string,
    Record<string, (...args: unknown[]) => unknown>
  >;
  expect(Object.keys(exposed)).toEqual(["consoleBridge"]);
  operations?.["rules.list"]?.({});
  const stop = streams?.feed?.({ filter: {} }, () => {}) as () => void;
  stop();
  expect(sent).toEqual([
    ["console:call", "rules.list", {}],
    ["console:follow", 1, "feed", { filter: {} }],
    ["console:unfollow", 1],
  ]);
  // Extra arguments do not reach the channel.
  sent.length = 0;
  operations?.["rules.list"]?.({}, "more", "rules.save");
  expect(sent).toEqual([["console:call", "rules.list", {}]]);
});

test("the fuses keep Node's back doors shut and hold the package's integrity", async () => {
  const wire = await getCurrentFuseWire(join(unpacked, "token-governance"));
  // A fuse's state is an ASCII digit in the binary..
  const enabled = "1".charCodeAt(0);
  const isOn = (fuse: FuseV1Options): boolean => wire[fuse] === enabled;
  expect({
    runAsNode: isOn(FuseV1Options.RunAsNode),
    cookieEncryption: isOn(FuseV1Options.EnableCookieEncryption),
    nodeOptions: isOn(FuseV1Options.EnableNodeOptionsEnvironmentVariable),
    inspect: isOn(FuseV1Options.EnableNodeCliInspectArguments),
    asarIntegrity: isOn(FuseV1Options.EnableEmbeddedAsarIntegrityValidation),
    onlyAsar: isOn(FuseV1Options.OnlyLoadAppFromAsar),
    fileProtocol: isOn(FuseV1Options.GrantFileProtocolExtraPrivileges),
  }).toEqual({
    runAsNode: false,
    cookieEncryption: true,
    nodeOptions: false,
    inspect: false,
    asarIntegrity: true,
    onlyAsar: true,
    fileProtocol: false,
  });
});

/** As much of Electron as the main process needs to bring the console up, and a page that asks it things. */
const standInForElectron = `
  import { EventEmitter } from "node:events";
  const handlers = new Map();
  const listeners = new Map();
  const ignore = () => {};
  class Contents extends EventEmitter {
    mainFrame = { url: "app://console/" };
    setWindowOpenHandler = ignore;
    isDestroyed = () => false;
    send = ignore;
  }
  export class BrowserWindow extends EventEmitter {
    static getAllWindows = () => [];
    webContents = new Contents();
    loadURL = async () => void setTimeout(() => converse(this.webContents), 0);
    isFocused = () => false; isMaximized = () => false; getNormalBounds = () => ({});
    show = ignore;
  }
  export const app = Object.assign(new EventEmitter(), {
    name: "x", isPackaged: true, enableSandbox: ignore, setPath: ignore, requestSingleInstanceLock: () => true, releaseSingleInstanceLock: ignore, getVersion: () => "0", setAboutPanelOptions: ignore, setBadgeCount: ignore,
    getPreferredSystemLanguages: () => [],
    whenReady: async () => {}, getAppPath: () => process.env.APP_PATH,
    exit: (code) => process.exit(code), setAsDefaultProtocolClient: ignore,
    quit() { let held = false; this.emit("before-quit", { preventDefault: () => (held = true) }); if (!held) process.exit(0); },
  });
  export const ipcMain = { handle: (name, handler) => handlers.set(name, handler), on: (name, handler) => listeners.set(name, handler) };
  export const dialog = { showErrorBox: (title, text) => console.error(title, text) };
  export const Menu = { buildFromTemplate: ignore, setApplicationMenu: ignore };
  export const nativeTheme = {};
  export class Notification { static isSupported = () => false; }
  export const protocol = { registerSchemesAsPrivileged: ignore };
  export const screen = { getAllDisplays: () => [] };
  export const clipboard = {};
  export const shell = { openPath: ignore };
  export const powerMonitor = new EventEmitter();
  process.resourcesPath = process.env.APP_PATH;
  export const session = { defaultSession: new Proxy({}, { get: (_t, name) =>
    name === "webRequest" ? { onBeforeRequest: ignore } : name === "protocol" ? { handle: ignore } : ignore }) };

  async function converse(sender) {
    const call = (name, input) => handlers.get("console:call")({ senderFrame: sender.mainFrame, sender }, name, input);
    let state;
    do {
      await new Promise((resolve) => setTimeout(resolve, 200));
      state = (await call("connection.state", {})).value;
    } while (state.status === "starting" || state.status === "connecting" || state.status === "catching_up");
    const text = Buffer.from("name,age\\nAda,36\\n");
    const upload = await call("finance.open_upload", { file_name: "wrong.csv", size_bytes: text.length });
    const { upload_id } = upload.value;
    await call("finance.upload_chunk", { upload_id, offset_bytes: 0, base64: text.toString("base64") });
    const started = await call("finance.start_run", { upload_ids: [upload_id], from: "2026-11-01", to: "2026-11-02" });
    let run = started.value;
    while (run.status === "running") {
      await new Promise((resolve) => setTimeout(resolve, 100));
      run = (await call("finance.runs", {})).value[0];
    }
    console.log(JSON.stringify({ status: state.status, failure: state.failure, rules: (await call("rules.list", {})).value?.rules.length, run }));
    app.quit();
  }
`;

test("the packaged main process brings up local project and reconciliation, and ends in order: from its content alone", async () => {
  const electron = join(content, "node_modules/electron");
  mkdirSync(electron);
  writeFileSync(join(electron, "package.json"), '{"name":"electron","type":"module","main":"index.js"}');
  writeFileSync(join(electron, "index.js"), standInForElectron);
  const dataDir = join(folder, "data");
  const child = spawn(
    process.execPath,
    [join(content, "out/main/index.js"), `--data-dir=${dataDir}`, "--no-sample-data"],
    {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, APP_PATH: content },
    },
  );
  onTestFinished(() => void child.kill("SIGKILL"));
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => (stdout += chunk));
  child.stderr.on("data", (chunk) => (stderr += chunk));
  const code = await new Promise((resolve) => child.once("close", resolve));
  expect(stdout, stderr).not.toBe("");
  const said = JSON.parse(stdout) as {
    status: string;
    rules: number;
    run: { status: string; failure: { message: string } };
  };
  expect(said, stderr).toMatchObject({ status: "live", failure: null });
  expect(said.rules).toBeGreaterThan(3);
  // The worker ran: it is the one that reads the file and says what is wrong with it.
  expect(said.run).toMatchObject({ status: "failed" });
  expect(said.run.failure.message).toContain("wrong.csv");
  expect(code, stderr).toBe(0);
}, 240_000);

test("the list of all parts names what is shipped, with versions and licences", () => {
  const { components } = JSON.parse(
    execFileSync("npm", ["run", "-s", "sbom"], {
      cwd: repositoryDir,
      encoding: "utf8",
      maxBuffer: 50_000_000,
    }),
  ) as { components: { name: string; version: string; licenses?: unknown[] }[] };
  for (const name of ["zod", "electron-updater", "pg"])
    expect(components.find((each) => each.name === name)?.licenses, name).toBeDefined();
  // Every module in the package is on the list.
  const shipped = [...files].flatMap(
    (file) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\/package\.json$/.exec(file)?.[1] ?? [],
  );
  const listed = new Set(components.map(({ name }) => name));
  expect(shipped.filter((name) => !listed.has(name) && !listed.has(name.split("/").at(-1) ?? ""))).toEqual(
    [],
  );
});

test("installers for Windows, macOS and Linux are configured, update from a signed feed, and tell what is new", async () => {
  const { default: configuration } = (await import("../electron-builder.config.ts")) as {
    default: Record<string, Record<string, unknown>>;
  };
  const targets = (system: string): unknown =>
    ((configuration[system] ?? {})["target"] as { target: string }[]).map(({ target }) => target);
  expect([targets("linux"), targets("mac"), targets("win")]).toEqual([
    ["AppImage", "deb"],
    ["dmg", "zip"],
    ["nsis"],
  ]);
  // Stripe's exports open with the program, but it takes no other program's place.
  const associations = ["linux", "mac", "win"].map((system) => configuration[system]?.["fileAssociations"]);
  const exports = [expect.objectContaining({ ext: "csv", rank: "Alternate", role: "Viewer" })];
  expect(associations).toEqual([exports, exports, undefined]);
  expect(configuration["publish"]).toMatchObject({
    provider: "generic",
    url: expect.stringMatching(/^https:/),
  });
  expect(configuration["releaseInfo"]?.["releaseNotes"]).toContain("The first release");
});

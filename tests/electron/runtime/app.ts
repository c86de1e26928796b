/** Electron's app: the life of the application. */
import { spawn, spawnSync } from "node:child_process";
import { EventEmitter } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { Chromium } from "./chromium.ts";
import { makeEvent } from "./contents.ts";
import { IpcMain } from "./ipc-main.ts";
import { StandInSession } from "./session.ts";
import { setGround, StandInWindow } from "./window.ts";

export const ipcMain = new IpcMain();
export const defaultSession = new StandInSession();

class App extends EventEmitter {
  name = "Electron";
  isPackaged = process.env.STAND_IN_PACKAGED === "1";
  badgeCount = 0;
  aboutPanel: object = {};
  aboutPanelsShown = 0;
  readonly protocolClients: string[] = [];
  readonly commandLine = {
    appendSwitch: (_name: string, _value?: string): void => {},
    hasSwitch: (name: string): boolean =>
      process.argv.some((each) => each === `--${name}` || each.startsWith(`--${name}=`)),
  };
  #paths: Record<string, string> = { home: homedir(), temp: tmpdir(), appData: join(homedir(), ".config") };
  #appPath = "";
  #version = "";
  #isQuitting = false;
  #hasLock = false;
  #chromium: Chromium | null = null;
  #becomeReady: () => void = () => {};
  readonly #ready = new Promise<void>((resolve) => {
    this.#becomeReady = resolve;
  });

  /** The folder that was named on the command line, as Electron's own default application reads it. */
  loadPackage(folder: string): string {
    const read = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>;
    this.#appPath = folder;
    this.#version = read.version ?? "";
    this.name = read.productName ?? read.name ?? this.name;
    this.#paths.userData = join(this.#paths.appData ?? "", this.name);
    return join(folder, read.main ?? "index.js");
  }

  async start(): Promise<void> {
    if (this.#isQuitting) return;
    const userData = this.getPath("userData");
    mkdirSync(userData, { recursive: true });
    const chromium = new Chromium(userData);
    this.#chromium = chromium;
    setGround({
      chromium,
      session: defaultSession,
      ipc: ipcMain,
      onContents: (contents) => this.emit("web-contents-created", makeEvent({}), contents),
      onWindow: (window) => this.emit("browser-window-created", makeEvent({}), window),
      onClosed: () => {
        if (this.#isQuitting || StandInWindow.getAllWindows().length > 0) return;
        if (this.listenerCount("window-all-closed") > 0) this.emit("window-all-closed");
        else this.quit();
      },
    });
    await defaultSession.watchDownloads(chromium, join(userData, "Downloads"));
    await chromium.root.send("Target.setDiscoverTargets", { discover: true });
    await chromium.root.send("Target.setAutoAttach", {
      autoAttach: true,
      waitForDebuggerOnStart: true,
      flatten: true,
    });
    this.#becomeReady();
    this.emit("ready", makeEvent({}), {});
  }

  whenReady = (): Promise<void> => this.#ready;
  isReady = (): boolean => this.#chromium !== null;
  enableSandbox(): void {
    if (this.#chromium) throw new Error("app.enableSandbox() can only be called before app is ready");
  }
  setPath(name: string, path: string): void {
    this.#paths[name] = path;
  }
  getPath(name: string): string {
    const path = this.#paths[name];
    if (path === undefined) throw new Error(`Failed to get '${name}' path`);
    return path;
  }
  getAppPath = (): string => this.#appPath;
  getVersion = (): string => this.#version;
  getName = (): string => this.name;
  setName(name: string): void {
    this.name = name;
  }
  getLocale = (): string => "en-GB";
  getPreferredSystemLanguages = (): string[] => ["en-GB"];
  setAppUserModelId(_id: string): void {}
  setAsDefaultProtocolClient(scheme: string): boolean {
    this.protocolClients.push(scheme);
    return true;
  }
  isDefaultProtocolClient = (scheme: string): boolean => this.protocolClients.includes(scheme);
  setBadgeCount(count = 0): boolean {
    this.badgeCount = count;
    return true;
  }
  getBadgeCount = (): number => this.badgeCount;
  setAboutPanelOptions(options: object): void {
    this.aboutPanel = options;
  }
  showAboutPanel(): void {
    this.aboutPanelsShown += 1;
  }
  focus(): void {
    StandInWindow.getAllWindows()[0]?.focus();
  }

  /** One instance for each userData folder: the others hand over what they were started with, and end. */
  requestSingleInstanceLock(data: unknown = {}): boolean {
    if (this.#hasLock) return true;
    const userData = this.getPath("userData");
    mkdirSync(userData, { recursive: true });
    const address = join(
      tmpdir(),
      `stand-in-${createHash("sha256").update(userData).digest("hex").slice(0, 16)}`,
    );
    if (existsSync(address) && handOver(address, { argv: process.argv, cwd: process.cwd(), data }))
      return false;
    rmSync(address, { force: true });
    const server = createServer((socket) => {
      socket.once("data", (text) => {
        const {
          argv,
          cwd,
          data: given,
        } = JSON.parse(text.toString()) as { argv: string[]; cwd: string; data: unknown };
        socket.end("taken");
        this.emit("second-instance", makeEvent({}), argv, cwd, given);
      });
    });
    server.listen(address);
    server.unref();
    this.once("quit", () => rmSync(address, { force: true }));
    this.#hasLock = true;
    return true;
  }
  releaseSingleInstanceLock(): void {
    this.#hasLock = false;
  }
  hasSingleInstanceLock = (): boolean => this.#hasLock;

  quit(): void {
    if (this.#isQuitting) return;
    const before = makeEvent({});
    this.emit("before-quit", before);
    if (before.defaultPrevented) return;
    this.#isQuitting = true;
    for (const window of StandInWindow.getAllWindows()) {
      if (window.close()) continue;
      this.#isQuitting = false;
      return;
    }
    const will = makeEvent({});
    this.emit("will-quit", will);
    if (will.defaultPrevented) {
      this.#isQuitting = false;
      return;
    }
    this.exit(0);
  }
  exit(code = 0): void {
    this.#isQuitting = true;
    this.emit("quit", makeEvent({}), code);
    void (this.#chromium?.close() ?? Promise.resolve()).finally(() => process.exit(code));
  }
  relaunch({ args = process.argv.slice(1) }: { args?: string[] } = {}): void {
    this.once("quit", () =>
      spawn(process.execPath, [...process.execArgv, ...args], { detached: true, stdio: "ignore" }).unref(),
    );
  }
}

/** Whether another instance took it. A program that is gone does not answer. */
function handOver(address: string, message: object): boolean {
  const program = `
    const socket = require("node:net").connect(${JSON.stringify(address)}, () => socket.write(${JSON.stringify(JSON.stringify(message))}));
    socket.once("data", () => process.exit(0));
    socket.once("error", () => process.exit(1));
    setTimeout(() => process.exit(1), 5000);`;
  // Asked and answered before the application goes on: the lock is a plain call.
  return (
    spawnSync(process.execPath, ["-e", program], { env: { ...process.env, NODE_OPTIONS: "" } }).status === 0
  );
}

export const app = new App();

/**
 * The shell with a stand-in for Electron, which does not run everywhere: what is asserted is what the shell tells
 * Electron to do, setting by setting, and what its handlers answer. tests/e2e/electron.spec.ts drives the real window.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { EventEmitter } from "node:events";
import { afterAll, beforeEach, expect, test, vi } from "vitest";
import type { Profile, Reply } from "../../../shared/contract/index.ts";
import { projectHost } from "../../../shared/contract/links.ts";
import type { Console } from "../console/console.ts";
import type { Consoles } from "../console/consoles.ts";
import type { Dispatcher } from "../console/dispatch.ts";

type Handler = (...args: never[]) => unknown;

const electron = vi.hoisted(() => {
  const state = {
    windows: [] as { options: Record<string, unknown>; webContents: FakeContents }[],
    schemes: [] as unknown[],
    handlers: new Map<string, Handler>(),
    listeners: new Map<string, Handler>(),
    appListeners: new Map<string, Handler>(),
    session: {} as Record<string, Handler>,
    protocols: new Map<string, Handler>(),
    calls: [] as string[],
    hasLock: true,
    isPackaged: true,
    errors: [] as string[],
    notifications: [] as { title: string; body: string }[],
    workArea: { x: 0, y: 0, width: 1920, height: 1080 },
    appPath: "/app",
    menu: [] as { label?: string; submenu?: { id?: string; click?: () => void }[] }[],
  };
  return state;
});

class FakeContents extends EventEmitter {
  mainFrame = { url: "app://console/" };
  sent: unknown[][] = [];
  openHandler: ((details: { url: string }) => { action: string }) | null = null;
  url = "app://console/";
  isDestroyed = (): boolean => false;
  send = (...args: unknown[]): void => void this.sent.push(args);
  setWindowOpenHandler = (handler: never): void => void (this.openHandler = handler);
  getURL = (): string => this.url;
  loadURL = async (url: string): Promise<void> => void electron.calls.push(`load ${url}`);
  reload = (): void => void electron.calls.push("reload");
  focus = (): void => {};
  sendInputEvent = ({ type, keyCode, modifiers }: Record<string, unknown>): void =>
    void electron.calls.push(`${type as string} ${[...((modifiers ?? []) as string[]), keyCode].join("+")}`);
}

vi.mock("electron", () => {
  const remember = (name: string) => (handler: Handler) => {
    electron.session[name] = handler;
  };
  const session = {
    setPermissionRequestHandler: remember("permissionRequest"),
    setPermissionCheckHandler: remember("permissionCheck"),
    setDevicePermissionHandler: remember("device"),
    setDisplayMediaRequestHandler: remember("displayMedia"),
    setUSBProtectedClassesHandler: remember("usb"),
    webRequest: { onBeforeRequest: remember("beforeRequest") },
    availableSpellCheckerLanguages: ["en-GB", "en-US", "de"],
    setSpellCheckerEnabled: (isOn: boolean) => electron.calls.push(`spelling ${isOn}`),
    setSpellCheckerDictionaryDownloadURL: (url: string) => electron.calls.push(`dictionaries ${url}`),
    setSpellCheckerLanguages: (languages: string[]) => electron.calls.push(`languages ${languages.join()}`),
    on: (name: string, handler: Handler) => remember(name)(handler),
    protocol: { handle: (scheme: string, handler: Handler) => electron.protocols.set(scheme, handler) },
  };
  class BrowserWindow extends EventEmitter {
    static getAllWindows = (): unknown[] => electron.windows;
    options: Record<string, unknown>;
    webContents: FakeContents;
    loaded = "";
    constructor(options: Record<string, unknown>) {
      super();
      this.options = options;
      this.webContents = new FakeContents();
      electron.windows.push(this);
      electron.appListeners.get("web-contents-created")?.({} as never, this.webContents as never);
    }
    loadURL = async (url: string): Promise<void> => void (this.loaded = url);
    show = (): void => void electron.calls.push("show");
    focus = (): void => void electron.calls.push("focus");
    maximize = (): void => void electron.calls.push("maximize");
    isMinimized = (): boolean => false;
    isMaximized = (): boolean => false;
    isFocused = (): boolean => false;
    getNormalBounds = () => ({ x: 10, y: 20, width: 1000, height: 700 });
  }
  return {
    app: {
      name: "Token Governance",
      get isPackaged() {
        return electron.isPackaged;
      },
      enableSandbox: () => electron.calls.push("enableSandbox"),
      setPath: (name: string, path: string) => electron.calls.push(`setPath ${name} ${path}`),
      requestSingleInstanceLock: () => electron.hasLock,
      quit: () => electron.calls.push("quit"),
      exit: (code: number) => electron.calls.push(`exit ${code}`),
      whenReady: () => {
        electron.calls.push("ready");
        return Promise.resolve();
      },
      getAppPath: () => electron.appPath,
      getVersion: () => "0.1.0",
      getPreferredSystemLanguages: () => ["de-AT", "en-US"],
      setAboutPanelOptions: () => {},
      setBadgeCount: (count: number) => electron.calls.push(`badge ${count}`),
      releaseSingleInstanceLock: () => {},
      setAsDefaultProtocolClient: (scheme: string) => electron.calls.push(`client of ${scheme}`),
      on(name: string, handler: Handler) {
        const before = electron.appListeners.get(name);
        electron.appListeners.set(name, (...args) => {
          before?.(...args);
          handler(...args);
        });
      },
    },
    BrowserWindow,
    dialog: { showErrorBox: (title: string, text: string) => electron.errors.push(`${title} ${text}`) },
    ipcMain: {
      handle: (channel: string, handler: Handler) => electron.handlers.set(channel, handler),
      on: (channel: string, handler: Handler) => electron.listeners.set(channel, handler),
    },
    Menu: {
      buildFromTemplate: (template: unknown) => template,
      setApplicationMenu: (menu: never) => void (electron.menu = menu),
    },
    powerMonitor: {
      on: (name: string, handler: Handler) => electron.appListeners.set(`power ${name}`, handler),
    },
    shell: { openPath: async (path: string) => void electron.calls.push(`open ${path}`) },
    nativeTheme: { shouldUseDarkColors: false },
    Notification: class extends EventEmitter {
      static isSupported = (): boolean => true;
      options: { title: string; body: string };
      constructor(options: { title: string; body: string }) {
        super();
        this.options = options;
      }
      show = (): void => void electron.notifications.push(this.options);
    },
    protocol: {
      registerSchemesAsPrivileged: (schemes: unknown[]) => {
        electron.calls.push("registerScheme");
        electron.schemes.push(...schemes);
      },
    },
    clipboard: { writeText: (text: string) => electron.calls.push(`copy ${text}`) },
    screen: {
      getDisplayMatching: () => ({ workArea: electron.workArea }),
      getAllDisplays: () => [{ bounds: electron.workArea }],
    },
    session: { defaultSession: session },
  };
});

const { runShell } = await import("./shell.ts");
const { readWindowState } = await import("./window.ts");
const { setMenu } = await import("./menu.ts");

// As Electron sets it.
Object.assign(process, { resourcesPath: "/opt/resources" });

const folder = mkdtempSync(join(tmpdir(), "console-shell-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
mkdirSync(join(folder, "out/renderer"), { recursive: true });
writeFileSync(join(folder, "out/renderer/index.html"), "<!doctype html><title>console</title>");

const asked: unknown[][] = [];
const stopped: string[] = [];
/** Every stream that was asked for, by the shell and by pages. */
const followed: unknown[] = [];
let emitNotice: ((item: unknown) => void) | null = null;
let wantsNotifications = true;
const dispatcher: Dispatcher = {
  call: async (name, input) => {
    if (name === "settings.get") return { ok: true, value: { notifications: wantsNotifications } };
    asked.push([name, input]);
    return { ok: true, value: "answer" };
  },
  follow: (name, input, emit) => {
    followed.push(name);
    if (name === "notices") emitNotice = emit;
    else if (name === "bad")
      return { ok: false, error: { code: "x", message: "no such", advice: null, details: null } };
    else emit({ first: input });
    return { ok: true, value: () => void stopped.push(String(name)) };
  },
};

/** A data folder with these projects, each with a console of its own once it is opened. */
function consolesOf(profiles: readonly Profile[] = [], close = async (): Promise<void> => {}): Consoles {
  const opened = new Map<string | undefined, Console>();
  return {
    open(profileId) {
      const profile = profiles.find((each) => each.profile_id === profileId) ?? null;
      if (profileId !== undefined && profile === null) return null;
      const known = opened.get(profileId);
      if (known) return known;
      const made: Console = {
        dispatcher: {
          call: async (name, input) => {
            if (name !== "settings.get") openedFor.push(profileId ?? "none");
            return dispatcher.call(name, input);
          },
          follow(name, input, emit) {
            if (name === "rail") emitRail.set(profileId, emit);
            return dispatcher.follow(name, input, emit);
          },
        },
        project: () => profile,
        start: () => {},
        underWay: () => null,
        close: async () => {},
      };
      opened.set(profileId, made);
      return made;
    },
    list: () => [...opened.values()],
    projectAt: (host) => profiles.find((each) => projectHost(each) === host) ?? null,
    bring: (path) => `id-of-${basename(path)}`,
    onShow: (show) => void (showElsewhere = show),
    async release(console) {
      for (const [id, each] of opened) if (each === console && opened.size > 1) opened.delete(id);
    },
    underWay: () => null,
    close,
  };
}
const openedFor: string[] = [];
const emitRail = new Map<string | undefined, (item: unknown) => void>();
let showElsewhere: (profileId: string) => void = () => {};

async function start(consoles = consolesOf()): Promise<{
  options: Record<string, unknown>;
  webContents: FakeContents;
  loaded: string;
}> {
  await runShell({
    dataDir: join(folder, "data"),
    outDir: join(folder, "out"),
    openConsoles: () => ({ ok: true, value: consoles }),
    log: () => {},
    logFolder: join(folder, "logs"),
    reportCrash: (what, details) => void electron.calls.push(`report ${what}: ${details}`),
  });
  return electron.windows.at(-1) as never;
}

beforeEach(() => {
  electron.windows.length = 0;
  electron.calls.length = 0;
  electron.errors.length = 0;
  electron.notifications.length = 0;
  electron.handlers.clear();
  electron.listeners.clear();
  electron.appListeners.clear();
  electron.hasLock = true;
  electron.isPackaged = true;
  asked.length = 0;
  stopped.length = 0;
  openedFor.length = 0;
  rmSync(join(folder, "data"), { recursive: true, force: true });
});

const callHandler = (event: unknown, name: unknown, input: unknown): Promise<Reply<unknown>> =>
  electron.handlers.get("console:call")?.(event as never, name as never, input as never) as Promise<
    Reply<unknown>
  >;

test("the window is sandboxed, isolated and without Node, in every setting", async () => {
  const { options, loaded } = await start();
  expect(options.webPreferences).toEqual({
    preload: join(folder, "out/preload/index.cjs"),
    sandbox: true,
    contextIsolation: true,
    nodeIntegration: false,
    nodeIntegrationInWorker: false,
    nodeIntegrationInSubFrames: false,
    webSecurity: true,
    allowRunningInsecureContent: false,
    experimentalFeatures: false,
    webviewTag: false,
    navigateOnDragDrop: false,
    safeDialogs: true,
    spellcheck: true,
    devTools: false,
  });
  expect(loaded).toBe("app://console/");
  expect(options.show).toBe(false);
});

test("the sandbox and the scheme are set before the app is ready", async () => {
  await start();
  const before = electron.calls.slice(0, electron.calls.indexOf("ready"));
  expect(before).toEqual(expect.arrayContaining(["enableSandbox", "registerScheme"]));
  expect(electron.schemes[0]).toEqual({
    scheme: "app",
    privileges: { standard: true, secure: true, supportFetchAPI: true, codeCache: true },
  });
});

test("developer tools are for development alone", async () => {
  electron.isPackaged = false;
  const { options } = await start();
  expect((options.webPreferences as { devTools: boolean }).devTools).toBe(true);
});

test("a second instance ends and brings the first one's window up", async () => {
  electron.hasLock = false;
  await start();
  expect(electron.calls).toContain("quit");
  expect(electron.windows).toHaveLength(0);
  electron.hasLock = true;
  await start();
  const again = (argv: readonly string[]): void =>
    void electron.appListeners.get("second-instance")?.({} as never, argv as never);
  again(["/opt/app"]);
  expect(electron.calls).toContain("focus");
  again(["/opt/app", "token-governance://users/42"]);
  expect(electron.calls).toContain("load app://console/#/users/42");
  electron.calls.length = 0;
  again(["/opt/app", "token-governance://elsewhere/42", "https://example.com/"]);
  expect(electron.calls.filter((call) => call.startsWith("load"))).toEqual([]);
});

test("the page goes nowhere else, opens no window and attaches no webview", async () => {
  const { webContents } = await start();
  expect(webContents.openHandler?.({ url: "https://evil.example" })).toEqual({ action: "deny" });
  for (const name of ["will-navigate", "will-redirect", "will-frame-navigate"]) {
    const prevented = (url: string): boolean => {
      let isPrevented = false;
      webContents.emit(name, { url, preventDefault: () => (isPrevented = true) });
      return isPrevented;
    };
    for (const url of [
      "https://evil.example",
      "file:///etc/passwd",
      "app://other/",
      "data:text/html,x",
      "javascript:1",
      "not a url",
    ]) {
      expect(prevented(url), `${name} ${url}`).toBe(true);
    }
    expect(prevented("app://console/rules"), name).toBe(false);
  }
  let isPrevented = false;
  webContents.emit("will-attach-webview", { preventDefault: () => (isPrevented = true) });
  expect(isPrevented).toBe(true);
});

test("no permission is given but to write the clipboard from our own page", async () => {
  await start();
  const request = (permission: string, url = "app://console/"): boolean => {
    let given: boolean | null = null;
    electron.session.permissionRequest?.(
      { getURL: () => url } as never,
      permission as never,
      ((answer: boolean) => (given = answer)) as never,
    );
    return given as unknown as boolean;
  };
  for (const permission of [
    "media",
    "geolocation",
    "notifications",
    "midi",
    "clipboard-read",
    "openExternal",
    "fullscreen",
    "usb",
    "serial",
    "hid",
  ]) {
    expect(request(permission), permission).toBe(false);
    expect(
      electron.session.permissionCheck?.(null as never, permission as never, "app://console" as never),
      permission,
    ).toBe(false);
  }
  expect(request("clipboard-sanitized-write")).toBe(true);
  expect(request("clipboard-sanitized-write", "https://evil.example")).toBe(false);
  const writes = (origin: string): unknown =>
    electron.session.permissionCheck?.(null as never, "clipboard-sanitized-write" as never, origin as never);
  expect([writes("app://console"), writes("https://evil.example")]).toEqual([true, false]);
  expect(electron.session.device?.({} as never)).toBe(false);
  expect(electron.session.usb?.({} as never)).toEqual([]);
  let shared: unknown = null;
  electron.session.displayMedia?.({} as never, ((answer: unknown) => (shared = answer)) as never);
  expect(shared).toEqual({});
  const isSaved = (url: string): boolean => {
    let isPrevented = false;
    const event = { preventDefault: () => (isPrevented = true) };
    electron.session["will-download"]?.(event as never, { getURL: () => url } as never);
    return !isPrevented;
  };
  expect(isSaved("blob:app://console/1")).toBe(true);
  expect([isSaved("https://evil.example/a.exe"), isSaved("blob:https://evil.example/1")]).toEqual([
    false,
    false,
  ]);
});

test("nothing is loaded from outside the package", async () => {
  await start();
  const isCancelled = (url: string): boolean => {
    let answer: { cancel: boolean } | null = null;
    electron.session.beforeRequest?.(
      { url } as never,
      ((given: { cancel: boolean }) => (answer = given)) as never,
    );
    return (answer as unknown as { cancel: boolean }).cancel;
  };
  for (const url of [
    "https://evil.example/x.js",
    "http://127.0.0.1:54321/",
    "ws://127.0.0.1/",
    "file:///etc/passwd",
    "app://other/",
  ]) {
    expect(isCancelled(url), url).toBe(true);
  }
  expect(isCancelled("app://console/assets/a.js")).toBe(false);
});

test("app:// serves the renderer with a strict policy, and nothing outside it", async () => {
  await start();
  const get = async (url: string, method = "GET"): Promise<Response> =>
    (await electron.protocols.get("app")?.({ url, method } as never)) as Response;
  const page = await get("app://console/rules/x");
  expect(page.status).toBe(200);
  expect(await page.text()).toContain("<title>console");
  const policy = page.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).toContain("connect-src 'none'");
  expect(policy).not.toContain("unsafe-eval");
  expect(policy).toContain("script-src 'self';");
  expect((await get("app://other/")).status).toBe(404);
  expect((await get("app://console/../../secret.json")).status).toBe(404);
  expect((await get("app://console/%2e%2e/%2e%2e/etc/passwd.json")).status).toBe(404);
  expect((await get("app://console/", "POST")).status).toBe(405);
});

test("a call of our own main frame reaches the dispatcher", async () => {
  const { webContents } = await start();
  const event = { senderFrame: webContents.mainFrame, sender: webContents };
  expect(await callHandler(event, "rules.list", {})).toEqual({ ok: true, value: "answer" });
  expect(asked).toEqual([["rules.list", {}]]);
});

test.each<[string, (contents: FakeContents) => unknown]>([
  ["a frame that is gone", (sender) => ({ senderFrame: null, sender })],
  ["a frame inside the page", (sender) => ({ senderFrame: { url: "app://console/" }, sender })],
  [
    "a page of another origin",
    (sender) => {
      sender.mainFrame.url = "https://evil.example/";
      return { senderFrame: sender.mainFrame, sender };
    },
  ],
  [
    "another window",
    () => {
      const other = new FakeContents();
      return { senderFrame: other.mainFrame, sender: other };
    },
  ],
])("%s is refused on every channel", async (_what, eventFor) => {
  const { webContents } = await start();
  const event = eventFor(webContents);
  const before = [...followed];
  expect(await callHandler(event, "rules.list", {})).toMatchObject({
    ok: false,
    error: { code: "foreign_sender" },
  });
  electron.listeners.get("console:follow")?.(event as never, 1 as never, "rail" as never, {} as never);
  electron.listeners.get("console:unfollow")?.(event as never, 1 as never);
  expect(asked).toEqual([]);
  expect(followed).toEqual(before);
  expect(webContents.sent).toEqual([]);
});

test("streams reach the page that follows them and end when it unfollows, navigates or is gone", async () => {
  const { webContents } = await start();
  const event = { senderFrame: webContents.mainFrame, sender: webContents };
  const follow = (id: unknown, name = "rail"): void =>
    void electron.listeners.get("console:follow")?.(
      event as never,
      id as never,
      name as never,
      { x: 1 } as never,
    );
  follow(1);
  expect(webContents.sent).toEqual([["console:item", 1, { first: { x: 1 } }]]);
  follow(1);
  follow("2");
  follow(2.5);
  follow({});
  follow(3, "bad");
  expect(webContents.sent).toHaveLength(1);
  electron.listeners.get("console:unfollow")?.(event as never, 1 as never);
  expect(stopped).toEqual(["rail"]);
  follow(4);
  webContents.emit("did-start-navigation", { isMainFrame: true, isSameDocument: true });
  expect(stopped).toHaveLength(1);
  webContents.emit("did-start-navigation", { isMainFrame: true, isSameDocument: false });
  expect(stopped).toHaveLength(2);
  follow(5);
  webContents.emit("destroyed");
  expect(stopped).toHaveLength(3);
});

test("one page cannot follow without bound", async () => {
  const { webContents } = await start();
  const event = { senderFrame: webContents.mainFrame, sender: webContents };
  for (let id = 1; id <= 500; id++)
    electron.listeners.get("console:follow")?.(event as never, id as never, "rail" as never, {} as never);
  expect(webContents.sent).toHaveLength(100);
});

test("a notice is a desktop notification while nobody looks, and none where the person wants none", async () => {
  await start();
  emitNotice?.({ level: "info", title: "A user was flagged", body: "See Users." });
  await expect
    .poll(() => electron.notifications)
    .toEqual([{ title: "A user was flagged", body: "See Users." }]);
  wantsNotifications = false;
  emitNotice?.({ level: "info", title: "Another", body: "x" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(electron.notifications).toHaveLength(1);
  wantsNotifications = true;
});

test("a link on macOS comes by its own event", async () => {
  await start();
  let isPrevented = false;
  electron.appListeners.get("open-url")?.(
    { preventDefault: () => (isPrevented = true) } as never,
    "token-governance://rules/spam" as never,
  );
  expect(isPrevented).toBe(true);
  expect(electron.calls).toContain("load app://console/#/rules/spam");
});

test("another window shows the same console beside the first, and each of them is answered", async () => {
  const first = (await start()).webContents;
  electron.menu
    .flatMap(({ submenu }) => submenu ?? [])
    .find((item) => item.id === "new-window")
    ?.click?.();
  expect(electron.windows).toHaveLength(2);
  const second = electron.windows[1]?.webContents as FakeContents;
  for (const sender of [first, second]) {
    const event = { senderFrame: sender.mainFrame, sender };
    expect(await callHandler(event, "rules.list", {})).toEqual({ ok: true, value: "answer" });
  }
});

const projects = ["acme", "beta"].map(
  (name) =>
    ({ profile_id: name, name, kind: "supabase", url: `https://${name}.supabase.co` }) as unknown as Profile,
);
type OpenWindow = EventEmitter & { webContents: FakeContents; loaded: string };
const openWindows = (): OpenWindow[] => electron.windows as never;
/** Which project answers in a window. */
async function projectIn({ webContents }: OpenWindow): Promise<string | undefined> {
  await callHandler({ senderFrame: webContents.mainFrame, sender: webContents }, "rules.list", {});
  return openedFor.at(-1);
}
const keepWindows = (open: readonly object[]): void => {
  mkdirSync(join(folder, "data"), { recursive: true });
  writeFileSync(join(folder, "data/window.json"), JSON.stringify({ open }));
};

test("each project has a window of its own; links, notices and the next start find it", async () => {
  const consoles = consolesOf(projects);
  keepWindows([
    { project: "acme", place: "/users/42" },
    { project: "forgotten", place: "/rules" },
    { project: "beta", place: "javascript:1" },
  ]);
  await start(consoles);
  const [acme, beta] = openWindows() as [OpenWindow, OpenWindow];
  expect(openWindows().map(({ loaded }) => loaded)).toEqual(["app://console/#/users/42", "app://console/"]);
  expect([await projectIn(acme), await projectIn(beta)]).toEqual(["acme", "beta"]);

  const again = (link: string): void =>
    void electron.appListeners.get("second-instance")?.(
      {} as never,
      ["/opt/app", link] as never,
      "/" as never,
    );
  const loads = (contents: FakeContents): string[] => {
    const seen: string[] = [];
    contents.loadURL = async (url) => void seen.push(url);
    return seen;
  };
  const [ofAcme, ofBeta] = [loads(acme.webContents), loads(beta.webContents)];
  again("token-governance://rules/spam?project=acme.supabase.co");
  again("token-governance://audit");
  again("token-governance://watch?project=gone.supabase.co");
  expect(ofAcme).toEqual(["app://console/#/rules/spam"]);
  // The fake window does not report its focus: beta's is the one that was opened last.
  expect(ofBeta).toEqual(["app://console/#/audit"]);
  expect(electron.errors).toEqual([expect.stringContaining("gone.supabase.co")]);

  electron.notifications.length = 0;
  emitNotice?.({ level: "info", title: "A user was flagged", body: "See Users.", place: "/users" });
  await expect.poll(() => electron.notifications).toMatchObject([{ title: "beta: A user was flagged" }]);

  emitRail.get("acme")?.({ open_alerts: 2, conflicts: 1 });
  emitRail.get("beta")?.({ open_alerts: 4, conflicts: 0 });
  expect(electron.calls.filter((call) => call.startsWith("badge")).at(-1)).toBe("badge 7");

  showElsewhere("acme");
  expect(openWindows()).toHaveLength(2);
  acme.emit("closed");
  await expect.poll(() => consoles.list()).toHaveLength(1);
  expect(electron.calls.at(-1)).toBe("badge 4");
  showElsewhere("acme");
  expect(openWindows()).toHaveLength(3);
  expect(await projectIn(openWindows()[2] as OpenWindow)).toBe("acme");
});

test("the windows that are open are kept at once, and not forgotten by quitting", async () => {
  await start(consolesOf(projects));
  showElsewhere("beta");
  const kept = (): unknown =>
    (JSON.parse(readFileSync(join(folder, "data/window.json"), "utf8")) as { open: unknown }).open;
  const [, beta] = openWindows();
  if (beta) beta.webContents.url = "app://console/#/rules?mode=shadow";
  beta?.webContents.emit("did-navigate-in-page");
  const both = [
    { project: null, place: null },
    { project: "beta", place: "/rules?mode=shadow" },
  ];
  expect(kept()).toEqual(both);
  electron.appListeners.get("before-quit")?.({ preventDefault: () => {} } as never);
  beta?.emit("closed");
  expect(kept()).toEqual(both);
});

test("files that are dropped on the icon go to Finance's import, together, in the window used last", async () => {
  const event = { preventDefault: () => electron.calls.push("prevented") };
  // macOS may send one before there is a window.
  const starting = start();
  electron.appListeners.get("open-file")?.(event as never, "/tmp/first.csv" as never);
  await starting;
  expect(openWindows().map(({ loaded }) => loaded)).toEqual([
    "app://console/#/finance/new?files=id-of-first.csv",
  ]);
  for (const path of ["/tmp/a.csv", "/tmp/b.csv"])
    electron.appListeners.get("open-file")?.(event as never, path as never);
  const expected = "load app://console/#/finance/new?files=id-of-a.csv,id-of-b.csv";
  await expect.poll(() => electron.calls).toContain(expected);
  electron.appListeners.get("second-instance")?.(
    {} as never,
    ["/opt/app", "c.csv"] as never,
    "/tmp" as never,
  );
  await expect.poll(() => electron.calls).toContain("load app://console/#/finance/new?files=id-of-c.csv");
});

test("a right click on a link to a screen copies it as others can open it", async () => {
  const { contextMenuItems } = await import("./context-menu.ts");
  const items = (linkURL: string) =>
    contextMenuItems(
      { linkURL, isEditable: false, selectionText: "", dictionarySuggestions: [] } as never,
      { kind: "supabase", url: "https://acme.supabase.co" } as Profile,
      () => {},
      () => {},
    );
  const [copy] = items("app://console/#/users/42/ledger");
  (copy?.click as (() => void) | undefined)?.();
  expect(electron.calls).toContain("copy token-governance://users/42/ledger?project=acme.supabase.co");
  expect(items("https://evil.example/#/users/42")).toEqual([]);
});

test("each arrangement of displays has a place of its own for the window", () => {
  const path = join(folder, "places.json");
  const here = `${electron.workArea.x},${electron.workArea.y},${electron.workArea.width}x${electron.workArea.height}`;
  const place = { x: 5, y: 6, width: 1000, height: 700, isMaximized: false };
  writeFileSync(
    path,
    JSON.stringify({ ...place, x: 50, places: { [here]: place, "another desk": { ...place, x: 9 } } }),
  );
  expect(readWindowState(path)).toMatchObject({ x: 5, y: 6 });
  writeFileSync(path, JSON.stringify({ ...place, x: 50, places: { "another desk": place } }));
  expect(readWindowState(path)).toMatchObject({ x: 50 });
});

test("the menu leads to each desk, and to the log", async () => {
  await start();
  const items = electron.menu.flatMap(({ submenu }) => submenu ?? []);
  for (const id of ["go-watch", "go-finance", "open-log"]) items.find((item) => item.id === id)?.click?.();
  expect(electron.calls).toContain("load app://console/#/watch");
  expect(electron.calls).toContain("load app://console/#/finance");
  expect(electron.calls).toContain(`open ${join(folder, "logs")}`);
});

test("the menu finds on the page and has every act with its key, given to the page as pressed", async () => {
  await start();
  interface Item {
    readonly id?: string;
    readonly click?: () => void;
    readonly submenu?: readonly Item[];
  }
  const all = (items: readonly Item[]): Item[] => items.flatMap((item) => [item, ...all(item.submenu ?? [])]);
  const press = (id: string): string[] => {
    electron.calls.length = 0;
    all(electron.menu as Item[])
      .find((item) => item.id === id)
      ?.click?.();
    return electron.calls;
  };
  const chord = process.platform === "darwin" ? "meta+F" : "control+F";
  expect(press("find")).toEqual([`keyDown ${chord}`, `keyUp ${chord}`]);
  expect(press("act-user-t")).toEqual(["keyDown t", "char t", "keyUp t"]);
  const menuKeys = all(electron.menu as Item[]).flatMap(
    ({ id }) => /^act-user-(.+)$/.exec(id ?? "")?.[1] ?? [],
  );
  expect(menuKeys).toEqual(expect.arrayContaining(["b", "f", "n", "t"]));
  expect(new Set(menuKeys).size).toBe(menuKeys.length);
  // A letter that the menu took would never reach a field.
  const acts = { go() {}, openWindow() {}, print() {}, press() {}, logFolder: "", noticesPath: "" };
  for (const platform of ["darwin", "linux"] as const) {
    setMenu(acts, platform);
    const items = all(electron.menu as Item[]).filter(({ id }) => id?.startsWith("act-"));
    expect(items.length).toBeGreaterThan(5);
    for (const item of items)
      expect(item).toMatchObject(platform === "darwin" ? {} : { registerAccelerator: false });
    if (platform === "darwin") for (const item of items) expect(item).not.toHaveProperty("accelerator");
  }
});

test("spelling asks nobody but the system, or the server of newer versions", async () => {
  const { checkSpelling } = await import("./spelling.ts");
  const { session } = await import("electron");
  const feed = join(folder, "app-update.yml");
  const said = (path: string, platform: NodeJS.Platform): string[] => {
    electron.calls.length = 0;
    checkSpelling(session.defaultSession, path, ["de-AT", "en-US"], platform);
    return [...electron.calls];
  };
  writeFileSync(feed, "provider: generic\nurl: https://updates.example/desk\n");
  expect(said(feed, "darwin")).toEqual([]);
  expect(said(join(folder, "none.yml"), "linux")).toEqual(["spelling false"]);
  expect(said(feed, "win32")).toEqual([
    "dictionaries https://updates.example/desk/dictionaries/",
    "languages en-US",
  ]);
});

test("a right click on a wrong word offers others, and to learn it", async () => {
  const { contextMenuItems } = await import("./context-menu.ts");
  const done: string[] = [];
  const items = contextMenuItems(
    {
      isEditable: true,
      selectionText: "",
      misspelledWord: "refnud",
      dictionarySuggestions: ["refund"],
      editFlags: {},
    } as never,
    null,
    (word) => void done.push(`replace ${word}`),
    (word) => void done.push(`learn ${word}`),
  );
  for (const item of items.slice(0, 2)) (item.click as () => void)();
  expect(done).toEqual(["replace refund", "learn refnud"]);
});

test("after a sleep the connection is tried at once", async () => {
  await start();
  electron.appListeners.get("power resume")?.();
  expect(asked).toEqual([["connection.retry", {}]]);
});

test("a page that ends is reported and comes back, but not for ever", async () => {
  const { webContents } = await start();
  for (let count = 0; count < 5; count += 1)
    webContents.emit("render-process-gone", {}, { reason: "crashed" });
  expect(electron.calls.filter((call) => call === "report the page: crashed")).toHaveLength(5);
  expect(electron.calls.filter((call) => call === "reload")).toHaveLength(3);
  expect(electron.errors).toHaveLength(2);
  webContents.emit("render-process-gone", {}, { reason: "clean-exit" });
  expect(electron.calls.filter((call) => call.startsWith("report"))).toHaveLength(5);
});

test("a console that cannot open says why and ends", async () => {
  await runShell({
    dataDir: join(folder, "data"),
    outDir: join(folder, "out"),
    openConsoles: () => ({
      ok: false,
      error: { code: "data_folder_in_use", message: "In use.", advice: "Close it.", details: null },
    }),
    log: () => {},
    logFolder: join(folder, "logs"),
    reportCrash: (what, details) => void electron.calls.push(`report ${what}: ${details}`),
  });
  expect(electron.errors).toEqual(["In use. Close it."]);
  expect(electron.calls).toContain("exit 1");
  expect(electron.windows).toHaveLength(0);
});

test("everything is written before the app ends", async () => {
  let isClosed = false;
  await runShell({
    dataDir: join(folder, "data"),
    outDir: join(folder, "out"),
    openConsoles: () => ({ ok: true, value: consolesOf([], async () => void (isClosed = true)) }),
    log: () => {},
    logFolder: join(folder, "logs"),
    reportCrash: (what, details) => void electron.calls.push(`report ${what}: ${details}`),
  });
  let isPrevented = false;
  electron.appListeners.get("before-quit")?.({ preventDefault: () => (isPrevented = true) } as never);
  expect(isPrevented).toBe(true);
  await expect.poll(() => electron.calls.filter((one) => one === "quit")).toHaveLength(1);
  expect(isClosed).toBe(true);
  isPrevented = false;
  electron.appListeners.get("before-quit")?.({ preventDefault: () => (isPrevented = true) } as never);
  expect(isPrevented).toBe(false);
});

test.each([
  ["nothing kept", null, { width: 1360, height: 860 }],
  ["damaged", "{", { width: 1360, height: 860 }],
  ["absurd", '{"width":"x","height":1}', { width: 1360, height: 860 }],
  ["too small", '{"x":0,"y":0,"width":10,"height":10}', { x: 0, y: 0, width: 900, height: 600 }],
  ["on a screen that is gone", '{"x":5000,"y":0,"width":1000,"height":700}', { width: 1000, height: 700 }],
  [
    "fine",
    '{"x":40,"y":30,"width":1000,"height":700,"isMaximized":true}',
    { x: 40, y: 30, width: 1000, height: 700, isMaximized: true },
  ],
])("a window state that is %s gives a window one can reach", (_what, text, expected) => {
  const path = join(folder, "window.json");
  if (text === null) rmSync(path, { force: true });
  else writeFileSync(path, text);
  expect(readWindowState(path)).toEqual({ isMaximized: false, ...expected });
});

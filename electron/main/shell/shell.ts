/** The console in Electron's windows. The only folder that imports electron. */
import { join } from "node:path";
import { app, BrowserWindow, dialog, powerMonitor, session, type WebContents } from "electron";
import type { Failure } from "../../../shared/contract/index.ts";
import { linkScheme } from "../../../shared/contract/links.ts";
import type { Result } from "../../../shared/governance/result.ts";
import type { Consoles } from "../console/consoles.ts";
import type { Dispatcher, Log } from "../console/dispatch.ts";
import type { Updates } from "../console/settings/updates.ts";
import { reportChildren } from "./crashes.ts";
import { filesInArguments, placeOfFiles, targetInArguments, targetOfLink } from "./deep-link.ts";
import { guardAllContents, guardSession } from "./guards.ts";
import { serveIpc } from "./ipc.ts";
import { takeLanguage } from "./language.ts";
import { type MenuActs, pressKey, setMenu } from "./menu.ts";
import { registerScheme, serveApp } from "./protocol.ts";
import { checkSpelling } from "./spelling.ts";
import { createUpdates } from "./updates.ts";
import { createWindows, type Windows } from "./windows.ts";

interface ShellOptions {
  readonly dataDir: string;
  /** Folder of the built main, preload and renderer. */
  readonly outDir: string;
  /** Opens the data folder, or answers why it cannot be opened. `appDir` holds the program's resources. */
  readonly openConsoles: (appDir: string, updates: Updates) => Result<Consoles, Failure>;
  readonly log: Log;
  readonly logFolder: string;
  /** Writes a report that stays on this machine. */
  readonly reportCrash: (what: string, details: string) => void;
}

/** Answers once the windows are there, or the app is ending because another instance runs or the data folder cannot open. */
export async function runShell(options: ShellOptions): Promise<void> {
  const { dataDir, outDir, log } = options;
  app.enableSandbox();
  registerScheme();
  app.setPath("userData", join(dataDir, "electron"));
  if (!app.requestSingleInstanceLock()) {
    app.quit();
    return;
  }
  app.setAsDefaultProtocolClient(linkScheme);
  const outside = listenOutside();
  guardAllContents();
  reportChildren(options.reportCrash);
  await app.whenReady();
  prepareSession(outDir);

  const ending = endInOrder(log);
  const updates = createUpdates({
    dataDir,
    resourcesDir: process.resourcesPath,
    appDir: app.getAppPath(),
    isPackaged: app.isPackaged,
    version: app.getVersion(),
    log,
    underWay: () => consoles.underWay(),
    async end() {
      for (let waited = 0; ipc.inFlight() > 0 && waited < 10_000; waited += 50)
        await new Promise((resolve) => setTimeout(resolve, 50));
      await ending.end();
      // The next version takes it while this one ends.
      app.releaseSingleInstanceLock();
    },
  });
  const opened = options.openConsoles(app.getAppPath(), updates);
  if (!opened.ok) return endWith(opened.error);
  const consoles = opened.value;
  ending.close = () => consoles.close();
  const windows = createWindows({
    consoles,
    preloadPath: join(outDir, "preload/index.cjs"),
    dataDir,
    log,
    reportCrash: options.reportCrash,
    onMade: (contents, dispatcher) => followLanguage(contents, dispatcher, () => setMenu(menu), log),
  });
  const menu = menuOf(windows, options.logFolder);
  setMenu(menu);
  const ipc = serveIpc((contents) => windows.dispatcherOf(contents), log);
  // After a sleep the connections are tried at once, not when their next attempt is due.
  powerMonitor.on("resume", () => {
    for (const { dispatcher } of consoles.list()) void dispatcher.call("connection.retry", {});
  });
  outside.start(windows, consoles);
  liveWithoutWindows(() => windows.openAnother());
  updates.start();
}

/** Links and files, from the arguments, from another start of the program, and from macOS by events of their own. */
function listenOutside() {
  const patienceMs = 200;
  let target = targetInArguments(process.argv);
  let files = filesInArguments(process.argv.slice(1), process.cwd());
  let begun: { readonly windows: Windows; readonly consoles: Consoles } | null = null;
  const placeOf = (paths: readonly string[], consoles: Consoles): string =>
    placeOfFiles(paths.map((path) => consoles.bring(path)));
  let timer: NodeJS.Timeout | null = null;
  const bring = (paths: readonly string[]): void => {
    files = [...files, ...paths];
    if (!begun || files.length === 0) return;
    // Files that are dropped together come one by one.
    timer ??= setTimeout(() => {
      timer = null;
      const { windows, consoles } = begun as NonNullable<typeof begun>;
      windows.follow({ place: placeOf(files.splice(0), consoles), project: null });
    }, patienceMs);
  };
  app.on("second-instance", (_event, argv, folder) => {
    const paths = filesInArguments(argv.slice(1), folder);
    if (paths.length === 0) begun?.windows.follow(targetInArguments(argv));
    bring(paths);
  });
  app.on("open-url", (event, link) => {
    event.preventDefault();
    if (begun) begun.windows.follow(targetOfLink(link));
    else target = targetOfLink(link);
  });
  app.on("open-file", (event, path) => {
    event.preventDefault();
    bring([path]);
  });
  return {
    start(windows: Windows, consoles: Consoles): void {
      begun = { windows, consoles };
      const brought = files.length > 0 ? { place: placeOf(files.splice(0), consoles), project: null } : null;
      windows.openAsLeft(brought ?? target);
    },
  };
}

function menuOf(windows: Windows, logFolder: string): MenuActs {
  return {
    go: (place) => windows.go(place),
    openWindow: () => windows.openAnother(),
    print: () => windows.last()?.webContents.print(),
    press: (key, modifiers) => pressKey(windows.last()?.webContents, key, modifiers),
    logFolder,
    noticesPath: join(app.isPackaged ? process.resourcesPath : app.getAppPath(), "THIRD-PARTY-NOTICES.txt"),
  };
}

/** What the windows' pages may do, where they come from, and how their spelling is checked. */
function prepareSession(outDir: string): void {
  guardSession(session.defaultSession);
  serveApp(session.defaultSession, join(outDir, "renderer"));
  checkSpelling(
    session.defaultSession,
    join(process.resourcesPath, "app-update.yml"),
    app.getPreferredSystemLanguages(),
  );
}

/** A page is loaded again when its language was changed: the menu follows. */
function followLanguage(contents: WebContents, dispatcher: Dispatcher, change: () => void, log: Log): void {
  contents.on("did-finish-load", () => {
    takeLanguage(dispatcher)
      .then((isOther) => isOther && change())
      .catch((error: unknown) => log(`error in the menu's language: ${(error as Error).message}`));
  });
}

/** macOS keeps a program without windows, and opens one when it is asked for again. */
function liveWithoutWindows(show: () => void): void {
  app.on("activate", () => {
    if (BrowserWindow.getAllWindows().length === 0) show();
  });
  app.on("window-all-closed", () => {
    if (process.platform !== "darwin") app.quit();
  });
}

/** Everything is written before the process ends. */
function endInOrder(log: Log) {
  let isClosed = false;
  const ending = {
    close: async (): Promise<void> => {},
    async end(): Promise<void> {
      await ending.close();
      isClosed = true;
    },
  };
  app.on("before-quit", (event) => {
    if (isClosed) return;
    event.preventDefault();
    void ending
      .end()
      .catch((error: unknown) => log(`error while ending: ${(error as Error).message}`))
      .then(() => {
        isClosed = true;
        app.quit();
      });
  });
  return ending;
}

function endWith({ message, advice, details }: Failure): void {
  dialog.showErrorBox(message, [advice, details].filter(Boolean).join("\n\n"));
  app.exit(1);
}

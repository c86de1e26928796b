/** The console in Electron's window. The only folder that imports electron. */
import { join } from "node:path";
import { app, BrowserWindow, dialog, powerMonitor, session } from "electron";
import type { Failure } from "../../../shared/contract/index.ts";
import type { Result } from "../../../shared/governance/result.ts";
import type { Console } from "../console/console.ts";
import type { Log } from "../console/dispatch.ts";
import type { Updates } from "../console/settings/updates.ts";
import { bringBack, reportChildren } from "./crashes.ts";
import { showContextMenus } from "./context-menu.ts";
import { linkScheme, placeInArguments, placeOfLink } from "./deep-link.ts";
import { guardAllContents, guardSession } from "./guards.ts";
import { serveIpc } from "./ipc.ts";
import { setMenu } from "./menu.ts";
import { showNotices, showWaiting } from "./notifications.ts";
import { appOrigin, registerScheme, serveApp } from "./protocol.ts";
import { createUpdates } from "./updates.ts";
import { openWindow } from "./window.ts";

export interface ShellOptions {
  readonly dataDir: string;
  /** Folder of the built main, preload and renderer. */
  readonly outDir: string;
  /** Answers the console, or why it cannot be opened. `appDir` holds the program's resources. */
  readonly openConsole: (appDir: string, updates: Updates) => Result<Console, Failure>;
  readonly log: Log;
  readonly logFolder: string;
  /** Writes a report that stays on this machine. */
  readonly reportCrash: (what: string, details: string) => void;
}

/** Answers once the window is there, or the app is ending because another instance runs or the console cannot open. */
export async function runShell(options: ShellOptions): Promise<void> {
  const { dataDir, outDir, openConsole, log } = options;
  app.enableSandbox();
  registerScheme();
  app.setPath("userData", join(dataDir, "electron"));
  if (!app.requestSingleInstanceLock()) {
    app.quit();
    return;
  }
  const windows = new Set<BrowserWindow>();
  /** The one that was used last: links, notifications and the menu are about it. */
  let window: BrowserWindow | null = null;
  app.setAsDefaultProtocolClient(linkScheme);
  const go = (place: string): void => {
    // Only the fragment differs: the page stays, and its router goes there.
    window?.webContents
      .loadURL(`${appOrigin}/#${place}`)
      .catch((error: unknown) => log(`A place could not be shown: ${(error as Error).message}`));
  };
  const come = (place: string | null): void => {
    if (window?.isMinimized()) window.restore();
    window?.show();
    window?.focus();
    if (place) go(place);
  };
  let firstPlace = placeInArguments(process.argv);
  app.on("second-instance", (_event, argv) => come(placeInArguments(argv)));
  // macOS gives links by this event, also before the app is ready.
  app.on("open-url", (event, link) => {
    event.preventDefault();
    if (window) come(placeOfLink(link));
    else firstPlace = placeOfLink(link);
  });
  guardAllContents();
  reportChildren(options.reportCrash);
  await app.whenReady();
  guardSession(session.defaultSession);
  serveApp(session.defaultSession, join(outDir, "renderer"));
  setMenu({
    go,
    openWindow: () => show(),
    print: () => window?.webContents.print(),
    logFolder: options.logFolder,
    noticesPath: join(app.isPackaged ? process.resourcesPath : app.getAppPath(), "THIRD-PARTY-NOTICES.txt"),
  });

  let isClosed = false;
  const updates = createUpdates({
    dataDir,
    resourcesDir: process.resourcesPath,
    appDir: app.getAppPath(),
    isPackaged: app.isPackaged,
    version: app.getVersion(),
    log,
    underWay: () => served.underWay(),
    async end() {
      for (let waited = 0; ipc.inFlight() > 0 && waited < 10_000; waited += 50)
        await new Promise((resolve) => setTimeout(resolve, 50));
      await served.close();
      isClosed = true;
      // The next version takes it while this one ends.
      app.releaseSingleInstanceLock();
    },
  });
  const opened = openConsole(app.getAppPath(), updates);
  if (!opened.ok) {
    endWith(opened.error);
    return;
  }
  const served = opened.value;
  served.start();
  const ipc = serveIpc(
    served.dispatcher,
    (contents) => [...windows].some((each) => each.webContents === contents),
    log,
  );
  showNotices(served.dispatcher, () => window, go, log);
  showWaiting(served.dispatcher);
  // After a sleep the connection is tried at once, not when its next attempt is due.
  powerMonitor.on("resume", () => void served.dispatcher.call("connection.retry", {}));

  const show = (): void => {
    const made = openWindow({
      preloadPath: join(outDir, "preload/index.cjs"),
      statePath: join(dataDir, "window.json"),
      place: firstPlace,
      others: windows.size,
    });
    windows.add(made);
    window = made;
    firstPlace = null;
    showContextMenus(made);
    made.on("focus", () => {
      window = made;
    });
    made.on("closed", () => {
      windows.delete(made);
      if (window === made) window = [...windows].at(-1) ?? null;
    });
    bringBack(made.webContents, options.reportCrash);
  };
  show();
  liveWithoutWindows(show);
  updates.start();
  app.on("before-quit", (event) => {
    if (isClosed) return;
    // Everything is written before the process ends.
    event.preventDefault();
    void served
      .close()
      .catch((error: unknown) => log(`error while ending: ${(error as Error).message}`))
      .then(() => {
        isClosed = true;
        app.quit();
      });
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

function endWith({ message, advice, details }: Failure): void {
  dialog.showErrorBox(message, [advice, details].filter(Boolean).join("\n\n"));
  app.exit(1);
}

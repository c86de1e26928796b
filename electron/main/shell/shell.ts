/** The console in Electron's window. The only folder that imports electron. */
import { join } from "node:path";
import { app, BrowserWindow, dialog, session } from "electron";
import type { Failure } from "../../../shared/contract/index.ts";
import type { Result } from "../../../shared/governance/result.ts";
import type { Console } from "../console/console.ts";
import type { Log } from "../console/dispatch.ts";
import { guardAllContents, guardSession } from "./guards.ts";
import { serveIpc } from "./ipc.ts";
import { setMenu } from "./menu.ts";
import { showNotices } from "./notifications.ts";
import { registerScheme, serveApp } from "./protocol.ts";
import { openWindow } from "./window.ts";

export interface ShellOptions {
  readonly dataDir: string;
  /** Folder of the built main, preload and renderer. */
  readonly outDir: string;
  /** Answers the console, or why it cannot be opened. `appDir` holds the program's resources. */
  readonly openConsole: (appDir: string) => Result<Console, Failure>;
  readonly log: Log;
}

/** Answers once the window is there, or the app is ending because another instance runs or the console cannot open. */
export async function runShell({ dataDir, outDir, openConsole, log }: ShellOptions): Promise<void> {
  app.enableSandbox();
  registerScheme();
  app.setPath("userData", join(dataDir, "electron"));
  if (!app.requestSingleInstanceLock()) {
    app.quit();
    return;
  }
  let window: BrowserWindow | null = null;
  app.on("second-instance", () => {
    if (window?.isMinimized()) window.restore();
    window?.show();
    window?.focus();
  });
  guardAllContents();
  await app.whenReady();
  guardSession(session.defaultSession);
  serveApp(session.defaultSession, join(outDir, "renderer"));
  setMenu();

  const opened = openConsole(app.getAppPath());
  if (!opened.ok) {
    const { message, advice, details } = opened.error;
    dialog.showErrorBox(message, [advice, details].filter(Boolean).join("\n\n"));
    app.exit(1);
    return;
  }
  const served = opened.value;
  served.start();
  serveIpc(served.dispatcher, (contents) => window?.webContents === contents, log);
  showNotices(served.dispatcher, () => window, log);

  const show = (): void => {
    const made = openWindow({
      preloadPath: join(outDir, "preload/index.cjs"),
      statePath: join(dataDir, "window.json"),
    });
    window = made;
    made.on("closed", () => {
      window = null;
    });
    made.webContents.on("render-process-gone", (_event, { reason }) => {
      log(`The page ended: ${reason}`);
      if (reason !== "clean-exit") made.webContents.reload();
    });
  };
  show();
  app.on("activate", () => {
    if (BrowserWindow.getAllWindows().length === 0) show();
  });
  app.on("window-all-closed", () => {
    if (process.platform !== "darwin") app.quit();
  });
  let isClosed = false;
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

/**
 * The module `electron` of the stand-in: what the shell uses of it, on a real Chromium. Where it differs from Electron
 * is written in docs/DESKTOP.md. What is not here is not used; a use of it fails where it is imported.
 */
import { EventEmitter } from "node:events";
import { type ClientRequest, request as requestHttp, type RequestOptions } from "node:http";
import { request as requestHttps } from "node:https";
import { isRegistered, registerScheme } from "./addresses.ts";
import { app, defaultSession } from "./app.ts";
import { WebContents } from "./contents.ts";
import { StandInWindow } from "./window.ts";

export { app, ipcMain } from "./app.ts";
export {
  clipboard,
  crashReporter,
  dialog,
  Menu,
  MenuItem,
  nativeTheme,
  Notification,
  powerMonitor,
  safeStorage,
  screen,
  shell,
} from "./native.ts";
export { StandInWindow as BrowserWindow };

export const session = {
  defaultSession,
  /** A session of no window: what is fetched in it passes no handler of ours, as in Electron. */
  fromPartition: (_name: string, _options?: object): object => ({}),
};

/** Electron's own network; here Node's. Redirects are followed by whoever asks. */
export const net = {
  request({
    session: _session,
    redirect: _redirect,
    protocol = "https:",
    ...options
  }: RequestOptions & { session?: object; redirect?: string }): ClientRequest {
    return (protocol === "http:" ? requestHttp : requestHttps)({ ...options, protocol });
  },
};

/** Squirrel's, on macOS alone. */
export const autoUpdater = new EventEmitter();

export const protocol = {
  registerSchemesAsPrivileged(schemes: readonly { scheme: string; privileges?: object }[]): void {
    if (app.isReady())
      throw new Error("protocol.registerSchemesAsPrivileged should be called before app is ready");
    for (const { scheme, privileges } of schemes) registerScheme(scheme, privileges);
  },
  isRegistered,
};

export const webContents = {
  getAllWebContents: (): WebContents[] => StandInWindow.getAllWindows().map((window) => window.webContents),
  fromDevToolsTargetId: (targetId: string): WebContents | undefined =>
    webContents.getAllWebContents().find((each) => each.targetId === targetId),
  fromId: (id: number): WebContents | undefined =>
    webContents.getAllWebContents().find((each) => each.id === id),
};

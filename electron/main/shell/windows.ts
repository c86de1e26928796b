/** The windows. Each shows one project; what comes from outside finds the window of its own, and the next start opens them again. */
import { join } from "node:path";
import { app, type BrowserWindow, dialog, type WebContents } from "electron";
import { translated } from "../../../shared/language/index.ts";
import type { Console } from "../console/console.ts";
import type { Consoles } from "../console/consoles.ts";
import type { Dispatcher, Log } from "../console/dispatch.ts";
import { showContextMenus } from "./context-menu.ts";
import { bringBack } from "./crashes.ts";
import type { Target } from "./deep-link.ts";
import { showNotices, showWaiting } from "./notifications.ts";
import { appOrigin, isAppUrl } from "./protocol.ts";
import { keepOpenWindows, type OpenWindow, openWindow, readOpenWindows } from "./window.ts";

interface WindowsOptions {
  readonly consoles: Consoles;
  readonly preloadPath: string;
  readonly dataDir: string;
  readonly log: Log;
  readonly reportCrash: (what: string, details: string) => void;
  /** Called for each window that is made. */
  readonly onMade: (contents: WebContents, dispatcher: Dispatcher) => void;
}

export interface Windows {
  /** Those that were open when the program ended, and what it was started for in one of them. */
  openAsLeft(target: Target | null): void;
  /** The one that was used last: the menu is about it. */
  last(): BrowserWindow | null;
  /** Null for what is no window of ours. */
  dispatcherOf(contents: WebContents): Dispatcher | null;
  /** Another one on the project of the last. */
  openAnother(): void;
  /** Brings the window that a link is about to the front, with its place. */
  follow(target: Target | null): void;
  /** Shows a place in the window that was used last. */
  go(place: string): void;
}

/** The host of a project in a link that nobody here knows. */
function sayUnknown(host: string): void {
  dialog.showErrorBox(
    translated("The link is about a project that is not connected here"),
    translated(`${host}\n\nConnect it under Settings, Connections, then open the link again.`),
  );
}

/** All windows, and what they share. */
interface WindowSet extends WindowsOptions {
  readonly statePath: string;
  /** In the order of their use: the last one is the newest. */
  readonly windows: Map<BrowserWindow, Console>;
  /** How much waits in each project that is listened to. */
  readonly waiting: Map<Console, number>;
  isEnding: boolean;
}

const last = ({ windows }: WindowSet): BrowserWindow | null => [...windows.keys()].at(-1) ?? null;
const windowsOf = ({ windows }: WindowSet, served: Console): BrowserWindow[] =>
  [...windows].filter(([, each]) => each === served).map(([window]) => window);

function keep({ windows, isEnding, statePath }: WindowSet): void {
  if (isEnding || windows.size === 0) return;
  const open = [...windows].map(([{ webContents }, served]): OpenWindow => {
    const url = webContents.isDestroyed() ? "" : webContents.getURL();
    const place = isAppUrl(url) ? (url.split("#")[1] ?? null) : null;
    return { project: served.project()?.profile_id ?? null, place };
  });
  keepOpenWindows(statePath, open);
}

function showBadge({ waiting }: WindowSet): void {
  app.setBadgeCount([...waiting.values()].reduce((sum, each) => sum + each, 0));
}

/** Notices of a project, also while it has no window. */
function attend(all: WindowSet, served: Console): void {
  const { waiting, consoles, log } = all;
  if (waiting.has(served)) return;
  waiting.set(served, 0);
  showNotices(served, {
    isSeen: () => windowsOf(all, served).some((window) => window.isFocused()),
    isOneOfSeveral: () => consoles.list().length > 1,
    open(place) {
      const window = windowsOf(all, served).at(-1);
      if (window) come(all, window, place ?? null);
      else open(all, served, place ?? null);
    },
    log,
  });
  showWaiting(served.dispatcher, (count) => {
    waiting.set(served, count);
    showBadge(all);
  });
  let project = served.project()?.profile_id;
  served.dispatcher.follow("connection", {}, () => {
    if (project === served.project()?.profile_id) return;
    project = served.project()?.profile_id;
    keep(all);
  });
}

async function release(all: WindowSet, served: Console): Promise<void> {
  await all.consoles.release(served);
  if (all.consoles.list().includes(served)) return;
  all.waiting.delete(served);
  showBadge(all);
}

function open(all: WindowSet, served: Console, place: string | null): void {
  const { windows, statePath, preloadPath, reportCrash, onMade, log } = all;
  attend(all, served);
  const project = (): string | null => served.project()?.profile_id ?? null;
  const window = openWindow({ preloadPath, statePath, place, project, others: windows.size });
  const { webContents } = window;
  windows.set(window, served);
  showContextMenus(window, () => served.project());
  window.on("focus", () => {
    windows.delete(window);
    windows.set(window, served);
    keep(all);
  });
  window.on("closed", () => {
    windows.delete(window);
    keep(all);
    if (!all.isEnding && windowsOf(all, served).length === 0)
      release(all, served).catch((error: unknown) => log(`error while closing: ${(error as Error).message}`));
  });
  webContents.on("did-navigate-in-page", () => keep(all));
  webContents.on("did-finish-load", () => keep(all));
  bringBack(webContents, reportCrash);
  onMade(webContents, served.dispatcher);
}

function goIn({ log }: WindowSet, window: BrowserWindow, place: string): void {
  // Only the fragment differs: the page stays, and its router goes there.
  window.webContents
    .loadURL(`${appOrigin}/#${place}`)
    .catch((error: unknown) => log(`A place could not be shown: ${(error as Error).message}`));
}

function come(all: WindowSet, window: BrowserWindow, place: string | null): void {
  if (window.isMinimized()) window.restore();
  window.show();
  window.focus();
  if (place) goIn(all, window, place);
}

function openOne(all: WindowSet, project: string | undefined, place: string | null): void {
  const served = all.consoles.open(project);
  if (served) open(all, served, place);
}

function showProject(all: WindowSet, profileId: string, place: string | null): void {
  const window = [...all.windows].findLast(([, each]) => each.project()?.profile_id === profileId)?.[0];
  if (window) come(all, window, place);
  else openOne(all, profileId, place);
}

function follow(all: WindowSet, target: Target | null): void {
  if (!target?.project) {
    const window = last(all);
    if (window) come(all, window, target?.place ?? null);
    else openOne(all, undefined, target?.place ?? null);
    return;
  }
  const profile = all.consoles.projectAt(target.project);
  if (profile) showProject(all, profile.profile_id, target.place);
  else sayUnknown(target.project);
}

function openAsLeft(all: WindowSet, target: Target | null): void {
  const wanted = target?.project ? all.consoles.projectAt(target.project) : null;
  if (target?.project && !wanted) sayUnknown(target.project);
  const known = target?.project && !wanted ? null : target;
  for (const { project, place } of asLeft(readOpenWindows(all.statePath), known, wanted?.profile_id ?? null))
    openOne(all, project ?? undefined, place);
  if (all.windows.size === 0) openOne(all, undefined, known?.place ?? null);
}

export function createWindows(options: WindowsOptions): Windows {
  const { consoles } = options;
  const all: WindowSet = {
    ...options,
    statePath: join(options.dataDir, "window.json"),
    windows: new Map(),
    waiting: new Map(),
    isEnding: false,
  };
  app.on("before-quit", () => {
    all.isEnding = true;
  });
  consoles.onShow((profileId) => showProject(all, profileId, null));
  return {
    openAsLeft: (target) => openAsLeft(all, target),
    last: () => last(all),
    dispatcherOf: (contents) =>
      [...all.windows].find(([{ webContents }]) => webContents === contents)?.[1].dispatcher ?? null,
    openAnother() {
      const window = last(all);
      const served = (window && all.windows.get(window)) ?? consoles.list()[0] ?? consoles.open();
      if (served) open(all, served, null);
    },
    follow: (target) => follow(all, target),
    go(place) {
      const window = last(all);
      if (window) goIn(all, window, place);
    },
  };
}

/** The windows to open: what the program was started for decides what its own window shows. */
function asLeft(kept: readonly OpenWindow[], target: Target | null, project: string | null): OpenWindow[] {
  if (!target) return [...kept];
  const at = project === null ? kept.length - 1 : kept.findLastIndex((each) => each.project === project);
  const others = kept.filter((_, index) => index !== at);
  return [...others, { project: project ?? kept[at]?.project ?? null, place: target.place }];
}

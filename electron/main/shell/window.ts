/** The window, where it was left. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { app, BrowserWindow, nativeTheme, screen } from "electron";
import { appOrigin } from "./protocol.ts";

/** Where a window was, with the displays that were there then. */
interface WindowState {
  readonly x?: number;
  readonly y?: number;
  readonly width: number;
  readonly height: number;
  readonly isMaximized: boolean;
}

const defaultState: WindowState = { width: 1360, height: 860, isMaximized: false };
const smallest = { width: 900, height: 600 };

function isWhole(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value);
}

/** The displays that are connected, as one word: where another screen is plugged in, a window has another place. */
function displaysNow(): string {
  return screen
    .getAllDisplays()
    .map(({ bounds: { x, y, width, height } }) => `${x},${y},${width}x${height}`)
    .sort()
    .join(" ");
}

function readKept(path: string): Record<string, unknown> {
  const kept: unknown = JSON.parse(readFileSync(path, "utf8"));
  if (kept === null || typeof kept !== "object") return {};
  return kept as Record<string, unknown>;
}

/** A window of the last time: its project, and the screen it showed. */
export interface OpenWindow {
  readonly project: string | null;
  readonly place: string | null;
}

/** Those that were open when the program ended, however it ended; the one used last comes last. */
export function readOpenWindows(path: string): OpenWindow[] {
  try {
    const { open } = readKept(path);
    return (Array.isArray(open) ? (open as unknown[]) : []).slice(-20).flatMap((each) => {
      const { project, place } = (each ?? {}) as Readonly<Record<string, unknown>>;
      const isPlace = typeof place === "string" && place.startsWith("/");
      return [{ project: typeof project === "string" ? project : null, place: isPlace ? place : null }];
    });
  } catch {
    return [];
  }
}

export function keepOpenWindows(path: string, open: readonly OpenWindow[]): void {
  write(path, { open });
}

/** Changes what is given and keeps the rest; where it cannot be written the next start uses the default. */
function write(path: string, change: Readonly<Record<string, unknown>>): void {
  let kept: Record<string, unknown> = {};
  try {
    kept = readKept(path);
  } catch {
    // The first time.
  }
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(`${path}.new`, JSON.stringify({ ...kept, ...change }));
    renameSync(`${path}.new`, path);
  } catch {
    // As said.
  }
}

/** The size and place a project's window had on these displays, else the last one of any project; the default where that is not known or not on a screen any more. */
export function readWindowState(path: string, project: string | null = null): WindowState {
  let kept: Partial<WindowState>;
  try {
    const all = readKept(path);
    const places = (all["places"] ?? {}) as Record<string, Partial<WindowState> | undefined>;
    kept = places[`${displaysNow()} ${project}`] ?? places[displaysNow()] ?? (all as Partial<WindowState>);
  } catch {
    return defaultState;
  }
  if (kept === null || typeof kept !== "object" || !isWhole(kept.width) || !isWhole(kept.height))
    return defaultState;
  const size = {
    width: Math.max(kept.width, smallest.width),
    height: Math.max(kept.height, smallest.height),
    isMaximized: kept.isMaximized === true,
  };
  if (!isWhole(kept.x) || !isWhole(kept.y)) return size;
  const { workArea } = screen.getDisplayMatching({
    x: kept.x,
    y: kept.y,
    width: size.width,
    height: size.height,
  });
  // The title bar must be within reach.
  const isVisible =
    kept.x + size.width > workArea.x + 100 &&
    kept.x < workArea.x + workArea.width - 100 &&
    kept.y >= workArea.y - 10 &&
    kept.y < workArea.y + workArea.height - 50;
  return isVisible ? { ...size, x: kept.x, y: kept.y } : size;
}

function writeWindowState(path: string, window: BrowserWindow, project: string | null): void {
  const state = { ...window.getNormalBounds(), isMaximized: window.isMaximized() };
  let places: Record<string, unknown> = {};
  try {
    places = (readKept(path)["places"] ?? {}) as Record<string, unknown>;
  } catch {
    // The first window that is closed here.
  }
  // The newest alone.
  const names = [displaysNow(), `${displaysNow()} ${project}`];
  const kept = Object.entries(places).filter(([name]) => !names.includes(name));
  places = Object.fromEntries([...kept.slice(-30), ...names.map((name) => [name, state])]);
  write(path, { ...state, places });
}

interface WindowOptions {
  /** The built preload, one CommonJS file. */
  readonly preloadPath: string;
  readonly statePath: string;
  /** The screen to begin with; the last one where none is given. */
  readonly place?: string | null;
  /** The id of the project it shows, now or when it is closed. */
  readonly project?: () => string | null;
  /** How many windows are there already: this one does not cover them. */
  readonly others?: number;
}

export function openWindow(options: WindowOptions): BrowserWindow {
  const { preloadPath, statePath, place, others = 0, project = () => null } = options;
  const { isMaximized: wasMaximized, ...kept } = readWindowState(statePath, project());
  const isMaximized = wasMaximized && others === 0;
  const beside = 28 * others;
  const bounds =
    kept.x === undefined || kept.y === undefined ? kept : { ...kept, x: kept.x + beside, y: kept.y + beside };
  const window = new BrowserWindow({
    ...bounds,
    minWidth: smallest.width,
    minHeight: smallest.height,
    show: false,
    title: app.name,
    // Until the page paints: no white flash in the dark.
    backgroundColor: nativeTheme.shouldUseDarkColors ? "#16181d" : "#ffffff",
    webPreferences: {
      preload: preloadPath,
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
      devTools: !app.isPackaged,
    },
  });
  if (isMaximized) window.maximize();
  window.once("ready-to-show", () => window.show());
  window.on("close", () => writeWindowState(statePath, window, project()));
  void window.loadURL(place ? `${appOrigin}/#${place}` : `${appOrigin}/`);
  return window;
}

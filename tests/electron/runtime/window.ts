/** Electron's BrowserWindow: its events and state; what a person would see of it is the page in Chromium. */
import { EventEmitter } from "node:events";
import { type ContentsOptions, makeEvent, WebContents } from "./contents.ts";
import type { IpcMain } from "./ipc-main.ts";
import type { Chromium, Session as DevTools } from "./chromium.ts";
import type { StandInSession } from "./session.ts";

interface Bounds {
  x: number;
  y: number;
  width: number;
  height: number;
}

interface WindowOptions extends Partial<Bounds> {
  readonly title?: string;
  readonly show?: boolean;
  readonly minWidth?: number;
  readonly minHeight?: number;
  readonly webPreferences?: ContentsOptions;
}

/** What a window stands on; set when the application is ready. */
interface Ground {
  readonly chromium: Chromium;
  readonly session: StandInSession;
  readonly ipc: IpcMain;
  readonly onContents: (contents: WebContents) => void;
  readonly onWindow: (window: StandInWindow) => void;
  readonly onClosed: () => void;
}

const windows: StandInWindow[] = [];
let ground: Ground | null = null;
/** Pages that a window waits for, and what to do with one that nobody asked for. */
const awaited = new Map<string, (devTools: DevTools) => void>();
const early = new Map<string, DevTools>();

export function setGround(given: Ground): void {
  ground = given;
  given.chromium.root.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => {
    if (targetInfo.type !== "page") return;
    const devTools = given.chromium.session(sessionId);
    if (targetInfo.openerId) void takePopup(given, devTools, targetInfo);
    else if (awaited.has(targetInfo.targetId)) awaited.get(targetInfo.targetId)?.(devTools);
    else early.set(targetInfo.targetId, devTools);
  });
  given.chromium.root.on("Target.targetDestroyed", ({ targetId }) => {
    windows.find(({ webContents }) => webContents.targetId === targetId)?.destroy();
  });
}

/** window.open: the opener's handler decides. Chromium has made the page by then, but it has not begun. */
async function takePopup(
  given: Ground,
  devTools: DevTools,
  info: { targetId: string; openerId: string; url: string },
): Promise<void> {
  const opener = windows.find(({ webContents }) => webContents.targetId === info.openerId);
  const answer = opener?.webContents.openHandler?.({ url: info.url, disposition: "new-window" }) ?? {
    action: "allow",
  };
  if (answer.action !== "allow") {
    devTools.tell("Runtime.runIfWaitingForDebugger");
    return given.chromium.root.tell("Target.closeTarget", { targetId: info.targetId });
  }
  const window = new StandInWindow({}, { devTools, targetId: info.targetId });
  await window.webContents.whenAttached();
}

function waitForPage(targetId: string): Promise<DevTools> {
  const known = early.get(targetId);
  if (known) return Promise.resolve(known);
  return new Promise((resolve) => awaited.set(targetId, resolve));
}

export class StandInWindow extends EventEmitter {
  static getAllWindows(): StandInWindow[] {
    return [...windows];
  }
  static getFocusedWindow(): StandInWindow | null {
    return windows.find((each) => each.isFocused()) ?? null;
  }
  static fromWebContents(contents: WebContents): StandInWindow | null {
    return windows.find(({ webContents }) => webContents === contents) ?? null;
  }
  static fromId(id: number): StandInWindow | null {
    return windows.find((each) => each.id === id) ?? null;
  }

  readonly id = windows.length + 1;
  readonly webContents: WebContents;
  readonly options: WindowOptions;
  #bounds: Bounds;
  #title: string;
  #is = {
    visible: false,
    focused: false,
    minimized: false,
    maximized: false,
    fullScreen: false,
    destroyed: false,
  };

  constructor(options: WindowOptions = {}, popup: { devTools: DevTools; targetId: string } | null = null) {
    super();
    if (!ground) throw new Error("Cannot create BrowserWindow before app is ready");
    this.options = options;
    this.#title = options.title ?? "Electron";
    this.#bounds = {
      x: options.x ?? 0,
      y: options.y ?? 0,
      width: Math.max(options.width ?? 800, options.minWidth ?? 0),
      height: Math.max(options.height ?? 600, options.minHeight ?? 0),
    };
    const { chromium, session, ipc } = ground;
    this.webContents = new WebContents(chromium, session, ipc, options.webPreferences ?? {});
    this.webContents.size = { width: this.#bounds.width, height: this.#bounds.height };
    this.webContents.attachLater(this.#open(chromium, popup));
    this.webContents.once("dom-ready", () => this.emit("ready-to-show"));
    this.webContents.on("close-asked", () => this.close());
    windows.push(this);
    ground.onWindow(this);
    ground.onContents(this.webContents);
    if (options.show !== false && !popup) this.show();
  }

  async #open(chromium: Chromium, popup: { devTools: DevTools; targetId: string } | null): Promise<void> {
    if (popup) return this.webContents.attach(popup.devTools, popup.targetId);
    const { width, height } = this.#bounds;
    const { targetId } = await chromium.root.send("Target.createTarget", {
      url: "about:blank",
      newWindow: true,
      width,
      height,
    });
    await this.webContents.attach(await waitForPage(targetId), targetId);
  }

  async loadURL(url: string): Promise<void> {
    await this.webContents.loadURL(url);
  }
  show(): void {
    this.#is.visible = true;
    this.emit("show");
    this.focus();
  }
  showInactive(): void {
    this.#is.visible = true;
    this.emit("show");
  }
  hide(): void {
    this.#is.visible = false;
    this.blur();
  }
  focus(): void {
    for (const each of windows) if (each !== this) each.blur();
    this.#is.focused = true;
    this.emit("focus");
  }
  blur(): void {
    if (!this.#is.focused) return;
    this.#is.focused = false;
    this.emit("blur");
  }
  minimize(): void {
    this.#is.minimized = true;
    this.emit("minimize");
    this.blur();
  }
  restore(): void {
    this.#is.minimized = false;
    this.emit("restore");
  }
  maximize(): void {
    this.#is.maximized = true;
    this.emit("maximize");
  }
  unmaximize(): void {
    this.#is.maximized = false;
    this.emit("unmaximize");
  }
  setFullScreen(fullScreen: boolean): void {
    this.#is.fullScreen = fullScreen;
    this.emit(fullScreen ? "enter-full-screen" : "leave-full-screen");
  }
  isVisible = (): boolean => this.#is.visible;
  isFocused = (): boolean => this.#is.focused;
  isMinimized = (): boolean => this.#is.minimized;
  isMaximized = (): boolean => this.#is.maximized;
  isFullScreen = (): boolean => this.#is.fullScreen;
  isDestroyed = (): boolean => this.#is.destroyed;
  getBounds = (): Bounds => ({ ...this.#bounds });
  getNormalBounds = (): Bounds => ({ ...this.#bounds });
  setBounds(bounds: Partial<Bounds>): void {
    this.#bounds = { ...this.#bounds, ...bounds };
    const { width, height } = this.#bounds;
    this.webContents.size = { width, height };
    if (this.webContents.getZoomFactor() !== 1)
      this.webContents.setZoomFactor(this.webContents.getZoomFactor());
    this.emit("resize");
  }
  getTitle = (): string => this.#title;
  setTitle(title: string): void {
    this.#title = title;
  }
  flashFrame(_isFlashing: boolean): void {}
  setRepresentedFilename(_path: string): void {}
  setOverlayIcon(): void {}
  setProgressBar(): void {}

  /** Answers whether it closed. */
  close(): boolean {
    const event = makeEvent({});
    this.emit("close", event);
    if (!event.defaultPrevented) this.destroy();
    return !event.defaultPrevented;
  }
  destroy(): void {
    if (this.#is.destroyed) return;
    this.#is.destroyed = true;
    windows.splice(windows.indexOf(this), 1);
    const { targetId } = this.webContents;
    if (targetId) ground?.chromium.root.tell("Target.closeTarget", { targetId });
    this.webContents.destroyed();
    this.emit("closed");
    ground?.onClosed();
  }
}

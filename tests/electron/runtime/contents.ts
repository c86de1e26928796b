/** Electron's webContents on one page of Chromium: the preload's world, ipc, navigation, guards. */
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { inApp, inPage } from "./addresses.ts";
import type { Chromium, Session as DevTools } from "./chromium.ts";
import type { IpcMain } from "./ipc-main.ts";
import { makeBridgeEnd, makeCodec, receiveExposed, runPreload, type ToMain } from "./page-side.ts";
import type { Paused, StandInSession } from "./session.ts";

const world = "Electron Isolated Context";
const codec = makeCodec();
let lastId = 0;

interface WebFrame {
  url: string;
  readonly frameId: string;
}

export interface ContentsOptions {
  readonly preload?: string;
  readonly contextIsolation?: boolean;
  readonly nodeIntegration?: boolean;
  readonly sandbox?: boolean;
}

interface InputEvent {
  readonly type: "keyDown" | "char" | "keyUp";
  readonly keyCode: string;
  readonly modifiers?: readonly string[];
}

interface Event {
  readonly defaultPrevented: boolean;
  preventDefault(): void;
}

export function makeEvent<T extends object>(more: T): T & Event {
  const event = {
    ...more,
    defaultPrevented: false,
    preventDefault() {
      event.defaultPrevented = true;
    },
  };
  return event;
}

export class WebContents extends EventEmitter {
  readonly id = ++lastId;
  readonly session: StandInSession;
  mainFrame: WebFrame = { url: "", frameId: "" };
  targetId = "";
  openHandler: ((details: { url: string; disposition: string }) => { action: string }) | null = null;
  readonly #chromium: Chromium;
  readonly #ipc: IpcMain;
  readonly #options: ContentsOptions;
  readonly #frames = new Map<string, WebFrame>();
  /** The preload's world of each document that has one. */
  readonly #worlds = new Map<number, { readonly uniqueId: string; readonly frameId: string }>();
  #devTools: DevTools | null = null;
  #isDestroyed = false;
  #isCrashed = false;
  /** The address that the main process asked for: its own navigations are no `will-navigate`. */
  #ownNavigation: string | null = null;
  #zoom = 1;
  size: { width: number; height: number } = { width: 0, height: 0 };

  constructor(chromium: Chromium, session: StandInSession, ipc: IpcMain, options: ContentsOptions) {
    super();
    this.#chromium = chromium;
    this.session = session;
    this.#ipc = ipc;
    this.#options = options;
    if (options.nodeIntegration || options.contextIsolation === false)
      throw new Error("The stand-in runs pages without Node and with an isolated preload alone.");
  }

  /** The page that Chromium made for this. It waits for its debugger until this is done. */
  async attach(devTools: DevTools, targetId: string): Promise<void> {
    this.targetId = targetId;
    this.#devTools = devTools;
    devTools.on("Fetch.requestPaused", (paused: Paused) => void this.#onRequest(devTools, paused));
    devTools.on("Runtime.executionContextCreated", ({ context }) => {
      if (context.name === world)
        this.#worlds.set(context.id, { uniqueId: context.uniqueId, frameId: context.auxData.frameId });
    });
    devTools.on("Runtime.executionContextDestroyed", ({ executionContextId }) =>
      this.#worlds.delete(executionContextId),
    );
    devTools.on("Runtime.executionContextsCleared", () => this.#worlds.clear());
    devTools.on("Runtime.bindingCalled", ({ name, payload, executionContextId }) => {
      if (name === "electronPost") this.#onMessage(codec.decode(payload) as ToMain, executionContextId);
    });
    devTools.on("Page.frameNavigated", ({ frame }) => this.#onNavigated(frame));
    devTools.on("Page.navigatedWithinDocument", ({ frameId, url }) => {
      const frame = this.#frames.get(frameId);
      if (frame) frame.url = inApp(url);
      this.emit("did-navigate-in-page", makeEvent({}), inApp(url), frame === this.mainFrame);
    });
    devTools.on(
      "Page.frameDetached",
      ({ frameId, reason }) => reason === "remove" && this.#frames.delete(frameId),
    );
    devTools.on("Page.domContentEventFired", () => this.emit("dom-ready", makeEvent({})));
    devTools.on("Page.loadEventFired", () => this.emit("did-finish-load", makeEvent({})));
    devTools.on("Runtime.consoleAPICalled", ({ type, args }) => {
      const message = args
        .map((each: { value?: unknown; description?: string }) => each.value ?? each.description)
        .join(" ");
      this.emit("console-message", makeEvent({ level: type === "warning" ? "warning" : type, message }));
    });
    devTools.on("Inspector.targetCrashed", () => {
      this.#isCrashed = true;
      this.#worlds.clear();
      this.emit("render-process-gone", makeEvent({}), { reason: "crashed", exitCode: 5 });
    });
    devTools.on("Target.attachedToTarget", ({ sessionId }) =>
      this.#attachChild(this.#chromium.session(sessionId)),
    );
    await this.#prepare(devTools);
  }

  async #prepare(devTools: DevTools): Promise<void> {
    const bridge = `(${String(receiveExposed)})(${String(makeBridgeEnd)})`;
    const preload = this.#options.preload ? readPreload(this.#options.preload) : null;
    const isolated = `{
      const post = globalThis.electronPost;
      delete globalThis.electronPost;
      (${String(runPreload)})((${String(makeCodec)})(), ${String(makeBridgeEnd)}, post, ${
        preload === null ? "null" : `function (module, exports, require) { ${preload}\n}`
      });
    }`;
    const steps: [string, Record<string, unknown>][] = [
      ["Page.enable", {}],
      ["Inspector.enable", {}],
      ["Runtime.enable", {}],
      ["Runtime.addBinding", { name: "electronPost", executionContextName: world }],
      ["Page.addScriptToEvaluateOnNewDocument", { source: bridge }],
      ["Page.addScriptToEvaluateOnNewDocument", { source: isolated, worldName: world }],
      ["Fetch.enable", { patterns: [{ urlPattern: "*" }] }],
      ["Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: true, flatten: true }],
    ];
    const { frameTree } = await Promise.all(
      steps.map(([method, params]) => devTools.send(method, params)),
    ).then(() => devTools.send("Page.getFrameTree"));
    this.mainFrame = { url: "", frameId: frameTree.frame.id };
    this.#frames.set(frameTree.frame.id, this.mainFrame);
    devTools.tell("Runtime.runIfWaitingForDebugger");
  }

  /** A worker or a frame of another site: its requests are answered as the page's are. */
  #attachChild(child: DevTools): void {
    child.on("Fetch.requestPaused", (paused: Paused) => void this.session.answer(child, paused, this));
    child.tell("Fetch.enable", { patterns: [{ urlPattern: "*" }] });
    child.tell("Runtime.runIfWaitingForDebugger");
  }

  async #onRequest(devTools: DevTools, paused: Paused): Promise<void> {
    if (paused.resourceType === "Document" && !this.#mayNavigate(paused))
      return devTools.tell("Fetch.failRequest", { requestId: paused.requestId, errorReason: "Aborted" });
    await this.session.answer(devTools, paused, this);
  }

  #mayNavigate({ request, frameId, redirectedRequestId }: Paused): boolean {
    const url = inApp(request.url);
    const isMainFrame = frameId === this.mainFrame.frameId;
    const details = makeEvent({
      url,
      isMainFrame,
      isSameDocument: false,
      frame: this.#frames.get(frameId) ?? null,
    });
    if (isMainFrame && this.#ownNavigation === url) {
      this.#ownNavigation = null;
    } else if (redirectedRequestId) {
      this.emit("will-redirect", details, url, false, isMainFrame);
    } else {
      this.emit("will-frame-navigate", details);
      if (isMainFrame) this.emit("will-navigate", details, url, false, true);
    }
    if (!details.defaultPrevented) this.emit("did-start-navigation", details, url, false, isMainFrame);
    return !details.defaultPrevented;
  }

  #onNavigated(frame: { id: string; parentId?: string; url: string }): void {
    const known = this.#frames.get(frame.id) ?? { url: "", frameId: frame.id };
    known.url = inApp(frame.url);
    this.#frames.set(frame.id, known);
    if (frame.parentId) return;
    this.#isCrashed = false;
    const { origin } = new URL(frame.url);
    if (origin !== "null") {
      const appOrigin = `${inApp(`${origin}/`)}`;
      void this.session.applyPermissions(this.#chromium, this, origin, appOrigin);
    }
    this.emit("did-navigate", makeEvent({}), known.url, 200, "");
  }

  #onMessage(message: ToMain, contextId: number): void {
    const found = this.#worlds.get(contextId);
    const event = {
      sender: this,
      senderFrame: (found && this.#frames.get(found.frameId)) ?? null,
      processId: 1,
      frameId: 1,
      reply: (channel: string, ...args: unknown[]) => this.send(channel, ...args),
    };
    if (message.kind === "invoke") {
      const { id, channel, args } = message;
      void this.#ipc
        .invoke(channel, event, args)
        .then(({ ok, value }) =>
          this.#deliver({ kind: "answer", id, channel, ok, args: [value] }, found?.uniqueId),
        );
    } else if (message.kind === "send") {
      this.#ipc.emit(message.channel, event, ...message.args);
    } else if (message.kind === "context-menu") {
      this.emit("context-menu", makeEvent({}), message.args[0]);
    } else {
      this.emit("preload-error", makeEvent({}), this.#options.preload, new Error(String(message.args[0])));
    }
  }

  send(channel: string, ...args: unknown[]): void {
    const own = [...this.#worlds.values()].find(({ frameId }) => frameId === this.mainFrame.frameId);
    this.#deliver({ kind: "item", id: 0, channel, ok: true, args }, own?.uniqueId);
  }

  #deliver(message: object, uniqueContextId: string | undefined): void {
    const expression = `electronReceive(${JSON.stringify(codec.encode(message))})`;
    if (uniqueContextId && this.#devTools)
      this.#devTools.tell("Runtime.evaluate", { expression, uniqueContextId });
  }

  async loadURL(url: string): Promise<void> {
    await this.whenAttached();
    const address = inPage(url);
    this.#ownNavigation = inApp(address).replace(/#.*/, "");
    const answer = await this.#devTools?.send("Page.navigate", { url: address });
    // A step within the page asked for no document.
    this.#ownNavigation = null;
    const errorText = answer?.errorText as string | undefined;
    if (errorText) throw new Error(`${errorText} loading '${url}'`);
  }

  #attached: Promise<void> = Promise.resolve();
  attachLater(attached: Promise<void>): void {
    this.#attached = attached;
  }
  whenAttached(): Promise<void> {
    return this.#attached;
  }

  reload(): void {
    this.#ownNavigation = this.mainFrame.url.replace(/#.*/, "");
    if (this.#isCrashed) this.#devTools?.tell("Page.navigate", { url: inPage(this.mainFrame.url) });
    else this.#devTools?.tell("Page.reload");
  }
  getURL(): string {
    return this.mainFrame.url;
  }
  getTitle(): string {
    return "";
  }
  isDestroyed(): boolean {
    return this.#isDestroyed;
  }
  isCrashed(): boolean {
    return this.#isCrashed;
  }
  setWindowOpenHandler(handler: typeof this.openHandler): void {
    this.openHandler = handler;
  }
  async executeJavaScript(code: string): Promise<unknown> {
    const answer = await this.#devTools?.send("Runtime.evaluate", {
      expression: code,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? "failed");
    return answer.result.value;
  }
  forcefullyCrashRenderer(): void {
    this.#devTools?.tell("Page.crash");
  }
  /** Zoom lays the page out in fewer of its own pixels, each drawn larger. */
  setZoomFactor(factor: number): void {
    this.#zoom = factor;
    const { width, height } = this.size;
    this.#devTools?.tell("Emulation.setDeviceMetricsOverride", {
      width: Math.round(width / factor),
      height: Math.round(height / factor),
      deviceScaleFactor: factor,
      mobile: false,
    });
  }
  getZoomFactor(): number {
    return this.#zoom;
  }
  setZoomLevel(level: number): void {
    this.setZoomFactor(1.2 ** level);
  }
  getZoomLevel(): number {
    return Math.log(this.#zoom) / Math.log(1.2);
  }
  focus(): void {}
  /** Keys alone: what the application gives its page. */
  sendInputEvent({ type, keyCode, modifiers = [] }: InputEvent): void {
    const bits = { alt: 1, control: 2, meta: 4, shift: 8 } as Readonly<Record<string, number>>;
    const key = modifiers.includes("shift") ? keyCode : keyCode.toLowerCase();
    this.#devTools?.tell("Input.dispatchKeyEvent", {
      type: type === "keyDown" ? "rawKeyDown" : type,
      modifiers: modifiers.reduce((sum, each) => sum + (bits[each] ?? 0), 0),
      key,
      windowsVirtualKeyCode: keyCode.toUpperCase().charCodeAt(0),
      ...(type === "char" ? { text: key } : {}),
    });
  }
  replaceMisspelling(_text: string): void {}
  print(): void {}
  close(): void {
    this.emit("close-asked");
  }
  destroyed(): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    this.#devTools = null;
    this.emit("destroyed");
  }
}

/** Read at each start of a window, as Electron reads it at each page. */
function readPreload(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    console.error("Unable to load preload script:", path, error);
    return null;
  }
}

/** Electron's session: the application's own schemes, what may be requested, permissions, downloads. */
import { EventEmitter } from "node:events";
import type { Chromium, Session as DevTools } from "./chromium.ts";
import { inApp, isRegistered } from "./addresses.ts";

/** As much of a webContents as is asked for here. */
interface WebContents {
  readonly id: number;
  getURL(): string;
}

type Handler = (request: Request) => Response | Promise<Response>;
type BeforeRequest = (
  details: { url: string; method: string; resourceType: string; webContentsId: number },
  answer: (response: { cancel?: boolean }) => void,
) => void;

type RequestHandler = (contents: WebContents, name: string, answer: (given: boolean) => void) => void;
type CheckHandler = (contents: WebContents | null, name: string, origin: string) => boolean;

/** Electron's names of permissions, and the descriptors of the web's. */
const permissions: Readonly<Record<string, object>> = {
  geolocation: { name: "geolocation" },
  notifications: { name: "notifications" },
  midi: { name: "midi" },
  midiSysex: { name: "midi", sysex: true },
  media: { name: "camera" },
  "clipboard-read": { name: "clipboard-read" },
  "clipboard-sanitized-write": { name: "clipboard-write" },
  "window-management": { name: "window-management" },
  "idle-detection": { name: "idle-detection" },
  "speaker-selection": { name: "speaker-selection" },
};

interface Paused {
  readonly requestId: string;
  readonly request: {
    readonly url: string;
    readonly method: string;
    readonly headers: Record<string, string>;
    readonly postData?: string;
  };
  readonly resourceType: string;
  readonly frameId: string;
  readonly redirectedRequestId?: string;
}

class Protocol {
  readonly handlers = new Map<string, Handler>();
  handle(scheme: string, handler: Handler): void {
    if (!isRegistered(scheme))
      throw new Error(`The stand-in handles registered schemes alone, not ${scheme}.`);
    if (this.handlers.has(scheme)) throw new Error(`Failed to register protocol: ${scheme}`);
    this.handlers.set(scheme, handler);
  }
  isProtocolHandled(scheme: string): boolean {
    return this.handlers.has(scheme);
  }
}

export class StandInSession extends EventEmitter {
  readonly protocol = new Protocol();
  #beforeRequest: BeforeRequest | null = null;
  #requestHandler: ((contents: WebContents, name: string, answer: (given: boolean) => void) => void) | null =
    null;
  #checkHandler: ((contents: WebContents | null, name: string, origin: string) => boolean) | null = null;
  spellCheckerLanguages: string[] = [];
  readonly availableSpellCheckerLanguages = ["de", "en-GB", "en-US", "fr"];

  readonly webRequest = {
    onBeforeRequest: (listener: BeforeRequest | null): void => {
      this.#beforeRequest = listener;
    },
  };

  setPermissionRequestHandler(handler: RequestHandler | null): void {
    this.#requestHandler = handler;
  }
  setPermissionCheckHandler(handler: CheckHandler | null): void {
    this.#checkHandler = handler;
  }

  // No device, no screen and no USB interface is reached from a headless browser: kept, never asked.
  setDevicePermissionHandler(_handler: unknown): void {}
  setDisplayMediaRequestHandler(_handler: unknown): void {}
  setUSBProtectedClassesHandler(_handler: unknown): void {}
  setBluetoothPairingHandler(_handler: unknown): void {}
  setSpellCheckerEnabled(_enabled: boolean): void {}
  setSpellCheckerLanguages(languages: string[]): void {
    this.spellCheckerLanguages = languages;
  }
  setSpellCheckerDictionaryDownloadURL(_url: string): void {}
  getStoragePath(): string | null {
    return null;
  }

  /** Answers a request that the page makes: by a guard, by the scheme's handler, else by the network. */
  async answer(devTools: DevTools, paused: Paused, contents: WebContents): Promise<void> {
    const { requestId, request } = paused;
    const url = inApp(request.url);
    if (
      await this.#isCancelled({
        url,
        method: request.method,
        resourceType: paused.resourceType,
        webContentsId: contents.id,
      })
    )
      return devTools.tell("Fetch.failRequest", { requestId, errorReason: "BlockedByClient" });
    const handler = this.protocol.handlers.get(url.split(":", 1)[0] ?? "");
    if (!handler) {
      // Without a handler the host of a scheme of our own is one that no network has.
      return devTools.tell("Fetch.continueRequest", { requestId });
    }
    try {
      const hasBody = request.method !== "GET" && request.method !== "HEAD";
      const response = await handler(
        new Request(url, {
          method: request.method,
          headers: request.headers,
          ...(hasBody ? { body: request.postData ?? "" } : {}),
        }),
      );
      const body = Buffer.from(await response.arrayBuffer()).toString("base64");
      const responseHeaders = [...response.headers].map(([name, value]) => ({ name, value }));
      devTools.tell("Fetch.fulfillRequest", {
        requestId,
        responseCode: response.status,
        responseHeaders,
        body,
      });
    } catch (error) {
      console.error("The handler of a scheme failed:", error);
      devTools.tell("Fetch.failRequest", { requestId, errorReason: "Failed" });
    }
  }

  #isCancelled(details: Parameters<BeforeRequest>[0]): Promise<boolean> {
    const ask = this.#beforeRequest;
    if (!ask) return Promise.resolve(false);
    return new Promise((resolve) => ask(details, ({ cancel }) => resolve(cancel === true)));
  }

  /** Electron asks at each use and grants where nobody listens; Chromium is given the same answers when a page comes. */
  async applyPermissions(
    chromium: Chromium,
    contents: WebContents,
    pageOrigin: string,
    appOrigin: string,
  ): Promise<void> {
    for (const [name, permission] of Object.entries(permissions)) {
      const asked = await new Promise<boolean>((resolve) => {
        if (this.#requestHandler) this.#requestHandler(contents, name, resolve);
        else resolve(true);
      });
      const checked = this.#checkHandler ? this.#checkHandler(contents, name, appOrigin) : true;
      const setting = asked && checked ? "granted" : "denied";
      await chromium.root
        .send("Browser.setPermission", { permission, setting, origin: pageOrigin })
        .catch(() => {});
    }
  }

  async watchDownloads(chromium: Chromium, folder: string): Promise<void> {
    chromium.root.on("Browser.downloadWillBegin", ({ guid, url, suggestedFilename }) => {
      const item = Object.assign(new EventEmitter(), {
        getURL: () => inApp(url as string),
        getFilename: () => suggestedFilename as string,
        cancel: () => chromium.root.tell("Browser.cancelDownload", { guid }),
      });
      let isPrevented = false;
      this.emit("will-download", { preventDefault: () => (isPrevented = true) }, item, null);
      if (isPrevented) item.cancel();
    });
    await chromium.root.send("Browser.setDownloadBehavior", {
      behavior: "allowAndName",
      downloadPath: folder,
      eventsEnabled: true,
    });
  }
}

export type { Paused };

/**
 * The contract over ipcMain. Only the main frame of our own window, showing our own page, is answered; every input is
 * parsed by the dispatcher. Streams end with the page that follows them.
 */
import { type IpcMainEvent, type IpcMainInvokeEvent, ipcMain, type WebContents } from "electron";
import type { Failure, Reply } from "../../../shared/contract/index.ts";
import type { Dispatcher, Log } from "../console/dispatch.ts";
import { isAppUrl } from "./protocol.ts";

const maxStreams = 100;
const maxCallsInFlight = 200;

const foreign: Failure = {
  code: "foreign_sender",
  message: "Only the console's own window may ask this.",
  advice: null,
  details: null,
};
const busy: Failure = {
  code: "busy",
  message: "There are too many requests at once.",
  advice: "Try again in a moment.",
  details: null,
};

/** `dispatcherOf`: what answers a window of ours; null for any other. */
export function serveIpc(
  dispatcherOf: (contents: WebContents) => Dispatcher | null,
  log: Log,
): { readonly inFlight: () => number } {
  const streams = new WeakMap<WebContents, Map<number, () => void>>();
  let callsInFlight = 0;

  /** Null for a sender that must get no answer. */
  function trusted({ senderFrame, sender }: IpcMainEvent | IpcMainInvokeEvent): Dispatcher | null {
    // A null frame has gone or navigated away.
    const isOurPage = senderFrame !== null && senderFrame === sender.mainFrame && isAppUrl(senderFrame.url);
    return isOurPage ? dispatcherOf(sender) : null;
  }

  function streamsOf(contents: WebContents): Map<number, () => void> {
    const known = streams.get(contents);
    if (known) return known;
    const made = new Map<number, () => void>();
    streams.set(contents, made);
    const stopAll = (): void => {
      for (const stop of made.values()) stop();
      made.clear();
    };
    contents.once("destroyed", stopAll);
    contents.on("render-process-gone", stopAll);
    contents.on("did-start-navigation", ({ isMainFrame, isSameDocument }) => {
      if (isMainFrame && !isSameDocument) stopAll();
    });
    return made;
  }

  ipcMain.handle("console:call", async (event, name: unknown, input: unknown): Promise<Reply<unknown>> => {
    const dispatcher = trusted(event);
    if (!dispatcher) {
      log("A call of a foreign frame was refused.");
      return { ok: false, error: foreign };
    }
    if (callsInFlight >= maxCallsInFlight) return { ok: false, error: busy };
    callsInFlight++;
    try {
      return await dispatcher.call(name, input);
    } finally {
      callsInFlight--;
    }
  });

  ipcMain.on("console:follow", (event, id: unknown, name: unknown, input: unknown) => {
    const dispatcher = trusted(event);
    if (!dispatcher) return log("A stream for a foreign frame was refused.");
    const mine = streamsOf(event.sender);
    if (typeof id !== "number" || !Number.isSafeInteger(id) || mine.has(id) || mine.size >= maxStreams) {
      return log("A stream with a bad id, or one too many, was refused.");
    }
    const { sender } = event;
    const followed = dispatcher.follow(name, input, (item) => {
      if (!sender.isDestroyed()) sender.send("console:item", id, item);
    });
    if (followed.ok) mine.set(id, followed.value);
    else log(`A stream was refused: ${followed.error.message}`);
  });

  ipcMain.on("console:unfollow", (event, id: unknown) => {
    if (!trusted(event) || typeof id !== "number") return;
    const mine = streamsOf(event.sender);
    mine.get(id)?.();
    mine.delete(id);
  });

  return { inFlight: () => callsInFlight };
}

/** One page's socket: its calls and the streams it follows, which end with it. */
import type { WebSocket } from "ws";
import { clientFrame, closeCodes, type ServerFrame } from "../../shared/contract/index.ts";
import type { Dispatcher } from "../main/console/dispatch.ts";

/**
 * A page that lets more than this pile up is cut off: it connects again and goes on where it was. Generous: one export
 * may be large, and what follows it must not end it.
 */
const maxBufferedBytes = 256 * 1024 * 1024;
const maxStreams = 100;
const maxCallsInFlight = 200;
const pingEveryMs = 30_000;

export function serveSocket(socket: WebSocket, dispatcher: Dispatcher): void {
  const stops = new Map<number, () => void>();
  let callsInFlight = 0;
  let isAlive = true;

  function send(frame: ServerFrame): void {
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount > maxBufferedBytes) return socket.close(closeCodes.tooSlow, "reads too slowly");
    socket.send(JSON.stringify(frame));
  }

  function refuse(id: number, code: string, message: string): void {
    send({ type: "refused", id, error: { code, message, advice: null, details: null } });
  }

  async function call(id: number, name: string, input: unknown): Promise<void> {
    if (callsInFlight >= maxCallsInFlight) {
      const error = {
        code: "busy",
        message: "There are too many requests at once.",
        advice: "Try again in a moment.",
        details: null,
      };
      return send({ type: "result", id, result: { ok: false, error } });
    }
    callsInFlight++;
    try {
      send({ type: "result", id, result: await dispatcher.call(name, input) });
    } finally {
      callsInFlight--;
    }
  }

  function follow(id: number, name: string, input: unknown): void {
    if (stops.has(id)) return refuse(id, "invalid_argument", "This stream is followed already.");
    if (stops.size >= maxStreams) return refuse(id, "busy", "Too many streams are followed at once.");
    // An item may come before follow() returns.
    const stream = dispatcher.follow(name, input, (item) => send({ type: "item", id, item }));
    if (stream.ok) stops.set(id, stream.value);
    else send({ type: "refused", id, error: stream.error });
  }

  socket.on("message", (data, isBinary) => {
    const frame = isBinary ? null : parseFrame((data as Buffer).toString("utf8"));
    if (!frame) return socket.close(closeCodes.badFrame, "not a frame of this console");
    if (frame.type === "call") void call(frame.id, frame.name, frame.input);
    else if (frame.type === "follow") follow(frame.id, frame.name, frame.input);
    else {
      stops.get(frame.id)?.();
      stops.delete(frame.id);
    }
  });

  send({ type: "ready" });
  // A page on a laptop that slept leaves a socket that looks open.
  const ping = setInterval(() => {
    if (!isAlive) return socket.terminate();
    isAlive = false;
    socket.ping();
  }, pingEveryMs);
  socket.on("pong", () => {
    isAlive = true;
  });
  // Oversize and malformed messages end here; ws closes the socket with the right code itself.
  socket.on("error", () => {});
  socket.on("close", () => {
    clearInterval(ping);
    for (const stop of stops.values()) stop();
    stops.clear();
  });
}

function parseFrame(text: string) {
  try {
    return clientFrame.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

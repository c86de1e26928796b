/**
 * The console over loopback HTTP and one WebSocket, for a desk without Electron. Only this machine reaches it
 * (127.0.0.1), only under its own name (Host, against DNS rebinding), only from its own page (Origin), and only
 * with a session, which the one-time token in the printed link is traded for.
 */
import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type WebSocket, WebSocketServer } from "ws";
import {
  sessionProtocolPrefix,
  subprotocol,
  maxMessageBytes,
  closeCodes,
} from "../../shared/contract/index.ts";
import type { Dispatcher, Log } from "../main/console/dispatch.ts";
import { findFile, securityHeaders } from "../main/renderer-files.ts";
import { serveSocket } from "./socket.ts";

interface BrowserHostOptions {
  readonly dispatcher: Dispatcher;
  /** The built renderer: holds index.html. */
  readonly rendererDir: string;
  /** Answers for the page's files instead of `rendererDir`: while the renderer is worked on (cli/dev.ts). */
  readonly pages?: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  /** Sessions that go on from the process before (their SHA-256), and where new ones are kept for the next. */
  readonly sessions?: { readonly known: readonly string[]; readonly onNew: (sha256: string) => void };
  /** 0 for any free port. */
  readonly port: number;
  readonly log: Log;
  /** Milliseconds since 1970; the system's clock; a test may give another. */
  readonly now?: () => number;
}

export interface BrowserHost {
  readonly port: number;
  readonly origin: string;
  /** A new link; its token works once. */
  createLink(): string;
  /** Done every minute by itself: sessions and links that are too old end, with their open pages. */
  endOldSessions(): void;
  close(): Promise<void>;
}

/** The port is taken or not allowed; the message is a sentence for a person. */
export class PortError extends Error {
  override readonly name = "PortError";
}

const maxTokenBodyBytes = 1_000;
/** A link that nobody opened, and a session that no page used, are worth nothing after this. */
const idleMs = 12 * 3_600_000;
/** A session ends after this however much it is used; the page then asks for a new link. */
const sessionMs = 7 * 24 * 3_600_000;
const lookEveryMs = 60_000;

interface Session {
  readonly endsAt: number;
  usedAt: number;
}

export async function startBrowserHost(options: BrowserHostOptions): Promise<BrowserHost> {
  const { dispatcher, rendererDir, log } = options;
  /**
   * SHA-256 of tokens and sessions: looking one up leaks nothing through its timing, and no token is held in memory.
   */
  const tokens = new Map<string, number>();
  const now = options.now ?? Date.now;
  const started = (): Session => ({ endsAt: now() + sessionMs, usedAt: now() });
  const sessions = new Map<string, Session>(options.sessions?.known.map((key) => [key, started()]));
  const isLive = (session: Session): boolean => now() < session.endsAt && now() < session.usedAt + idleMs;

  const server = createServer((request, response) => {
    void answer(request, response).catch((error: unknown) => {
      log(
        `error while answering ${request.method} ${request.url?.slice(0, 100)}: ${(error as Error).message}`,
      );
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;

  const port = await listen(server, options.port);
  const hosts = new Set([`127.0.0.1:${port}`, `localhost:${port}`]);
  const headers = securityHeaders(["'self'", `ws://127.0.0.1:${port}`, `ws://localhost:${port}`]);

  function isOwnHost(request: IncomingMessage): boolean {
    return hosts.has(request.headers.host ?? "");
  }
  function isOwnOrigin(request: IncomingMessage): boolean {
    return request.headers.origin === `http://${request.headers.host}`;
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (!isOwnHost(request)) return end(response, 421, "This console answers only under its own address.");
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    if (path === "/session") return openSession(request, response);
    if (request.method !== "GET" && request.method !== "HEAD") return end(response, 405, "Not here.");
    return options.pages ? options.pages(request, response) : sendFile(rendererDir, path, request, response);
  }

  async function openSession(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== "POST") return end(response, 405, "Not here.");
    if (!isOwnOrigin(request)) return end(response, 403, "Only the console's own page may ask this.");
    if (request.headers["content-type"] !== "application/json") return end(response, 415, "JSON is needed.");
    const body = await readBody(request, maxTokenBodyBytes);
    const token = body === null ? null : tokenOf(body);
    if (token === null) return end(response, 400, "This is not a token.");
    const madeAt = tokens.get(digest(token));
    // delete answers whether it was there: two requests with one token cannot both win.
    if (!tokens.delete(digest(token)) || madeAt === undefined || now() >= madeAt + idleMs)
      return end(response, 401, "This link was used before, is too old or is not known.");
    const session = randomBytes(32).toString("base64url");
    sessions.set(digest(session), started());
    options.sessions?.onNew(digest(session));
    response.writeHead(200, { "content-type": "application/json", "cache-control": "no-store" });
    response.end(JSON.stringify({ session }));
  }

  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxMessageBytes,
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has(subprotocol) ? subprotocol : false),
  });

  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => socket.destroy());
    if (!isOwnHost(request) || !isOwnOrigin(request)) return refuseUpgrade(socket, "403 Forbidden");
    if (request.url !== "/console") return refuseUpgrade(socket, "404 Not Found");
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((one) => one.trim());
    if (!offered.includes(subprotocol)) return refuseUpgrade(socket, "400 Bad Request");
    const session = offered
      .find((one) => one.startsWith(sessionProtocolPrefix))
      ?.slice(sessionProtocolPrefix.length);
    const known = session === undefined ? undefined : sessions.get(digest(session));
    sockets.handleUpgrade(request, socket, head, (client) => {
      // A page can read a close code, but not the status of a refused upgrade.
      if (!known || !isLive(known)) return client.close(closeCodes.unauthorized, "unknown session");
      known.usedAt = now();
      opened.set(client, known);
      client.once("close", () => opened.delete(client));
      return serveSocket(client, dispatcher);
    });
  });

  /** The pages that are open, and their sessions. */
  const opened = new Map<WebSocket, Session>();
  const look = (): void => {
    for (const session of opened.values()) session.usedAt = now();
    for (const [key, session] of sessions) if (!isLive(session)) sessions.delete(key);
    for (const [key, madeAt] of tokens) if (now() >= madeAt + idleMs) tokens.delete(key);
    for (const [client, session] of opened)
      if (!isLive(session)) client.close(closeCodes.unauthorized, "the session has ended");
  };
  const timer = setInterval(look, lookEveryMs).unref();

  return {
    port,
    origin: `http://127.0.0.1:${port}`,
    createLink() {
      const token = randomBytes(32).toString("base64url");
      tokens.set(digest(token), now());
      return `http://127.0.0.1:${port}/#token=${token}`;
    },
    endOldSessions: look,
    close() {
      clearInterval(timer);
      for (const client of sockets.clients) client.terminate();
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

function digest(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

function tokenOf(body: string): string | null {
  try {
    const { token } = JSON.parse(body) as { token?: unknown };
    return typeof token === "string" ? token : null;
  } catch {
    return null;
  }
}

/** Null where the body is larger than allowed. */
async function readBody(request: IncomingMessage, maxBytes: number): Promise<string | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > maxBytes) return null;
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function end(response: ServerResponse, status: number, sentence: string): void {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" });
  response.end(`${sentence}\n`);
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function listen(server: ReturnType<typeof createServer>, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") {
        reject(new PortError(`Port ${port} is in use. Choose another with --port, or 0 for any free one.`));
      } else if (error.code === "EACCES") {
        reject(new PortError(`Port ${port} is not allowed here. Choose one above 1023 with --port.`));
      } else reject(error);
    });
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      resolve(address !== null && typeof address === "object" ? address.port : port);
    });
  });
}

async function sendFile(
  rendererDir: string,
  urlPath: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const file = await findFile(rendererDir, urlPath);
  if (!file) return end(response, 404, "Not found.");
  response.writeHead(200, {
    "content-type": file.mediaType,
    "cache-control": file.isImmutable ? "max-age=31536000, immutable" : "no-store",
  });
  if (request.method === "HEAD") response.end();
  else await pipeline(createReadStream(file.path), response);
}

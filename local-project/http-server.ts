/** The loopback HTTP server: Supabase's gateway in small, in front of rpc and realtime. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { HttpError, refusal } from "./errors.ts";
import type { Gate } from "./keys.ts";
import type { RpcResponse } from "./rpc-messages.ts";
import type { RpcEndpoint } from "./rpc.ts";

interface HttpServerOptions {
  /** 0 for any free port. */
  readonly port: number;
  readonly gate: Gate;
  readonly rpc: RpcEndpoint;
  /** Takes over a WebSocket handshake on /realtime/v1/websocket. */
  readonly onRealtime: (request: IncomingMessage, socket: Duplex, head: Buffer, url: URL) => void;
  /** Called with a failure of ours; it never holds a key or a body. */
  readonly log: (sentence: string) => void;
}

interface HttpServer {
  readonly port: number;
  /** Refuses new calls and lets those under way end, for a few seconds at most. */
  close(): Promise<void>;
}

const LARGEST_BODY_BYTES = 10 * 1024 * 1024;
const CLOSE_WITHIN_MS = 5000;
const KEEP_ALIVE_MS = 120_000;
const METHODS = "GET, HEAD, POST, OPTIONS";

export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const server = createServer((request, response) => {
    // Set by hand, so that Node adds no `Keep-Alive: timeout`: clients then let an idle connection go after a few
    // seconds, long before we would, and never send a call into one that is just being closed.
    response.setHeader("connection", server.listening ? "keep-alive" : "close");
    answer(options, request, response).catch((error: unknown) => {
      options.log(`A request failed: ${error instanceof Error ? error.message : String(error)}`);
      response.destroy();
    });
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // From here on the socket is ours: an error without a listener would end the program.
    socket.on("error", () => socket.destroy());
    const url = readUrl(request);
    const refused =
      url === null || !isLoopback(request) || !isLoopbackOrigin(request.headers.origin)
        ? 403
        : url.pathname === "/realtime/v1/websocket"
          ? null
          : 404;
    if (refused !== null || url === null) {
      socket.end(
        `HTTP/1.1 ${refused} ${refused === 404 ? "Not Found" : "Forbidden"}\r\nconnection: close\r\n\r\n`,
      );
      return;
    }
    options.onRealtime(request, socket, head, url);
  });
  server.requestTimeout = 60_000;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  await listen(server, options.port);
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        const hurry = setTimeout(() => server.closeAllConnections(), CLOSE_WITHIN_MS);
        server.close(() => {
          clearTimeout(hurry);
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve();
    });
  });
}

async function answer(
  options: HttpServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    // A page elsewhere must not reach this server by a name that resolves to this machine.
    if (!isLoopback(request)) throw new HttpError(403, { message: "Only loopback hosts are served" });
    const { origin } = request.headers;
    if (!isLoopbackOrigin(origin)) throw new HttpError(403, { message: "Only loopback origins are served" });
    if (origin !== undefined) allowOrigin(response, origin);
    if (request.method === "OPTIONS") {
      allowPreflight(request, response);
      return;
    }
    send(response, await route(options, request));
  } catch (error) {
    const refused = error instanceof HttpError ? error : refusal(500, "PGRSTX00", "Internal error");
    if (refused !== error)
      options.log(`A request failed: ${error instanceof Error ? error.message : String(error)}`);
    // The rest of a refused body is read and dropped: closing would break a client that is still sending it.
    if (!request.complete) request.resume();
    send(response, {
      status: refused.status,
      headers: { "content-type": "application/json; charset=utf-8", ...refused.headers },
      body: request.method === "HEAD" ? "" : JSON.stringify(refused.body),
    });
  }
}

async function route({ gate, rpc }: HttpServerOptions, request: IncomingMessage): Promise<RpcResponse> {
  const url = readUrl(request);
  if (url === null) throw refusal(400, "PGRST125", "Invalid path specified in request URL");
  const path = url.pathname;
  if (path !== "/rest/v1" && !path.startsWith("/rest/v1/")) {
    throw new HttpError(404, { message: "no Route matched with those values" });
  }
  const apiKey = single(request.headers.apikey) ?? url.searchParams.get("apikey") ?? undefined;
  url.searchParams.delete("apikey");
  const caller = await gate.admit(apiKey, request.headers.authorization);
  const method = request.method ?? "GET";
  const functionName = /^\/rest\/v1\/rpc\/([^/]+)$/.exec(path)?.[1];
  if (functionName === undefined) return other(path, method, rpc);
  if (method !== "GET" && method !== "HEAD" && method !== "POST") {
    throw refusal(405, "PGRST101", `Cannot use the ${method} method on RPC`);
  }
  return rpc.call({
    method,
    functionName: decodeName(functionName),
    query: url.searchParams,
    headers: request.headers,
    body: method === "POST" ? await readBody(request) : Buffer.alloc(0),
    caller,
  });
}

/** Anything under /rest/v1 that is not a call: the list of functions, and tables, which are not exposed. */
async function other(path: string, method: string, rpc: RpcEndpoint): Promise<RpcResponse> {
  if (path === "/rest/v1/" || path === "/rest/v1") {
    if (method !== "GET" && method !== "HEAD")
      throw refusal(405, "PGRST117", `Unsupported HTTP method: ${method}`);
    const { functions } = await rpc.schema();
    const paths = Object.fromEntries(
      [...functions.keys()].sort().map((name) => [`/rpc/${name}`, { post: { tags: [`(rpc) ${name}`] } }]),
    );
    const body = JSON.stringify({ swagger: "2.0", info: { title: "Local project", version: "1" }, paths });
    return {
      status: 200,
      headers: { "content-type": "application/openapi+json; charset=utf-8" },
      body: method === "HEAD" ? "" : body,
    };
  }
  const name = decodeName(path.slice("/rest/v1/".length));
  if (name.includes("/")) throw refusal(404, "PGRST125", "Invalid path specified in request URL");
  throw refusal(404, "PGRST205", `Could not find the table 'public.${name}' in the schema cache`);
}

function send(response: ServerResponse, { status, headers, body }: RpcResponse): void {
  if (response.destroyed || response.headersSent) return;
  const bytes = Buffer.from(body);
  const length = status === 204 || response.req.method === "HEAD" ? {} : { "content-length": bytes.length };
  response.writeHead(status, { ...headers, ...length });
  response.end(bytes);
}

function readUrl(request: IncomingMessage): URL | null {
  const target = request.url ?? "/";
  return target.startsWith("/") && URL.canParse(`http://localhost${target}`)
    ? new URL(`http://localhost${target}`)
    : null;
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw refusal(400, "PGRST125", "Invalid path specified in request URL");
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const tooLarge = (): HttpError =>
    refusal(413, "PGRST102", "The body is too large", `At most ${LARGEST_BODY_BYTES} bytes are taken.`);
  if (Number(request.headers["content-length"] ?? 0) > LARGEST_BODY_BYTES) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > LARGEST_BODY_BYTES) throw tooLarge();
    chunks.push(chunk);
  }
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

const LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"];

function isLoopback({ headers }: IncomingMessage): boolean {
  const address = `http://${headers.host ?? ""}`;
  return URL.canParse(address) && LOOPBACK_NAMES.includes(new URL(address).hostname);
}

function isLoopbackOrigin(origin: string | undefined): boolean {
  if (origin === undefined) return true;
  return URL.canParse(origin) && LOOPBACK_NAMES.includes(new URL(origin).hostname);
}

function allowOrigin(response: ServerResponse, origin: string): void {
  response.setHeader("access-control-allow-origin", origin);
  response.setHeader("vary", "Origin");
  response.setHeader("access-control-expose-headers", "Content-Range, Content-Type, Preference-Applied");
}

function allowPreflight(request: IncomingMessage, response: ServerResponse): void {
  response.setHeader("access-control-allow-methods", METHODS);
  response.setHeader(
    "access-control-allow-headers",
    request.headers["access-control-request-headers"] ?? "apikey, authorization, content-type, prefer",
  );
  response.setHeader("access-control-max-age", "3600");
  response.writeHead(204);
  response.end();
}

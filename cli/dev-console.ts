/**
 * The console's process while it is worked on: started again by cli/dev.ts whenever a file it is made of changes. The
 * page's files come from Vite's server, through this host, with the product's security policy, loosened where hot
 * reload needs it.
 */
import { randomBytes } from "node:crypto";
import { request as ask, type IncomingMessage, type ServerResponse } from "node:http";
import { startBrowserHost } from "../electron/browser-host/index.ts";
import { composeConsole } from "../electron/main/compose.ts";
import { securityHeaders } from "../electron/main/renderer-files.ts";
import { rendererDir, repositoryDir } from "./build.ts";

/** What the parent gives. */
export interface DevStart {
  readonly dataDir: string;
  readonly sampleData: boolean;
  readonly port: number;
  readonly vitePort: number;
  readonly noncePlaceholder: string;
  readonly sessions: readonly string[];
}
/** What it sends to its parent. */
export type DevNews =
  | { readonly type: "ready"; readonly port: number; readonly link: string }
  | { readonly type: "session"; readonly sha256: string };

const sendNews = (news: DevNews): void => void process.send?.(news);
const log = (sentence: string): void => void process.stderr.write(`${sentence}\n`);

process.once("message", (start: DevStart) => {
  void run(start).catch((error: unknown) => {
    log(error instanceof Error ? (error.stack ?? error.message) : String(error));
    process.exit(1);
  });
});

async function run(start: DevStart): Promise<void> {
  const composed = composeConsole({
    dataDir: start.dataDir,
    host: "browser",
    sampleData: start.sampleData,
    resourcesDir: repositoryDir,
    log,
  });
  if (!composed.ok) {
    const { message, advice, details } = composed.error;
    log([message, advice, details].filter(Boolean).join("\n"));
    process.exit(1);
  }
  const console_ = composed.value;
  const host = await startBrowserHost({
    dispatcher: console_.dispatcher,
    rendererDir,
    port: start.port,
    log,
    pages: (request, response) => passToVite(start, host.port, request, response),
    sessions: { known: start.sessions, onNew: (sha256) => sendNews({ type: "session", sha256 }) },
  });
  console_.start();
  sendNews({ type: "ready", port: host.port, link: host.createLink() });

  let isStopping = false;
  const stop = async (): Promise<void> => {
    if (isStopping) return;
    isStopping = true;
    await host.close();
    await console_.close();
    process.exit(0);
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void stop());
  process.on("disconnect", () => void stop());
}

/** Vite's answer, with this answer's own nonce in the page and in the policy. */
async function passToVite(
  { vitePort, noncePlaceholder }: DevStart,
  port: number,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    ask(
      {
        host: "127.0.0.1",
        port: vitePort,
        method: request.method,
        path: request.url,
        headers: { ...request.headers, host: `127.0.0.1:${vitePort}`, "accept-encoding": "identity" },
      },
      resolve,
    )
      .once("error", reject)
      .end();
  });
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk as Buffer);
  let body = Buffer.concat(chunks);
  for (const name of ["content-type", "cache-control", "etag"])
    if (answer.headers[name]) response.setHeader(name, answer.headers[name]);
  if (answer.headers["content-type"]?.startsWith("text/html")) {
    const nonce = randomBytes(16).toString("base64");
    const policy = securityHeaders([
      "'self'",
      `ws://127.0.0.1:${port}`,
      `ws://localhost:${port}`,
      `ws://127.0.0.1:${vitePort}`,
    ])["content-security-policy"];
    response.setHeader(
      "content-security-policy",
      policy?.replace("script-src 'self'", `script-src 'self' 'nonce-${nonce}'`) ?? "",
    );
    body = Buffer.from(body.toString("utf8").replaceAll(noncePlaceholder, nonce));
  }
  response.writeHead(answer.statusCode ?? 502);
  response.end(request.method === "HEAD" ? undefined : body);
}

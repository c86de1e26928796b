/** The built renderer's files, and nothing beside them. */
import { createReadStream } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { extname, join, sep } from "node:path";

const mediaTypes: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".map": "application/json",
};

export interface FoundFile {
  readonly path: string;
  readonly mediaType: string;
  /** Names under assets/ carry a hash of their content. */
  readonly isImmutable: boolean;
}

/**
 * The file of a URL path below the folder. A path without an extension is a screen's own address, which the
 * page itself resolves. Null for what is not there or would lead outside.
 */
export async function findFile(rendererDir: string, urlPath: string): Promise<FoundFile | null> {
  let decoded: string;
  try {
    decoded = decodeURIComponent(urlPath);
  } catch {
    return null;
  }
  if (decoded.includes("\0") || decoded.includes("\\")) return null;
  const relative = extname(decoded) === "" ? "index.html" : decoded.slice(1);
  const mediaType = mediaTypes[extname(relative)];
  if (!mediaType) return null;
  try {
    const root = await realpath(rendererDir);
    const path = await realpath(join(root, relative));
    if (!path.startsWith(root + sep) || !(await stat(path)).isFile()) return null;
    return { path, mediaType, isImmutable: relative.startsWith("assets/") };
  } catch {
    return null;
  }
}

export async function serveFile(
  rendererDir: string,
  urlPath: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const file = await findFile(rendererDir, urlPath);
  if (!file) {
    response.writeHead(404, { "content-type": "text/plain; charset=utf-8" });
    response.end("Not found.\n");
    return;
  }
  response.writeHead(200, {
    "content-type": file.mediaType,
    "cache-control": file.isImmutable ? "max-age=31536000, immutable" : "no-store",
  });
  if (request.method === "HEAD") {
    response.end();
    return;
  }
  await new Promise<void>((resolve, reject) => {
    createReadStream(file.path)
      .once("error", reject)
      .pipe(response)
      .once("close", resolve)
      .once("error", reject);
  });
}

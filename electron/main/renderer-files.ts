/**
 * The built renderer's files, and nothing beside them, with the headers they go out with: for the app:// protocol of
 * the window and for the browser host alike.
 */
import { realpath, stat } from "node:fs/promises";
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

interface FoundFile {
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

/** Only our own files run, only `connectSources` are reached, nobody frames us. Mantine needs inline styles. */
export function securityHeaders(connectSources: readonly string[]): Readonly<Record<string, string>> {
  return {
    "content-security-policy": [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self' 'unsafe-inline'",
      "img-src 'self' data:",
      "font-src 'self'",
      `connect-src ${connectSources.join(" ") || "'none'"}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join("; "),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
  };
}

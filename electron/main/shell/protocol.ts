/** app://console/…: the built renderer, from the package alone. No file:// and no network in the window. */
import { readFile } from "node:fs/promises";
import { protocol, type Session } from "electron";
import { findFile, securityHeaders } from "../renderer-files.ts";

export const appOrigin = "app://console";

/** Before the app is ready. */
export function registerScheme(): void {
  protocol.registerSchemesAsPrivileged([
    { scheme: "app", privileges: { standard: true, secure: true, supportFetchAPI: true, codeCache: true } },
  ]);
}

export function isAppUrl(url: string): boolean {
  try {
    const { protocol: scheme, host } = new URL(url);
    return `${scheme}//${host}` === appOrigin;
  } catch {
    return false;
  }
}

export function serveApp(session: Session, rendererDir: string): void {
  // The screen talks through the bridge: nothing to connect to.
  const headers = securityHeaders([]);
  session.protocol.handle("app", async (request) => {
    const refused = (status: number): Response => new Response(null, { status, headers });
    if (!isAppUrl(request.url)) return refused(404);
    if (request.method !== "GET") return refused(405);
    const file = await findFile(rendererDir, new URL(request.url).pathname);
    if (!file) return refused(404);
    return new Response(await readFile(file.path), {
      headers: { ...headers, "content-type": file.mediaType },
    });
  });
}

/** The renderer as it is worked on: Vite's server, with hot reload, and the gallery of its parts (gallery.html). */
import { realpathSync } from "node:fs";
import { createServer as createNetServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import react from "@vitejs/plugin-react";
import { createLogger, createServer } from "vite";
import { repositoryDir } from "./build.ts";
import { languagePlugin } from "./language/plugin.ts";

/** A placeholder where each answer puts its own nonce: the page's security policy lets no other script run. */
export const noncePlaceholder = "NONCE-OF-THIS-ANSWER";

export interface RendererServer {
  readonly port: number;
  close(): Promise<void>;
}

export async function serveRenderer(log: (sentence: string) => void): Promise<RendererServer> {
  const port = await freePort();
  const logger = createLogger("info", { allowClearScreen: false });
  const server = await createServer({
    configFile: false,
    root: join(repositoryDir, "renderer"),
    cacheDir: join(repositoryDir, "out/vite"),
    plugins: [languagePlugin(), react()],
    html: { cspNonce: noncePlaceholder },
    optimizeDeps: { entries: ["index.html", "gallery.html"] },
    server: {
      host: "127.0.0.1",
      port,
      strictPort: true,
      // The page comes from the console's port; hot reload has this one.
      hmr: { host: "127.0.0.1", clientPort: port },
      cors: false,
      fs: { allow: [repositoryDir, realpathSync(join(repositoryDir, "node_modules"))] },
    },
    customLogger: {
      ...logger,
      info: () => undefined,
      warn: log,
      // Vite's own reading of CSS modules names no file, and PostCSS warns of it at each of them.
      warnOnce: (message) => (message.includes("did not pass the `from` option") ? undefined : log(message)),
      error: log,
    },
  });
  await server.listen();
  return { port, close: () => server.close() };
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createNetServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

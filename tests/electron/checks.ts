/** What must hold of the application in its window; each also says whether it notices that it does not. */
import { createServer, type Server } from "node:http";
import { expect, type Page } from "@playwright/test";
import type { Desktop } from "./launch.ts";

interface Bridge {
  readonly operations: Record<
    string,
    (input: unknown) => Promise<{ ok: boolean; value: unknown; error?: { code: string } }>
  >;
  readonly streams: Record<string, (input: unknown, onItem: (item: unknown) => void) => () => void>;
}
type WithBridge = typeof globalThis & { readonly consoleBridge: Bridge };

/** A server outside the application that counts who asked. */
async function listen(): Promise<{ readonly server: Server; readonly url: string; asked(): number }> {
  let asked = 0;
  const server = createServer((_request, response) => {
    asked += 1;
    response.setHeader("access-control-allow-origin", "*");
    response.end("<!doctype html><title>outside</title>");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return { server, url: `http://127.0.0.1:${port}/`, asked: () => asked };
}

const answers = async (page: Page, name: string, input: unknown = {}): Promise<unknown> =>
  await page.evaluate(
    async ([operation, given]) =>
      (globalThis as WithBridge).consoleBridge.operations[operation as string]?.(given),
    [name, input],
  );

const quick = { timeout: 5_000 };

export const checks = {
  "the screen is there": async ({ page }: Desktop) => {
    await expect(page.getByRole("navigation", { name: "Desks" })).toBeVisible({ timeout: 15_000 });
  },

  "an operation is answered": async ({ page }: Desktop) => {
    await expect.poll(() => answers(page, "settings.get"), quick).toMatchObject({ ok: true });
  },

  "what a stream sends arrives": async ({ page }: Desktop) => {
    const item = page.evaluate(
      () =>
        new Promise((resolve) => {
          (globalThis as WithBridge).consoleBridge.streams["connection"]?.({}, resolve);
        }),
    );
    const late = new Promise((_resolve, reject) =>
      setTimeout(() => reject(new Error("Nothing arrived.")), quick.timeout),
    );
    await expect(Promise.race([item, late])).resolves.toMatchObject({ status: expect.any(String) });
  },

  "the page has neither Node nor Electron, and cannot change the bridge": async ({ page }: Desktop) => {
    const seen = await page.evaluate(() => {
      const { consoleBridge } = globalThis as WithBridge;
      const names = [
        "require",
        "process",
        "module",
        "exports",
        "Buffer",
        "electron",
        "ipcRenderer",
        "contextBridge",
      ];
      return {
        globals: names.filter((name) => name in globalThis),
        bridge: Object.keys(consoleBridge),
        isFrozen: Object.isFrozen(consoleBridge) && Object.isFrozen(consoleBridge.operations),
        isFixed: Object.getOwnPropertyDescriptor(globalThis, "consoleBridge")?.writable === false,
      };
    });
    expect(seen).toEqual({ globals: [], bridge: ["operations", "streams"], isFrozen: true, isFixed: true });
  },

  "only what can be cloned passes": async ({ page }: Desktop) => {
    const refused = await page.evaluate(() =>
      (globalThis as WithBridge).consoleBridge.operations["settings.set"]?.({ theme: () => "dark" }).then(
        (reply) => (reply.ok ? "taken" : "refused"),
        () => "refused",
      ),
    );
    expect(refused).toBe("refused");
  },

  "the policy is sent and holds": async ({ page }: Desktop) => {
    const response = await page.reload();
    const policy = (await response?.headerValue("content-security-policy")) ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("connect-src 'none'");
    expect(policy).toMatch(/script-src 'self'(;|$)/);
    const outside = await listen();
    try {
      const ran = await page.evaluate(async (url) => {
        const script = document.createElement("script");
        script.textContent = "globalThis.ranInline = true";
        document.head.append(script);
        // Later, and so by the page itself: what a debugger runs may evaluate text.
        const evaluated = await new Promise((resolve) => {
          setTimeout(() => {
            try {
              // oxlint-disable-next-line typescript/no-implied-eval -- the policy must refuse it
              resolve(new Function("return true")());
            } catch {
              resolve(false);
            }
          });
        });
        const fetched = await fetch(url).then(
          () => true,
          () => false,
        );
        return { inline: "ranInline" in globalThis, evaluated, fetched };
      }, outside.url);
      expect(ran).toEqual({ inline: false, evaluated: false, fetched: false });
      expect(outside.asked()).toBe(0);
    } finally {
      outside.server.close();
    }
  },

  "the page goes nowhere else": async ({ page }: Desktop) => {
    const before = page.url();
    for (const url of ["https://example.com/", "http://127.0.0.1:9/"]) {
      await page.evaluate((address) => void (location.href = address), url).catch(() => {});
      await page.waitForTimeout(300);
      expect(page.url()).toBe(before);
    }
    await checks["an operation is answered"]({ page } as Desktop);
  },

  "the page opens no window": async ({ app, page }: Desktop) => {
    const isOpen = (): Promise<boolean> =>
      page.evaluate(() => {
        const opened = (globalThis as { openedHere?: Window | null }).openedHere;
        return opened !== null && opened !== undefined && !opened.closed;
      });
    // Later, and so by the page itself, not by the debugger on its behalf.
    await page.evaluate(
      () =>
        new Promise<void>((resolve) => {
          setTimeout(() => {
            (globalThis as { openedHere?: Window | null }).openedHere = window.open("about:blank");
            resolve();
          });
        }),
    );
    await expect.poll(isOpen, quick).toBe(false);
    await expect
      .poll(() => app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows().length), quick)
      .toBe(1);
  },

  "no permission is given but to write the clipboard": async ({ page }: Desktop) => {
    const state = (name: string): Promise<string> =>
      page.evaluate(
        async (wanted) => (await navigator.permissions.query({ name: wanted as PermissionName })).state,
        name,
      );
    for (const name of ["geolocation", "notifications", "camera", "midi", "clipboard-read"])
      await expect.poll(() => state(name), { ...quick, message: name }).toBe("denied");
    await expect.poll(() => state("clipboard-write"), quick).toBe("granted");
  },

  "nothing is loaded from outside, not even by the main process": async ({ app }: Desktop) => {
    const outside = await listen();
    try {
      const said = await app.evaluate(async ({ BrowserWindow }, url) => {
        const window = new BrowserWindow({ show: false });
        const problem = await window.loadURL(url).then(
          () => "loaded",
          (error: unknown) => String(error),
        );
        window.destroy();
        return problem;
      }, outside.url);
      expect(said).toContain("ERR_BLOCKED_BY_CLIENT");
      expect(outside.asked()).toBe(0);
    } finally {
      outside.server.close();
    }
  },

  "another window is answered nothing": async ({ app }: Desktop) => {
    const reply = await app.evaluate(async ({ BrowserWindow, app: electronApp }) => {
      const window = new BrowserWindow({
        show: false,
        webPreferences: { preload: `${electronApp.getAppPath()}/out/preload/index.cjs`, sandbox: true },
      });
      await window.loadURL("app://console/");
      // The page is there when it has its bridge: loading ends earlier in one runtime than in the other.
      const given = await window.webContents.executeJavaScript(
        `new Promise((resolve) => {
          const ask = () => globalThis.consoleBridge && document.readyState === "complete"
            ? resolve(consoleBridge.operations["settings.get"]({})) : setTimeout(ask, 50);
          ask();
        })`,
      );
      window.destroy();
      return given as unknown;
    });
    expect(reply).toMatchObject({ ok: false, error: { code: "foreign_sender" } });
  },
} satisfies Record<string, (desktop: Desktop) => Promise<void>>;

export type CheckName = keyof typeof checks;

/** Opens the console's one-time link in the person's browser, where there is one. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** Whether somebody sits at a screen here. */
export function hasScreen(
  platform: NodeJS.Platform = process.platform,
  env: Readonly<Record<string, string | undefined>> = process.env,
): boolean {
  if (env.CI || env.SSH_CONNECTION) return false;
  return platform !== "linux" || Boolean(env.DISPLAY || env.WAYLAND_DISPLAY);
}

/** How long the page that leads to the link is kept: a browser that starts cold needs a while. */
const keptMs = 60_000;

/**
 * A page that leads to the link. Arguments of a process are readable by every user of the machine, so the browser is
 * given this file, which only its owner may read, and not the link with its token.
 */
export function writeRedirect(link: string, folder: string): string {
  const path = join(mkdtempSync(join(folder, "token-governance-")), "open.html");
  const escaped = link.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  writeFileSync(
    path,
    `<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url=${escaped}"><title>Opening the console</title>
<a href="${escaped}">Open the console</a>
`,
    { mode: 0o600, flag: "wx" },
  );
  return path;
}

export function openBrowser(link: string): void {
  const page = writeRedirect(link, tmpdir());
  const url = pathToFileURL(page).href;
  const remove = (): void => rmSync(join(page, ".."), { recursive: true, force: true });
  const [command, args] =
    process.platform === "darwin"
      ? ["open", [url]]
      : process.platform === "win32"
        ? ["rundll32", ["url.dll,FileProtocolHandler", url]]
        : ["xdg-open", [url]];
  const browser = spawn(command as string, args as string[], { stdio: "ignore", detached: true });
  // The address is on the screen all the same.
  browser.once("error", remove);
  browser.unref();
  setTimeout(remove, keptMs).unref();
  process.once("exit", remove);
}

/** Opens an address in the person's browser, where there is one. */
import { spawn } from "node:child_process";

/** Whether somebody sits at a screen here. */
export function hasScreen(
  platform: NodeJS.Platform = process.platform,
  env: Readonly<Record<string, string | undefined>> = process.env,
): boolean {
  if (env.CI || env.SSH_CONNECTION) return false;
  return platform !== "linux" || Boolean(env.DISPLAY || env.WAYLAND_DISPLAY);
}

/** The address holds a one-time token: as an argument it is seen by this user's processes alone for a moment. */
export function openBrowser(url: string): void {
  const [command, args] =
    process.platform === "darwin"
      ? ["open", [url]]
      : process.platform === "win32"
        ? ["rundll32", ["url.dll,FileProtocolHandler", url]]
        : ["xdg-open", [url]];
  const browser = spawn(command as string, args as string[], { stdio: "ignore", detached: true });
  // The address is on the screen all the same.
  browser.once("error", () => {});
  browser.unref();
}

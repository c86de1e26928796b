/** Where this system keeps an application's data. */
import { homedir } from "node:os";
import { join } from "node:path";

const folderName = "Token Governance";

/** XDG on Linux, AppData on Windows, Application Support on macOS. */
export function conventionalDataDir(
  platform: NodeJS.Platform = process.platform,
  env: Readonly<Record<string, string | undefined>> = process.env,
  home: string = homedir(),
): string {
  if (platform === "win32") return join(env.APPDATA || join(home, "AppData", "Roaming"), folderName);
  if (platform === "darwin") return join(home, "Library", "Application Support", folderName);
  // The specification says that a relative path must be ignored.
  const base = env.XDG_DATA_HOME?.startsWith("/") ? env.XDG_DATA_HOME : join(home, ".local", "share");
  return join(base, "token-governance");
}

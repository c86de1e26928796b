/**
 * electron-updater with a feed that must be signed: `<channel>.yml` beside `<channel>.yml.sig`, an Ed25519 signature of
 * its bytes. The feed holds the SHA-512 of what is fetched, so that nothing unsigned is ever put in place.
 */
import { verify } from "node:crypto";
import { readFileSync } from "node:fs";
import electronUpdater, {
  type AppUpdater,
  type ResolvedUpdateFileInfo,
  type UpdateInfo,
} from "electron-updater";
import {
  parseUpdateInfo,
  type ProviderRuntimeOptions,
  resolveFiles,
} from "electron-updater/out/providers/Provider.js";
import { z } from "zod";
import type { Log } from "../console/dispatch.ts";
import { serverOf } from "./update-server.ts";

interface UpdaterOptions {
  readonly feedPath: string;
  /** PEM. */
  readonly publicKey: string;
  readonly log: Log;
  /** Versions that the feed offers to go back to. */
  readonly onEarlier: (versions: string[]) => void;
}

const { Provider, autoUpdater } = electronUpdater;
const version = z.string().regex(/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/);
const offered = z.array(version).max(20).catch([]);

export function openUpdater({ feedPath, publicKey, log, onEarlier }: UpdaterOptions): AppUpdater {
  const base = serverOf(readFileSync(feedPath, "utf8"));
  class SignedFeed extends Provider<UpdateInfo> {
    readonly #updater: AppUpdater;
    constructor(_options: object, updater: AppUpdater, runtime: ProviderRuntimeOptions) {
      super({ ...runtime, isUseMultipleRangeRequest: false });
      this.#updater = updater;
    }
    async getLatestVersion(): Promise<UpdateInfo> {
      const file = `${this.getCustomChannelName(this.#updater.channel ?? "latest")}.yml`;
      const url = new URL(file, base);
      const [text, signature] = [
        await this.httpRequest(url),
        await this.httpRequest(new URL(`${file}.sig`, base)),
      ];
      if (!isSigned(text ?? "", signature ?? "", publicKey))
        throw Object.assign(new Error(`The signature of ${file} is not right.`), {
          code: "ERR_UPDATER_FEED_SIGNATURE",
        });
      const info = parseUpdateInfo(text, file, url);
      onEarlier(offered.parse((info as { earlier?: unknown }).earlier));
      return info;
    }
    resolveFiles(info: UpdateInfo): ResolvedUpdateFileInfo[] {
      return resolveFiles(info, base);
    }
  }
  // First: naming the file forgets the feed.
  autoUpdater.updateConfigPath = feedPath;
  autoUpdater.setFeedURL({ provider: "custom", updateProvider: SignedFeed } as never);
  autoUpdater.autoDownload = true;
  // Put in place when the person ends the program, after everything is written.
  autoUpdater.autoInstallOnAppQuit = true;
  autoUpdater.disableWebInstaller = true;
  autoUpdater.logger = {
    info: () => {},
    debug: () => {},
    warn: (line) => log(String(line)),
    error: () => {},
  };
  return autoUpdater;
}

function isSigned(text: string, signature: string, publicKey: string): boolean {
  try {
    return verify(null, Buffer.from(text, "utf8"), publicKey, Buffer.from(signature.trim(), "base64"));
  } catch {
    return false;
  }
}

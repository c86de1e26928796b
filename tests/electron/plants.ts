/** The built application, made worse in one place each: the check that must notice. */
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryDir } from "../../cli/build.ts";
import type { CheckName } from "./checks.ts";

interface Plant {
  readonly what: string;
  readonly file: "main/index.js" | "preload/index.cjs";
  readonly from: RegExp;
  readonly to: string;
  readonly noticedBy: CheckName;
}

const main = "main/index.js";

export const plants: readonly Plant[] = [
  {
    what: "a preload that throws",
    file: "preload/index.cjs",
    from: /^/,
    to: 'throw new Error("planted");',
    noticedBy: "an operation is answered",
  },
  {
    what: "a preload with a broken bracket",
    file: "preload/index.cjs",
    from: /$/,
    to: "}",
    noticedBy: "an operation is answered",
  },
  {
    what: "a bridge that hands out ipcRenderer's world",
    file: "preload/index.cjs",
    from: /$/,
    to: 'electron.contextBridge.exposeInMainWorld("ipcRenderer", { send: electron.ipcRenderer.send });',
    noticedBy: "the page has neither Node nor Electron, and cannot change the bridge",
  },
  {
    what: "no channel for operations",
    file: main,
    from: /ipcMain\.handle\("console:call"/,
    to: 'ipcMain.handle("console:other"',
    noticedBy: "an operation is answered",
  },
  {
    what: "no channel for streams",
    file: main,
    from: /ipcMain\.on\("console:follow"/,
    to: 'ipcMain.on("console:other"',
    noticedBy: "what a stream sends arrives",
  },
  {
    what: "a sender that is not looked at",
    file: main,
    from: /\?\.\[1\]\.dispatcher \?\? null/,
    to: "?.[1].dispatcher ?? [...desk.windows.values()][0].dispatcher",
    noticedBy: "another window is answered nothing",
  },
  {
    what: "navigation that nobody stops",
    file: main,
    from: /if \(!isAppUrl\(event\.url\)\) event\.preventDefault\(\);/,
    to: "",
    noticedBy: "the page goes nowhere else",
  },
  {
    what: "windows that open",
    file: main,
    from: /setWindowOpenHandler\(\(\) => \(\{ action: "deny" \}\)\)/,
    to: 'setWindowOpenHandler(() => ({ action: "allow" }))',
    noticedBy: "the page opens no window",
  },
  {
    what: "permissions for all",
    file: main,
    from: /allowedPermissions\.has\(permission\)/g,
    to: "true",
    noticedBy: "no permission is given but to write the clipboard",
  },
  {
    what: "requests that go anywhere",
    file: main,
    from: /answer\(\{ cancel: !/,
    to: "answer({ cancel: false && !",
    noticedBy: "nothing is loaded from outside, not even by the main process",
  },
  {
    what: "no policy",
    file: main,
    from: /"content-security-policy":/,
    to: '"x-policy":',
    noticedBy: "the policy is sent and holds",
  },
];

/**
 * Plants that do not hide one another go into one application, in the order in which they are looked for: what leads
 * the page away comes last.
 */
export function grouped(all: readonly Plant[]): readonly (readonly Plant[])[] {
  const [throws, bracket, bridge, operations, follow, ...guards] = all as [
    Plant,
    Plant,
    Plant,
    Plant,
    Plant,
    ...Plant[],
  ];
  const last = (plant: Plant): number => Number(plant.noticedBy === "the page goes nowhere else");
  return [
    [throws],
    [bracket],
    [bridge, operations, follow],
    guards.toSorted((one, other) => last(one) - last(other)),
  ];
}

/** A folder of the application like the repository's, but for what is planted. */
export function plantedApp(folder: string, planted: readonly Plant[]): string {
  mkdirSync(folder, { recursive: true });
  for (const each of ["node_modules", "supabase", "local-project", "package.json"])
    symlinkSync(join(repositoryDir, each), join(folder, each));
  cpSync(join(repositoryDir, "out"), join(folder, "out"), { recursive: true });
  for (const { file, from, to, what } of planted) {
    const path = join(folder, "out", file);
    const text = readFileSync(path, "utf8");
    const worse = text.replace(from, to);
    if (worse === text) throw new Error(`The built ${file} holds nothing to plant "${what}" in.`);
    writeFileSync(path, worse);
  }
  return folder;
}

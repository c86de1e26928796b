/** The menu: every desk with its key, what a desktop application has, and where to look when something is wrong. */
import { app, Menu, type MenuItemConstructorOptions, shell, type WebContents } from "electron";
import { actNamed, actNames, type SubjectName } from "../../../shared/contract/acts.ts";
import { correctionWords } from "../../../shared/contract/corrections.ts";
import { desks } from "./deep-link.ts";
import { inLanguage } from "./language.ts";

type Modifier = "control" | "meta";

export interface MenuActs {
  /** Shows a screen by its address. */
  readonly go: (place: string) => void;
  readonly openWindow: () => void;
  readonly print: () => void;
  /** Gives the page a key, as if it was pressed: the page decides what the keys mean. */
  readonly press: (key: string, modifiers: readonly Modifier[]) => void;
  readonly logFolder: string;
  /** The licences of all parts, as a file. */
  readonly noticesPath: string;
}

export function pressKey(
  contents: WebContents | undefined,
  key: string,
  modifiers: readonly Modifier[],
): void {
  contents?.focus();
  contents?.sendInputEvent({ type: "keyDown", keyCode: key, modifiers: [...modifiers] });
  if (modifiers.length === 0) contents?.sendInputEvent({ type: "char", keyCode: key });
  contents?.sendInputEvent({ type: "keyUp", keyCode: key, modifiers: [...modifiers] });
}

const subjects: readonly (readonly [SubjectName, string])[] = [
  ["user", "On the user"],
  ["rule", "On the rule"],
  ["alert", "On the alert"],
];

/** Every act that has a key, with it. The key itself stays the page's: what is not open there has no acts. */
function actItems(press: MenuActs["press"], platform: NodeJS.Platform): MenuItemConstructorOptions[] {
  return subjects.map(([subject, label]) => {
    const buttons = actNames
      .map(actNamed)
      .flatMap(({ subject: of, words }) => (of === subject && words.key ? [[words.key, words.button]] : []));
    const corrections =
      subject === "user"
        ? Object.values(correctionWords).flatMap(({ key, title }) => (key ? [[key, title]] : []))
        : [];
    // Acts that share a key are offered one at a time.
    const byKey = new Map<string, string[]>();
    for (const [key = "", words = ""] of [...buttons, ...corrections])
      byKey.set(key, [...(byKey.get(key) ?? []), words]);
    const submenu = [...byKey].map(([key, words]) => ({
      id: `act-${subject}-${key}`,
      // macOS takes every key that a menu shows, also from a field that is typed in: there it is part of the text.
      ...(platform === "darwin"
        ? { label: `${words.join(" or ")} (${key})` }
        : { label: words.join(" or "), accelerator: key.toUpperCase(), registerAccelerator: false }),
      click: () => press(key, []),
    }));
    return { label, submenu };
  });
}

/** The parts that are Electron's own, with their versions; all others are under Help, Licences. */
function runtimeWords(): string {
  const { electron, chrome, node } = process.versions;
  const parts = [`Electron ${electron ?? "unknown"}`, `Chromium ${chrome ?? "unknown"}`, `Node ${node}`];
  return `${parts.join(", ")}. The licences of all parts: Help, Licences`;
}

export function setMenu(
  { go, openWindow, print, press, logFolder, noticesPath }: MenuActs,
  platform: NodeJS.Platform = process.platform,
): void {
  const open = (path: string) => () => void shell.openPath(path);
  const template: MenuItemConstructorOptions[] = [
    ...(platform === "darwin" ? [{ role: "appMenu" } as const] : []),
    {
      label: "File",
      submenu: [
        { id: "new-window", label: "New window", accelerator: "CmdOrCtrl+Shift+N", click: openWindow },
        { id: "print", label: "Print…", accelerator: "CmdOrCtrl+P", click: print },
        { type: "separator" },
        { role: "close" },
        ...(platform === "darwin" ? [] : [{ role: "quit" } as const]),
      ],
    },
    {
      label: "Edit",
      submenu: [
        { role: "undo" },
        { role: "redo" },
        { type: "separator" },
        { role: "cut" },
        { role: "copy" },
        { role: "paste" },
        { role: "selectAll" },
        { type: "separator" },
        {
          id: "find",
          label: "Find on this page",
          accelerator: "CmdOrCtrl+F",
          registerAccelerator: false,
          click: () => press("F", [platform === "darwin" ? "meta" : "control"]),
        },
      ],
    },
    { label: "Act", submenu: actItems(press, platform) },
    {
      label: "Go",
      submenu: desks.map((desk, index) => ({
        id: `go-${desk}`,
        label: desk.charAt(0).toUpperCase() + desk.slice(1),
        accelerator: `CmdOrCtrl+${index + 1}`,
        click: () => go(`/${desk}`),
      })),
    },
    {
      label: "View",
      submenu: [
        { role: "reload" },
        ...(app.isPackaged ? [] : [{ role: "toggleDevTools" } as const]),
        { type: "separator" },
        { role: "resetZoom" },
        { role: "zoomIn" },
        { role: "zoomOut" },
        { type: "separator" },
        { role: "togglefullscreen" },
      ],
    },
    { role: "windowMenu" },
    {
      role: "help",
      submenu: [
        { id: "open-log", label: "Open the log and crash reports", click: open(logFolder) },
        { id: "licences", label: "Licences", click: open(noticesPath) },
        ...(platform === "darwin" ? [] : [{ role: "about" } as const]),
      ],
    },
  ];
  app.setAboutPanelOptions({
    applicationName: app.name,
    applicationVersion: app.getVersion(),
    copyright: runtimeWords(),
  });
  Menu.setApplicationMenu(Menu.buildFromTemplate(inLanguage(template)));
}

/** The menu: every desk with its key, what a desktop application has, and where to look when something is wrong. */
import { app, Menu, type MenuItemConstructorOptions, shell } from "electron";
import { desks } from "./deep-link.ts";

export interface MenuActs {
  /** Shows a screen by its address. */
  readonly go: (place: string) => void;
  readonly openWindow: () => void;
  readonly print: () => void;
  readonly logFolder: string;
  /** The licences of all parts, as a file. */
  readonly noticesPath: string;
}

export function setMenu(
  { go, openWindow, print, logFolder, noticesPath }: MenuActs,
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
    { role: "editMenu" },
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
    copyright: "The licences of all parts: Help, Licences",
  });
  Menu.setApplicationMenu(Menu.buildFromTemplate(template));
}

/** The person's language outside the page: the menu, and what the system shows for us. */
import type { MenuItemConstructorOptions } from "electron";
import type { Settings } from "../../../shared/contract/index.ts";
import {
  currentLanguage,
  languageOf,
  localeOf,
  lookUp,
  setLanguage,
} from "../../../shared/language/index.ts";
import { germanCatalogue } from "../../../shared/language/german.ts";
import type { Dispatcher } from "../console/dispatch.ts";

/** Takes over what the person chose; answers whether the language is another now. */
export async function takeLanguage(dispatcher: Dispatcher): Promise<boolean> {
  const settings = await dispatcher.call("settings.get", {});
  const choice = settings.ok ? (settings.value as Settings).language : "system";
  const system = Intl.DateTimeFormat().resolvedOptions().locale;
  const language = choice === "system" ? languageOf(system) : choice;
  if (language === currentLanguage()) return false;
  setLanguage(language, localeOf(language, [system]), language === "de" ? await germanCatalogue() : {});
  return true;
}

/** What Electron calls its own items, in English everywhere. */
const roleLabels: Readonly<Record<string, string>> = {
  about: "About Token Governance",
  close: "Close window",
  copy: "Copy",
  cut: "Cut",
  editMenu: "Edit",
  help: "Help",
  paste: "Paste",
  quit: "Quit",
  redo: "Redo",
  reload: "Load again",
  resetZoom: "Actual size",
  selectAll: "Select all",
  toggleDevTools: "Developer tools",
  togglefullscreen: "Full screen",
  undo: "Undo",
  windowMenu: "Window",
  zoomIn: "Zoom in",
  zoomOut: "Zoom out",
};

/** A menu with the words of the person's language; in English it stays as it is. */
export function inLanguage(items: readonly MenuItemConstructorOptions[]): MenuItemConstructorOptions[] {
  if (currentLanguage() === "en") return [...items];
  return items.map((item) => {
    const label = item.label ?? roleLabels[item.role ?? ""];
    return {
      ...item,
      ...(label === undefined ? {} : { label: lookUp(label) }),
      ...(Array.isArray(item.submenu) ? { submenu: inLanguage(item.submenu) } : {}),
    };
  });
}

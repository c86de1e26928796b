/** The right click: what can be done with the text there, and the words the spell checker offers. */
import {
  type BrowserWindow,
  clipboard,
  type ContextMenuParams,
  Menu,
  type MenuItemConstructorOptions,
} from "electron";
import { linkScheme } from "./deep-link.ts";
import { appOrigin } from "./protocol.ts";

/** A link to one of our screens as others can open it: in a ticket, a chat or a note. */
function linkItems(linkURL: string | undefined): MenuItemConstructorOptions[] {
  const place = linkURL?.startsWith(`${appOrigin}/#/`) ? linkURL.slice(appOrigin.length + 3) : null;
  if (place === null) return [];
  return [
    { id: "copy-link", label: "Copy link", click: () => clipboard.writeText(`${linkScheme}://${place}`) },
  ];
}

export function contextMenuItems(
  params: ContextMenuParams,
  replace: (word: string) => void,
): MenuItemConstructorOptions[] {
  const { isEditable, selectionText, dictionarySuggestions, editFlags } = params;
  const words = isEditable
    ? dictionarySuggestions.slice(0, 5).map((word) => ({ label: word, click: () => replace(word) }))
    : [];
  const text: MenuItemConstructorOptions[] = isEditable
    ? [
        { role: "undo", enabled: editFlags.canUndo },
        { role: "redo", enabled: editFlags.canRedo },
        { type: "separator" },
        { role: "cut", enabled: editFlags.canCut },
        { role: "copy", enabled: editFlags.canCopy },
        { role: "paste", enabled: editFlags.canPaste },
        { role: "selectAll", enabled: editFlags.canSelectAll },
      ]
    : selectionText.trim() === ""
      ? []
      : [{ role: "copy" }];
  const link = linkItems(params.linkURL);
  return words.length > 0 ? [...words, { type: "separator" }, ...text] : [...link, ...text];
}

export function showContextMenus(window: BrowserWindow): void {
  window.webContents.on("context-menu", (_event, params) => {
    const items = contextMenuItems(params, (word) => window.webContents.replaceMisspelling(word));
    if (items.length > 0) Menu.buildFromTemplate(items).popup({ window });
  });
}

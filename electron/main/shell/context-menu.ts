/** The right click: what can be done with the text there, and the words the spell checker offers. */
import {
  type BrowserWindow,
  clipboard,
  type ContextMenuParams,
  Menu,
  type MenuItemConstructorOptions,
} from "electron";
import type { Profile } from "../../../shared/contract/index.ts";
import { linkTo } from "../../../shared/contract/links.ts";
import { inLanguage } from "./language.ts";
import { appOrigin } from "./protocol.ts";

/** A link to one of our screens as others can open it: in a ticket, a chat or a note. */
function linkItems(linkURL: string | undefined, project: Profile | null): MenuItemConstructorOptions[] {
  const place = linkURL?.startsWith(`${appOrigin}/#/`) ? linkURL.slice(appOrigin.length + 2) : null;
  if (place === null) return [];
  return [{ id: "copy-link", label: "Copy link", click: () => clipboard.writeText(linkTo(place, project)) }];
}

export function contextMenuItems(
  params: ContextMenuParams,
  project: Profile | null,
  replace: (word: string) => void,
  addWord: (word: string) => void,
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
  const link = linkItems(params.linkURL, project);
  const learn: MenuItemConstructorOptions[] =
    isEditable && params.misspelledWord
      ? [
          {
            id: "learn-word",
            label: `Add “${params.misspelledWord.slice(0, 40)}” to the dictionary`,
            click: () => addWord(params.misspelledWord),
          },
        ]
      : [];
  const spelling = [...words, ...learn];
  return spelling.length > 0 ? [...spelling, { type: "separator" }, ...text] : [...link, ...text];
}

/** `project`: what the window shows. */
export function showContextMenus(window: BrowserWindow, project: () => Profile | null): void {
  window.webContents.on("context-menu", (_event, params) => {
    const { webContents } = window;
    const items = contextMenuItems(
      params,
      project(),
      (word) => webContents.replaceMisspelling(word),
      (word) => void webContents.session.addWordToSpellCheckerDictionary(word),
    );
    if (items.length > 0) Menu.buildFromTemplate(inLanguage(items)).popup({ window });
  });
}

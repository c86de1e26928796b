import { type KeyboardEvent as FormKeyEvent, useLayoutEffect, useRef } from "react";

/**
 * One listener for the whole window. Layers are asked from the newest to the oldest, so an open detail answers Esc
 * before the list behind it. A handler that returns false lets the key pass on.
 */
type KeyHandler = (event: KeyboardEvent) => boolean | void;
/** Keys as `event.key` gives them, or a sequence "g w", or "mod+k" (Ctrl, or Cmd on a Mac). */
type KeyMap = Readonly<Record<string, KeyHandler>>;

interface Layer {
  readonly map: { readonly current: KeyMap };
}
const layers: Layer[] = [];
let pendingPrefix: { readonly key: string; readonly untilMs: number } | null = null;
const PREFIX_TIMEOUT_MS = 1200;

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.tagName === "TEXTAREA" || target.tagName === "SELECT") return true;
  return (
    target instanceof HTMLInputElement &&
    !["checkbox", "radio", "button", "submit", "range"].includes(target.type)
  );
}

function keyName(event: KeyboardEvent): string {
  const mod = event.ctrlKey || event.metaKey ? "mod+" : "";
  return mod + (event.key.length === 1 && mod ? event.key.toLowerCase() : event.key);
}

function dispatch(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.altKey || event.isComposing) return;
  // It closed what it was pressed in, a form in a popover: that was its meaning.
  if (event.target instanceof Node && !event.target.isConnected) return;
  const name = keyName(event);
  const typing = isTyping(event.target);
  // While typing only chords and Escape are ours; inside a dialog only chords.
  if (typing && !name.startsWith("mod+") && name !== "Escape") return;
  const inDialog =
    event.target instanceof Element && event.target.closest('[role="dialog"],[role="menu"],[role="listbox"]');
  if (inDialog && !name.startsWith("mod+")) return;
  const names = [name];
  const prefix = pendingPrefix;
  pendingPrefix = null;
  if (prefix && event.timeStamp < prefix.untilMs) names.unshift(`${prefix.key} ${name}`);
  for (const wanted of names) {
    for (let index = layers.length - 1; index >= 0; index -= 1) {
      const handler = layers[index]?.map.current[wanted];
      if (!handler) continue;
      // Enter and Space on a button or link belong to it.
      if ((name === "Enter" || name === " ") && isControl(event.target)) return;
      if (handler(event) !== false) {
        event.preventDefault();
        return;
      }
    }
  }
  if (
    !typing &&
    layers.some((layer) => Object.keys(layer.map.current).some((key) => key.startsWith(`${name} `)))
  )
    pendingPrefix = { key: name, untilMs: event.timeStamp + PREFIX_TIMEOUT_MS };
}

function isControl(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("button,a[href],input,[role=switch],summary") !== null;
}

/** Keys that work while the component is on the screen. */
export function useKeys(map: KeyMap, enabled = true): void {
  const latest = useRef(map);
  // With what is drawn, not after it: a key that comes at once already means what is seen.
  useLayoutEffect(() => {
    latest.current = map;
  });
  useLayoutEffect(() => {
    if (!enabled) return;
    const layer: Layer = { map: latest };
    if (layers.length === 0) window.addEventListener("keydown", dispatch);
    layers.push(layer);
    return () => {
      layers.splice(layers.indexOf(layer), 1);
      if (layers.length === 0) window.removeEventListener("keydown", dispatch);
    };
  }, [enabled]);
}

/** From a search box to the rows. While there are none yet, just out of the box: a key typed blind means the list. */
export function leaveForRows(box: HTMLElement): void {
  const rows = document.querySelector<HTMLElement>('[role="grid"]');
  if (rows) rows.focus();
  else box.blur();
}

/** For a form that moves money or tokens: Enter in a field sends nothing; its button does, and Ctrl or Cmd with Enter. */
export function sendsByChord(send: () => void): (event: FormKeyEvent<HTMLFormElement>) => void {
  return (event) => {
    if (event.key !== "Enter") return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      send();
    } else if (event.target instanceof HTMLInputElement) {
      event.preventDefault();
    }
  };
}

export const sendChord = (): string => (isMac() ? "⌘ Enter" : "Ctrl Enter");

export const isMac = (): boolean => /mac/i.test(navigator.platform);

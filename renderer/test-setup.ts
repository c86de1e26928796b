import { cleanup, configure } from "@testing-library/react";
import { afterEach, vi } from "vitest";
import { useLive } from "./src/lib/live.ts";

// A second, the library's own limit, is what a busy machine may take to draw.
configure({ asyncUtilTimeout: 30_000 });

// What jsdom lacks and the libraries ask for. Sizes are those of a plausible window, so that virtual lists have rows.
Object.defineProperty(window, "matchMedia", {
  value: (query: string) => ({
    matches: false,
    media: query,
    onchange: null,
    addListener() {},
    removeListener() {},
    addEventListener() {},
    removeEventListener() {},
    dispatchEvent: () => false,
  }),
});
class Observer {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
}
vi.stubGlobal("ResizeObserver", Observer);
vi.stubGlobal("IntersectionObserver", Observer);
for (const [name, size] of [
  ["offsetHeight", 600],
  ["offsetWidth", 1200],
  ["clientHeight", 600],
] as const)
  Object.defineProperty(HTMLElement.prototype, name, { configurable: true, get: () => size });
Element.prototype.scrollTo = () => {};
Element.prototype.scrollIntoView = () => {};

afterEach(() => {
  cleanup();
  localStorage.clear();
  useLive.setState(useLive.getInitialState());
});
// jsdom has no fonts; a text area that grows measures itself when they have loaded.
Object.defineProperty(document, "fonts", { value: new EventTarget() });

/**
 * What runs in the page: sent there as its own source, so each function stands alone. Two worlds share a document, not
 * their objects: the preload's (isolated) and the page's. Between the worlds and to the main process only copies pass.
 */

/** Structured clones as text. It refuses what a structured clone refuses: a function, a promise, an element. */
export function makeCodec(): { encode(value: unknown): string; decode(text: string): unknown } {
  type Told = unknown;
  const views = {
    Uint8Array,
    Uint8ClampedArray,
    Int8Array,
    Uint16Array,
    Int16Array,
    Uint32Array,
    Int32Array,
    Float32Array,
    Float64Array,
    BigInt64Array,
    BigUint64Array,
  };
  const toText = (bytes: Uint8Array): string => {
    let text = "";
    for (let from = 0; from < bytes.length; from += 8192)
      text += String.fromCharCode(...bytes.subarray(from, from + 8192));
    return btoa(text);
  };
  const toBytes = (text: string): Uint8Array<ArrayBuffer> =>
    Uint8Array.from(atob(text), (each) => each.charCodeAt(0));

  function tell(value: unknown, seen: Map<object, number>): Told {
    if (value === undefined) return { u: 1 };
    if (value === null || typeof value === "string" || typeof value === "boolean") return value;
    if (typeof value === "number")
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { n: Object.is(value, -0) ? "-0" : String(value) };
    if (typeof value === "bigint") return { b: String(value) };
    if (typeof value !== "object") throw new Error("An object could not be cloned.");
    const known = seen.get(value);
    if (known !== undefined) return { r: known };
    seen.set(value, seen.size);
    if (Array.isArray(value)) return { a: value.map((each) => tell(each, seen)) };
    if (value instanceof Date) return { d: value.getTime() };
    if (value instanceof Map)
      return { m: [...value].map(([key, each]) => [tell(key, seen), tell(each, seen)]) };
    if (value instanceof Set) return { s: [...value].map((each) => tell(each, seen)) };
    if (value instanceof RegExp) return { x: [value.source, value.flags] };
    if (value instanceof Error) return { e: [value.name, value.message, value.stack ?? ""] };
    if (value instanceof ArrayBuffer) return { f: toText(new Uint8Array(value)) };
    if (ArrayBuffer.isView(value))
      return {
        v: [value.constructor.name, toText(new Uint8Array(value.buffer, value.byteOffset, value.byteLength))],
      };
    return { o: Object.entries(value).map(([key, each]) => [key, tell(each, seen)]) };
  }

  function hear(told: Told, made: unknown[]): unknown {
    if (told === null || typeof told !== "object") return told;
    const [kind, held] = Object.entries(told)[0] as [string, never];
    if (kind === "u") return undefined;
    if (kind === "n") return Number(held);
    if (kind === "b") return BigInt(held);
    if (kind === "r") return made[held];
    const at = made.push(null) - 1;
    const keep = <T>(value: T): T => {
      made[at] = value;
      return value;
    };
    if (kind === "a") {
      const list = keep([] as unknown[]);
      for (const each of held as unknown[]) list.push(hear(each, made));
      return list;
    }
    if (kind === "d") return keep(new Date(held as number));
    if (kind === "m") {
      const map = keep(new Map<unknown, unknown>());
      for (const [key, each] of held as [Told, Told][]) map.set(hear(key, made), hear(each, made));
      return map;
    }
    if (kind === "s") {
      const set = keep(new Set<unknown>());
      for (const each of held as unknown[]) set.add(hear(each, made));
      return set;
    }
    if (kind === "x") return keep(new RegExp(held[0], held[1]));
    if (kind === "e") {
      const error = keep(new Error(held[1]));
      error.name = held[0];
      error.stack = held[2];
      return error;
    }
    if (kind === "f") return keep(toBytes(held).buffer);
    if (kind === "v") {
      const bytes = toBytes(held[1]);
      const View = views[held[0] as keyof typeof views];
      return keep(View ? new View(bytes.buffer as never) : new DataView(bytes.buffer));
    }
    const object = keep({} as Record<string, unknown>);
    for (const [key, each] of held as [string, Told][]) {
      Object.defineProperty(object, key, {
        value: hear(each, made),
        writable: true,
        enumerable: true,
        configurable: true,
      });
    }
    return object;
  }

  return {
    encode: (value) => JSON.stringify(tell(structuredClone(value), new Map())),
    decode: (text) => hear(JSON.parse(text), []),
  };
}

/**
 * One end of the context bridge. Values are copied, functions become functions that call across, promises settle across,
 * of errors the message comes over; prototypes and symbols do not. `wire` is seen by both worlds and by no page.
 */
export function makeBridgeEnd(
  wire: EventTarget,
  heard: string,
  said: string,
): { pack(value: unknown): unknown; unpack(packed: unknown): unknown } {
  interface Message {
    readonly kind: "call" | "answer" | "settle";
    readonly id: number;
    readonly ok: boolean;
    readonly value: unknown;
  }
  const MyEvent = CustomEvent;
  const functions: ((...args: unknown[]) => unknown)[] = [];
  const promises = new Map<number, { resolve(value: unknown): void; reject(error: unknown): void }>();
  let lastPromise = 0;
  let answer: Message | null = null;
  const say = (message: Message): void => void wire.dispatchEvent(new MyEvent(said, { detail: message }));

  function pack(value: unknown, depth = 0): unknown {
    if (depth > 1000)
      throw new TypeError(
        "Electron contextBridge recursion depth exceeded. Nested objects deeper than 1000 are not supported.",
      );
    if (typeof value === "function") return { t: "f", id: functions.push(value as () => unknown) - 1 };
    if (typeof value === "symbol") return { t: "v", value: undefined };
    if (value === null || typeof value !== "object") return { t: "v", value };
    if (value instanceof Promise) {
      lastPromise += 1;
      const id = lastPromise;
      value.then(
        (settled) => say({ kind: "settle", id, ok: true, value: pack(settled) }),
        (error: unknown) => say({ kind: "settle", id, ok: false, value: pack(error) }),
      );
      return { t: "p", id };
    }
    if (value instanceof Error) return { t: "e", message: value.message };
    if (Array.isArray(value)) return { t: "a", items: value.map((each) => pack(each, depth + 1)) };
    const name = Object.prototype.toString.call(value);
    if (name !== "[object Object]") return { t: "v", value };
    return { t: "o", entries: Object.entries(value).map(([key, each]) => [key, pack(each, depth + 1)]) };
  }

  function unpack(packed: unknown): unknown {
    const { t, id, value, message, items, entries } = packed as {
      t: string;
      id: number;
      value: unknown;
      message: string;
      items: unknown[];
      entries: [string, unknown][];
    };
    if (t === "f") return (...args: unknown[]) => callAcross(id, args);
    if (t === "p") return new Promise((resolve, reject) => promises.set(id, { resolve, reject }));
    if (t === "e") return new Error(message);
    if (t === "a") return items.map(unpack);
    if (t === "o") return Object.fromEntries(entries.map(([key, each]) => [key, unpack(each)]));
    return value;
  }

  function callAcross(id: number, args: readonly unknown[]): unknown {
    answer = null;
    say({ kind: "call", id, ok: true, value: args.map((each) => pack(each)) });
    const given = answer as Message | null;
    answer = null;
    if (!given) throw new Error("The other world did not answer.");
    if (!given.ok) throw unpack(given.value);
    return unpack(given.value);
  }

  wire.addEventListener(heard, (event) => {
    const message = (event as CustomEvent<Message>).detail;
    if (message.kind === "answer") {
      answer = message;
    } else if (message.kind === "settle") {
      const promise = promises.get(message.id);
      promises.delete(message.id);
      if (message.ok) promise?.resolve(unpack(message.value));
      else promise?.reject(unpack(message.value));
    } else {
      let packed: unknown;
      let ok = true;
      try {
        packed = pack(functions[message.id]?.(...(message.value as unknown[]).map(unpack)));
      } catch (error) {
        ok = false;
        packed = pack(error);
      }
      say({ kind: "answer", id: message.id, ok, value: packed });
    }
  });
  return { pack: (value) => pack(value), unpack };
}

/** The page's world, before any script of the page: what the preload exposes is put here, frozen. */
export function receiveExposed(makeEnd: typeof makeBridgeEnd): void {
  if (window.top !== window) return;
  document.addEventListener(
    "electron-bridge",
    (event) => {
      const wire = (event as MouseEvent).relatedTarget as EventTarget;
      event.stopImmediatePropagation();
      const end = makeEnd(wire, "to-page", "to-preload");
      const freeze = (value: unknown): void => {
        if (value === null || typeof value !== "object" || Object.isFrozen(value)) return;
        Object.freeze(value);
        for (const each of Object.values(value)) freeze(each);
      };
      wire.addEventListener("expose", (exposed) => {
        const { key, packed } = (exposed as CustomEvent<{ key: string; packed: unknown }>).detail;
        const value = end.unpack(packed);
        freeze(value);
        Object.defineProperty(window, key, { value, writable: false, configurable: false, enumerable: true });
      });
    },
    { once: true, capture: true },
  );
}

/** What the preload's wrapper and the main process tell each other. */
export interface ToMain {
  readonly kind: "invoke" | "send" | "preload-error" | "context-menu";
  readonly id: number;
  readonly channel: string;
  readonly args: readonly unknown[];
}

/** The preload's world: `require("electron")` with contextBridge and ipcRenderer, then the preload itself. */
export function runPreload(
  codec: ReturnType<typeof makeCodec>,
  makeEnd: typeof makeBridgeEnd,
  post: (text: string) => void,
  preload: ((module: object, exports: object, require: (name: string) => unknown) => void) | null,
): void {
  if (window.top !== window) return;
  const wire = new EventTarget();
  document.dispatchEvent(new MouseEvent("electron-bridge", { relatedTarget: wire }));
  const end = makeEnd(wire, "to-preload", "to-page");
  const exposed = new Set<string>();
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  const listeners = new Map<string, ((event: object, ...args: unknown[]) => void)[]>();
  let lastId = 0;
  const tell = (message: ToMain): void => post(codec.encode(message));

  const contextBridge = {
    exposeInMainWorld(key: string, api: unknown): void {
      if (exposed.has(key) || key in window)
        throw new Error(`Cannot bind an API on top of an existing property on the window object`);
      exposed.add(key);
      wire.dispatchEvent(new CustomEvent("expose", { detail: { key, packed: end.pack(api) } }));
    },
  };
  const ipcRenderer = {
    async invoke(channel: string, ...args: unknown[]): Promise<unknown> {
      lastId += 1;
      const id = lastId;
      tell({ kind: "invoke", id, channel, args });
      return await new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
    },
    send: (channel: string, ...args: unknown[]): void => tell({ kind: "send", id: 0, channel, args }),
    on(channel: string, listener: (event: object, ...args: unknown[]) => void) {
      listeners.set(channel, [...(listeners.get(channel) ?? []), listener]);
      return ipcRenderer;
    },
    off(channel: string, listener: unknown) {
      listeners.set(
        channel,
        (listeners.get(channel) ?? []).filter((each) => each !== listener),
      );
      return ipcRenderer;
    },
  };
  Object.assign(globalThis, {
    electronReceive(text: string) {
      const message = codec.decode(text) as {
        kind: string;
        id: number;
        ok: boolean;
        channel: string;
        args: unknown[];
      };
      if (message.kind === "answer") {
        const call = waiting.get(message.id);
        waiting.delete(message.id);
        if (message.ok) call?.resolve(message.args[0]);
        else
          call?.reject(
            new Error(`Error invoking remote method '${message.channel}': ${String(message.args[0])}`),
          );
        return;
      }
      for (const listener of listeners.get(message.channel) ?? [])
        listener({ sender: ipcRenderer, ports: [] }, ...message.args);
    },
  });
  window.addEventListener("contextmenu", (event) => {
    if (event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    const isEditable = target.isContentEditable || /^(INPUT|TEXTAREA)$/.test(target.tagName);
    const params = {
      x: event.clientX,
      y: event.clientY,
      isEditable,
      linkURL: target.closest("a")?.href ?? "",
      selectionText: String(getSelection() ?? ""),
      misspelledWord: "",
      dictionarySuggestions: [],
      mediaType: "none",
      editFlags: {
        canCut: isEditable,
        canCopy: true,
        canPaste: isEditable,
        canSelectAll: true,
        canUndo: isEditable,
        canRedo: isEditable,
      },
    };
    tell({ kind: "context-menu", id: 0, channel: "", args: [params] });
  });
  if (!preload) return;
  try {
    const module = { exports: {} };
    preload(module, module.exports, (name) => {
      if (name === "electron" || name === "electron/renderer") return { contextBridge, ipcRenderer };
      throw new Error(`module not found: ${name}`);
    });
  } catch (error) {
    console.error("Unable to load preload script", error);
    tell({
      kind: "preload-error",
      id: 0,
      channel: "",
      args: [error instanceof Error ? error.message : String(error)],
    });
  }
}

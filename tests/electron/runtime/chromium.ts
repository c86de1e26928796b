/**
 * A real Chromium, driven over its DevTools pipe. It ends with this process, however this ends: a closed pipe is its end.
 * It listens on a port as well, as Electron does when it is told to, so that a test can follow along.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { chromium } from "@playwright/test";
import { existsSync } from "node:fs";

type Parameters = Record<string, unknown>;

/** What Chromium answers; the DevTools protocol says what it holds. */
// oxlint-disable-next-line typescript/no-explicit-any -- the protocol's own shapes, some thousand of them
type Answer = any;

export class Session extends EventEmitter {
  readonly #post: (message: object) => void;
  readonly #waiting = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>();
  readonly id: string | undefined;
  static #lastId = 0;

  constructor(post: (message: object) => void, id?: string) {
    super();
    this.setMaxListeners(0);
    this.#post = post;
    this.id = id;
  }

  send(method: string, params: Parameters = {}): Promise<Answer> {
    Session.#lastId += 1;
    const id = Session.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ id, method, params, ...(this.id ? { sessionId: this.id } : {}) });
    });
  }

  /** For what may come after the page has gone. */
  tell(method: string, params: Parameters = {}): void {
    this.send(method, params).catch(() => {});
  }

  take(message: Answer): void {
    if (message.id === undefined) {
      this.emit(message.method, message.params);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error) waiting?.reject(new Error(message.error.message));
    else waiting?.resolve(message.result);
  }

  end(): void {
    for (const waiting of this.#waiting.values()) waiting.reject(new Error("The page has gone."));
    this.#waiting.clear();
    this.emit("ended");
  }
}

function findExecutable(): string {
  const candidates = [
    chromium.executablePath(),
    process.env["CHROMIUM_PATH"],
    "/usr/bin/chromium",
    "/usr/bin/google-chrome",
  ];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) throw new Error("There is no Chromium for the stand-in of Electron's runtime.");
  return found;
}

const switches = [
  "--headless=new",
  "--no-startup-window",
  "--remote-debugging-pipe",
  "--remote-debugging-port=0",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--no-default-browser-check",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-extensions",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--disable-popup-blocking",
  "--disable-back-forward-cache",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
  "--password-store=basic",
  "--use-mock-keychain",
  // Electron shows no page of Chrome's own, and asks nobody for a name.
  "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,Translate,MediaRouter",
  "--host-resolver-rules=MAP *.invalid ~NOTFOUND",
];

export class Chromium {
  readonly root: Session;
  readonly #sessions = new Map<string, Session>();
  readonly #child: ChildProcess;

  constructor(userDataDir: string) {
    const root = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    this.#child = spawn(findExecutable(), [...switches, ...root, `--user-data-dir=${userDataDir}`], {
      stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
    });
    createInterface({ input: this.#child.stderr as Readable }).on("line", (line) => {
      if (line.startsWith("DevTools listening") || process.env.ELECTRON_ENABLE_LOGGING)
        process.stderr.write(`${line}\n`);
    });
    const writable = this.#child.stdio[3] as Writable;
    writable.on("error", () => {});
    const post = (message: object): void => void writable.write(`${JSON.stringify(message)}\0`);
    this.root = new Session(post);
    this.#read(this.#child.stdio[4] as Readable, post);
  }

  #read(readable: Readable, post: (message: object) => void): void {
    let rest: Buffer[] = [];
    readable.on("data", (chunk: Buffer) => {
      let from = 0;
      for (let end = chunk.indexOf(0); end !== -1; end = chunk.indexOf(0, from)) {
        rest.push(chunk.subarray(from, end));
        this.#take(JSON.parse(Buffer.concat(rest).toString()), post);
        rest = [];
        from = end + 1;
      }
      if (from < chunk.length) rest.push(chunk.subarray(from));
    });
  }

  #take(message: Answer, post: (message: object) => void): void {
    if (message.method === "Target.attachedToTarget") {
      const { sessionId } = message.params as { sessionId: string };
      this.#sessions.set(sessionId, new Session(post, sessionId));
    }
    const session = message.sessionId ? this.#sessions.get(message.sessionId as string) : this.root;
    session?.take(message);
    if (message.method === "Target.detachedFromTarget") {
      const { sessionId } = message.params as { sessionId: string };
      this.#sessions.get(sessionId)?.end();
      this.#sessions.delete(sessionId);
    }
  }

  session(id: string): Session {
    const session = this.#sessions.get(id);
    if (!session) throw new Error(`There is no session ${id}.`);
    return session;
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    if (this.#child.exitCode !== null) return;
    this.root.tell("Browser.close");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(timer);
  }
}

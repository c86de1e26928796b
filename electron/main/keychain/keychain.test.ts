import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { type KeychainLibrary, openKeychain } from "./keychain.ts";

/** The libraries talk to the system; these stand-ins do what each of them was seen to do on a real machine. */
function library(change: Partial<KeychainLibrary> = {}): KeychainLibrary & { entries: Map<string, string> } {
  const entries = new Map<string, string>();
  return {
    entries,
    getPassword: async (_service, account) => entries.get(account) ?? null,
    setPassword: async (_service, account, password) => void entries.set(account, password),
    deletePassword: async (_service, account) => entries.delete(account),
    ...change,
  };
}
const service = "test";

test("keytar is used where it keeps what it is given, and leaves no trial behind", async () => {
  const keytar = library();
  const keychain = await openKeychain({ service, remembered: null, load: async () => keytar });
  expect(keychain.kind).toBe("keytar");
  expect(keytar.entries.size).toBe(0);
  expect(await keychain.set("p", "secret")).toBe(true);
  expect(await keychain.get("p")).toBe("secret");
  await keychain.remove("p");
  expect(await keychain.get("p")).toBeNull();
});

test("where keytar is not installed or rejects, the other library is used", async () => {
  const rejecting = library({ setPassword: () => Promise.reject(new Error("no D-Bus")) });
  for (const keytar of [() => Promise.reject(new Error("not installed")), async () => rejecting]) {
    const keychain = await openKeychain({
      service,
      remembered: null,
      load: (kind) => (kind === "keytar" ? keytar() : Promise.resolve(library())),
    });
    expect(keychain.kind).toBe("napi-keyring");
  }
});

test("a library that answers null to everything is no keychain: keys live for the session, and it is said", async () => {
  const forgetful = library({ getPassword: async () => null });
  const keychain = await openKeychain({ service, remembered: null, load: async () => forgetful });
  expect(keychain.kind).toBe("none");
  expect(keychain.note).toContain("never written");
  expect(await keychain.set("p", "secret")).toBe(false);
  expect(await keychain.get("p")).toBeNull();
});

test("a locked keyring that never answers is given up within the time limit", async () => {
  const hanging = library({ setPassword: () => new Promise(() => {}) });
  const startedAt = Date.now();
  const keychain = await openKeychain({
    service,
    remembered: null,
    timeoutMs: 50,
    load: async () => hanging,
  });
  expect(keychain.kind).toBe("none");
  expect(Date.now() - startedAt).toBeLessThan(2_000);
});

test("the remembered keychain is never swapped for another: the entries would seem lost", async () => {
  const keychain = await openKeychain({
    service,
    remembered: "keytar",
    load: (kind) => (kind === "keytar" ? Promise.reject(new Error("gone")) : Promise.resolve(library())),
  });
  expect(keychain.kind).toBe("none");
  expect(keychain.note).toContain("keytar");
  expect(keychain.detail).toBe("keytar: gone");
});

test("a keychain that fails later loses no answer: reading gives null, writing says it was not kept", async () => {
  const keytar = library();
  const keychain = await openKeychain({ service, remembered: null, timeoutMs: 50, load: async () => keytar });
  keytar.getPassword = () => Promise.reject(new Error("locked"));
  expect(await keychain.get("p")).toBeNull();
  expect(await keychain.set("p", "secret")).toBe(false);
});

test("the real libraries of this machine are tried without an exception", async () => {
  const keychain = await openKeychain({
    service: "token-governance-test",
    remembered: null,
    timeoutMs: 3_000,
  });
  expect(["keytar", "napi-keyring", "none"]).toContain(keychain.kind);
  expect(keychain.note === null).toBe(keychain.kind !== "none");
});

function isInstalled(command: string): boolean {
  try {
    execFileSync("which", [command]);
    return true;
  } catch {
    return false;
  }
}
const hasKeyring =
  process.platform === "linux" && isInstalled("dbus-run-session") && isInstalled("gnome-keyring-daemon");
if (!hasKeyring) console.warn("No gnome-keyring here: the keychain is NOT tested against a real one.");
/** keytar is optional: it is compiled on Linux, which needs libsecret's headers. */
const installed = ["keytar", "napi-keyring"].filter((kind) => kind !== "keytar" || isResolvable("keytar"));
if (hasKeyring && !installed.includes("keytar"))
  console.warn(
    "keytar is not installed here: it is NOT tested against a real keyring (Debian: libsecret-1-dev).",
  );

function isResolvable(name: string): boolean {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch {
    return false;
  }
}

/** Runs a script in a session of its own with an unlocked (or locked) keyring; answers what it prints. */
async function inKeyring(script: string, isUnlocked: boolean): Promise<unknown> {
  const home = mkdtempSync(join(tmpdir(), "keyring-"));
  const unlock = isUnlocked
    ? "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null; "
    : "";
  const code = `import { openKeychain } from ${JSON.stringify(join(import.meta.dirname, "keychain.ts"))}; ${script}`;
  try {
    const { stdout } = await promisify(execFile)(
      "dbus-run-session",
      [
        "--",
        "bash",
        "-c",
        `${unlock}"$@"`,
        "_",
        process.execPath,
        "--input-type=module-typescript",
        "-e",
        code,
      ],
      {
        env: { ...process.env, HOME: home, XDG_RUNTIME_DIR: home, XDG_DATA_HOME: home, DISPLAY: "" },
        timeout: 50_000,
      },
    );
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "null");
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

test.skipIf(!hasKeyring)(
  "a real keyring keeps a key, each library its own, and forgets it when asked to",
  async () => {
    const said = await inKeyring(
      `const said = {};
     for (const kind of ${JSON.stringify(installed)}) {
       const first = await openKeychain({ service: "token-governance-test", remembered: kind });
       const kept = first.kind !== "none" && (await first.set("p", "secret of " + kind));
       const again = await openKeychain({ service: "token-governance-test", remembered: kind });
       const back = await again.get("p");
       await again.remove("p");
       said[kind] = { kind: first.kind, kept, back, gone: await again.get("p") };
     }
     console.log(JSON.stringify(said)); process.exit(0);`,
      true,
    );
    expect(said).toEqual(
      Object.fromEntries(
        installed.map((kind) => [kind, { kind, kept: true, back: `secret of ${kind}`, gone: null }]),
      ),
    );
  },
);

test.skipIf(!hasKeyring)(
  "a bus whose keyring nobody unlocks gives a session-only keychain in time, not a hang",
  async () => {
    const said = (await inKeyring(
      `const startedAt = Date.now();
     const keychain = await openKeychain({ service: "token-governance-test", remembered: null, timeoutMs: 2000 });
     console.log(JSON.stringify({ kind: keychain.kind, ms: Date.now() - startedAt })); process.exit(0);`,
      false,
    )) as { kind: string; ms: number };
    expect(said.kind).toBe("none");
    expect(said.ms).toBeLessThan(20_000);
  },
);

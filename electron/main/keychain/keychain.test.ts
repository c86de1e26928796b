import { expect, test } from "vitest";
import { type KeychainLibrary, openKeychain } from "./keychain.ts";

/** The libraries talk to the system; here stands what each of them was seen to do on a machine. */
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

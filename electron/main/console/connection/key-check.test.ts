import { expect, test } from "vitest";
import { checkKey, parseProjectUrl } from "./key-check.ts";

const now = new Date("2026-11-22T12:00:00Z");
const origin = "https://abcdefghijklmnopqrst.supabase.co";

function jwt(claims: Record<string, unknown>, signature = "s".repeat(43)): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}.${signature}`;
}
const service = { role: "service_role", ref: "abcdefghijklmnopqrst", exp: 2_000_000_000 };

test("the service-role key in both of its forms is accepted", () => {
  expect(checkKey(jwt(service), origin, now)).toEqual({ ok: true, value: "jwt" });
  expect(checkKey("sb_secret_abcdefghijklmnopqrstuv_0123456", origin, now)).toEqual({
    ok: true,
    value: "secret",
  });
});

test("a key of the right role for a self-hosted project needs no project name", () => {
  expect(checkKey(jwt({ role: "service_role" }), "http://127.0.0.1:54321", now).ok).toBe(true);
});

test.each([
  ["nothing", "", "missing_key"],
  ["a sentence", "my secret key", "malformed_key"],
  ["another service's key", "sk_live_abcdefghijklmnop", "malformed_key"],
  ["a personal access token", "sbp_0123456789abcdef", "malformed_key"],
  ["hidden characters", "sb_secret_••••••••••••••••••••••", "malformed_key"],
  ["the publishable key", "sb_publishable_abcdefghijklmnopqrstuvwx", "publishable_key"],
  ["a secret key cut short", "sb_secret_abc", "truncated_key"],
  ["a JWT without its signature", jwt(service).split(".").slice(0, 2).join("."), "truncated_key"],
  ["a JWT whose signature is cut", jwt(service).slice(0, -10), "truncated_key"],
  ["a JWT whose payload is damaged", jwt(service).replace(/\.[^.]+\./, ".bm90IGpzb24."), "malformed_key"],
  ["a JWT with a part too many", `${jwt(service)}.more`, "malformed_key"],
  ["the anon key", jwt({ ...service, role: "anon" }), "wrong_role"],
  ["a signed-in user's token", jwt({ ...service, role: "authenticated" }), "wrong_role"],
  ["a JWT without a role", jwt({ sub: "x" }), "wrong_role"],
  ["an expired key", jwt({ ...service, exp: 1_700_000_000 }), "expired_key"],
  ["another project's key", jwt({ ...service, ref: "zyxwvutsrqponmlkjihg" }), "other_project"],
])("%s is refused with its own reason, and the answer does not hold the key", (_what, key, code) => {
  const answer = checkKey(key, origin, now);
  expect(answer).toMatchObject({ ok: false, error: { code } });
  expect(answer.ok ? null : answer.error.message).toMatch(/^[A-Z].*\.$/);
  if (key.length > 12) expect(JSON.stringify(answer)).not.toContain(key);
});

test("a key that has expired is named with its day as people write it", () => {
  expect(checkKey(jwt({ ...service, exp: 1_700_000_000 }), origin, now)).toMatchObject({
    error: { message: "This key expired on 14 November 2023." },
  });
});

test("an address is reduced to the project's origin, also from its API paths and without a scheme", () => {
  for (const text of [origin, `${origin}/`, ` ${origin}/rest/v1/ `, "abcdefghijklmnopqrst.supabase.co"]) {
    expect(parseProjectUrl(text), text).toEqual({ ok: true, value: origin });
  }
  expect(parseProjectUrl("http://127.0.0.1:54321")).toEqual({ ok: true, value: "http://127.0.0.1:54321" });
});

test.each([
  ["", "wrong_url"],
  ["not an address", "wrong_url"],
  ["ftp://abc.supabase.co", "wrong_url"],
  ["javascript://abc", "wrong_url"],
  ["https://user:pass@abc.supabase.co", "wrong_url"],
  ["https://abc.supabase.co/some/page", "wrong_url"],
  ["https://supabase.com/dashboard/project/abcdefghijklmnopqrst", "wrong_url"],
  ["http://abc.supabase.co", "insecure_url"],
  ["http://192.168.1.4:8000", "insecure_url"],
])("the address %j is refused as %s", (text, code) => {
  expect(parseProjectUrl(text)).toMatchObject({ ok: false, error: { code } });
});

test("the dashboard's address is answered with the project's own", () => {
  const answer = parseProjectUrl("https://supabase.com/dashboard/project/abcdefghijklmnopqrst");
  expect(answer.ok ? null : answer.error.advice).toContain(origin);
});

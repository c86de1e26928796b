import { expect, test } from "vitest";
import { redact } from "./redact.ts";

const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJlc2lnbmF0dXJl";

test.each([
  ["a JWT", `failed with ${jwt} here`, jwt],
  ["a JWT cut short", `failed with ${jwt.slice(0, 40)}`, jwt.slice(0, 40)],
  ["a secret key", "key sb_secret_abcdefghijklmnop_12", "sb_secret_abcdefghijklmnop_12"],
  ["a Stripe key", "key rk_live_abcdefghijkl12", "rk_live_abcdefghijkl12"],
  [
    "a realtime address",
    "ws://h/realtime/v1/websocket?apikey=plainsecretvalue&vsn=2.0.0",
    "plainsecretvalue",
  ],
  ["a header", "Authorization: Bearer plainsecretvalue", "plainsecretvalue"],
  ["a database address", "postgres://me:hunter2secret@db:5432/x", "hunter2secret"],
])("%s is taken out of a text", (_what, text, secret) => {
  expect(redact(text)).not.toContain(secret);
  expect(redact(text)).toContain("[key]");
});

test("a secret of another form is taken out where it is known", () => {
  expect(redact("it was unusual-secret!", ["unusual-secret!"])).toBe("it was [key]");
});

test("ordinary text stays", () => {
  const text = "User ada@example.com has 10,000 tokens; rule daily_limit v3 at 10:20.";
  expect(redact(text)).toBe(text);
});

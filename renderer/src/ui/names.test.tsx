import { screen } from "@testing-library/react";
import { afterEach, expect, it } from "vitest";
import { germanCatalogue } from "../../../shared/language/german.ts";
import { setLanguage } from "../../../shared/language/index.ts";
import { answering, show } from "../../test-render.tsx";
import { capitalise, codeWords } from "../lib/text.ts";
import { NameAmong } from "./parts.tsx";

afterEach(() => setLanguage("en", "en-GB", {}));

const user = (user_id: string, display_name: string | null) => ({ user_id, display_name });

it("distinguishes users of one name where only names are listed, and leaves other names alone", () => {
  // The second is the same to the eye.
  const users = [
    user("user-000017", "Sofía Ferreira"),
    user("user-000204", "Sofía\u200b Ferreira"),
    user("user-000300", "Una Example"),
    user("user-000400", null),
    user("user-000500", null),
  ];
  show(
    answering({}),
    users.map((of) => (
      <p key={of.user_id} data-testid="name">
        <NameAmong user={of} others={users} />
      </p>
    )),
  );
  const texts = screen.getAllByTestId("name").map((each) => each.textContent);
  expect(texts[0]).not.toBe(texts[1]);
  expect(texts.slice(0, 3)).toEqual(["Sofía Ferreira…000017", "Sofía Ferreira…000204", "Una Example"]);
  expect(new Set(texts).size).toBe(users.length);
});

it("says the names of the presets' rules and alerts in German", async () => {
  setLanguage("de", "de-DE", await germanCatalogue());
  expect(["bot_behavior", "monthly_budget", "long_conversation", "my_own_rule"].map(codeWords)).toEqual([
    "Bot-Verhalten",
    "Monatsbudget",
    "lange Unterhaltung",
    "my own rule",
  ]);
  expect(capitalise(codeWords("large_message"))).toBe("Große Nachricht");
});

import type { UsageEvent } from "../../../shared/contract/watch.ts";
import type { Meaning } from "../ui/theme.ts";
import { codeWords } from "./text.ts";

/** The word and colour of everything that happens: the same on every screen. */
export interface Sign {
  readonly meaning: Meaning;
  readonly word: string;
}

export function eventSign(event: Pick<UsageEvent, "kind" | "decision">): Sign {
  switch (event.kind) {
    case "authorized":
      return event.decision === "warn"
        ? { meaning: "amber", word: "warned" }
        : { meaning: "blue", word: "held" };
    case "blocked":
      return { meaning: "red", word: "blocked" };
    case "settled":
      return { meaning: "green", word: "settled" };
    case "released":
      return { meaning: "grey", word: "released" };
    case "expired":
      return { meaning: "amber", word: "expired" };
    case "quarantined":
      return { meaning: "red", word: "quarantined" };
  }
}

export const kindWords: Readonly<Record<UsageEvent["kind"], string>> = {
  authorized: "held",
  blocked: "blocked",
  settled: "settled",
  released: "released",
  expired: "expired",
  quarantined: "quarantined",
};

export function decisionSign(decision: "allow" | "warn" | "block"): Sign {
  if (decision === "block") return { meaning: "red", word: "blocked" };
  if (decision === "warn") return { meaning: "amber", word: "warned" };
  return { meaning: "green", word: "allowed" };
}

export function statusSign(status: string): Sign {
  const signs: Readonly<Record<string, Sign>> = {
    blocked: { meaning: "red", word: "blocked" },
    held: { meaning: "blue", word: "held" },
    settled: { meaning: "green", word: "settled" },
    released: { meaning: "grey", word: "released" },
    expired: { meaning: "amber", word: "expired" },
    quarantined: { meaning: "red", word: "quarantined" },
  };
  return signs[status] ?? { meaning: "grey", word: codeWords(status) };
}

export function modeSign(mode: "enforce" | "shadow" | "off"): Sign {
  if (mode === "enforce") return { meaning: "green", word: "enforced" };
  if (mode === "shadow") return { meaning: "violet", word: "shadow" };
  return { meaning: "grey", word: "off" };
}

/** Who is stopped or watched, in order of weight. Empty for an account in good standing. */
export function accountSigns(account: {
  readonly is_blocked: boolean;
  readonly is_flagged: boolean;
  readonly debt?: number;
}): readonly Sign[] {
  const signs: Sign[] = [];
  if (account.is_blocked) signs.push({ meaning: "red", word: "blocked" });
  if (account.is_flagged) signs.push({ meaning: "amber", word: "flagged" });
  if (account.debt && account.debt > 0) signs.push({ meaning: "red", word: "in debt" });
  return signs;
}

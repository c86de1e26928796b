import type { UsageEvent } from "../../../shared/contract/watch.ts";
import type { Tone } from "../ui/theme.ts";
import { codeWords } from "./text.ts";

/** The word and colour of everything that happens: the same on every screen. */
export interface Sign {
  readonly tone: Tone;
  readonly word: string;
}

export function eventSign(event: Pick<UsageEvent, "kind" | "decision">): Sign {
  switch (event.kind) {
    case "authorized":
      return event.decision === "warn" ? { tone: "amber", word: "warned" } : { tone: "blue", word: "held" };
    case "blocked":
      return { tone: "red", word: "blocked" };
    case "settled":
      return { tone: "green", word: "settled" };
    case "released":
      return { tone: "grey", word: "released" };
    case "expired":
      return { tone: "amber", word: "expired" };
    case "quarantined":
      return { tone: "red", word: "quarantined" };
  }
}

export function decisionSign(decision: "allow" | "warn" | "block"): Sign {
  if (decision === "block") return { tone: "red", word: "blocked" };
  if (decision === "warn") return { tone: "amber", word: "warned" };
  return { tone: "green", word: "allowed" };
}

export function statusSign(status: string): Sign {
  const signs: Readonly<Record<string, Sign>> = {
    blocked: { tone: "red", word: "blocked" },
    held: { tone: "blue", word: "held" },
    settled: { tone: "green", word: "settled" },
    released: { tone: "grey", word: "released" },
    expired: { tone: "amber", word: "expired" },
    quarantined: { tone: "red", word: "quarantined" },
  };
  return signs[status] ?? { tone: "grey", word: codeWords(status) };
}

export function modeSign(mode: "enforce" | "shadow" | "off"): Sign {
  if (mode === "enforce") return { tone: "green", word: "enforced" };
  if (mode === "shadow") return { tone: "violet", word: "shadow" };
  return { tone: "grey", word: "off" };
}

/** Who is stopped or watched, in order of weight. Empty for an account in good standing. */
export function accountSigns(account: {
  readonly is_blocked: boolean;
  readonly is_flagged: boolean;
  readonly debt?: number;
}): readonly Sign[] {
  const signs: Sign[] = [];
  if (account.is_blocked) signs.push({ tone: "red", word: "blocked" });
  if (account.is_flagged) signs.push({ tone: "amber", word: "flagged" });
  if (account.debt && account.debt > 0) signs.push({ tone: "red", word: "in debt" });
  return signs;
}

/** Turns what PostgREST, the database and the network answer into a sentence and what to do. */
import type { Failure } from "../../../shared/contract/index.ts";
import { redact } from "./redact.ts";

/** The answer's error as supabase-js gives it. */
export interface RpcError {
  readonly message: string;
  readonly code: string;
  readonly details: string | null;
  readonly hint: string | null;
}

/** Codes of failures that a connection may get over by itself: nothing was refused, nobody was reached. */
const unreachableCodes: ReadonlySet<string> = new Set([
  "offline",
  "timeout",
  "unavailable",
  "tls",
  "unknown_host",
]);

export function isUnreachable(failure: Failure): boolean {
  return unreachableCodes.has(failure.code);
}

/** The words that the database's functions put into `hint`, in sentences (supabase/ERROR_CODES.md). */
const adviceByWord: Readonly<Record<string, string>> = {
  invalid_argument: "Correct the input and try again.",
  unknown_user: "The project has no such user. Search again: the id may have changed.",
  not_found: "It is not there any more. Refresh the list.",
  version_conflict: "Somebody changed it in the meantime: compare, then decide.",
  idempotency_conflict: "This command was sent before with other content. Start the action again.",
  insufficient_tokens: "Take less, or wait until more is free.",
  approval_needed: "Ask somebody else to approve it.",
};

const networkSentences: Readonly<Record<string, readonly [code: string, message: string, advice: string]>> = {
  ECONNREFUSED: [
    "offline",
    "Nothing answers at the project's address.",
    "See that the project runs and the address and port are right.",
  ],
  ENOTFOUND: [
    "unknown_host",
    "The project's host name is not known.",
    "Check the address for typing errors, and the network.",
  ],
  EAI_AGAIN: [
    "offline",
    "No network: the project's host name cannot be looked up.",
    "Check the network connection.",
  ],
  ENETUNREACH: ["offline", "There is no network.", "Check the network connection."],
  EHOSTUNREACH: ["offline", "The project's host cannot be reached.", "Check the network connection."],
  ECONNRESET: ["offline", "The connection broke before the project answered.", "Try again."],
  UND_ERR_SOCKET: ["offline", "The connection broke before the project answered.", "Try again."],
  UND_ERR_CONNECT_TIMEOUT: [
    "timeout",
    "The project does not answer.",
    "Check the network, or try again later.",
  ],
};

export function timeoutFailure(timeoutMs: number): Failure {
  return {
    code: "timeout",
    message: `The project did not answer within ${Math.round(timeoutMs / 1000)} s.`,
    advice: "Try again. If it was a change, look at whether it was made.",
    details: null,
  };
}

/** `status` 0: no answer came. */
export function toFailure(
  name: string,
  status: number,
  error: RpcError,
  secrets: readonly string[],
): Failure {
  const clean = (text: string | null, most = 2_000): string => redact(text ?? "", secrets).slice(0, most);
  const details = `${name}: ${status} ${error.code || "-"} ${clean(error.message)}${error.details && status > 0 ? `; ${clean(error.details)}` : ""}`;
  const failure = (code: string, message: string, advice: string | null): Failure => ({
    code,
    message,
    advice,
    details,
  });

  if (status === 0) return networkFailure(error, details);
  const word = error.hint && /^[a-z]+(_[a-z]+)*$/.test(error.hint) ? error.hint : null;
  if (word)
    return {
      code: word,
      message: sentence(clean(error.message)),
      advice: adviceByWord[word] ?? null,
      // A version conflict carries the whole rule as it is now.
      details: error.details ? clean(error.details, 1_000_000) : details,
    };
  if (error.code === "PGRST202") {
    return failure(
      "missing_function",
      "The project lacks a function that this console needs.",
      "Apply the migrations to it: npm run migrate, or supabase db push.",
    );
  }
  if (error.code === "PGRST303" || /jwt expired/i.test(error.message)) {
    return failure(
      "expired_key",
      "The key has expired.",
      "Take a new service-role key from the project's settings.",
    );
  }
  if (status === 401 || /invalid api key|jws|jwt/i.test(error.message)) {
    return failure(
      "wrong_key",
      "The project does not accept this key.",
      "Take the service-role (secret) key from the settings of this very project.",
    );
  }
  if (status === 403) {
    return failure(
      "wrong_role",
      "The key may not do this.",
      "The service-role (secret) key is needed, not the anon or publishable one.",
    );
  }
  if ((status === 404 || status < 400) && error.code === "") {
    return failure(
      "not_a_project",
      "What answers at this address is not a Supabase project.",
      "Check the address: https://<ref>.supabase.co, without a path.",
    );
  }
  if (
    status === 540 ||
    status === 503 ||
    status === 502 ||
    status === 504 ||
    status === 521 ||
    status === 522
  ) {
    return failure(
      "unavailable",
      "The project is not available at the moment.",
      "It may be paused or restarting: look at its dashboard, then try again.",
    );
  }
  if (status === 429) return failure("busy", "The project asks to slow down.", "Try again in a moment.");
  if (error.code.startsWith("57014"))
    return failure("timeout", "The project took too long.", "Ask for less at once.");
  return failure(
    status >= 500 ? "project_error" : "refused",
    status >= 500 ? "The project failed to answer." : sentence(clean(error.message)),
    "Copy the details into a ticket if it happens again.",
  );
}

function networkFailure(error: RpcError, details: string): Failure {
  const text = `${error.message} ${error.details ?? ""}`;
  const code = /\(([A-Z][A-Z0-9_]+)\)/.exec(text)?.[1] ?? "";
  const known = networkSentences[code];
  if (known) return { code: known[0], message: known[1], advice: known[2], details: `${details} (${code})` };
  if (/redirect/i.test(text)) {
    return {
      code: "not_a_project",
      message: "This address sends elsewhere; it is not a Supabase project's.",
      advice: "Give the project's own address, without a path.",
      details,
    };
  }
  if (
    /CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO/i.test(code) ||
    /certificate|ssl|tls|wrong version number/i.test(text)
  ) {
    return {
      code: "tls",
      message: "The project's certificate cannot be trusted, so nothing was sent.",
      advice:
        "Check the address and this machine's clock. Behind a company proxy, NODE_EXTRA_CA_CERTS names its certificate.",
      details: `${details} (${code})`,
    };
  }
  return {
    code: "offline",
    message: "The project cannot be reached.",
    advice: "Check the network connection.",
    details,
  };
}

function sentence(text: string): string {
  const trimmed = text.trim() || "The project refused this";
  return (trimmed[0]?.toUpperCase() ?? "") + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

/**
 * The one way to a project: supabase-js, rpc calls parsed by schema, and wake-ups. Expected failures are values; the
 * key is in no error and no log.
 */
import { createClient } from "@supabase/supabase-js";
import WebSocket from "ws";
import type { z } from "zod";
import type { Failure } from "../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../shared/governance/result.ts";
import { isUnreachable, type RpcError, timeoutFailure, toFailure } from "./failures.ts";
import { redact } from "./redact.ts";
import { readingFunctions, readOnly } from "./reading.ts";
import { createReplicaRoute, queryParameters } from "./replica.ts";
import { followSignals, signalBeats, type SignalBeats, type SignalTopic } from "./signals.ts";

export interface RpcOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /**
   * How often to try again after a failure that may have happened on the way. 0 unless the function only reads, or
   * its call carries a key that makes it safe to repeat.
   */
  readonly retries?: number;
}

export interface Backend {
  readonly url: string;
  /** A way to the read replica alone, where one is named: for asking how far behind it is. */
  readonly replica: Pick<Backend, "rpc"> | null;
  rpc<S extends z.ZodType>(
    name: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: S,
    options?: RpcOptions,
  ): Promise<Result<z.output<S>, Failure>>;
  /**
   * Calls `onSignal` when there may be something new, and with null when wake-ups may have been missed (after each
   * subscribe). What happened must be read: a wake-up carries no content. Answers how to stop.
   */
  listen(onSignal: (topic: SignalTopic | null) => void): () => void;
  close(): Promise<void>;
}

interface BackendOptions {
  readonly url: string;
  readonly key: string;
  /** A read replica of the same project, which takes the same key; null or left out where there is none. */
  readonly readUrl?: string | null;
  /** Refuses every function that may change something. */
  readonly isReadOnly?: boolean;
  /** The machine this runs on: the audit log records where an act came from. */
  readonly device?: string | null;
}

const defaultTimeoutMs = 15_000;

function createClientOf(address: string, key: string, device: string | null) {
  return createClient(address, key, {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    global: {
      // A redirect would carry the apikey header to another host.
      fetch: (input, init) => fetch(input, { ...init, redirect: "error" }),
      ...(device === null ? {} : { headers: { "x-console-device": device } }),
    },
    realtime: { transport: WebSocket as never, params: { eventsPerSecond: 10 } },
  });
}

function listenTo(
  client: ReturnType<typeof createClientOf>,
  onSignal: (topic: SignalTopic | null) => void,
  read: () => Promise<SignalBeats | null>,
): () => void {
  const signals = followSignals(read, onSignal);
  const channel = client
    .channel("console-signals")
    .on(
      "postgres_changes",
      { event: "*", schema: "governance", table: "signals" },
      ({ new: signal }: { new?: { topic?: SignalTopic; beats?: number } }) => {
        if (signal?.topic) signals.heard(signal.topic, signal.beats ?? 0);
        else onSignal(null);
      },
    )
    // The server listens only once it confirms; what happened before must be read.
    .on("system", {}, () => onSignal(null))
    .subscribe((status) => {
      if (status !== "SUBSCRIBED") signals.lost();
      onSignal(null);
    });
  return () => {
    signals.stop();
    void client.removeChannel(channel);
  };
}

export function createBackend({
  url,
  key,
  readUrl = null,
  isReadOnly = false,
  device = null,
}: BackendOptions): Backend {
  const secrets = [key];
  const clientOf = (address: string) => createClientOf(address, key, device);
  const client = clientOf(url);
  const reader = readUrl === null ? null : clientOf(readUrl);
  const route = createReplicaRoute();

  async function once<S extends z.ZodType>(
    place: "primary" | "replica",
    name: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: S,
    options: RpcOptions,
  ): Promise<Result<z.output<S>, Failure>> {
    const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = options.signal ? AbortSignal.any([timeout, options.signal]) : timeout;
    let response: { data: unknown; error: RpcError | null; status: number };
    try {
      const call =
        place === "replica" && reader
          ? reader.rpc(name, queryParameters(parameters), { get: true })
          : client.rpc(name, parameters);
      response = await call.abortSignal(signal);
    } catch (error) {
      response = {
        data: null,
        status: 0,
        error: { message: (error as Error).message, code: "", details: null, hint: null },
      };
    }
    if (response.error) {
      if (response.status === 0 && timeout.aborted) return fail(timeoutFailure(timeoutMs));
      if (response.status === 0 && options.signal?.aborted) {
        return fail({ code: "cancelled", message: "This was cancelled.", advice: null, details: null });
      }
      // A server that is not PostgREST may answer anything.
      const { message, code, details, hint } = response.error as Partial<RpcError>;
      const error: RpcError = {
        message: String(message ?? ""),
        code: String(code ?? ""),
        details: details ?? null,
        hint: hint ?? null,
      };
      return fail(toFailure(name, response.status, error, secrets));
    }
    const parsed = schema.safeParse(response.data);
    if (parsed.success) return ok(parsed.data);
    return fail({
      code: "unexpected_answer",
      message: "The project answered something this console does not understand.",
      advice: "The project may be of another version: see its migrations under Settings.",
      details: redact(
        parsed.error.issues
          .slice(0, 5)
          .map((issue) => `${name}: ${issue.path.join(".")}: ${issue.message}`)
          .join("\n"),
        secrets,
      ),
    });
  }

  return {
    url,
    replica: reader && {
      rpc: (name, parameters, schema, options = {}) => once("replica", name, parameters, schema, options),
    },
    async rpc(name, parameters, schema, options = {}) {
      if (isReadOnly && !readingFunctions.has(name)) return fail(readOnly);
      if (reader && route.takes(name, Date.now())) {
        const answer = await once("replica", name, parameters, schema, options);
        if (answer.ok || answer.error.code === "cancelled") return answer;
        // A replica may refuse because it does not have something yet: the primary decides.
        if (isUnreachable(answer.error)) route.failed(Date.now());
      }
      // An act names the command or the operator; nothing that only reads does.
      if ("p_command_id" in parameters || "p_operator" in parameters) route.acted(Date.now());
      let result = await once("primary", name, parameters, schema, options);
      for (let attempt = 1; attempt <= (options.retries ?? 0); attempt++) {
        if (result.ok || !isUnreachable(result.error) || result.error.code === "timeout") break;
        await new Promise((resolve) => setTimeout(resolve, 150 * 2 ** attempt));
        result = await once("primary", name, parameters, schema, options);
      }
      return result;
    },

    listen(onSignal) {
      return listenTo(client, onSignal, async () => {
        const answer = await once("primary", "console_signals", {}, signalBeats, {});
        return answer.ok ? answer.value : null;
      });
    },

    async close() {
      await client.removeAllChannels();
      await client.realtime.disconnect();
      await reader?.realtime.disconnect();
    },
  };
}

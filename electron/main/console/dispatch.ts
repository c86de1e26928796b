/**
 * One door for both transports: finds the operation, parses its input, runs it, parses its output. Whatever comes
 * in, a Reply goes out; an exception is a bug of ours and becomes `internal` with an id to find it in the log.
 */
import { randomUUID } from "node:crypto";
import {
  type Failure,
  type OperationName,
  type OperationOutput,
  type Operations,
  operations,
  type Reply,
  type StreamItem,
  type StreamName,
  type Streams,
  streams,
} from "../../../shared/contract/index.ts";
import type { z } from "zod";
import { redact } from "../backend/redact.ts";

export type Handlers = {
  readonly [N in OperationName]: (
    input: z.output<Operations[N]["input"]>,
  ) => Reply<OperationOutput<N>> | Promise<Reply<OperationOutput<N>>>;
};

/** Gives the stream's items to `emit` until the answered function is called. */
export type Sources = {
  readonly [N in StreamName]: (
    input: z.output<Streams[N]["input"]>,
    emit: (item: StreamItem<N>) => void,
  ) => () => void;
};

/** Takes one line; what it is given holds no secret. */
export type Log = (line: string) => void;

export interface Dispatcher {
  call(name: unknown, input: unknown): Promise<Reply<unknown>>;
  follow(name: unknown, input: unknown, emit: (item: unknown) => void): Reply<() => void>;
}

export function createDispatcher(handlers: Handlers, sources: Sources, log: Log): Dispatcher {
  function internal(what: string, error: unknown): Failure {
    const id = randomUUID().slice(0, 8);
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(redact(`error ${id} in ${what}: ${text}`));
    return {
      code: "internal",
      message: "Something went wrong inside the console.",
      advice: "Try again. If it happens again, report it with the error's id.",
      details: redact(
        `Error ${id} in ${what}: ${error instanceof Error ? `${error.name}: ${error.message}` : "unknown"}`,
      ),
    };
  }

  return {
    async call(name, input) {
      if (typeof name !== "string" || !Object.hasOwn(operations, name))
        return refuse(unknown("operation", name));
      const schemas: { input: z.ZodType; output: z.ZodType } = operations[name as OperationName];
      const handler = handlers[name as OperationName] as (input: unknown) => Promise<Reply<unknown>>;
      const parsed = schemas.input.safeParse(input);
      if (!parsed.success) return refuse(wrongShape(name, parsed.error));
      try {
        const result = await handler(parsed.data);
        return result.ok ? { ok: true, value: schemas.output.parse(result.value) } : result;
      } catch (error) {
        return refuse(internal(name, error));
      }
    },
    follow(name, input, emit) {
      if (typeof name !== "string" || !Object.hasOwn(streams, name)) return refuse(unknown("stream", name));
      const schemas: { input: z.ZodType; item: z.ZodType } = streams[name as StreamName];
      const source = sources[name as StreamName] as (
        input: unknown,
        emit: (item: unknown) => void,
      ) => () => void;
      const parsed = schemas.input.safeParse(input);
      if (!parsed.success) return refuse(wrongShape(name, parsed.error));
      const checked = (item: unknown): void => {
        const output = schemas.item.safeParse(item);
        if (output.success) emit(output.data);
        else internal(name, output.error);
      };
      try {
        return { ok: true, value: source(parsed.data, checked) };
      } catch (error) {
        return refuse(internal(name, error));
      }
    },
  };
}

function refuse(error: Failure): { readonly ok: false; readonly error: Failure } {
  return { ok: false, error };
}

function unknown(what: "operation" | "stream", name: unknown): Failure {
  return {
    code: `unknown_${what}`,
    message: `The console knows no such ${what}.`,
    advice: "The window and the console may be of different versions: close the window and start again.",
    details: redact(JSON.stringify(name)?.slice(0, 100) ?? typeof name),
  };
}

function wrongShape(name: string, error: z.ZodError): Failure {
  const [first] = error.issues;
  return {
    code: "invalid_argument",
    message: first?.message ?? "This input is not valid.",
    advice: null,
    // Paths and messages only, never the values: one may be a key.
    details: error.issues
      .slice(0, 5)
      .map((issue) => `${name}: ${issue.path.join(".") || "input"}: ${issue.message}`)
      .join("\n"),
  };
}

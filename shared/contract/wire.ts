/**
 * The frames of the WebSocket transport, as JSON text. Ids are the client's own and name one call or one followed
 * stream for the life of one socket.
 */
import { z } from "zod";
import type { Failure, Reply } from "./basics.ts";

/** Larger messages are refused at both ends. An upload's chunk (1 MiB as base64) fits. */
export const maxMessageBytes = 2 * 1024 * 1024;

/** The socket's subprotocol; the session is offered beside it as `session.<bearer>`, so it is in no address. */
export const subprotocol = "token-governance.v1";
export const sessionProtocolPrefix = "session.";

/** Close codes of the server. */
export const closeCodes = {
  /** The session is unknown: the page needs a new one-time link. */
  unauthorized: 4401,
  /** The page read too slowly: it connects again and its streams go on where they were. */
  tooSlow: 4408,
  badFrame: 4400,
} as const;

const id = z.number().int().min(1);
export const clientFrame = z.discriminatedUnion("type", [
  z.object({ type: z.literal("call"), id, name: z.string().max(100), input: z.unknown() }).strict(),
  z.object({ type: z.literal("follow"), id, name: z.string().max(100), input: z.unknown() }).strict(),
  z.object({ type: z.literal("unfollow"), id }).strict(),
]);
export type ClientFrame = z.infer<typeof clientFrame>;

export type ServerFrame =
  /** The first frame: the session is known, and the console is ready. */
  | { readonly type: "ready" }
  | { readonly type: "result"; readonly id: number; readonly result: Reply<unknown> }
  | { readonly type: "item"; readonly id: number; readonly item: unknown }
  /** A stream that could not be followed. */
  | { readonly type: "refused"; readonly id: number; readonly error: Failure };

/** A message as Phoenix channels write it: a list (vsn 2.0.0) or an object (1.0.0). */

export interface Message {
  readonly joinRef: string | null;
  readonly ref: string | null;
  readonly topic: string;
  readonly event: string;
  readonly payload: Record<string, unknown>;
}

export function readMessage(text: string, asObjects: boolean): Message | null {
  try {
    const value: unknown = JSON.parse(text);
    const fields = asObjects
      ? ["join_ref", "ref", "topic", "event", "payload"].map((name) => asObject(value)[name])
      : (value as unknown[]);
    if (!Array.isArray(fields)) return null;
    const [joinRef, ref, topic, event, payload] = fields as unknown[];
    if (typeof topic !== "string" || typeof event !== "string") return null;
    const asRef = (one: unknown): string | null =>
      typeof one === "string" || typeof one === "number" ? String(one) : null;
    return { joinRef: asRef(joinRef), ref: asRef(ref), topic, event, payload: asObject(payload) };
  } catch {
    return null;
  }
}

export function asObject(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

export function writeMessage({ joinRef, ref, topic, event, payload }: Message, asObject: boolean): string {
  return JSON.stringify(
    asObject ? { join_ref: joinRef, ref, topic, event, payload } : [joinRef, ref, topic, event, payload],
  );
}

import { Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import type { ReactNode } from "react";
import type { Failure } from "../../../shared/contract/basics.ts";
import { cleanText, clip } from "../lib/text.ts";
import { UndoIcon } from "./icons.tsx";
import { CopyButton } from "./parts.tsx";
import { failureText } from "./states.tsx";

const colours = {
  info: "var(--c-blue-mark)",
  warning: "var(--c-amber-mark)",
  error: "var(--c-red-mark)",
} as const;

/** A notice below the desk. Errors stay until they are closed. */
export function showNotice(level: keyof typeof colours, title: string, body: ReactNode): void {
  notifications.show({
    color: colours[level],
    title: clip(cleanText(title), 120),
    message: typeof body === "string" ? clip(cleanText(body), 400) : body,
    autoClose: level === "error" ? false : 6000,
  });
}

export function showFailure(title: string, failure: Failure): void {
  showNotice(
    "error",
    title,
    <span style={{ display: "flex", gap: 8, alignItems: "flex-start" }}>
      <span style={{ flex: 1 }}>
        {failure.message} {failure.advice}
      </span>
      <CopyButton text={failureText(failure)} label="Copy details" />
    </span>,
  );
}

/** Says what was done and offers to take it back. */
export function showDone(title: string, undo?: { readonly label?: string; readonly run: () => void }): void {
  const id = notifications.show({
    color: "var(--c-green-mark)",
    message: (
      <span style={{ display: "flex", gap: 12, alignItems: "center" }}>
        <span style={{ flex: 1 }}>{title}</span>
        {undo ? (
          <Button
            leftSection={<UndoIcon size={14} />}
            onClick={() => {
              notifications.hide(id);
              undo.run();
            }}
          >
            {undo.label ?? "Undo"}
          </Button>
        ) : null}
      </span>
    ),
    autoClose: undo ? 10_000 : 4000,
  });
}

import { Button, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";

/** One line for why, and the button that does it: for changes that stay in a history. */
export function ReasonForm({
  label,
  placeholder = "Why",
  className,
  disabled,
  onSubmit,
  children,
}: {
  /** Names the form to screen readers. */
  readonly label: string;
  readonly placeholder?: string;
  readonly className: string | undefined;
  readonly disabled: boolean;
  /** Answers whether it was done: then the reason is gone too. */
  readonly onSubmit: (reason: string) => Promise<boolean>;
  /** The button's words. */
  readonly children: ReactNode;
}): ReactNode {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async (): Promise<void> => {
    setBusy(true);
    const isDone = await onSubmit(reason);
    setBusy(false);
    if (isDone) setReason("");
  };
  return (
    <form
      className={className}
      aria-label={label}
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <TextInput
        aria-label="Why"
        spellCheck
        placeholder={placeholder}
        maxLength={1000}
        value={reason}
        onChange={(event) => setReason(event.currentTarget.value)}
      />
      <Button type="submit" variant="filled" loading={busy} disabled={disabled || reason.trim().length < 3}>
        {children}
      </Button>
    </form>
  );
}

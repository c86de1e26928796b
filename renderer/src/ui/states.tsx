/** The states a view can be in besides showing its data. */
import { Button } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import { Component, type ErrorInfo, type ReactNode } from "react";
import type { Failure } from "../../../shared/contract/basics.ts";
import { toFailure } from "../lib/console.tsx";
import { formatInstant, viewerZone } from "../lib/format.ts";
import { RefreshIcon, WarningIcon } from "./icons.tsx";
import { CopyButton, copyText, Time } from "./parts.tsx";
import css from "./states.module.css";

export function EmptyView({
  title,
  children,
  actions,
}: {
  readonly title: string;
  readonly children?: ReactNode;
  readonly actions?: ReactNode;
}): ReactNode {
  return (
    <div className={css.state}>
      <h2>{title}</h2>
      {children ? <p>{children}</p> : null}
      {actions ? <div className={css.actions}>{actions}</div> : null}
    </div>
  );
}

/** Grey lines that appear only when something takes longer than 100 ms. */
export function Skeleton({ lines = 6 }: { readonly lines?: number }): ReactNode {
  return (
    <div className={css.skeleton} role="status" aria-busy="true" aria-label="Loading">
      {Array.from({ length: lines }, (_, index) => (
        <span key={index} style={{ width: `${92 - ((index * 37) % 45)}%` }} />
      ))}
    </div>
  );
}

/** What a ticket needs to know about a failure. */
export function failureText(failure: Failure): string {
  return [
    failure.message,
    failure.advice,
    `Code: ${failure.code}`,
    failure.details,
    `Seen: ${formatInstant(Date.now(), viewerZone())}`,
    `Place: ${location.hash}`,
  ]
    .filter(Boolean)
    .join("\n");
}

/** What happened, what it means, what to do, and the details to copy. */
export function ErrorView({
  failure,
  onRetry,
  actions,
}: {
  readonly failure: Failure;
  readonly onRetry?: (() => void) | undefined;
  readonly actions?: ReactNode;
}): ReactNode {
  return (
    <div className={css.state} role="alert">
      <WarningIcon size={20} style={{ color: "var(--c-red)" }} />
      <h2>{failure.message}</h2>
      {failure.advice ? <p>{failure.advice}</p> : null}
      <div className={css.actions}>
        {onRetry ? (
          <Button variant="filled" leftSection={<RefreshIcon size={14} />} onClick={onRetry}>
            Try again
          </Button>
        ) : null}
        {actions}
        <Button onClick={() => void copyText(failureText(failure))}>Copy details</Button>
      </div>
      {failure.details ? (
        <details className={css.details}>
          <summary>Details ({failure.code})</summary>
          <pre>{failure.details}</pre>
        </details>
      ) : null}
    </div>
  );
}

/** A failure in one line above data that is still shown. */
export function FailureLine({
  failure,
  onRetry,
}: {
  readonly failure: Failure;
  readonly onRetry?: (() => void) | undefined;
}): ReactNode {
  return (
    <div className={css.stale} role="alert">
      <WarningIcon size={15} />
      <span>
        {failure.message} {failure.advice}
      </span>
      <CopyButton text={() => failureText(failure)} label="Copy details" />
      {onRetry ? <Button onClick={onRetry}>Try again</Button> : null}
    </div>
  );
}

/** Data that is shown from an earlier time, with its age. */
export function StaleLine({
  asOf,
  children,
}: {
  readonly asOf: string;
  readonly children?: ReactNode;
}): ReactNode {
  return (
    <div className={css.stale} role="status">
      <WarningIcon size={15} />
      <span>
        {children ?? "From this machine's store, as it was"} <Time at={asOf} />.
      </span>
    </div>
  );
}

/** Failures of the way to the console: the whole window says them once. */
const SAID_ABOVE: ReadonlySet<string> = new Set(["connection_lost", "console_unreachable", "unauthorized"]);

/**
 * Shows a query in whichever state it is: skeleton, failure, or data; above the data a line that they could not be
 * refreshed, or a moving bar while they still answer the question before.
 */
export function QueryView<T>({
  query,
  skeleton,
  children,
}: {
  readonly query: UseQueryResult<T, Error>;
  readonly skeleton?: ReactNode;
  readonly children: (data: T) => ReactNode;
}): ReactNode {
  const retry = (): void => void query.refetch();
  if (query.data === undefined) {
    if (query.error) return <ErrorView failure={toFailure(query.error)} onRetry={retry} />;
    return skeleton ?? <Skeleton />;
  }
  const failure = query.error ? toFailure(query.error) : null;
  return (
    <>
      {failure && !SAID_ABOVE.has(failure.code) ? <FailureLine failure={failure} onRetry={retry} /> : null}
      {query.isPlaceholderData ? (
        <div className={css.reading} role="progressbar" aria-label="Reading" />
      ) : null}
      {children(query.data)}
    </>
  );
}

/** Catches what a screen throws; the rest of the console goes on. */
export class ErrorBoundary extends Component<
  { readonly children: ReactNode; readonly resetKey?: string },
  { readonly error: Error | null; readonly stack: string }
> {
  override state = { error: null as Error | null, stack: "" };
  static getDerivedStateFromError(error: unknown): { error: Error } {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }
  override componentDidCatch(_error: unknown, info: ErrorInfo): void {
    this.setState({ stack: info.componentStack ?? "" });
  }
  override componentDidUpdate(before: { readonly resetKey?: string }): void {
    if (this.state.error && before.resetKey !== this.props.resetKey)
      // oxlint-disable-next-line react/no-did-update-set-state -- a boundary forgets its error when the place changes
      this.setState({ error: null, stack: "" });
  }
  override render(): ReactNode {
    const { error, stack } = this.state;
    if (!error) return this.props.children;
    // Parts of the screen are loaded when they are first needed, and a newer build has others.
    if (/dynamically imported module|Importing a module script|Loading chunk/i.test(error.message))
      return (
        <ErrorView
          failure={{
            code: "screen_replaced",
            message: "The console was updated while this page was open.",
            advice: "Load the page again; nothing is lost.",
            details: error.message,
          }}
          actions={
            <Button variant="filled" onClick={() => location.reload()}>
              Load again
            </Button>
          }
        />
      );
    return (
      <ErrorView
        failure={{
          code: "screen_failed",
          message: "This screen failed. Nothing was changed.",
          advice: "Try again, or go to another desk. If it stays, copy the details into a ticket.",
          details: `${error.stack ?? error.message}\n${stack}`,
        }}
        onRetry={() => this.setState({ error: null, stack: "" })}
      />
    );
  }
}

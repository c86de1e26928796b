/** Versions of rules and configuration: their history, and what a file or a return would change. */
import { Button } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import { type ComponentProps, type ReactNode, useState } from "react";
import { actorWords } from "../lib/text.ts";
import { DifferenceView } from "./difference.tsx";
import { SafeText, Tag, Time } from "./parts.tsx";
import { ProblemLine } from "./problem.tsx";
import { EmptyView, QueryView, Skeleton } from "./states.tsx";
import type { Tone } from "./theme.ts";
import css from "./versions.module.css";

type Difference = ComponentProps<typeof DifferenceView>["difference"];

export function VersionList({
  label,
  children,
}: {
  readonly label?: string;
  readonly children: ReactNode;
}): ReactNode {
  return (
    <ul className={css.list} aria-label={label}>
      {children}
    </ul>
  );
}

/** The first line of an entry: what it is at the left, what can be done at the right. */
export function VersionHead({ children }: { readonly children: ReactNode }): ReactNode {
  return <div className={css.head}>{children}</div>;
}

/** One change of the past: when, by whom, why and what. */
export function VersionLine({
  change,
  link,
  retired = "retired",
  children,
}: {
  readonly change: {
    readonly version: number;
    readonly at: string;
    readonly by: string | null;
    readonly reason: string | null;
    readonly is_retired: boolean;
    /** Null where there was nothing before. */
    readonly difference: Difference | null;
  };
  /** The record that was changed, where the list has changes of several. */
  readonly link?: ReactNode;
  readonly retired?: string;
  /** Its buttons. */
  readonly children?: ReactNode;
}): ReactNode {
  return (
    <li>
      <VersionHead>
        {link}
        <b>v{change.version}</b>
        <span className={css.quiet}>
          <Time at={change.at} form="short" />
          {change.by ? ` by ${actorWords(change.by)}` : ""}
        </span>
        <span>{children}</span>
      </VersionHead>
      {change.reason ? (
        <div>
          <SafeText text={change.reason} length={400} />
        </div>
      ) : null}
      {change.is_retired ? (
        <div>
          <Tag tone="grey">{retired}</Tag>
        </div>
      ) : change.difference === null ? (
        <div>
          <Tag tone="blue">{change.version === 1 ? "new" : "came back"}</Tag>
        </div>
      ) : change.difference.length === 0 ? (
        <span className={css.quiet}>Nothing that matters changed.</span>
      ) : (
        <DifferenceView difference={change.difference} />
      )}
    </li>
  );
}

/** What would become of one record. */
export function StepLine({
  title,
  tone,
  word,
  text,
  difference,
  problems,
  children,
}: {
  readonly title: string;
  readonly tone: Tone;
  readonly word: string;
  readonly text?: ReactNode;
  readonly difference: Difference;
  readonly problems: readonly { readonly path: string; readonly message: string; readonly fix: string }[];
  /** Before the title: a box to choose it by. */
  readonly children?: ReactNode;
}): ReactNode {
  return (
    <li>
      <VersionHead>
        {children}
        <b>{title}</b>
        <Tag tone={tone}>{word}</Tag>
      </VersionHead>
      {text}
      {difference.length > 0 ? <DifferenceView difference={difference} /> : null}
      {problems.map((problem) => (
        <div key={`${problem.path}${problem.message}`} className={css.problem}>
          <ProblemLine problem={problem} />
        </div>
      ))}
    </li>
  );
}

/** Pages of the past, newest first: each is a query of its own. `onMore` is null but for the last. */
export function OlderPages({
  children,
}: {
  readonly children: (before: number | null, onMore: ((before: number) => void) | null) => ReactNode;
}): ReactNode {
  const [cursors, setCursors] = useState<readonly (number | null)[]>([null]);
  return cursors.map((before, at) =>
    children(before, at === cursors.length - 1 ? (next) => setCursors([...cursors, next]) : null),
  );
}

export function VersionPage<C extends { readonly version_id: number }>({
  query,
  before,
  onMore,
  nothing,
  children,
}: {
  readonly query: UseQueryResult<{ readonly changes: readonly C[]; readonly has_more: boolean }, Error>;
  readonly before: number | null;
  readonly onMore: ((before: number) => void) | null;
  /** Where nothing was changed yet. */
  readonly nothing: string;
  readonly children: (change: C) => ReactNode;
}): ReactNode {
  return (
    <QueryView query={query} skeleton={<Skeleton lines={6} />}>
      {({ changes, has_more }) => (
        <>
          <VersionList>{changes.map(children)}</VersionList>
          {changes.length === 0 && before === null ? <EmptyView title={nothing} /> : null}
          {has_more && onMore ? (
            <Button onClick={() => onMore(changes.at(-1)?.version_id ?? 0)}>Show older</Button>
          ) : null}
        </>
      )}
    </QueryView>
  );
}

import { ActionIcon, Button, NativeSelect } from "@mantine/core";
import { type ReactNode, useEffect, useRef } from "react";
import type { RuleProblem } from "../../../../shared/contract/rules.ts";
import { TrashIcon } from "../../ui/icons.tsx";
import { type Definition, isObject, type Path, pathText } from "./definition.ts";
import css from "./editor.module.css";
import { LeafEditor, type Suggestions } from "./leaf-editor.tsx";

const freshLeaf: Definition = { fact: "messages_today", op: ">", value: "" };
type Kind = "all" | "any" | "not";
const kindOf = (condition: Definition): Kind | null =>
  "all" in condition ? "all" : "any" in condition ? "any" : "not" in condition ? "not" : null;

interface ConditionEditorProps {
  readonly condition: unknown;
  readonly path: Path;
  readonly problems: readonly RuleProblem[];
  readonly suggestions: Suggestions;
  /** Sets the value at a path of the whole rule; undefined takes it out. */
  readonly set: (path: Path, value: unknown) => void;
  readonly depth?: number;
}

/** What is wrong at a place or below it, as one line. */
export function problemAt(problems: readonly RuleProblem[], path: Path): string | null {
  const text = pathText(path);
  const found = problems.find(
    (each) => each.path === text || each.path.startsWith(`${text}.`) || each.path.startsWith(`${text}[`),
  );
  return found ? `${found.message} ${found.fix}` : null;
}

/** Conditions as a tree of rows: groups of all, any and not, and comparisons in them. */
export function ConditionEditor(props: ConditionEditorProps): ReactNode {
  const { condition, path, problems, suggestions, set } = props;
  if (!isObject(condition)) return <Unreadable path={path} set={set} />;
  const kind = kindOf(condition);
  if (kind === null) {
    const [last] = path.slice(-1);
    const parent = path.slice(0, -1);
    return (
      <LeafEditor
        leaf={condition}
        place={placeOf(path)}
        error={problemAt(problems, path)}
        suggestions={suggestions}
        onChange={(leaf) => set(path, leaf)}
        // Removing a "not" removes what is in it.
        onRemove={() => set(last === "not" ? parent : path, undefined)}
        onAddAfter={() => {
          if (typeof last === "number") set([...parent, "+", last + 1], freshLeaf);
        }}
      />
    );
  }
  return <Group {...props} group={condition} kind={kind} />;
}

/** "1", "2.1": the number of a condition, counted from 1. */
const placeOf = (path: Path): string =>
  path
    .filter((part) => typeof part === "number")
    .map((part) => part + 1)
    .join(".") || "1";

function Unreadable({
  path,
  set,
}: {
  readonly path: Path;
  readonly set: ConditionEditorProps["set"];
}): ReactNode {
  return (
    <div className={css.error} role="alert">
      This is not a condition. Correct it in the definition, or{" "}
      <button type="button" className={css.link} onClick={() => set(path, { all: [freshLeaf] })}>
        start again
      </button>
      .
    </div>
  );
}

function Group({
  group,
  kind,
  path,
  problems,
  suggestions,
  set,
  depth = 1,
}: ConditionEditorProps & { readonly group: Definition; readonly kind: Kind }): ReactNode {
  const inner = group[kind];
  const children: readonly unknown[] =
    kind === "not" ? [inner] : Array.isArray(inner) ? (inner as unknown[]) : [];
  const childPath = (at: number): Path => (kind === "not" ? [...path, "not"] : [...path, kind, at]);
  const box = useRef<HTMLDivElement>(null);
  const count = useRef(children.length);
  // The focus goes to a condition that was just added.
  useEffect(() => {
    const rows = box.current?.querySelectorAll<HTMLElement>(`[data-child="${pathText(path)}"] select`);
    if (children.length > count.current && box.current?.contains(document.activeElement))
      [...(rows ?? [])].find((each) => each.closest("[data-fresh]"))?.focus();
    count.current = children.length;
  }, [children.length, path]);
  const add = (child: Definition): void => set([...path, kind, "+", children.length], child);
  const change = (next: Kind): void => {
    const list = kind === "not" ? [inner] : children;
    set(path, next === "not" ? { not: list.length === 1 ? list[0] : { all: list } } : { [next]: list });
  };
  const own = problems.find(
    (each) => each.path === pathText(path) || each.path === pathText([...path, kind]),
  );
  return (
    <div className={css.group} ref={box} role="group" aria-label={depth === 1 ? "Conditions" : "Group"}>
      <div className={css.groupHead}>
        <NativeSelect
          size="xs"
          aria-label={depth === 1 ? "How conditions join" : `How group ${placeOf(path)} joins`}
          data={[
            { value: "all", label: "all of these" },
            { value: "any", label: "any of these" },
            { value: "not", label: "not this" },
          ]}
          value={kind}
          onChange={(event) => change(event.currentTarget.value as Kind)}
        />
        {children.length === 0 ? (
          <span className={css.quiet}>{kind === "all" ? "Always" : "Never"}: there is no condition.</span>
        ) : null}
        {depth > 1 ? (
          <ActionIcon
            aria-label={`Remove group ${placeOf(path)}`}
            title="Remove the group"
            onClick={() => set(path, undefined)}
          >
            <TrashIcon size={14} />
          </ActionIcon>
        ) : null}
      </div>
      {own ? (
        <div className={css.error} role="alert">
          {own.message} {own.fix}
        </div>
      ) : null}
      <div className={css.children}>
        {children.map((child, at) => (
          <div key={at} data-child={pathText(path)} data-fresh={at === children.length - 1 || undefined}>
            <ConditionEditor
              condition={child}
              path={childPath(at)}
              problems={problems}
              suggestions={suggestions}
              set={set}
              depth={depth + 1}
            />
          </div>
        ))}
      </div>
      {kind === "not" ? null : (
        <div className={css.adders}>
          <Button size="compact-xs" variant="subtle" onClick={() => add(freshLeaf)}>
            Add a condition
          </Button>
          {depth < 19 ? (
            <Button size="compact-xs" variant="subtle" onClick={() => add({ any: [freshLeaf] })}>
              Add a group
            </Button>
          ) : null}
        </div>
      )}
    </div>
  );
}

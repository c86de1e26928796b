/** Find on this page (Ctrl or Cmd, F), where no browser has it: in the desktop window. */
import { ActionIcon, TextInput } from "@mantine/core";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { findRanges } from "../lib/find.ts";
import { useKeys } from "../lib/keys.ts";
import { ChevronDownIcon, CloseIcon } from "../ui/icons.tsx";
import { isDesktop } from "../lib/router.ts";
import css from "./shell.module.css";

const followMs = 300;

export function FindBar(): ReactNode {
  const [isOpen, setOpen] = useState(false);
  const box = useRef<HTMLInputElement>(null);
  useKeys(
    {
      "mod+f": () => {
        setOpen(true);
        box.current?.select();
      },
    },
    isDesktop(),
  );
  return isOpen ? <Bar box={box} onClose={() => setOpen(false)} /> : null;
}

function Bar({
  box,
  onClose,
}: {
  readonly box: React.RefObject<HTMLInputElement | null>;
  readonly onClose: () => void;
}): ReactNode {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const { count, here } = useFound(text, at);
  const go = (by: number): void => setAt((now) => now + by);
  return (
    <search className={css.find} data-find-bar aria-label="Find on this page">
      <TextInput
        ref={box}
        aria-label="Find"
        placeholder="Find on this page"
        autoFocus
        w={200}
        maxLength={200}
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter") go(event.shiftKey ? -1 : 1);
          if (event.key !== "Escape") return;
          event.stopPropagation();
          onClose();
        }}
      />
      <output aria-live="polite">
        {text.trim() === "" ? "" : count === 0 ? "none" : `${here + 1} of ${count.toLocaleString("en")}`}
      </output>
      <ActionIcon aria-label="The one before" title="The one before (Shift, Enter)" onClick={() => go(-1)}>
        <ChevronDownIcon size={14} style={{ transform: "rotate(180deg)" }} />
      </ActionIcon>
      <ActionIcon aria-label="The next one" title="The next one (Enter)" onClick={() => go(1)}>
        <ChevronDownIcon size={14} />
      </ActionIcon>
      <ActionIcon aria-label="Close" title="Close (Esc)" onClick={onClose}>
        <CloseIcon size={14} />
      </ActionIcon>
    </search>
  );
}

/** Marks what is found, brings one of it into view, and follows the page as it changes. */
function useFound(text: string, at: number): { readonly count: number; readonly here: number } {
  const [count, setCount] = useState(0);
  const here = count === 0 ? 0 : ((at % count) + count) % count;
  useEffect(() => {
    const root = document.getElementById("root");
    if (!root) return;
    let isMoved = false;
    const mark = (): void => {
      const ranges = findRanges(root, text);
      const index = ranges.length === 0 ? 0 : ((at % ranges.length) + ranges.length) % ranges.length;
      const chosen = ranges[index];
      setCount(ranges.length);
      CSS.highlights.set("found", new Highlight(...ranges));
      CSS.highlights.set("found-here", new Highlight(...(chosen ? [chosen] : [])));
      if (chosen && !isMoved) chosen.startContainer.parentElement?.scrollIntoView({ block: "nearest" });
      isMoved = true;
    };
    mark();
    let wait: ReturnType<typeof setTimeout> | null = null;
    const observer = new MutationObserver((changes) => {
      const isOwn = changes.every(({ target }) =>
        (target instanceof Element ? target : target.parentElement)?.closest("[data-find-bar]"),
      );
      if (!isOwn) wait ??= setTimeout(() => ((wait = null), mark()), followMs);
    });
    observer.observe(root, { subtree: true, childList: true, characterData: true });
    return () => {
      observer.disconnect();
      if (wait) clearTimeout(wait);
      CSS.highlights.delete("found");
      CSS.highlights.delete("found-here");
    };
  }, [text, at]);
  return { count, here };
}

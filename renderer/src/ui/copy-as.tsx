/** Copies the rows that a list shows, for a ticket, a chat or a sheet. */
import { ActionIcon, Menu } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { toCsv } from "../lib/csv.ts";
import { linkHere } from "../lib/live.ts";
import { counted } from "../lib/text.ts";
import { CopyIcon } from "./icons.tsx";
import { showDone } from "./notices.tsx";
import { copyText } from "./parts.tsx";

interface Shown {
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

const formats = {
  CSV: ({ header, rows }: Shown): string => toCsv(header, rows),
  JSON: ({ header, rows }: Shown): string =>
    JSON.stringify(
      rows.map((row) => Object.fromEntries(header.map((name, index) => [name, row[index] ?? ""]))),
      null,
      2,
    ),
  Markdown: ({ header, rows }: Shown): string =>
    [header, header.map(() => "---"), ...rows].map(markdownRow).join("\n"),
} as const;
type Format = keyof typeof formats;

function markdownRow(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replace(/[\\|*_<`]/g, "\\$&")).join(" | ")} |`;
}

/** A list as its texts; columns without a name (buttons, checkboxes) are left out. */
export function readShown(list: Element): Shown {
  const heads = [...list.querySelectorAll("[role=columnheader]")].map(wordsOf);
  const keep = heads.flatMap((name, index) => (name === "" ? [] : [index]));
  const rows = [...list.querySelectorAll("[role=row][aria-rowindex]")]
    .toSorted((one, other) => rowIndex(one) - rowIndex(other))
    .map((row) => [...row.querySelectorAll("[role=gridcell]")].map(wordsOf));
  return {
    header: keep.map((index) => heads[index] ?? ""),
    rows: rows.map((cells) => keep.map((index) => cells[index] ?? "")),
  };
}

const rowIndex = (row: Element): number => Number(row.getAttribute("aria-rowindex"));

/** The texts of a cell, each apart: a name and the e-mail below it are two. */
function wordsOf(cell: Element): string {
  const words: string[] = [];
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.nodeValue?.trim();
    if (text) words.push(text);
  }
  return words.join(" ");
}

export function asText(format: Format, shown: Shown): string {
  return formats[format](shown);
}

export function CopyAs({ list }: { readonly list: () => Element | null }): ReactNode {
  const [count, setCount] = useState(0);
  const copy = async (format: Format): Promise<void> => {
    const element = list();
    if (!element) return;
    const shown = readShown(element);
    await copyText(asText(format, shown));
    showDone(`${counted(shown.rows.length, "row")} copied as ${format}`);
  };
  const copyLink = async (): Promise<void> => {
    await copyText(linkHere(location.hash.slice(1)));
    showDone("Link copied");
  };
  return (
    <Menu
      position="top-end"
      onOpen={() => setCount(list()?.querySelectorAll("[role=row][aria-rowindex]").length ?? 0)}
    >
      <Menu.Target>
        <ActionIcon aria-label="Copy as" title="Copy as CSV, JSON or Markdown">
          <CopyIcon />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>{counted(count, "row")} on the screen</Menu.Label>
        {(Object.keys(formats) as Format[]).map((format) => (
          <Menu.Item key={format} disabled={count === 0} onClick={() => void copy(format)}>
            Copy as {format}
          </Menu.Item>
        ))}
        <Menu.Divider />
        <Menu.Item onClick={() => void copyLink()}>Copy the link</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

/** Searches, filters and orders under the operator's own names, kept on this machine. */
import { ActionIcon, Button, Popover, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { useRemembered } from "../../lib/remember.ts";
import { cleanText, clip } from "../../lib/text.ts";
import { CloseIcon } from "../../ui/icons.tsx";
import { type Criteria, isCriteria } from "./user-criteria.ts";
import type { UserSearch } from "./user-search.ts";
import css from "./users.module.css";

interface View {
  readonly name: string;
  readonly criteria: Criteria;
}
const MOST = 30;
const isViews = (value: unknown): value is readonly View[] =>
  Array.isArray(value) &&
  value.length <= MOST &&
  value.every((each: Partial<View> | null) => typeof each?.name === "string" && isCriteria(each.criteria));

export function SavedViews({ search }: { readonly search: UserSearch }): ReactNode {
  const [views, setViews] = useRemembered<readonly View[]>("users.views", [], isViews);
  const [name, setName] = useState("");
  const [opened, setOpened] = useState(false);
  const save = (): void => {
    const clean = clip(cleanText(name).trim(), 40);
    if (clean === "") return;
    setViews(
      [...views.filter((each) => each.name !== clean), { name: clean, criteria: search.chosen }].slice(-MOST),
    );
    setName("");
    setOpened(false);
  };
  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-start" width={280} trapFocus returnFocus>
      <Popover.Target>
        <Button aria-haspopup="dialog" onClick={() => setOpened(!opened)}>
          Views{views.length > 0 ? ` (${views.length})` : ""}
        </Button>
      </Popover.Target>
      <Popover.Dropdown aria-label="Saved views">
        <ul className={css.views}>
          {views.map((view) => (
            <li key={view.name}>
              <Button
                variant="subtle"
                onClick={() => {
                  search.setCriteria(view.criteria);
                  setOpened(false);
                }}
              >
                {view.name}
              </Button>
              <ActionIcon
                aria-label={`Forget the view ${view.name}`}
                onClick={() => setViews(views.filter((each) => each.name !== view.name))}
              >
                <CloseIcon size={13} />
              </ActionIcon>
            </li>
          ))}
        </ul>
        <form
          className={css.saveView}
          onSubmit={(event) => {
            event.preventDefault();
            save();
          }}
        >
          <TextInput
            aria-label="Name of this view"
            placeholder="Save this view as…"
            maxLength={40}
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <Button type="submit" disabled={name.trim() === ""}>
            Save
          </Button>
        </form>
      </Popover.Dropdown>
    </Popover>
  );
}

import { Select } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { type ReactNode, useState } from "react";
import { useCall } from "../lib/console.tsx";
import { cleanText, clip } from "../lib/text.ts";
import css from "./user-picker.module.css";

/** Finds one user by name, e-mail or id. */
export function UserPicker({
  userId,
  onChange,
  isForm = false,
}: {
  readonly userId: string | null;
  readonly onChange: (userId: string | null) => void;
  /** In a form, where one user is asked for: its choices stay inside, so that choosing does not leave the form. */
  readonly isForm?: boolean;
}): ReactNode {
  const [text, setText] = useState("");
  const [settled] = useDebouncedValue(text.trim(), 250);
  const found = useCall(
    "users.search",
    {
      query: settled,
      filter: "all",
      plan_id: null,
      sort: "last_activity",
      descending: true,
      cursor: null,
      limit: 10,
    },
    { enabled: settled !== "" && settled !== userId, keepPrevious: true },
  );
  const named = new Map<string, { readonly label: string; readonly beside: string }>();
  if (userId) named.set(userId, { label: clip(cleanText(userId), 40), beside: "" });
  for (const account of found.data?.accounts ?? []) {
    const id = clip(cleanText(account.user_id), 40);
    const name = account.display_name ? clip(cleanText(account.display_name), 40) : "";
    const email = account.email ? clip(cleanText(account.email), 60) : "";
    // Names are not unique: e-mail and id beside them show who is meant.
    named.set(account.user_id, {
      label: name || id,
      beside: [email, name ? id : ""].filter(Boolean).join(" · "),
    });
  }
  return (
    <Select
      aria-label="User"
      placeholder={isForm ? "Name, e-mail or id" : "Any user"}
      w={isForm ? "100%" : 150}
      {...(isForm ? {} : { comboboxProps: { width: 320, position: "bottom-start" } })}
      {...(isForm ? { comboboxProps: { withinPortal: false } } : {})}
      clearable
      searchable
      data={[...named].map(([value, { label }]) => ({ value, label }))}
      renderOption={({ option }) => (
        <span className={css.option}>
          {option.label}
          {named.get(option.value)?.beside ? <small>{named.get(option.value)?.beside}</small> : null}
        </span>
      )}
      // The project has searched already, also by e-mail and id: nothing is left out here.
      filter={({ options }) => options}
      nothingFoundMessage={
        settled === "" ? "Type a name, e-mail or id" : found.isFetching ? "Searching…" : "No such user"
      }
      value={userId}
      searchValue={text}
      onSearchChange={setText}
      onChange={onChange}
    />
  );
}

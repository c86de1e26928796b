import { useDebouncedValue } from "@mantine/hooks";
import { createSpotlight, Spotlight } from "@mantine/spotlight";
import { type ReactNode, useEffect, useRef, useState } from "react";
import type { SearchHit } from "../../../shared/contract/search.ts";
import { useCall } from "../lib/console.tsx";
import { useOffered } from "../lib/offered.ts";
import { hitAddress } from "../lib/hit-address.ts";
import { currentLanguage } from "../lib/language.ts";
import { searchable } from "../lib/pasted.ts";
import { navigate } from "../lib/router.ts";
import { capitalise, cleanText, clip, codeWords } from "../lib/text.ts";
import {
  FileIcon,
  FinanceIcon,
  RulesIcon,
  SearchIcon,
  UsersIcon,
  WarningIcon,
  WatchIcon,
} from "../ui/icons.tsx";
import { desks } from "./rail.tsx";

interface Action {
  readonly id: string;
  readonly label: string;
  readonly words: string;
  readonly run: () => void;
}

const kinds: Record<SearchHit["kind"], { readonly group: string; readonly icon: ReactNode }> = {
  user: { group: "Users", icon: <UsersIcon /> },
  rule: { group: "Rules", icon: <RulesIcon /> },
  request: { group: "Requests", icon: <WatchIcon /> },
  payment: { group: "Payments", icon: <FileIcon /> },
  event: { group: "Not credited: Stripe events that wait", icon: <WarningIcon /> },
  case: { group: "Open differences", icon: <FinanceIcon /> },
};

const [store, palette] = createSpotlight();
export const openPalette = palette.open;

/** Results come after the typing: the first of them is the one that Enter opens. */
function selectFirst(open: boolean): void {
  const list = document.getElementById(store.getState().listId);
  list?.querySelector("[data-selected]")?.removeAttribute("data-selected");
  const first = list?.querySelector<HTMLElement>("[data-action]");
  first?.setAttribute("data-selected", "true");
  store.updateState((state) => ({ ...state, selected: 0 }));
  if (open) first?.click();
}

/** Rules by their names in the person's language: the project finds them by their codes, which are English. */
function useRulesNamed(wanted: string): readonly SearchHit[] {
  const isNeeded = currentLanguage() !== "en" && wanted.length > 1;
  const { data } = useCall("rules.list", {}, { enabled: isNeeded, staleMs: 60_000 });
  return isNeeded
    ? (data?.rules ?? [])
        .filter((rule) => !rule.is_retired && codeWords(rule.rule_name).toLowerCase().includes(wanted))
        .map(({ rule_name, rule_type }) => ({
          kind: "rule",
          id: rule_name,
          title: rule_name,
          subtitle: rule_type,
        }))
    : [];
}

/** Ctrl/Cmd-K: users, rules, requests, payments and actions in one place. */
export function CommandPalette({ actions }: { readonly actions: readonly Action[] }): ReactNode {
  const [query, setQuery] = useState("");
  const [settled] = useDebouncedValue(query.trim(), 150);
  const found = useCall(
    "search.everything",
    { query: settled },
    { enabled: settled.length > 0, keepPrevious: true, staleMs: 5000 },
  );
  const wanted = query.trim().toLowerCase();
  const named = useRulesNamed(wanted);
  const answered = settled && wanted ? (found.data ?? []) : [];
  const known = new Set(answered.filter(({ kind }) => kind === "rule").map(({ id }) => id));
  const hits = [...answered, ...named.filter(({ id }) => !known.has(id))];
  const offered = useOffered((state) => state.actions);
  const matching = [
    ...offered,
    ...desks.map((desk) => ({
      id: desk.id,
      label: `Go to ${desk.name}`,
      words: desk.name,
      run: () => navigate(`/${desk.id}`),
    })),
    ...actions,
  ].filter((action) => `${action.label} ${action.words}`.toLowerCase().includes(wanted));
  const groups = (Object.keys(kinds) as SearchHit["kind"][])
    .map((kind) => ({ kind, hits: hits.filter((hit) => hit.kind === kind).slice(0, 7) }))
    .filter((group) => group.hits.length > 0);
  const isSearching = wanted !== "" && (found.isFetching || settled !== query.trim());
  // Enter pressed before the answer opens the first result of the answer, not what is listed now.
  const opensFirst = useRef(false);
  useEffect(() => {
    if (isSearching || wanted === "") return;
    selectFirst(opensFirst.current);
    opensFirst.current = false;
  }, [isSearching, wanted, found.data]);
  return (
    <Spotlight.Root
      store={store}
      query={query}
      onQueryChange={(text) => setQuery(searchable(text))}
      shortcut={["mod + K"]}
      clearQueryOnClose
      scrollable
      maxHeight={460}
      transitionProps={{ duration: 80 }}
      centered={false}
      yOffset="12vh"
      overlayProps={{ backgroundOpacity: 0.35, blur: 0 }}
      attributes={{ content: { "aria-label": "Search everything" } }}
    >
      <Spotlight.Search
        placeholder="Name, e-mail, any id of a ticket, rule, or what to do"
        leftSection={<SearchIcon />}
        aria-label="Search everything"
        onKeyDown={(event) => {
          if (event.key === "Enter" && isSearching) {
            // Removes the selection, so that Spotlight opens nothing now.
            document
              .getElementById(store.getState().listId)
              ?.querySelector("[data-selected]")
              ?.removeAttribute("data-selected");
            opensFirst.current = true;
          } else if (event.key !== "Enter") opensFirst.current = false;
        }}
      />
      <Spotlight.ActionsList>
        {groups.map((group) => (
          <Spotlight.ActionsGroup key={group.kind} label={kinds[group.kind].group}>
            {group.hits.map((hit) => (
              <Spotlight.Action
                key={`${hit.kind} ${hit.id}`}
                label={clip(
                  hit.kind === "rule"
                    ? capitalise(codeWords(hit.title))
                    : cleanText(hit.title) || cleanText(hit.id),
                  80,
                )}
                description={hit.subtitle ? clip(cleanText(hit.subtitle), 120) : undefined}
                leftSection={kinds[hit.kind].icon}
                onClick={() => navigate(hitAddress(hit))}
              />
            ))}
          </Spotlight.ActionsGroup>
        ))}
        {matching.length > 0 ? (
          <Spotlight.ActionsGroup label="Actions">
            {matching.slice(0, wanted ? 8 : 12).map((action) => (
              <Spotlight.Action key={action.id} label={action.label} onClick={action.run} />
            ))}
          </Spotlight.ActionsGroup>
        ) : null}
        {isSearching ? (
          <Spotlight.Empty>Searching…</Spotlight.Empty>
        ) : wanted !== "" && found.error ? (
          <Spotlight.Empty>{found.error.message}</Spotlight.Empty>
        ) : groups.length === 0 && matching.length === 0 ? (
          <Spotlight.Empty>
            Nothing found. Try part of a name or e-mail, or an id. Of a request id, take its beginning or end:
            the middle is known of the newest 50,000 calls alone.
          </Spotlight.Empty>
        ) : null}
      </Spotlight.ActionsList>
    </Spotlight.Root>
  );
}

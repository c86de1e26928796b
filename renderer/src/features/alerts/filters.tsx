/** The filters of the lists of alerts: they are in the address, and stay from list to list. */
import { Select } from "@mantine/core";
import type { ReactNode } from "react";
import type { AskedAlerts } from "../../../../shared/contract/alerts.ts";
import { alertKinds } from "../../../../shared/governance/alerts/kinds.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { capitalise } from "../../lib/text.ts";

/** open: alike ones together. each: the open ones one by one. */
export const shows = ["open", "each", "all", "undelivered", "set"] as const;
export type Show = (typeof shows)[number];

const severities = ["critical", "warning", "info"] as const;
/** own: users' own limits, however severe they are to the user. */
const choices = [...severities, "own"] as const;

export interface AlertFilter {
  readonly severity?: (typeof choices)[number];
  readonly kind?: string;
}

/** The filters in the address: absent means all. */
export function readFilter(query: URLSearchParams): AlertFilter {
  const severity = choices.find((each) => each === query.get("severity"));
  const kind = query.get("kind");
  return { ...(severity ? { severity } : {}), ...(kind && Object.hasOwn(alertKinds, kind) ? { kind } : {}) };
}

/** As the project is asked. */
export function askedFilter({ severity, kind }: AlertFilter): AskedAlerts {
  return {
    ...(kind ? { kind } : {}),
    ...(severity === "own" ? { needs_operator: false } : severity ? { severity } : {}),
  };
}

/** Of a list, of one alert in it, or of the line of alike ones that `group` names. */
export function alertsAddress(
  show: Show,
  { severity, kind }: AlertFilter = {},
  open: { readonly id?: number; readonly group?: string } = {},
): string {
  const rest =
    open.group === undefined ? (open.id === undefined ? [] : [String(open.id)]) : ["group", open.group];
  return placeAddress(["alerts", ...rest], {
    show: show === "open" ? null : show,
    severity: severity ?? null,
    kind: kind ?? null,
  });
}

export function Filters({ show, filter }: { readonly show: Show; readonly filter: AlertFilter }): ReactNode {
  const { severity, kind } = filter;
  const kinds = Object.entries(alertKinds)
    .map(([value, { title }]) => ({ value, label: title }))
    .toSorted((a, b) => a.label.localeCompare(b.label));
  return (
    <>
      <Select
        aria-label="Severity"
        w={160}
        allowDeselect={false}
        data={[
          { value: "", label: "Any severity" },
          ...severities.map((value) => ({ value, label: capitalise(value) })),
          { value: "own", label: "Users' own limits" },
        ]}
        value={severity ?? ""}
        onChange={(value) => {
          const { severity: _, ...rest } = filter;
          const next = choices.find((each) => each === value);
          navigate(alertsAddress(show, next ? { ...rest, severity: next } : rest), { replace: true });
        }}
      />
      <Select
        aria-label="Kind"
        w={210}
        allowDeselect={false}
        data={[{ value: "", label: "Any kind" }, ...kinds]}
        value={kind ?? ""}
        onChange={(value) => {
          const { kind: _, ...rest } = filter;
          navigate(alertsAddress(show, value ? { ...rest, kind: value } : rest), { replace: true });
        }}
      />
    </>
  );
}

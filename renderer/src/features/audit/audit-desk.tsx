/** Who did what to whom, when and why; one's own acts with their undo; and what waits for a second person. */
import type { ReactNode } from "react";
import { placeAddress, usePlace } from "../../lib/router.ts";
import { ActList } from "../../ui/act-list.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { Log } from "./audit-log.tsx";
import { ManyAct, ManyActs } from "./many.tsx";
import css from "./audit.module.css";

const tabs = [
  { id: "log", name: "Log" },
  { id: "mine", name: "My acts" },
  { id: "waiting", name: "Waiting for approval" },
  { id: "many", name: "Many at once" },
] as const;

export function AuditDesk(): ReactNode {
  const place = usePlace();
  const tab = tabs.find(({ id }) => id === place.parts[1])?.id ?? "log";
  const bulkId = /^\d{1,15}$/.exec(place.parts[2] ?? "")?.[0];
  return (
    <>
      <DeskBar title="Audit">
        <nav className={css.tabs} aria-label="Parts of the audit">
          {tabs.map(({ id, name }) => (
            <a
              key={id}
              href={`#${placeAddress(["audit", ...(id === "log" ? [] : [id])])}`}
              aria-current={tab === id ? "page" : undefined}
            >
              {name}
            </a>
          ))}
        </nav>
        <Grow />
      </DeskBar>
      {tab === "log" ? (
        <Log query={place.query} />
      ) : tab === "many" ? (
        <div className={css.body}>
          {bulkId ? <ManyAct key={bulkId} bulkId={Number(bulkId)} /> : <ManyActs />}
        </div>
      ) : (
        <div className={css.body}>
          <ActList mine={tab === "mine"} userId={null} status={tab === "waiting" ? "proposed" : null} />
        </div>
      )}
    </>
  );
}

import { Modal } from "@mantine/core";
import type { ReactNode } from "react";
import { actNamed, actNames, type SubjectName } from "../../../shared/contract/acts.ts";
import { correctionWords } from "../../../shared/contract/corrections.ts";
import { isMac } from "../lib/keys.ts";
import { Kbd } from "../ui/parts.tsx";
import { desks } from "./rail.tsx";
import { isDesktop } from "../lib/router.ts";
import css from "./shell.module.css";

/** The keys of the acts on one subject; acts that share a key are offered one at a time. */
function actKeys(subject: SubjectName): (readonly [string[], string])[] {
  const byKey = new Map<string, string[]>();
  for (const { subject: of, words } of actNames.map(actNamed))
    if (of === subject && words.key) byKey.set(words.key, [...(byKey.get(words.key) ?? []), words.button]);
  return [...byKey].map(([key, buttons]) => [[key], buttons.join(" or ")]);
}

function correctionKeys(): (readonly [string[], string])[] {
  return Object.values(correctionWords).flatMap(({ key, title }) => (key ? [[[key], title]] : []));
}

export function Help({
  opened,
  onClose,
}: {
  readonly opened: boolean;
  readonly onClose: () => void;
}): ReactNode {
  const mod = isMac() ? "⌘" : "Ctrl";
  const groups: readonly {
    readonly title: string;
    readonly keys: readonly (readonly [readonly string[], string])[];
  }[] = [
    { title: "Go to a desk", keys: desks.map((desk) => [["g", desk.key], desk.name] as const) },
    {
      title: "Find",
      keys: [
        [["/"], "Search this desk"],
        [[mod, "K"], "Search everything"],
        ...(isDesktop() ? [[[mod, "F"], "Find on this page"] as const] : []),
        [["?"], "This list"],
      ],
    },
    {
      title: "In a list",
      keys: [
        [["j"], "Next"],
        [["k"], "Previous"],
        [["Home"], "First"],
        [["End"], "Last loaded"],
        [["[", "]"], "Page before, next page"],
        [["Enter"], "Open"],
        [["x"], "Select, for many at once"],
        [["Esc"], "Back"],
      ],
    },
    {
      title: "On a user",
      keys: [...actKeys("user"), ...correctionKeys(), [["c"], "Copy the id"]],
    },
    {
      title: "Watching",
      keys: [[["p"], "Pause or go on"], [["t"], "Back to the newest"], ...actKeys("alert")],
    },
    {
      title: "On a difference",
      keys: [
        [["p"], "Propose its correction"],
        [["a"], "Approve"],
        [["b"], "Book it: preview and post"],
        [["i"], "Investigate"],
        [["m"], "Assign"],
        [["n"], "Note"],
        [["c"], "Carry forward"],
        [["w"], "Write off"],
        [["r"], "Reopen"],
      ],
    },
    {
      title: "On a rule",
      keys: [
        [["e"], "Enforce"],
        [["s"], "Shadow"],
        [["o"], "Off"],
        [["c"], "Change it"],
        [["d"], "Duplicate"],
        [["z"], "Take the last change back"],
        [["K"], "Earlier in the order"],
        [["J"], "Later in the order"],
        [["n"], "New rule, on the list"],
      ],
    },
  ];
  return (
    <Modal opened={opened} onClose={onClose} title="Keyboard" size={620}>
      <div className={css.keys}>
        {groups.map((group) => (
          <div key={group.title}>
            <h3>{group.title}</h3>
            <ul>
              {group.keys.map(([keys, does]) => (
                <li key={does}>
                  <span>
                    {keys.map((key) => (
                      <Kbd key={key}>{key}</Kbd>
                    ))}
                  </span>
                  <span>{does}</span>
                </li>
              ))}
            </ul>
          </div>
        ))}
      </div>
    </Modal>
  );
}

import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { PresetChoice } from "../../../../shared/contract/setup.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useWhyNot } from "../../lib/live.ts";
import { cleanText, counted } from "../../lib/text.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Tokens } from "../../ui/parts.tsx";
import { QueryView } from "../../ui/states.tsx";
import css from "./first-call.module.css";

/** The presets that a project without plans can begin with. Everything in them can be changed later. */
export function ChoosePreset(): ReactNode {
  const query = useCall("setup.presets", {}, { staleMs: 600_000 });
  return (
    <section className={css.first} aria-label="Choose a preset">
      <h2>How should this project be governed?</h2>
      <p>
        A preset gives it plans, rules, prices and alerts to begin with. You can change all of them
        afterwards. Until then no call is let through.
      </p>
      <QueryView query={query}>
        {(presets) => (
          <div className={css.presets} role="list" aria-label="Presets">
            {[...presets]
              .sort((a, b) => Number(b.name === "default") - Number(a.name === "default"))
              .map((preset) => (
                <Preset key={preset.name} preset={preset} />
              ))}
          </div>
        )}
      </QueryView>
    </section>
  );
}

function Preset({ preset }: { readonly preset: PresetChoice }): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const whyNot = useWhyNot();
  const [busy, setBusy] = useState(false);
  const apply = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("setup.apply_preset", { name: preset.name });
    setBusy(false);
    if (!result.ok) return showFailure("The preset was not applied", result.error);
    showDone(`This project governs by the preset ${preset.name}`);
    void queries.invalidateQueries();
  };
  return (
    <div className={css.preset} role="listitem">
      <div>
        <b>{preset.name}</b>
        <p>{cleanText(preset.description)}</p>
        <p className={css.plans}>
          {preset.plans.map((plan, index) => (
            <span key={plan.name}>
              {index > 0 ? ", " : ""}
              {cleanText(plan.name)}
              {plan.monthly_allowance === null ? (
                ""
              ) : (
                <>
                  {" "}
                  (<Tokens value={plan.monthly_allowance} /> a month)
                </>
              )}
            </span>
          ))}
          . {counted(preset.rules, "rule", "rules")}, costs in {preset.currency.toUpperCase()}.
        </p>
      </div>
      <Button
        variant={preset.name === "default" ? "filled" : "default"}
        loading={busy}
        disabled={whyNot !== null}
        title={whyNot ?? undefined}
        onClick={() => void apply()}
      >
        Use {preset.name}
      </Button>
    </div>
  );
}

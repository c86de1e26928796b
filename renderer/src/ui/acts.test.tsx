import { fireEvent, screen } from "@testing-library/react";
import type { ReactNode } from "react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import type { ConnectionState } from "../../../shared/contract/connection.ts";
import { useLive } from "../lib/live.ts";
import { afterActs, useAct } from "./acts.ts";
import { ProductionAsk } from "./production-ask.tsx";

const rule = { rule_name: "too_many", mode: "shadow", is_active: true, version: 2 };

function Switch(): ReactNode {
  const runAct = useAct();
  return ["enforce", "off"].map((mode) => (
    <button type="button" key={mode} onClick={() => void runAct("set_rule_mode", rule, { mode })}>
      {mode}
    </button>
  ));
}

it("does two quick changes of one record one after the other, each on what the one before left", async () => {
  let version = 2;
  const answers: (() => void)[] = [];
  const client = answering({
    "rules.set_mode": async ({ mode }: { readonly mode: string }) => {
      await new Promise<void>((resolve) => answers.push(resolve));
      version += 1;
      return {
        ok: true,
        value: {
          intent: { status: "acknowledged" },
          rule: { ...rule, mode, is_active: mode !== "off", version },
        },
      };
    },
  });
  show(client, <Switch />);
  fireEvent.click(screen.getByRole("button", { name: "enforce" }));
  fireEvent.click(screen.getByRole("button", { name: "off" }));
  await expect.poll(() => client.asked.length).toBe(1);
  const last = afterActs("rule", rule);

  answers[0]?.();
  await expect.poll(() => client.asked.length).toBe(2);
  answers[1]?.();
  expect(await last).toMatchObject({ mode: "off", version: 4 });
  expect(client.asked.map(({ input }) => input)).toMatchObject([
    { mode: "enforce", expected_version: 2 },
    { mode: "off", expected_version: 3 },
  ]);
  expect(await afterActs("rule", rule)).toBe(rule);
});

it("goes on with the record as it was where the act before was not done", async () => {
  const client = answering({
    "rules.set_mode": ({ mode }: { readonly mode: string }) =>
      mode === "enforce"
        ? { ok: false, error: { code: "odd", message: "Not now.", advice: "Later.", details: null } }
        : { ok: true, value: { intent: { status: "acknowledged" }, rule: { ...rule, mode, version: 3 } } },
  });
  show(client, <Switch />);
  fireEvent.click(screen.getByRole("button", { name: "enforce" }));
  fireEvent.click(screen.getByRole("button", { name: "off" }));
  await expect.poll(() => client.asked.length).toBe(2);
  expect(client.asked[1]?.input).toMatchObject({ mode: "off", expected_version: 2 });
});

it("asks once in production before a change that has no form, and does nothing without a yes", async () => {
  const client = answering({
    "rules.set_mode": ({ mode }: { readonly mode: string }) => ({
      ok: true,
      value: { intent: { status: "acknowledged" }, rule: { ...rule, mode, version: 3 } },
    }),
  });
  useLive.setState({
    connection: { profile: { name: "Acme", is_production: true } } as unknown as ConnectionState,
  });
  try {
    show(
      client,
      <>
        <Switch />
        <ProductionAsk />
      </>,
    );
    const button = (name: string) => screen.findByRole("button", { name });
    fireEvent.click(await button("off"));
    expect(await screen.findByText("Set Too many to off")).toBeTruthy();
    fireEvent.click(await button("Cancel"));
    await expect.poll(() => screen.queryByText("Set Too many to off")).toBeNull();
    expect(client.asked).toEqual([]);

    fireEvent.click(await button("off"));
    fireEvent.click(await button("Change production"));
    await expect.poll(() => client.asked.length).toBe(1);
    // What belongs to the same movement is not asked for again.
    fireEvent.click(await button("enforce"));
    await expect.poll(() => client.asked.length).toBe(2);
    expect(client.asked.map(({ input }) => input)).toMatchObject([{ mode: "off" }, { mode: "enforce" }]);
  } finally {
    useLive.setState({ connection: null });
  }
});

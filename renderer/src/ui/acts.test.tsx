import { act, fireEvent, screen } from "@testing-library/react";
import type { ReactNode } from "react";
import { notifications } from "@mantine/notifications";
import { afterEach, expect, it } from "vitest";
import { answering, openProject, show } from "../../test-render.tsx";
import { createQueryClient, useCall } from "../lib/console.tsx";
import { afterActs, useAct } from "./acts.ts";
import { ProductionAsk } from "./production-ask.tsx";

// A few are shown at a time: those of one test would keep the next one's waiting.
afterEach(() => {
  notifications.clean();
  notifications.cleanQueue();
});

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
  await expect.poll(() => afterActs("rule", rule)).toBe(rule);
});

it("goes on with what an act left although the screen has not drawn it yet", async () => {
  const saved = { ...rule, mode: "enforce", version: 3 };
  const client = answering({
    "rules.list": () => ({ ok: true, value: { rules: [rule], as_of: "2026-12-01T00:00:00Z" } }),
    "rules.set_mode": () => ({ ok: true, value: { intent: { status: "acknowledged" }, rule: saved } }),
  });
  const under: Promise<unknown>[] = [];
  function Rule(): ReactNode {
    const runAct = useAct();
    const { data } = useCall("rules.list", {}, { staleMs: Number.POSITIVE_INFINITY });
    return (
      <button type="button" onClick={() => under.push(runAct("set_rule_mode", rule, { mode: "enforce" }))}>
        version {data?.rules[0]?.version}
      </button>
    );
  }
  show(client, <Rule />);
  const button = await screen.findByRole("button", { name: "version 2" });
  fireEvent.click(button);
  await Promise.all(under);
  // A key that is pressed now comes before the task that draws: it has the record of before.
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
  expect(button.textContent).toBe("version 2");
  expect(await afterActs("rule", rule)).toMatchObject({ mode: "enforce", version: 3 });
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
  openProject("acme", { is_production: true });
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
});

const switching = (answer: () => unknown = () => null) =>
  answering({
    "rules.set_mode": async ({ mode }: { readonly mode: string }) => {
      await answer();
      return {
        ok: true,
        value: { intent: { status: "acknowledged" }, rule: { ...rule, mode, version: 3 } },
      };
    },
  });

it("takes nothing back in another project than the one it was done in", async () => {
  const client = switching();
  openProject("a");
  show(client, <Switch />);
  fireEvent.click(screen.getByRole("button", { name: "enforce" }));
  await screen.findByText("Too many is now enforced");
  act(() => openProject("b"));
  fireEvent.click(screen.getByRole("button", { name: "Undo" }));
  await screen.findByText(/Another project was opened meanwhile/);
  expect(client.asked).toHaveLength(1);
});

it("shows nothing of an answer that comes when another project is open", async () => {
  let answer = (): void => {};
  const client = switching(() => new Promise<void>((resolve) => (answer = resolve)));
  const queries = createQueryClient();
  openProject("a");
  show(client, <Switch />, queries);
  fireEvent.click(screen.getByRole("button", { name: "enforce" }));
  await expect.poll(() => client.asked.length).toBe(1);
  act(() => openProject("b"));
  const ofB = { rules: [{ ...rule, mode: "off", version: 9 }] };
  queries.setQueryData(["rules.list", {}], ofB);
  answer();
  await screen.findByText("Too many is now enforced");
  expect(queries.getQueryData(["rules.list", {}])).toEqual(ofB);
  // Nor does an act on a rule of that name wait for it, or begin from what it left.
  expect(await afterActs("rule", rule)).toBe(rule);
});

it("takes no yes to a change of one production project for another", async () => {
  const client = switching();
  const production = { is_production: true };
  openProject("a", production);
  show(
    client,
    <>
      <Switch />
      <ProductionAsk />
    </>,
  );
  const press = async (name: string) => fireEvent.click(await screen.findByRole("button", { name }));
  await press("enforce");
  await screen.findByText("Set Too many to enforce");
  // Asked, and not answered yet.
  act(() => openProject("b", production));
  await expect.poll(() => screen.queryByText("Set Too many to enforce")).toBeNull();
  expect(client.asked).toEqual([]);

  await press("enforce");
  await press("Change production");
  await expect.poll(() => client.asked.length).toBe(1);
  act(() => openProject("a", production));
  await press("off");
  await screen.findByText("Set Too many to off");
  expect(client.asked).toHaveLength(1);
});

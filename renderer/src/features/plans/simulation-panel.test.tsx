import { fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, openProject, show } from "../../../test-render.tsx";
import { SimulationPanel } from "./simulation-panel.tsx";

it("keeps what a plan brings in for its project alone: another one has plans of the same names", () => {
  const project = { currency: "usd", plans: [{ plan_id: "gold", name: "Gold" }] };
  const open = (id: string) => {
    openProject(id, {}, project);
    return show(answering({}), <SimulationPanel changes={[]} />);
  };
  const gold = () => screen.getByLabelText<HTMLInputElement>("Gold");
  let panel = open("a");
  fireEvent.change(gold(), { target: { value: "20" } });
  panel.unmount();

  panel = open("b");
  expect(gold().value).toBe("");
  panel.unmount();

  open("a");
  expect(gold().value).toBe("20");
});

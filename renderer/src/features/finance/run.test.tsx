import { act, fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, openProject, show } from "../../../test-render.tsx";
import { useLive } from "../../lib/live.ts";
import { KeepBar } from "./run.tsx";

it("goes on keeping a run only while its project is open", async () => {
  let answer = (_value: unknown): void => {};
  const client = answering({ "finance.keep_run": () => new Promise((resolve) => (answer = resolve)) });
  const part = (kept: number) => ({ ok: true, value: { kept, total: 900, is_complete: false } });
  openProject("a");
  useLive.setState({ transport: "open" });
  show(client, <KeepBar runId="r" isHalf={false} />);
  fireEvent.click(screen.getByRole("button", { name: "Keep in the project" }));
  await expect.poll(() => client.asked.length).toBe(1);
  answer(part(300));
  await expect.poll(() => client.asked.length).toBe(2);
  act(() => openProject("b"));
  answer(part(600));
  await screen.findByText(/Another project was opened meanwhile/);
  expect(client.asked).toHaveLength(2);
});

import { expect, it } from "vitest";
import { deviceName } from "./device.ts";

it("names the machine, always with the same number of its own, in letters that a header takes", () => {
  const kept = new Map<string, unknown>();
  const store = {
    getSetting: (key: string) => kept.get(key),
    setSetting: (key: string, value: unknown) => void kept.set(key, value),
  } as Parameters<typeof deviceName>[0];
  const first = deviceName(store, "desk-7.example");
  expect(first).toMatch(/^desk-7\.example [0-9a-f]{8}$/);
  expect(deviceName(store, "desk-7.example")).toBe(first);
  expect(deviceName(store, "Zoë's\r\nX-Evil: 1 Mac💥")).toBe(`Zo'sX-Evil:1Mac ${first.slice(-8)}`);
  expect(deviceName(store, "机器")).toBe(`console ${first.slice(-8)}`);
  kept.set("device", { id: "forged" });
  expect(deviceName(store, "a")).toMatch(/^a [0-9a-f]{8}$/);
});

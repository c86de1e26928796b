/**
 * Draws the application's icon and writes it in every form that Windows, macOS and Linux ask for: `node
 * build/make-icons.ts`. A gauge with its needle short of the end: use under control.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync, crc32 } from "node:zlib";

const folder = import.meta.dirname;

type Colour = readonly [red: number, green: number, blue: number];
const navy: Colour = [24, 32, 58];
const night: Colour = [44, 58, 104];
const green: Colour = [64, 192, 120];
const amber: Colour = [250, 176, 5];
const red: Colour = [240, 72, 72];
const white: Colour = [246, 248, 252];

/** The colour and cover (0–1) at a point of the unit square. */
function paint(x: number, y: number, pixel: number): readonly [Colour, number] {
  const smooth = (distance: number): number => Math.min(1, Math.max(0, 0.5 - distance / pixel));
  const mix = (below: Colour, above: Colour, cover: number): Colour =>
    below.map((value, index) => value + ((above[index] ?? 0) - value) * cover) as unknown as Colour;

  // A square with round corners.
  const half = 0.46;
  const radius = 0.2;
  const dx = Math.abs(x - 0.5) - (half - radius);
  const dy = Math.abs(y - 0.5) - (half - radius);
  const outside = Math.hypot(Math.max(dx, 0), Math.max(dy, 0)) + Math.min(Math.max(dx, dy), 0) - radius;

  let colour = mix(night, navy, y);
  // The gauge: three quarters of a ring, open at the bottom.
  const [cx, cy] = [0.5, 0.55];
  const distance = Math.hypot(x - cx, y - cy);
  // 0 at the lower left, 1 at the lower right, clockwise.
  const angle = Math.atan2(x - cx, cy - y);
  const turn = (angle + 0.75 * Math.PI) / (1.5 * Math.PI);
  const ring = Math.abs(distance - 0.27) - 0.055;
  if (turn >= 0 && turn <= 1) {
    colour = mix(colour, turn < 0.62 ? green : turn < 0.84 ? amber : red, smooth(ring));
  }
  // The needle, at two thirds of the way.
  const direction = (0.6 * 1.5 - 0.75) * Math.PI;
  const [nx, ny] = [Math.sin(direction), -Math.cos(direction)];
  const along = Math.min(0.21, Math.max(0, (x - cx) * nx + (y - cy) * ny));
  const needle = Math.hypot(x - cx - along * nx, y - cy - along * ny) - (0.034 - along * 0.08);
  colour = mix(colour, white, smooth(needle));
  colour = mix(colour, white, smooth(distance - 0.055));
  return [colour, smooth(outside)];
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const frame = Buffer.alloc(body.length + 8);
  frame.writeUInt32BE(data.length, 0);
  body.copy(frame, 4);
  frame.writeUInt32BE(crc32(body), body.length + 4);
  return frame;
}

function png(size: number): Buffer {
  const rows = Buffer.alloc(size * (size * 4 + 1));
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const [colour, cover] = paint((column + 0.5) / size, (row + 0.5) / size, 1.4 / size);
      const at = row * (size * 4 + 1) + 1 + column * 4;
      colour.forEach((value, index) => rows.writeUInt8(Math.round(value), at + index));
      rows.writeUInt8(Math.round(cover * 255), at + 3);
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(size, 0);
  header.writeUInt32BE(size, 4);
  header.set([8, 6, 0, 0, 0], 8);
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function ico(sizes: readonly number[], images: ReadonlyMap<number, Buffer>): Buffer {
  const head = Buffer.alloc(6 + 16 * sizes.length);
  head.writeUInt16LE(1, 2);
  head.writeUInt16LE(sizes.length, 4);
  let offset = head.length;
  const bodies = sizes.map((size, index) => {
    const image = images.get(size) ?? Buffer.alloc(0);
    const at = 6 + index * 16;
    // 0 stands for 256.
    head.writeUInt8(size % 256, at);
    head.writeUInt8(size % 256, at + 1);
    head.writeUInt16LE(1, at + 4);
    head.writeUInt16LE(32, at + 6);
    head.writeUInt32LE(image.length, at + 8);
    head.writeUInt32LE(offset, at + 12);
    offset += image.length;
    return image;
  });
  return Buffer.concat([head, ...bodies]);
}

function icns(
  entries: readonly (readonly [type: string, size: number])[],
  images: ReadonlyMap<number, Buffer>,
): Buffer {
  const bodies = entries.map(([type, size]) => {
    const image = images.get(size) ?? Buffer.alloc(0);
    const head = Buffer.alloc(8);
    head.write(type, "latin1");
    head.writeUInt32BE(image.length + 8, 4);
    return Buffer.concat([head, image]);
  });
  const head = Buffer.alloc(8);
  head.write("icns", "latin1");
  head.writeUInt32BE(
    bodies.reduce((sum, { length }) => sum + length, 8),
    4,
  );
  return Buffer.concat([head, ...bodies]);
}

const images = new Map([16, 24, 32, 48, 64, 128, 256, 512, 1024].map((size) => [size, png(size)]));
mkdirSync(join(folder, "icons"), { recursive: true });
for (const size of [16, 24, 32, 48, 64, 128, 256, 512]) {
  writeFileSync(join(folder, `icons/${size}x${size}.png`), images.get(size) ?? Buffer.alloc(0));
}
writeFileSync(join(folder, "icon.ico"), ico([16, 24, 32, 48, 64, 128, 256], images));
const macTypes = [
  ["icp4", 16],
  ["ic11", 32],
  ["icp5", 32],
  ["ic12", 64],
  ["ic07", 128],
  ["ic13", 256],
  ["ic08", 256],
  ["ic14", 512],
  ["ic09", 512],
  ["ic10", 1024],
] as const;
writeFileSync(join(folder, "icon.icns"), icns(macTypes, images));

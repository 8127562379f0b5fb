import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { BugError } from "../base/assert.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Frame } from "./lane.ts";
import {
  FrameDecoder,
  frameBytesMax,
  frameHeaderBytes,
  isTicket,
  parseFrameHeader,
  parsePreamble,
  parseStatus,
  preambleBytes,
  refusalOf,
  renderEnd,
  renderPreamble,
  renderStatus,
  writeFrameHeader,
} from "./lane-codec.ts";

const headerOf = (frame: Frame) => {
  const header = Buffer.alloc(frameHeaderBytes);
  writeFrameHeader(frame, header, 0);
  return header;
};
const frames: fc.Arbitrary<Frame> = fc.record({
  unit: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  offset: fc.maxSafeNat().map((offset) => Math.min(offset, Number.MAX_SAFE_INTEGER - frameBytesMax)),
  length: fc.integer({ min: 1, max: frameBytesMax }),
});

describe("a frame's header", () => {
  test("property: says what it was written from", () => {
    fc.assert(fc.property(frames, (frame) => expect(parseFrameHeader(headerOf(frame))).toEqual(frame)));
  });

  test("property: is refused when any bit of it is flipped", () => {
    fc.assert(
      fc.property(frames, fc.nat(frameHeaderBytes * 8 - 1), (frame, bit) => {
        const header = headerOf(frame);
        header[bit >> 3] = (header[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(() => parseFrameHeader(header)).toThrow(expect.objectContaining({ code: "BadRequest" }));
      }),
    );
  });

  test("has not changed since the first release", () => {
    const frame = { unit: 0x01020304, offset: 0x5060708090a0b, length: 0x00010203 };
    expect(headerOf(frame).toString("hex")).toBe("4c534846010203040005060708090a0b00010203db7c90f4");
    expect(renderEnd().toString("hex")).toBe("4c53484500000000000000000000000000000000103300ef");
  });

  test.each<[string, Partial<Frame>]>([
    ["no length", { length: 0 }],
    ["too great a length", { length: frameBytesMax + 1 }],
    ["a negative offset", { offset: -1 }],
    ["an end past all numbers", { offset: Number.MAX_SAFE_INTEGER }],
    ["a unit past 32 bits", { unit: 2 ** 32 }],
    ["half an offset", { offset: 0.5 }],
  ])("of %s is a bug", (_what, wrong) => {
    expect(() => headerOf({ unit: 0, offset: 0, length: 1, ...wrong })).toThrow(BugError);
  });
});

test("property: a stream gives the same frames and payload however it is cut on the way", () => {
  const small = fc.array(fc.integer({ min: 1, max: 100 }), { maxLength: 10 });
  fc.assert(
    fc.property(small, fc.array(fc.integer({ min: 0, max: 60 })), (lengths, cuts) => {
      const sent = lengths.map((length, unit) => ({ unit, offset: unit * 1000, length }));
      const payload = (frame: Frame) => Buffer.alloc(frame.length, frame.unit + 1);
      const stream = Buffer.concat([...sent.flatMap((frame) => [headerOf(frame), payload(frame)]), renderEnd()]);
      const decoder = new FrameDecoder();
      const seen: Frame[] = [];
      const image = Buffer.alloc(10_000);
      const drain = () => {
        for (let piece = decoder.next(); piece !== undefined; piece = decoder.next()) {
          if (piece.kind === "frame") seen.push(piece.frame);
          if (piece.kind === "payload") {
            expect(piece.frame).toEqual(seen.at(-1));
            expect(piece.isLast).toBe(piece.offset + piece.data.length === piece.frame.offset + piece.frame.length);
            piece.data.copy(image, piece.offset);
          }
        }
      };
      let rest = stream;
      for (const cut of cuts) {
        decoder.feed(rest.subarray(0, cut));
        rest = rest.subarray(cut);
        if (cut % 2 === 0) drain();
      }
      decoder.feed(rest);
      drain();
      expect(decoder.hasEnded).toBe(true);
      expect(seen).toEqual(sent);
      const wanted = Buffer.alloc(10_000);
      for (const frame of sent) payload(frame).copy(wanted, frame.offset);
      expect(image.equals(wanted)).toBe(true);
    }),
  );
});

describe("a preamble", () => {
  const ticket = "0123456789abcdef".repeat(4);

  test("carries the ticket, and has not changed since the first release", () => {
    const preamble = renderPreamble(ticket);
    expect(preamble.length).toBe(preambleBytes);
    expect(preamble.toString("hex")).toBe(`4c53484c414e4501${ticket}`);
    expect(parsePreamble(preamble)).toBe(ticket);
  });

  test.each([
    [ticket, true],
    [ticket.toUpperCase(), false],
    [ticket.slice(1), false],
    [`${ticket}0`, false],
    [`${ticket}\n`, false],
  ])("of %j: %p", (text, is) => {
    expect(isTicket(text)).toBe(is);
  });
});

describe("a status", () => {
  test.each(["TicketRefused", "BadRequest", "Unauthenticated"] as const)(
    "tells the refusal %s, byte by byte",
    (code) => {
      const refusal = refusalOf(new LongshoreError(code, "because é"));
      const bytes = renderStatus(refusal);
      for (let length = 0; length < bytes.length; length++)
        expect(parseStatus(bytes.subarray(0, length))).toBeUndefined();
      expect(parseStatus(bytes)).toEqual({ kind: "refused", error: new LongshoreError(code, "because é") });
      expect(parseStatus(bytes)).toMatchObject({ error: { code } });
    },
  );

  test("tells acceptance", () => {
    expect(parseStatus(renderStatus())).toEqual({ kind: "accepted" });
  });

  test("of a number that a later version may add is a refused ticket", () => {
    const bytes = renderStatus(new LongshoreError("BadRequest", "why"));
    expect(parseStatus(bytes.fill(200, 4, 5))).toMatchObject({ kind: "refused", error: { code: "TicketRefused" } });
  });

  test("cuts a long reason short", () => {
    const bytes = renderStatus(new LongshoreError("BadRequest", "x".repeat(5000)));
    expect(parseStatus(bytes)).toMatchObject({ error: { message: "x".repeat(1024) } });
  });

  test("keeps to itself what is none of the peer's business", () => {
    expect(refusalOf(new LongshoreError("DiskFull", "secret"))).toBeUndefined();
    expect(refusalOf(new Error("secret"))).toBeUndefined();
    expect(() => renderStatus(new LongshoreError("DiskFull", "secret"))).toThrow(BugError);
  });
});

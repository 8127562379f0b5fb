import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { BugError } from "../base/assert.ts";
import { LongshoreError } from "../domain/errors.ts";
import { unitPayloadBytesMax } from "./lane.ts";
import {
  isTicket,
  parsePreamble,
  parseStatus,
  parseUnitHeader,
  preambleBytes,
  refusalOf,
  renderEnd,
  renderPreamble,
  renderStatus,
  UnitDecoder,
  type UnitHeader,
  unitHeaderBytes,
  writeUnitHeader,
} from "./lane-codec.ts";

const headerOf = (unit: UnitHeader) => {
  const header = Buffer.alloc(unitHeaderBytes);
  writeUnitHeader(unit, header, 0);
  return header;
};
const units: fc.Arbitrary<UnitHeader> = fc.record({
  unit: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  payloadBytes: fc.integer({ min: 1, max: unitPayloadBytesMax }),
});

describe("a unit's header", () => {
  test("property: says what it was written from", () => {
    fc.assert(fc.property(units, (unit) => expect(parseUnitHeader(headerOf(unit))).toEqual(unit)));
  });

  test("property: is refused when any bit of it is flipped", () => {
    fc.assert(
      fc.property(units, fc.nat(unitHeaderBytes * 8 - 1), (unit, bit) => {
        const header = headerOf(unit);
        header[bit >> 3] = (header[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(() => parseUnitHeader(header)).toThrow(expect.objectContaining({ code: "BadRequest" }));
      }),
    );
  });

  test("has not changed since version 2", () => {
    expect(headerOf({ unit: 0x01020304, payloadBytes: 0x00010203 }).toString("hex")).toBe(
      "4c534855010203040001020398945880",
    );
    expect(renderEnd().toString("hex")).toBe("4c5348450000000000000000b6888627");
  });

  test.each<[string, Partial<UnitHeader>]>([
    ["no payload", { payloadBytes: 0 }],
    ["too much payload", { payloadBytes: unitPayloadBytesMax + 1 }],
    ["half a byte", { payloadBytes: 0.5 }],
    ["a unit past 32 bits", { unit: 2 ** 32 }],
    ["a negative unit", { unit: -1 }],
  ])("of %s is a bug", (_what, wrong) => {
    expect(() => headerOf({ unit: 0, payloadBytes: 1, ...wrong })).toThrow(BugError);
  });
});

test("property: a stream gives the same units and payload however it is cut on the way", () => {
  const small = fc.array(fc.integer({ min: 1, max: 100 }), { maxLength: 10 });
  fc.assert(
    fc.property(small, fc.array(fc.integer({ min: 0, max: 60 })), (lengths, cuts) => {
      const sent = lengths.map((payloadBytes, unit) => ({ unit, payloadBytes }));
      const payload = ({ unit, payloadBytes }: UnitHeader) => Buffer.alloc(payloadBytes, unit + 1);
      const stream = Buffer.concat([...sent.flatMap((unit) => [headerOf(unit), payload(unit)]), renderEnd()]);
      const decoder = new UnitDecoder();
      const seen: { header: UnitHeader; payload: Buffer; isWhole: boolean }[] = [];
      const drain = () => {
        for (let piece = decoder.next(); piece !== undefined; piece = decoder.next()) {
          if (piece.kind === "unit") seen.push({ header: piece.header, payload: Buffer.alloc(0), isWhole: false });
          const last = seen.at(-1);
          if (piece.kind !== "payload" || last === undefined) continue;
          expect(last.isWhole).toBe(false);
          last.payload = Buffer.concat([last.payload, piece.data]);
          last.isWhole = piece.isLast;
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
      expect(seen).toEqual(sent.map((header) => ({ header, payload: payload(header), isWhole: true })));
    }),
  );
});

describe("a preamble", () => {
  const ticket = "0123456789abcdef".repeat(4);

  test("carries the ticket, and has not changed since version 2", () => {
    const preamble = renderPreamble(ticket);
    expect(preamble.length).toBe(preambleBytes);
    expect(preamble.toString("hex")).toBe(`4c53484c414e4502${ticket}`);
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

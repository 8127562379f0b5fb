import { expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { systemClock } from "../base/clock.ts";
import { graceMs, openCommands } from "./command.ts";

const commands = openCommands(systemClock);
const ampleMs = 60_000;

test("what a tool writes is returned, and its words are not read by a shell", async () => {
  expect(await commands.run(["printf", "%s|", "$HOME", "a b", "; exit 1"], ampleMs)).toBe("$HOME|a b|; exit 1|");
});

test("a tool sees nothing of our environment, and speaks one language", async () => {
  const lines = (await commands.run(["env"], ampleMs)).trim().split("\n").sort();
  expect(lines).toEqual(["LC_ALL=C", expect.stringMatching(/^PATH=/)]);
});

test("a tool that fails is told with its status and what it said", async () => {
  const words = ["sh", "-c", "echo so it is >&2; exit 3"];
  await expect(commands.run(words, ampleMs)).rejects.toThrow(/exit status 3: so it is$/);
  expect(await commands.attempt(words, ampleMs)).toEqual({ status: 3, stdout: "", stderr: "so it is\n" });
});

test("one that complains on its standard output is told with that", async () => {
  const words = ["sh", "-c", "echo so it is; exit 4"];
  await expect(commands.run(words, ampleMs)).rejects.toThrow(/exit status 4: so it is$/);
});

test("one that is not there is told by its name", async () => {
  await expect(commands.run(["no-such-tool", "x"], ampleMs)).rejects.toThrow("cannot run no-such-tool");
});

test("one that a signal ended has not succeeded, and has no status", async () => {
  await expect(commands.attempt(["sh", "-c", "kill -KILL $$"], ampleMs)).rejects.toThrow("was ended by SIGKILL");
});

test("one that is past its deadline is asked to end", async () => {
  const clock = new FakeClock();
  const ended = openCommands(clock).run(["sleep", "600"], 1_000);
  const told = expect(ended).rejects.toMatchObject({ code: "Timeout", message: "sleep 600 was ended after 1000 ms" });
  await clock.advance(1_000);
  await told;
});

test("and killed when it does not", async () => {
  const clock = new FakeClock();
  const ended = openCommands(clock).run(["env", "--ignore-signal=TERM", "sleep", "600"], 1_000);
  const told = expect(ended).rejects.toMatchObject({ code: "Timeout" });
  await clock.advance(1_000);
  await clock.advance(graceMs);
  await told;
});

test("one that ends in time leaves nobody waiting for its deadline", async () => {
  const clock = new FakeClock();
  await openCommands(clock).run(["true"], 1_000);
  expect(clock.sleepers).toBe(0);
});

import { describe, expect, test } from "@jest/globals";
import { tokens } from "./source-tokens.ts";

const show = (source: string) =>
  tokens(source)
    .map(({ kind, text }) => (kind === "string" ? `"${text}"` : text))
    .join(" ");

describe("the tokens of", () => {
  test.each([
    // source, tokens with strings in quotes
    ["a comment", "a // import 'x'\nb /* import 'y' */ c", "a b c"],
    ["strings with escapes", `"a\\"b" 'c"d'`, `"a\\"b" "c"d"`],
    ["a template", "`import x from 'y'` z", '"`" z'],
    ["code in a template", `\`a \${b(\`c \${d}\`)} e\` f`, '"`" b ( "`" d ) f'],
    ["braces in code in a template", `\`\${ { a: {} } } import\` b`, '"`" { a : { } } b'],
    ["a regular expression", "x = /[/'\"]`/g; y", 'x = "/" ; y'],
    ["a regular expression after return", "return /'/", 'return "/"'],
    ["divisions", "a / b / c; (d) / e / 'f'", 'a / b / c ; ( d ) / e / "f"'],
    ["a private name", "this.#a.import", "this . #a . import"],
  ])("%s", (_, source, expected) => {
    expect(show(source)).toBe(expected);
  });
});

test("lines are counted through comments and templates", () => {
  const last = tokens(`a /*\n\n*/ \`\n\${\nb}\n\` // x\nlast`).at(-1);
  expect(last).toEqual({ kind: "word", text: "last", line: 7 });
});

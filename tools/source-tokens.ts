// A reader of TypeScript that knows just enough to find imports and calls: words, strings and signs, without comments.
// The compiler in use offers no API for that. Text inside template literals is skipped, code inside `${}` is not.

export interface Token {
  readonly kind: "word" | "string" | "sign";
  /** For a string its content, without quotes. */
  readonly text: string;
  /** From 1. */
  readonly line: number;
}

const word = /[\p{ID_Start}$_#][\p{ID_Continue}$]*/uy;
const number = /\d[\w.]*/y;
const quoted = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/y;
const space = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/)+/y;
const regularExpression = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
// After these a slash divides; after anything else it begins a regular expression.
const endsValue = /^(?:[\])]|[\p{ID_Continue}$].*)$/u;
const keywordsBeforeValue = new Set([
  "return",
  "typeof",
  "case",
  "in",
  "of",
  "await",
  "yield",
  "throw",
  "void",
  "delete",
]);

export function tokens(source: string): Token[] {
  const found: Token[] = [];
  // One entry for each `${` that is open, counting the braces open inside it.
  const braces: number[] = [];
  let at = 0;
  let line = 1;

  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const text = pattern.exec(source)?.[0];
    if (text !== undefined) at += text.length;
    return text;
  };
  const add = (kind: Token["kind"], text: string) => found.push({ kind, text, line });
  const passTemplateText = () => {
    const start = at;
    while (at < source.length && source[at] !== "`" && !source.startsWith("${", at)) at += source[at] === "\\" ? 2 : 1;
    line += newlines(source.slice(start, at));
    const opensCode = source[at] === "$";
    at += opensCode ? 2 : 1;
    if (opensCode) braces.push(0);
  };

  while (at < source.length) {
    const skipped = take(space);
    if (skipped !== undefined) line += newlines(skipped);
    else if (source[at] === "`") {
      at += 1;
      add("string", "`");
      passTemplateText();
    } else if (source[at] === "}" && braces.at(-1) === 0) {
      at += 1;
      braces.pop();
      passTemplateText();
    } else addPlain();
  }
  return found;

  function addPlain(): void {
    const string = take(quoted);
    if (string !== undefined) return void add("string", string.slice(1, -1));
    const name = take(word) ?? take(number);
    if (name !== undefined) return void add("word", name);
    const previous = found.at(-1);
    const divides = previous !== undefined && endsValue.test(previous.text) && !keywordsBeforeValue.has(previous.text);
    if (source[at] === "/" && !divides && take(regularExpression) !== undefined) return void add("string", "/");
    const sign = source[at] as string;
    at += 1;
    const depth = braces.length - 1;
    if (depth >= 0 && (sign === "{" || sign === "}")) braces[depth] = (braces[depth] ?? 0) + (sign === "{" ? 1 : -1);
    add("sign", sign);
  }
}

const newlines = (text: string) => text.split("\n").length - 1;

// The client's matcher against the table that the server's matcher is tested with too.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { canonical, matches, meet } from "../passerelle.js";

const cases = JSON.parse(readFileSync(new URL("../../../tests/data/matching.json", import.meta.url), "utf8"));

test("every case of the shared table", () => {
  assert.ok(cases.length > 100);
  for (const { pattern, topic, matches: expected } of cases) {
    assert.equal(matches(pattern, topic), expected, `'${pattern}' against '${topic}'`);
  }
});

test("the canonical form of a pattern matches the same topics", () => {
  for (const { pattern, topic, matches: expected } of cases) {
    assert.equal(
      matches(canonical(pattern), topic),
      expected,
      `'${canonical(pattern)}' for '${pattern}' against '${topic}'`,
    );
  }
});

test("the canonical form is the server's", () => {
  assert.equal(canonical("#.#"), "#");
  assert.equal(canonical("a.#.*.#.b"), "a.*.#.b");
  assert.equal(canonical("#.*"), canonical("*.#"));
  assert.equal(canonical("a.#.b.#"), "a.#.b.#");
  assert.equal(canonical("a."), "a.");
  assert.equal(canonical(""), "");
});

test("two patterns meet where there is a topic that matches both", () => {
  const upTo = (count, letters) => {
    const longer = count > 0 ? upTo(count - 1, letters) : [];
    return [[], ...longer.flatMap((rest) => letters.map((letter) => [letter, ...rest]))];
  };
  const patterns = upTo(3, ["a", "b", "*", "#"]).map((words) => words.join("."));
  const topics = upTo(4, ["a", "b"]).map((words) => words.join("."));
  const matched = patterns.map((pattern) => topics.map((topic) => matches(pattern, topic)));
  patterns.forEach((one, row) =>
    patterns.forEach((other, column) => {
      const both = matched[row].some((is, place) => is && matched[column][place]);
      assert.equal(meet(one, other), both, `'${one}' and '${other}'`);
    }),
  );
});

"use strict";
// The page of all questions. Texts of models enter it by textContent alone, never as markup.
const PAGE_SIZE = 30;
const answers = new Map(); // cell -> texts, and of each seed question -> stored answers
let all = null; // questions.js
let shown = 0;
let found = [];
const controls = document.getElementById("controls");
const list = document.getElementById("list");
const more = document.getElementById("more");

const SHOWS = [
  ["all", "all questions", () => true],
  ["right", "right", (here) => here.isRight],
  ["wrong", "wrong", (here) => !here.isRight],
  ["always", "always right", (here) => here.right === here.asked],
  ["never", "never right", (here) => here.right === 0],
  ["unformed", "some answer without the form", (here) => here.unformed > 0],
];
const PAIRED = [
  ["right-wrong", "right here, wrong there", (here, there) => here.isRight && !there.isRight],
  ["wrong-right", "wrong here, right there", (here, there) => !here.isRight && there.isRight],
  ["both", "right in both", (here, there) => here.isRight && there.isRight],
  ["neither", "wrong in both", (here, there) => !here.isRight && !there.isRight],
];

function make(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function fill(select, rows, chosen) {
  select.replaceChildren(...rows.map(([value, text]) => {
    const option = make("option", "", text);
    option.value = value;
    return option;
  }));
  if (rows.some(([value]) => value === chosen)) select.value = chosen;
}

function frontload_questions(value) {
  const name = (row) => Object.fromEntries(value.fields.map((field, place) => [field, row[place]]));
  all = { cells: value.cells, questions: value.questions.map(name) };
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const cells = all.cells.map((one) => [one.cell, one.label]);
  fill(controls.cell, cells, asked.cell);
  fill(controls.other, [["", "no other"], ...cells], asked.other);
  controls.words.value = asked.words || "";
  controls.hidden = false;
  controls.addEventListener("input", () => update(choice()));
  controls.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  update(asked);
}

function frontload_answers(value) {
  const bySeed = value.seeds.map((rows) => new Map(rows));
  answers.set(value.cell, { texts: value.texts, bySeed });
}

function choice() {
  return Object.fromEntries(new FormData(controls));
}

// Loads the file of a cell once; a page of file:// may do so by a script alone.
function load(cell) {
  if (!cell || answers.has(cell)) return Promise.resolve();
  const { file } = all.cells.find((one) => one.cell === cell);
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${file} is not beside this page`));
    document.head.append(script);
  });
}

function update(asked) {
  const cell = controls.cell.value;
  const other = controls.other.value;
  Promise.all([load(cell), load(other)]).then(
    () => { choose(cell, other, asked); },
    (error) => { document.getElementById("state").textContent = error.message; },
  );
}

function choose(cell, other, asked) {
  const here = answers.get(cell);
  const there = other ? answers.get(other) : null;
  // A model that two suites ask has two evaluations of a seed.
  const { seeds: evaluations } = all.cells.find((one) => one.cell === cell);
  const seeds = [...new Set(evaluations.map((one) => String(one.seed)))];
  fill(controls.seed, [["", "all"], ...seeds.map((one) => [one, one])], asked.seed);
  const shows = there ? [...SHOWS, ...PAIRED] : SHOWS;
  fill(controls.show, shows.map(([value, text]) => [value, text]), asked.show);
  const numbers = [...new Set(here.bySeed.flatMap((rows) => [...rows.keys()]))];
  const names = [...new Set(numbers.map((number) => all.questions[number].benchmark))].sort();
  fill(controls.benchmark, [["", "all"], ...names.map((one) => [one, one])], asked.benchmark);
  const now = choice();
  const keeps = shows.find(([value]) => value === now.show)[2];
  const words = now.words.toLowerCase();
  let rows = numbers
    .map((number) => ({
      question: all.questions[number],
      here: answered(cell, number, now.seed),
      there: there ? answered(other, number, now.seed) : null,
    }))
    .filter((row) => row.here.asked && (!there || row.there.asked))
    .filter((row) => !now.benchmark || row.question.benchmark === now.benchmark)
    .filter((row) => !words || hasWords(row, words));
  const compared = rows.length;
  rows = rows.filter((row) => keeps(row.here, row.there));
  if (there && now.show.includes("-")) rows.sort((a, b) => gap(b) - gap(a));
  found = rows;
  tell(compared, there);
  const kept = Object.entries(now).filter(([, value]) => value);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
  list.replaceChildren();
  shown = 0;
  showMore();
}

function gap(row) {
  return Math.abs(row.here.right / row.here.asked - row.there.right / row.there.asked);
}

function hasWords(row, words) {
  const texts = [row.question.text, row.question.gold, row.question.id];
  for (const side of [row.here, row.there]) {
    if (side) texts.push(...side.samples.map((sample) => sample.text));
  }
  return texts.some((text) => text.toLowerCase().includes(words));
}

// Samples of one question in a cell, over the seeds that are looked at.
function answered(cell, number, seed) {
  const { texts, bySeed } = answers.get(cell);
  const { seeds } = all.cells.find((one) => one.cell === cell);
  const question = all.questions[number];
  const samples = [];
  bySeed.forEach((rows, place) => {
    if (!rows.has(number) || (seed && seed !== String(seeds[place].seed))) return;
    const stored = rows.get(number);
    if (typeof stored[0] === "number") {
      const best = stored.indexOf(Math.max(...stored));
      const isRight = best === Number(question.gold);
      samples.push({ seed: seeds[place].seed, isRight, scores: stored, text: "", failure: "" });
      return;
    }
    for (const [right, text, answer, failure, tokens] of stored) {
      samples.push({
        seed: seeds[place].seed, isRight: right === 1, text: texts[text], answer: texts[answer],
        failure: texts[failure], tokens,
      });
    }
  });
  const right = samples.filter((sample) => sample.isRight).length;
  return {
    samples, right, asked: samples.length, isRight: 2 * right > samples.length,
    unformed: samples.filter((sample) => sample.failure).length,
  };
}

function share(rows, side) {
  const shares = rows.map((row) => row[side].right / row[side].asked);
  const mean = shares.reduce((sum, one) => sum + one, 0) / Math.max(1, shares.length);
  return `${(100 * mean).toFixed(1)}%`;
}

function tell(compared, there) {
  const told = [`${found.length} of ${compared} questions`];
  if (found.length) told.push(`answers right here ${share(found, "here")}`);
  if (found.length && there) told.push(`there ${share(found, "there")}`);
  document.getElementById("state").textContent = told.join(", ");
}

function showMore() {
  const next = found.slice(shown, shown + PAGE_SIZE);
  list.append(...next.map(article));
  shown += next.length;
  more.hidden = shown >= found.length;
  more.textContent = `${Math.min(PAGE_SIZE, found.length - shown)} more of ${found.length}`;
}

function article(row) {
  const { question } = row;
  const node = make("article");
  const kinds = [question.category, question.benchmark];
  if (question.family && question.family !== question.benchmark) kinds.push(question.family);
  if (question.level !== null) kinds.push(`level ${question.level}`);
  if (question.inside_shq !== null) {
    kinds.push(question.inside_shq ? "inside SHQ's families" : "outside SHQ's families");
  }
  const head = make("h2", "", question.id);
  head.append(" ", make("small", "", kinds.join(" \u00b7 ")));
  node.append(head, make("pre", "gen", question.text));
  if (!question.options.length) node.append(make("p", "note", `gold: ${question.gold}`));
  const sides = make("div", "grid2");
  sides.append(side(row, row.here, controls.cell.value));
  if (row.there) sides.append(side(row, row.there, controls.other.value));
  node.append(sides);
  return node;
}

function side(row, answered, cell) {
  const { label } = all.cells.find((one) => one.cell === cell);
  const node = make("div");
  const head = make("p", "who");
  head.append(make("b", "", label), " ", dots(answered), ` ${answered.right} of ${answered.asked}`);
  node.append(head);
  for (const sample of answered.samples) {
    const word = sample.isRight ? "right" : sample.failure || "wrong";
    const line = make("p", "note", `seed ${sample.seed} \u00b7 `);
    line.append(make("span", `v ${sample.isRight ? "good" : "bad"}`, word));
    if (sample.answer) line.append(` \u00b7 answer ${sample.answer}`);
    if (sample.tokens) line.append(` \u00b7 ${sample.tokens} tokens`);
    node.append(line, sample.scores ? scores(row.question, sample) : make("pre", "gen", sample.text));
  }
  return node;
}

function dots(answered) {
  const word = (one) => (one.isRight ? "right" : one.failure ? "no answer" : "wrong");
  const mark = (one) => (one.isRight ? "\u25cf" : one.failure ? "\u2013" : "\u25cb");
  const node = make("span", "dots", answered.samples.map(mark).join(""));
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", answered.samples.map(word).join(", "));
  return node;
}

// Options of a multiple choice by log-likelihood: the first is the model's answer.
function scores(question, sample) {
  const node = make("ol", "options");
  const order = sample.scores.map((_, place) => place);
  order.sort((a, b) => sample.scores[b] - sample.scores[a]);
  for (const place of order) {
    const text = question.options[place] ?? `option ${place + 1}`;
    const line = make("li", "", `${text} `);
    line.append(make("small", "", `${sample.scores[place].toFixed(2)} nats`));
    if (place === Number(question.gold)) line.append(" ", make("small", "v good", "gold"));
    node.append(line);
  }
  return node;
}

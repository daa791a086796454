// items.js in node on a document that holds nodes and text and draws nothing.
// node items_page.mjs items.js FOLDER HASH  ->  {"state": ..., "found": [[id, text of the article]]}
import fs from "node:fs";
import path from "node:path";
import vm from "node:vm";

const [script, folder, hash] = process.argv.slice(2);
const run = (file) => vm.runInThisContext(fs.readFileSync(file, "utf8"), { filename: file });

class Node {
  constructor(name) {
    Object.assign(this, { name, nodes: [], text: "", value: "", attributes: {}, heard: {} });
  }
  get textContent() {
    return this.text + this.nodes.map((one) => one.textContent ?? String(one)).join("");
  }
  set textContent(text) {
    Object.assign(this, { nodes: [], text: String(text) });
  }
  append(...nodes) {
    this.nodes.push(...nodes);
    for (const one of nodes) {
      if (one.name !== "script") continue;
      run(path.join(folder, one.src));
      one.onload();
    }
  }
  replaceChildren(...nodes) {
    this.nodes = nodes;
    this.value = nodes[0]?.value ?? "";
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, act) { this.heard[name] = act; }
}

const byId = {};
const inputs = ["cell", "other", "benchmark", "show", "seed", "words"];
byId.controls = Object.assign(new Node("form"), Object.fromEntries(
  inputs.map((name) => [name, new Node("select")])));
Object.assign(globalThis, {
  document: {
    getElementById: (name) => (byId[name] ??= new Node("div")),
    createElement: (name) => new Node(name),
    head: new Node("head"),
  },
  location: { hash },
  history: { replaceState: () => {} },
  FormData: class {
    constructor(form) { this.form = form; }
    [Symbol.iterator]() { return inputs.map((name) => [name, this.form[name].value]).values(); }
  },
});

run(script);
run(path.join(folder, "questions.js"));
setTimeout(() => {
  while (!byId.more.hidden) byId.more.heard.click();
  const found = byId.list.nodes.map((one) => [one.nodes[0].text, one.textContent]);
  console.log(JSON.stringify({ state: byId.state.textContent, found }));
}, 0);

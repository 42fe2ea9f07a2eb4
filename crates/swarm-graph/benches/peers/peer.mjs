// The workloads of `benches/engine.rs` on LangGraph for JavaScript; one JSON object a line.
//
// Every store is synchronous: a step is durable before the next begins (`durability: "sync"`).

import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

// The packages are installed away from this file.
const installed = createRequire(join(process.env.PEERS_DIR, "js", "package.json"));
const load = (name) => import(pathToFileURL(installed.resolve(name)).href);
const { Annotation, Command, END, MemorySaver, Send, START, StateGraph, interrupt } =
  await load("@langchain/langgraph");
const { SqliteSaver } = await load("@langchain/langgraph-checkpoint-sqlite");
const { PostgresSaver } = await load("@langchain/langgraph-checkpoint-postgres");
const { default: Database } = await load("better-sqlite3");

const ROUNDS = 5;
const only = process.argv[2] ?? "";
const url = process.env.DATABASE_URL;
const stores = ["memory", "sqlite FULL", "sqlite NORMAL", ...(url ? ["postgres"] : [])];

const list = () => Annotation({ reducer: (a, b) => a.concat(b), default: () => [] });
const State = Annotation.Root({
  n: Annotation(),
  log: list(),
  sums: list(),
  big: Annotation(),
  item: Annotation(),
});

const step = (state) => ({ n: (state.n ?? 0) + 1 });
const grow = (state) => ({ n: (state.n ?? 0) + 1, log: ["x".repeat(1024)] });

function chain(first = step) {
  return new StateGraph(State)
    .addNode("a", first).addNode("b", step).addNode("c", step).addNode("d", step)
    .addEdge(START, "a").addEdge("a", "b").addEdge("b", "c").addEdge("c", "d").addEdge("d", END);
}

function growing(steps) {
  return new StateGraph(State)
    .addNode("a", grow)
    .addEdge(START, "a")
    .addConditionalEdges("a", (state) => (state.n < steps ? "a" : END));
}

function fanOut() {
  const sends = () => Array.from({ length: 100 }, (_, n) => new Send("b", { item: n }));
  return new StateGraph(State)
    .addNode("a", () => ({}))
    .addNode("b", (state) => ({ sums: [state.item + 1] }))
    .addEdge(START, "a")
    .addConditionalEdges("a", sends)
    .addEdge("b", END);
}

function asking() {
  const ask = () => {
    interrupt("Go on?");
    return {};
  };
  return new StateGraph(State)
    .addNode("a", ask).addNode("b", step)
    .addEdge(START, "a").addEdge("a", "b").addEdge("b", END);
}

const bigChain = () => chain(() => ({ big: "x".repeat(1 << 20), n: 1 }));

const config = (round, n) => ({
  configurable: { thread_id: `r${round}-${n}` },
  recursionLimit: 10000,
  durability: "sync",
});

async function alone(app, input, round, runs) {
  for (let n = 0; n < runs; n++) await app.invoke(input, config(round, n));
}

async function askAndAnswer(app, _input, round, runs) {
  for (let n = 0; n < runs; n++) {
    await app.invoke({ n: 0 }, config(round, n));
    await app.invoke(new Command({ resume: "yes" }), config(round, n));
  }
}

async function atOnce(app, input, round, runs) {
  await Promise.all(Array.from({ length: runs }, (_, n) => app.invoke(input, config(round, n))));
}

// name, graph, input, how, runs in memory and on disk, steps of one run
const workloads = [
  ["chain of 4", chain, { n: 0 }, alone, [100, 40], 4],
  ["loop of 1000, growing", () => growing(1000), { n: 0 }, alone, [1, 1], 1000],
  ["fan-out to 100", fanOut, {}, alone, [3, 2], 101],
  ["ask and answer", asking, {}, askAndAnswer, [60, 30], 2],
  ["1 MiB that stays", bigChain, { n: 0 }, alone, [10, 5], 4],
  ["64 at once", chain, { n: 0 }, atOnce, [64, 64], 4],
];

for (const [name, graph, input, how, runs, steps] of workloads) {
  if (!name.startsWith(only)) continue;
  for (const store of stores.filter((store) => store.startsWith(process.argv[3] ?? ""))) {
    const directory = mkdtempSync(join(process.env.PEERS_DIR, "js-"));
    let checkpointer = new MemorySaver();
    if (store === "postgres") {
      checkpointer = PostgresSaver.fromConnString(url);
      await checkpointer.pool.query("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public");
      await checkpointer.setup();
    } else if (store !== "memory") {
      checkpointer = new SqliteSaver(new Database(join(directory, "js.db")));
      checkpointer.setup();
      checkpointer.db.pragma(`synchronous=${store.split(" ")[1]}`);
    }
    const app = graph().compile({ checkpointer });
    const count = runs[store === "memory" ? 0 : 1];
    const rates = [];
    for (let round = 0; round < ROUNDS; round++) {
      const began = performance.now();
      await how(app, input, round, count);
      rates.push((count * steps) / ((performance.now() - began) / 1000));
    }
    rates.sort((a, b) => a - b);
    const rate = rates[Math.floor(rates.length / 2)];
    const line = { engine: "LangGraph JavaScript", workload: name, store };
    console.log(JSON.stringify({ ...line, steps_per_second: rate }));
    if (store === "postgres") await checkpointer.end();
    rmSync(directory, { recursive: true });
  }
}

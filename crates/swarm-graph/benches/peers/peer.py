"""The workloads of `benches/engine.rs` on LangGraph for Python; one JSON object a line.

Every store is synchronous: a step is durable before the next begins (`durability="sync"`).
`memory` is its in-memory saver; `sqlite FULL` and `sqlite NORMAL` set `PRAGMA synchronous`;
`postgres` is the server that DATABASE_URL names.
"""

import asyncio
import json
import operator
import os
import sqlite3
import sys
import tempfile
import time
from typing import Annotated, TypedDict

import aiosqlite
import psycopg
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

ROUNDS = 5


class State(TypedDict, total=False):
    n: int
    log: Annotated[list, operator.add]
    sums: Annotated[list, operator.add]
    big: str
    item: int


def step(state):
    return {"n": state.get("n", 0) + 1}


async def async_step(state):
    return step(state)


def grow(state):
    return {"n": state.get("n", 0) + 1, "log": ["x" * 1024]}


def chain(first=step, node=step):
    graph = StateGraph(State)
    for name in "abcd":
        graph.add_node(name, first if name == "a" else node)
    for one, two in zip([START, *"abcd"], [*"abcd", END]):
        graph.add_edge(one, two)
    return graph


def growing(steps):
    graph = StateGraph(State)
    graph.add_node("a", grow)
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: "a" if state["n"] < steps else END)
    return graph


def fan_out():
    graph = StateGraph(State)
    graph.add_node("a", lambda state: {})
    graph.add_node("b", lambda state: {"sums": [state["item"] + 1]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: [Send("b", {"item": n}) for n in range(100)])
    graph.add_edge("b", END)
    return graph


def asking():
    def ask(state):
        interrupt("Go on?")
        return {}

    graph = StateGraph(State)
    graph.add_node("a", ask)
    graph.add_node("b", step)
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    graph.add_edge("b", END)
    return graph


def big_chain():
    return chain(first=lambda state: {"big": "x" * (1 << 20), "n": 1})


def config(round_, n):
    return {"configurable": {"thread_id": f"r{round_}-{n}"}, "recursion_limit": 10_000}


def alone(app, input_, round_, runs):
    for n in range(runs):
        app.invoke(input_, config(round_, n), durability="sync")


def ask_and_answer(app, round_, runs):
    for n in range(runs):
        app.invoke({"n": 0}, config(round_, n), durability="sync")
        app.invoke(Command(resume="yes"), config(round_, n), durability="sync")


async def at_once(app, round_, runs):
    one = lambda n: app.ainvoke({"n": 0}, config(round_, n), durability="sync")
    await asyncio.gather(*(one(n) for n in range(runs)))


# name, graph, input, runs in memory and on disk, steps of one run
WORKLOADS = [
    ("chain of 4", chain, {"n": 0}, (100, 40), 4),
    ("loop of 1000, growing", lambda: growing(1000), {"n": 0, "log": []}, (1, 1), 1000),
    ("fan-out to 100", fan_out, {"sums": []}, (3, 2), 101),
    ("ask and answer", asking, None, (60, 30), 2),
    ("1 MiB that stays", big_chain, {"n": 0}, (10, 5), 4),
]


def median(rates):
    return sorted(rates)[len(rates) // 2]


def report(workload, store, rates):
    line = {"engine": "LangGraph Python", "workload": workload, "store": store}
    print(json.dumps({**line, "steps_per_second": median(rates)}), flush=True)


# As its documentation says.
POSTGRES = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


def empty_postgres():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS public CASCADE")
        connection.execute("CREATE SCHEMA public")


def saver(store, directory):
    if store == "memory":
        return InMemorySaver()
    if store == "postgres":
        empty_postgres()
        made = PostgresSaver(psycopg.Connection.connect(os.environ["DATABASE_URL"], **POSTGRES))
        made.setup()
        return made
    connection = sqlite3.connect(os.path.join(directory, "py.db"), check_same_thread=False)
    made = SqliteSaver(connection)
    made.setup()
    connection.execute(f"PRAGMA synchronous={store.split()[1]}")
    return made


def measure(only, stores):
    for name, graph, input_, runs, steps in WORKLOADS:
        if not name.startswith(only):
            continue
        for store in stores:
            with tempfile.TemporaryDirectory(dir=os.environ.get("PEERS_DIR")) as directory:
                app = graph().compile(checkpointer=saver(store, directory))
                count = runs[0 if store == "memory" else 1]
                rates = []
                for round_ in range(ROUNDS):
                    began = time.perf_counter()
                    if input_ is None:
                        ask_and_answer(app, round_, count)
                    else:
                        alone(app, input_, round_, count)
                    rates.append(count * steps / (time.perf_counter() - began))
                report(name, store, rates)


async def measure_at_once(stores):
    for store in stores:
        with tempfile.TemporaryDirectory(dir=os.environ.get("PEERS_DIR")) as directory:
            graph = chain(async_step, async_step)
            if store == "memory":
                await rounds(graph.compile(checkpointer=InMemorySaver()), store)
                continue
            if store == "postgres":
                empty_postgres()
                url = os.environ["DATABASE_URL"]
                async with AsyncConnectionPool(url, max_size=20, kwargs=POSTGRES) as pool:
                    made = AsyncPostgresSaver(pool)
                    await made.setup()
                    await rounds(graph.compile(checkpointer=made), store)
                continue
            async with aiosqlite.connect(os.path.join(directory, "py.db")) as connection:
                made = AsyncSqliteSaver(connection)
                await made.setup()
                await connection.execute(f"PRAGMA synchronous={store.split()[1]}")
                await rounds(graph.compile(checkpointer=made), store)


async def rounds(app, store):
    rates = []
    for round_ in range(ROUNDS):
        began = time.perf_counter()
        await at_once(app, round_, 64)
        rates.append(64 * 4 / (time.perf_counter() - began))
    report("64 at once", store, rates)


if __name__ == "__main__":
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    stores = ["memory", "sqlite FULL", "sqlite NORMAL"]
    if os.environ.get("DATABASE_URL"):
        stores.append("postgres")
    if len(sys.argv) > 2:
        stores = [store for store in stores if store.startswith(sys.argv[2])]
    measure(only, stores)
    if "64 at once".startswith(only):
        asyncio.run(measure_at_once(stores))

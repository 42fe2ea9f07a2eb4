//! A program as graphs: statements flattened to nodes and ways, last one first.

use std::fmt::Write as _;

use super::program::{
    Act, Bound, Caught, Each, EachOf, Fault, OnError, Program, Retry, Stmt, Sub, Wait, Work,
};

/// The graphs of a program as YAML, in its order; those that nobody runs are left out.
pub(super) fn texts(program: &Program) -> Vec<(String, String)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for sub in &program.graphs {
        let call = format!("graph: {},", sub.name);
        if texts.is_empty() || texts.iter().any(|(_, text)| text.contains(&call)) {
            texts.push((sub.name.clone(), text(sub)));
        }
    }
    texts
}

fn text(sub: &Sub) -> String {
    let mut nodes = Nodes::default();
    let entry = nodes.block(&sub.body, "$end");
    let mut text = format!(
        "dsl: 1\ngraph: {{ name: {}, version: 1.0.0 }}\n\
         input: {{ schema: {{ type: object, properties: {{ k: {{ type: integer }} }}, required: [ k ] }} }}\n\
         output: {{ schema: {{ type: object }}, value: {{ log: \"${{{{ state.log }}}}\", n: \"${{{{ state.n }}}}\" }} }}\n\
         state:\n  channels:\n\
         \x20   log: {{ reducer: append, schema: {{ type: array, items: {{ type: string }} }}, default: [] }}\n\
         \x20   n: {{ reducer: sum, schema: {{ type: integer }}, default: 0 }}\n\
         \x20   seen: {{ reducer: merge, schema: {{ type: object, additionalProperties: {{ type: integer }} }}, default: {{}} }}\n\
         \x20   last: {{ reducer: merge_by_key, key: node, schema: {{ type: array, items: {{ type: object }} }}, default: [] }}\n",
        sub.name
    );
    for counter in 0..sub.counters {
        writeln!(
            text,
            "    c{counter}: {{ reducer: sum, schema: {{ type: integer }}, default: 0 }}"
        )
        .unwrap();
    }
    writeln!(
        text,
        "policies:\n  retry:\n\
         \x20   plain: {{ max_attempts: 3, backoff: {{ initial: 700ms, factor: 4, max: 1m }} }}\n\
         \x20   odd: {{ max_attempts: 2, when: \"${{{{ error.class == 'odd' }}}}\" }}\n\
         limits: {{ supersteps: 2000, visits_per_node: 500, concurrency: {} }}\n\
         entry: {entry}\nnodes:",
        sub.concurrency
    )
    .unwrap();
    for node in &nodes.0 {
        writeln!(text, "  {node}").unwrap();
    }
    text
}

/// The nodes made so far, one line each.
#[derive(Default)]
struct Nodes(Vec<String>);

impl Nodes {
    /// Makes the nodes of a block that goes on at `next`; returns where it begins.
    fn block(&mut self, stmts: &[Stmt], next: &str) -> String {
        stmts.iter().rev().fold(next.to_owned(), |next, stmt| self.stmt(stmt, &next))
    }

    fn stmt(&mut self, stmt: &Stmt, next: &str) -> String {
        match stmt {
            Stmt::Work(work) => {
                let ways = format!("next: {next}");
                self.work(work, &ways, "", next)
            }
            Stmt::If { at, counter, then, other } => {
                let then = self.block(then, next);
                let other = self.block(other, next);
                let count = counter.map_or_else(|| "0".to_owned(), |c| format!("state.c{c}"));
                let ways = format!(
                    "routes: [ {{ when: \"${{{{ ({count} + input.k) % 2 == 0 }}}}\", to: {then} }}, {{ to: {other} }} ]"
                );
                self.work(at, &ways, "", next)
            }
            Stmt::Loop { body, tick, counter, bound } => {
                let head = self.block(body, tick);
                let back = match bound {
                    Bound::Count(times) => format!(
                        "when: \"${{{{ state.c{counter} % {times} != 0 }}}}\", to: {head}, max: 400"
                    ),
                    Bound::Max(max) => format!("to: {head}, max: {max}"),
                };
                self.0.push(format!(
                    "{tick}: {{ uses: sim/tick, set: {{ c{counter}: 1 }}, routes: [ {{ {back} }}, {{ to: {next} }} ] }}"
                ));
                head
            }
            Stmt::Par { fork, branches, join } => {
                let lasts: Vec<&str> = branches.iter().map(|(_, last)| &*last.node).collect();
                let after = format!("next: {next}");
                let join_ways = format!("when_all: [{}], ", lasts.join(", "));
                let join = self.work(join, &after, &join_ways, next);
                let to_join = format!("next: {join}");
                let heads: Vec<String> = branches
                    .iter()
                    .map(|(body, last)| {
                        let last = self.work(last, &to_join, "", &join);
                        self.block(body, &last)
                    })
                    .collect();
                self.work(fork, &format!("next: [{}]", heads.join(", ")), "", next)
            }
            Stmt::Each(each) => self.each(each, next),
            Stmt::Gate { node, then, other } => {
                let then = self.block(then, next);
                let other = self.block(other, next);
                self.0.push(format!(
                    "{node}: {{ gate: {{ ask: \"{node}?\", answer: SimAnswer }}, set: {{ log: \"${{{{ [answer.comment] }}}}\" }}, \
                     routes: [ {{ when: \"${{{{ answer.choice == 'yes' }}}}\", to: {then} }}, {{ to: {other} }} ] }}"
                ));
                node.clone()
            }
            Stmt::Wait { node, what } => {
                self.0.push(match what {
                    Wait::Signal => format!(
                        "{node}: {{ wait: {{ signal: go.{node} }}, set: {{ log: \"${{{{ [signal.payload] }}}}\" }}, next: {next} }}"
                    ),
                    Wait::Timer { secs } => format!("{node}: {{ wait: {{ timeout: {secs}s }}, next: {next} }}"),
                    Wait::Silence { secs } => format!(
                        "{node}: {{ wait: {{ signal: never.{node}, timeout: {secs}s }}, \
                         set: {{ log: \"${{{{ signal == null ? [] : ['a signal that nobody sent'] }}}}\" }}, next: {next} }}"
                    ),
                });
                node.clone()
            }
            Stmt::Child { node, graph, caught } => {
                let catch = self.catch(caught.as_ref(), next);
                self.0.push(format!(
                    "{node}: {{ run: {{ graph: g{graph}, input: {{ k: \"${{{{ input.k }}}}\" }} }}, {catch}next: {next} }}"
                ));
                node.clone()
            }
        }
    }

    fn work(&mut self, work: &Work, ways: &str, join: &str, next: &str) -> String {
        let catch = self.catch(work.caught.as_ref(), next);
        let retry = match work.retry {
            Some(Retry::Plain) => "retry: plain, ",
            Some(Retry::Odd) => "retry: odd, ",
            None => "",
        };
        let timeout = if work.how == Fault::Timeout { "timeout: { run: 30s }, " } else { "" };
        self.0.push(format!(
            "{}: {{ uses: sim/work, config: {{ acts: [{}], add: {}, fails: {}, how: {} }}, with: {{}}, {retry}{timeout}{join}{catch}{ways} }}",
            work.node,
            acts(&work.acts),
            work.add,
            work.fails,
            work.how.class(),
        ));
        work.node.clone()
    }

    fn each(&mut self, each: &Each, next: &str) -> String {
        let catch = self.catch(each.caught.as_ref(), next);
        let items: Vec<String> = (0..each.items).map(|item| item.to_string()).collect();
        let on_error = match each.on_error {
            OnError::Fail => "fail",
            OnError::Collect => "collect",
            OnError::Ignore => "ignore",
        };
        let foreach = format!(
            "foreach: {{ in: \"${{{{ [{}] }}}}\", as: item, max_parallel: {}, on_error: {on_error} }}",
            items.join(", "),
            each.parallel
        );
        let what = match &each.what {
            EachOf::Work { acts: list, failing } => {
                let failing: Vec<String> = failing.iter().map(u32::to_string).collect();
                format!(
                    "uses: sim/work, config: {{ acts: [{}], failing: [{}] }}, with: {{ item: \"${{{{ item }}}}\" }}",
                    acts(list),
                    failing.join(", ")
                )
            }
            EachOf::Child { graph } => {
                format!("run: {{ graph: g{graph}, input: {{ k: \"${{{{ item }}}}\" }} }}")
            }
            EachOf::Gate => format!(
                "gate: {{ ask: \"{}?\", answer: SimAnswer }}, set: {{ log: \"${{{{ [answer.comment] }}}}\" }}",
                each.node
            ),
        };
        self.0.push(format!("{}: {{ {foreach}, {what}, {catch}next: {next} }}", each.node));
        each.node.clone()
    }

    fn catch(&mut self, caught: Option<&Caught>, next: &str) -> String {
        let Some(caught) = caught else { return String::new() };
        let to = self.block(&caught.by, next);
        let max = caught.max.map_or_else(String::new, |max| format!(", max: {max}"));
        let first = if caught.by.is_empty() {
            ""
        } else {
            "{ when: \"${{ error.class == 'unheard_of' }}\", to: $end }, "
        };
        format!("catch: [ {first}{{ to: {to}{max} }} ], ")
    }
}

fn acts(acts: &[Act]) -> String {
    let words: Vec<String> = acts
        .iter()
        .map(|act| match act {
            Act::Memo => "memo".to_owned(),
            Act::Spend(tokens) => format!("\"spend:{tokens}\""),
            Act::Effect => "effect".to_owned(),
            Act::Ask => "ask".to_owned(),
            Act::Sleep(ms) => format!("\"sleep:{ms}\""),
            Act::Emit => "emit".to_owned(),
        })
        .collect();
    words.join(", ")
}

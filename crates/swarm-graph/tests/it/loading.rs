//! From text to a graph, or to everything that is wrong with it.

use swarm_graph::check;

use crate::shop::{registry, whole};

#[test]
fn a_graph_that_uses_most_of_the_format_loads() {
    let graph = match check::load(&whole(), "graphs/shop.yaml", &registry()) {
        Ok(graph) => graph,
        Err(defects) => panic!("{defects}"),
    };
    assert_eq!(graph.warnings(), []);
    assert_eq!(graph.name().as_str(), "shop");
    assert_eq!(graph.entry().as_str(), "plan");
}

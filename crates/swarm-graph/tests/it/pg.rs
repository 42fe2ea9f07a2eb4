//! What tests on PostgreSQL share: the server of the test run.

use swarm_graph::store::postgres::Options;
use swarm_graph::testkit::postgres::Server;

/// The server of this test run. Where there is none, tests fail and say what is missing.
pub(crate) fn shared() -> Server {
    Server::shared().unwrap_or_else(|missing| panic!("{missing}"))
}

/// A store in this schema, with few connections.
pub(crate) fn options(schema: &str) -> Options {
    Options { schema: schema.to_owned(), connections: 6, ..Options::default() }
}

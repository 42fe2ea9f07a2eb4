//! Run and idle timeouts of one attempt, on the port's clock.

use std::time::Duration;

use swarm_core::failure::Failure;
use swarm_core::port::clock::Clock;

use crate::graph::Timeouts;
use crate::node::NodeContext;

/// Returns when the attempt has run out of time; never, without a timeout. A sign of life
/// (journal, event, token) starts the idle time anew.
pub(crate) async fn expire(
    clock: &dyn Clock,
    context: &NodeContext,
    timeouts: Timeouts,
) -> Failure {
    let idle = async {
        let Some(idle) = timeouts.idle else { return std::future::pending().await };
        loop {
            let left = idle.saturating_sub(clock.now().since(context.active_at()));
            if left.is_zero() {
                return timed_out("without a sign of life for", idle);
            }
            clock.sleep(left).await;
        }
    };
    let run = async {
        let Some(run) = timeouts.run else { return std::future::pending().await };
        clock.sleep(run).await;
        timed_out("not done after", run)
    };
    tokio::select! {
        failure = idle => failure,
        failure = run => failure,
    }
}

fn timed_out(what: &str, limit: Duration) -> Failure {
    Failure::retryable("timeout", format!("{what} {}", humantime::format_duration(limit)))
}

//! Words and numbers in the form that every SQL store keeps them in, and back.
//!
//! Numbers are signed in SQL and unsigned here: an amount too large is cut to [`AMOUNT_MAX`], far
//! above anything real, so that sums in SQL never overflow.

use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_core::escalation::BlockStatus;
use swarm_core::id::InvalidId;
use swarm_core::port::store::{Error, Result};
use swarm_core::run::{Limit, RunStatus};
use swarm_core::spend::UsdMicros;

/// The largest amount that is stored; twice of it still fits.
pub(in crate::store) const AMOUNT_MAX: i64 = 1 << 61;

/// An unsigned number as stored.
pub(in crate::store) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number that is never negative.
pub(in crate::store) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// An amount as stored.
pub(in crate::store) fn amount(number: u64) -> i64 {
    int(number).min(AMOUNT_MAX)
}

/// A limit as read.
pub(in crate::store) fn limit(usd: Option<i64>, tokens: Option<i64>) -> Limit {
    Limit { usd: usd.map(|usd| UsdMicros(uint(usd))), tokens: tokens.map(uint) }
}

/// A value as JSON text.
pub(in crate::store) fn text(value: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Backend(Box::new(error)))
}

/// JSON text as a value.
pub(in crate::store) fn json<T: DeserializeOwned>(
    what: &'static str,
    id: &str,
    text: &str,
) -> Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(what, id, error))
}

/// An id or name as stored.
pub(in crate::store) fn id<T>(what: &'static str, text: &str) -> Result<T>
where
    T: std::str::FromStr<Err = InvalidId>,
{
    text.parse().map_err(|error| corrupt(what, text, error))
}

/// A stored form that cannot be read.
#[expect(clippy::needless_pass_by_value, reason = "takes what `map_err` gives")]
pub(in crate::store) fn corrupt(what: &'static str, id: &str, why: impl ToString) -> Error {
    Error::Corrupt { what, id: id.to_owned(), why: why.to_string() }
}

/// A status as stored.
pub(in crate::store) fn status(run: &str, text: &str) -> Result<RunStatus> {
    match text {
        "ready" => Ok(RunStatus::Ready),
        "running" => Ok(RunStatus::Running),
        "waiting" => Ok(RunStatus::Waiting),
        "succeeded" => Ok(RunStatus::Succeeded),
        "failed" => Ok(RunStatus::Failed),
        "cancelled" => Ok(RunStatus::Cancelled),
        other => Err(corrupt("run", run, format!("its status is `{other}`"))),
    }
}

/// The status of a block as stored.
pub(in crate::store) fn block_status(status: BlockStatus) -> &'static str {
    match status {
        BlockStatus::Open => "open",
        BlockStatus::Answered => "answered",
        BlockStatus::Withdrawn => "withdrawn",
    }
}

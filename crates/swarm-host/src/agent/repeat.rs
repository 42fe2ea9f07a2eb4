//! Loops: the same call with the same arguments and the same result, again and again.
//!
//! A call that gives another result each time is progress, or polling, and not counted here; the
//! limit on turns bounds that.

use serde_json::Value;
use sha2::{Digest, Sha256};
use swarm_core::port::tool::ToolResult;

/// Counts equal calls in a row.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Option<[u8; 32]>,
    count: u32,
}

impl Repeats {
    /// Takes note of a call; returns how often it has now been made in a row.
    pub(super) fn see(&mut self, name: &str, arguments: &Value, result: &ToolResult) -> u32 {
        let mut hash = Sha256::new();
        for part in [name, &arguments.to_string(), &result.text] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let seen: [u8; 32] = hash.finalize().into();
        if self.last == Some(seen) {
            self.count += 1;
        } else {
            self.last = Some(seen);
            self.count = 1;
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_equal_calls_with_equal_results_in_a_row_count() {
        let mut repeats = Repeats::default();
        let (a, b) = (json!({"path": "a"}), json!({"path": "b"}));
        let (one, two) = (ToolResult::ok("1"), ToolResult::ok("2"));
        let counts: Vec<u32> =
            [(&a, &one), (&a, &one), (&a, &two), (&b, &two), (&b, &two), (&a, &one)]
                .into_iter()
                .map(|(arguments, result)| repeats.see("read", arguments, result))
                .collect();
        assert_eq!(counts, [1, 2, 1, 1, 2, 1]);
    }
}

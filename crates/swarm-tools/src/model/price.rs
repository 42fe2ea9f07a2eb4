//! What tokens cost. Prices come from configuration only: they change too often to be built in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use swarm_core::port::model::Usage;
use swarm_core::spend::UsdMicros;

/// A model's price in US dollars for a million tokens of each sort.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens read.
    pub input: f64,
    /// Tokens read that the provider had cached; `input` when absent.
    #[serde(default)]
    pub cached: Option<f64>,
    /// Tokens read that the provider wrote to its cache; `input` when absent.
    #[serde(default)]
    pub cache_write: Option<f64>,
    /// Tokens written, reasoning included.
    pub output: f64,
}

impl Price {
    /// What a turn costs. `cache_written` are those tokens of `usage.input` that went into the
    /// provider's cache. Dollars per million tokens are millionths of a dollar per token.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    pub fn of(&self, usage: Usage, cache_written: u64) -> UsdMicros {
        let cached = usage.cached.min(usage.input);
        let written = cache_written.min(usage.input - cached);
        let plain = usage.input - cached - written;
        let micros = plain as f64 * self.input
            + cached as f64 * self.cached.unwrap_or(self.input)
            + written as f64 * self.cache_write.unwrap_or(self.input)
            + usage.output as f64 * self.output;
        UsdMicros::from_dollars(micros / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price =
        Price { input: 3.0, cached: Some(0.3), cache_write: Some(3.75), output: 15.0 };

    #[test]
    fn each_sort_of_token_has_its_own_price() {
        let usage = Usage { input: 10_000, cached: 8_000, output: 1_000 };
        // 1000 × 3 + 8000 × 0.3 + 1000 × 3.75 + 1000 × 15 millionths of a dollar.
        assert_eq!(PRICE.of(usage, 1_000), UsdMicros(3_000 + 2_400 + 3_750 + 15_000));
    }

    #[test]
    fn without_a_price_for_cached_tokens_they_cost_as_much_as_others() {
        let price = Price { cached: None, cache_write: None, ..PRICE };
        let usage = Usage { input: 1_000, cached: 900, output: 0 };
        assert_eq!(price.of(usage, 50), UsdMicros(3_000));
    }

    #[test]
    fn a_provider_that_counts_more_cached_than_read_does_not_make_money() {
        let usage = Usage { input: 10, cached: 99, output: 0 };
        assert_eq!(PRICE.of(usage, 99), UsdMicros(3));
    }
}

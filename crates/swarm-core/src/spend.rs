//! Money and tokens: what a run costs.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// US dollars in whole millionths, so that sums are exact. Prints as `$0.0123`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
#[serde(transparent)]
pub struct UsdMicros(pub u64);

impl UsdMicros {
    /// From dollars; negative and non-finite amounts become zero.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range first"
    )]
    pub fn from_dollars(dollars: f64) -> Self {
        let micros = (dollars * 1e6).round();
        Self(if micros.is_finite() { micros.clamp(0.0, 1e18) as u64 } else { 0 })
    }

    /// In dollars, for people and expressions.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact up to 9 billion dollars")]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for UsdMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.4}", self.as_dollars())
    }
}

/// An amount spent, reserved or allowed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spend {
    /// Money.
    pub usd: UsdMicros,
    /// Model tokens, in and out.
    pub tokens: u64,
}

impl Add for Spend {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            usd: UsdMicros(self.usd.0.saturating_add(other.usd.0)),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }
}

impl AddAssign for Spend {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Spend {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

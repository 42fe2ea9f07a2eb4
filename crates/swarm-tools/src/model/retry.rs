//! When to try again: exponential waits with jitter, and the provider's own wish.

use std::time::Duration;

use chrono::DateTime;
use reqwest::header::HeaderMap;
use swarm_core::port::clock::Entropy;
use swarm_core::port::model::Error;
use swarm_core::time::Timestamp;

use super::config::Retries;

/// How long to wait after failed attempt `attempt` (from 1), or none when it is not to be tried
/// again in here: the class forbids it, the attempts are used up, or the provider asks for more
/// patience than a worker should have.
pub(super) fn wait(
    retries: &Retries,
    attempt: u32,
    error: &Error,
    entropy: &dyn Entropy,
) -> Option<Duration> {
    if !error.is_transient() || attempt >= retries.attempts_max {
        return None;
    }
    let asked = error.retry_after.unwrap_or_default();
    if asked > retries.max {
        return None;
    }
    let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
    let full = retries.initial.saturating_mul(doubled).min(retries.max);
    Some(jittered(full, entropy).max(asked))
}

/// A time between the half of `full` and all of it, so that many workers do not come back at once.
fn jittered(full: Duration, entropy: &dyn Entropy) -> Duration {
    let half_ms = u64::try_from(full.as_millis() / 2).unwrap_or(u64::MAX);
    let extra_ms = entropy.next_u64() % half_ms.saturating_add(1);
    full - Duration::from_millis(half_ms) + Duration::from_millis(extra_ms)
}

/// What the provider asks for: `retry-after-ms`, else `retry-after` in seconds or as an HTTP date.
pub(super) fn asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |text: &str| {
        let seconds: f64 = text.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(ms));
    }
    let text = text("retry-after")?;
    seconds(text).or_else(|| {
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        Some(Timestamp(date.timestamp_millis()).since(now))
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use swarm_core::port::model::ErrorClass;

    use super::*;

    struct Fixed(u64);

    impl Entropy for Fixed {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    const RETRIES: Retries =
        Retries { attempts_max: 5, initial: Duration::from_secs(1), max: Duration::from_secs(6) };

    fn error(class: ErrorClass, retry_after: Option<u64>) -> Error {
        let retry_after = retry_after.map(Duration::from_secs);
        Error { class, model: "m".into(), message: "x".into(), retry_after }
    }

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_attempts() {
        let wait_ms = |attempt, chance| {
            wait(&RETRIES, attempt, &error(ErrorClass::Server, None), &Fixed(chance))
                .map(|wait| wait.as_millis())
        };
        let least: Vec<_> = (1..=5).map(|attempt| wait_ms(attempt, 0)).collect();
        assert_eq!(least, [Some(500), Some(1000), Some(2000), Some(3000), None]);
        // The half of 6 s is the most that chance adds to the half of 6 s.
        assert_eq!(wait_ms(4, 3000), Some(6000));
        assert_eq!(wait_ms(4, 3001), Some(3000));
    }

    #[test]
    fn the_providers_wish_is_obeyed_but_never_longer_than_the_longest_wait() {
        let wait = |asked| wait(&RETRIES, 1, &error(ErrorClass::RateLimit, Some(asked)), &Fixed(0));
        assert_eq!(wait(5), Some(Duration::from_secs(5)));
        assert_eq!(wait(6), Some(Duration::from_secs(6)));
        assert_eq!(wait(7), None);
    }

    #[test]
    fn what_only_a_person_or_another_request_can_mend_is_not_tried_again() {
        for class in [
            ErrorClass::Auth,
            ErrorClass::Quota,
            ErrorClass::ContextLength,
            ErrorClass::Invalid,
            ErrorClass::NotRecorded,
        ] {
            assert_eq!(wait(&RETRIES, 1, &error(class, None), &Fixed(0)), None, "{class:?}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_in_milliseconds_and_as_a_date() {
        let now = Timestamp(1_795_423_512_000); // 2026-11-23 08:45:12 UTC
        let asked = |name, value| asked(&headers(name, value), now);
        assert_eq!(asked("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(asked("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(
            asked("retry-after", "Mon, 23 Nov 2026 08:45:42 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(asked("retry-after", "Mon, 23 Nov 2020 08:45:42 GMT"), Some(Duration::ZERO));
        for nonsense in ["soon", "-3", "inf", "NaN", "1e400", ""] {
            assert_eq!(asked("retry-after", nonsense), None, "{nonsense}");
        }
    }
}

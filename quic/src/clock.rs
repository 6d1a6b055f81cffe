//! The caller's clock: integer nanoseconds since a moment of its own choice, a virtual clock as good as a real one.
//!
//! The core wants `Instant`s. They are made by adding to one that was taken when the process first asked; nothing ever
//! compares them with the real time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::{invalid, Checked};

/// The largest `now`: 146 years. Beyond, adding a time-out to it could overflow.
pub const LATEST: u64 = 1 << 62;

/// Timers are rounded up to this. The core's pacer asks to be called again for every single datagram; called once a
/// millisecond it makes batches, at no loss of throughput that could be measured.
pub const GRANULARITY: u64 = 1_000_000;

/// A caller whose clock is a float of seconds may come back a little earlier than it was told.
const MARGIN: u64 = 1000;

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The caller's `now` as the core's.
pub fn instant(now: u64) -> Instant {
    origin() + Duration::from_nanos(now.min(LATEST))
}

/// Refuses a `now` that is out of range.
pub fn checked(now: u64) -> Checked<u64> {
    if now > LATEST {
        return invalid(format!("now is nanoseconds, at most {LATEST}"));
    }
    Ok(now)
}

/// The core's deadline as the caller's, rounded up.
pub fn deadline(at: Instant) -> u64 {
    let exact = at.saturating_duration_since(origin()).as_nanos();
    let exact = u64::try_from(exact).unwrap_or(LATEST).min(LATEST);
    exact.div_ceil(GRANULARITY) * GRANULARITY + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_at_most_a_millisecond_late() {
        for now in [0, 1, 999_999, 1_000_000, 1_000_001, 7_123_456_789] {
            let at = deadline(instant(now));
            assert!(at >= now && at <= now + GRANULARITY + MARGIN, "{now} became {at}");
        }
    }

    #[test]
    fn a_time_out_of_range_is_refused() {
        assert!(checked(LATEST).is_ok());
        assert!(checked(LATEST + 1).is_err());
    }
}

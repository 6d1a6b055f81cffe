//! Time as the controller counts it: nanoseconds since it was built.
//!
//! The core speaks in `Instant`s, whose differences cost forty instructions each. A controller is called several times
//! for every packet, mostly with the same `now` as before, so that one is kept.

use std::time::Instant;

/// Nanoseconds since the controller was built.
pub type Time = u64;

pub const MS: Time = 1_000_000;
pub const SECOND: Time = 1_000_000_000;

/// Nanoseconds as seconds.
pub fn seconds(time: Time) -> f64 {
    time as f64 * 1e-9
}

/// Turns the core's time into the controller's.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    last: Instant,
    time: Time,
}

impl Clock {
    pub fn new(now: Instant) -> Self {
        Self { origin: now, last: now, time: 0 }
    }

    /// Nanoseconds since the controller was built. It never goes back.
    pub fn read(&mut self, now: Instant) -> Time {
        if now != self.last {
            self.last = now;
            let since = now.saturating_duration_since(self.origin);
            self.time = self.time.max(since.as_secs() * SECOND + Time::from(since.subsec_nanos()));
        }
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_counts_from_when_it_was_made_and_never_goes_back() {
        let start = Instant::now() + Duration::from_secs(5);
        let mut clock = Clock::new(start);
        assert_eq!(clock.read(start), 0);
        assert_eq!(clock.read(start + Duration::from_millis(1700)), 1_700_000_000);
        assert_eq!(clock.read(start - Duration::from_secs(1)), 1_700_000_000);
    }
}

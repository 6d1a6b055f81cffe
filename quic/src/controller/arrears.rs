//! What pacing is behind: bytes that were due and did not leave.
//!
//! The core's pacer saves up two milliseconds of the rate at most. On a busy machine the driver wakes up later than that
//! again and again, and what it then may send is less than what was due: the path would carry less than it can, and the
//! less it carries the less we believe of it. So what is behind is counted here, and the pace is raised until it is made
//! up for.

use super::time::{seconds, Time, MS};

/// How soon it is made up for.
const SOON: f64 = 0.004;
/// The most that is, as a share of the smallest round trip and as a time: a queue has to have room for it.
const MOST_SHARE: Time = 4;
const MOST: Time = 12 * MS;

/// Bytes that pacing is behind.
#[derive(Debug, Clone, Default)]
pub struct Arrears {
    bytes: f64,
    at: Time,
}

impl Arrears {
    /// A packet leaves, at `pace` bytes a second.
    pub fn send(&mut self, now: Time, bytes: f64, pace: f64, smallest_round_trip: Time) {
        if now != self.at {
            let most = (smallest_round_trip / MOST_SHARE).min(MOST);
            self.bytes = (self.bytes + pace * seconds(now - self.at)).min(pace * seconds(most));
            self.at = now;
        }
        self.bytes = (self.bytes - bytes).max(0.0);
    }

    /// Nothing is due.
    pub fn forget(&mut self, now: Time) {
        self.bytes = 0.0;
        self.at = now;
    }

    /// Bytes a second more than the pace; `slack`: bytes that nobody minds.
    pub fn pace(&self, slack: f64) -> f64 {
        (self.bytes - slack).max(0.0) / SOON
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: f64 = 12.5e6;

    #[test]
    fn who_is_on_time_owes_nothing() {
        let mut a = Arrears::default();
        for ms in 1..100 {
            a.send(ms * MS, PACE * 1e-3, PACE, 50 * MS);
            assert_eq!(a.pace(0.0), 0.0);
        }
    }

    #[test]
    fn who_is_late_makes_up_for_it_up_to_a_bound() {
        let mut a = Arrears::default();
        a.send(5 * MS, PACE * 2e-3, PACE, 50 * MS);
        assert!((a.pace(0.0) - PACE * 0.75).abs() < 1.0, "three milliseconds of four");
        a.send(1000 * MS, 0.0, PACE, 50 * MS);
        assert!((a.pace(0.0) - PACE * 3.0).abs() < 1.0, "12 ms of four");
        a.send(1001 * MS, 0.0, PACE, 4 * MS);
        assert!((a.pace(0.0) - PACE * 0.25).abs() < 1.0, "a quarter of the round trip");
        a.forget(1002 * MS);
        assert_eq!(a.pace(0.0), 0.0);
    }
}

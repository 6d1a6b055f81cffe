//! What pacing is behind: bytes that were due and did not leave.
//!
//! The core's pacer saves up two milliseconds of the rate at most. On a busy machine the driver wakes up later than that
//! again and again, and what it then may send is less than what was due: the path would carry less than it can, and the
//! less it carries the less we believe of it. So what is behind is counted here, and the pace is raised until it is made
//! up for.

use super::time::{Time, MS, SECOND};

/// How soon it is made up for: in 4 ms.
const A_SECOND: u64 = 250;
/// The most that is, as a share of the smallest round trip and as a time: a queue has to have room for it.
const MOST_SHARE: Time = 4;
const MOST: Time = 12 * MS;

/// Bytes that pacing is behind.
#[derive(Debug, Clone, Default)]
pub struct Arrears {
    bytes: u64,
    at: Time,
}

impl Arrears {
    /// A packet leaves, at `pace` bytes a second.
    pub fn send(&mut self, now: Time, bytes: u64, pace: u64, smallest_round_trip: Time) {
        if now != self.at {
            let most = (smallest_round_trip / MOST_SHARE).min(MOST);
            let due = |time: Time| pace.saturating_mul(time) / SECOND;
            self.bytes = (self.bytes + due((now - self.at).min(most))).min(due(most));
            self.at = now;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Nothing is due.
    pub fn forget(&mut self, now: Time) {
        self.bytes = 0;
        self.at = now;
    }

    /// Bytes a second more than the pace; `slack`: bytes that nobody minds.
    pub fn pace(&self, slack: u64) -> u64 {
        self.bytes.saturating_sub(slack) * A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: u64 = 12_500_000;

    #[test]
    fn who_is_on_time_owes_nothing() {
        let mut a = Arrears::default();
        for ms in 1..100 {
            a.send(ms * MS, PACE / 1000, PACE, 50 * MS);
            assert_eq!(a.pace(0), 0);
        }
    }

    #[test]
    fn who_is_late_makes_up_for_it_up_to_a_bound() {
        let mut a = Arrears::default();
        a.send(5 * MS, PACE / 500, PACE, 50 * MS);
        assert_eq!(a.pace(0), PACE * 3 / 4, "three milliseconds of four");
        a.send(1000 * MS, 0, PACE, 50 * MS);
        assert_eq!(a.pace(0), PACE * 3, "12 ms of four");
        a.send(1001 * MS, 0, PACE, 4 * MS);
        assert_eq!(a.pace(0), PACE / 4, "a quarter of the round trip");
        a.forget(1002 * MS);
        assert_eq!(a.pace(0), 0);
    }
}

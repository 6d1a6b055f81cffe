//! The round trip: the smallest, and whether there is a standing queue above it.

use super::time::{seconds, Time, MS};

/// Longer than any round trip: nothing has been measured.
pub const FOREVER: Time = Time::MAX / 4;

/// What the samples of the round trip say.
#[derive(Debug, Clone)]
pub struct RoundTrips {
    /// The smallest of this path.
    pub smallest: Time,
    /// When a sample was last close to the smallest.
    pub confirmed_at: Time,
    pub last: Time,
    pub smoothed: Time,
    /// Least of this quarter of a round trip and of the one before: one late packet makes no queue.
    recent: [Time; 2],
    recent_at: Time,
    /// How far samples of one round lie above its least, without a queue.
    jitter: Time,
    /// A round trip above it is a queue.
    pub mark: Time,
    /// Since when every sample has been far above the smallest.
    pub high_since: Option<Time>,
}

impl RoundTrips {
    pub fn new() -> Self {
        Self {
            smallest: FOREVER,
            confirmed_at: 0,
            last: 0,
            smoothed: 0,
            recent: [FOREVER; 2],
            recent_at: 0,
            jitter: 0,
            mark: FOREVER,
            high_since: None,
        }
    }

    /// Whether anything was measured.
    pub fn known(&self) -> bool {
        self.smallest != FOREVER
    }

    /// The smallest one in seconds.
    pub fn smallest_seconds(&self) -> f64 {
        seconds(self.smallest)
    }

    /// The smoothed one in seconds.
    pub fn smoothed_seconds(&self) -> f64 {
        seconds(self.smoothed).max(1e-4)
    }

    /// A packet's round trip: only for the smoothed one.
    pub fn smooth(&mut self, rtt: Time) {
        self.smoothed = if self.smoothed == 0 { rtt } else { self.smoothed - self.smoothed / 8 + rtt / 8 };
    }

    /// The least of one batch of acknowledgements. What was acknowledged late says nothing of the path.
    pub fn sample(&mut self, now: Time, rtt: Time) {
        self.last = rtt;
        if !self.known() || now - self.recent_at > self.smallest / 4 {
            self.recent = [rtt, self.recent[0]];
            self.recent_at = now;
        } else {
            self.recent[0] = self.recent[0].min(rtt);
        }
        if rtt <= self.smallest.saturating_add(self.smallest / 32) {
            self.confirmed_at = now;
        }
        if rtt < self.smallest {
            self.set_smallest(now, rtt);
        }
        if rtt > self.smallest + (self.smallest / 3).max(3 * MS) {
            self.high_since.get_or_insert(now);
        } else {
            self.high_since = None;
        }
    }

    /// The path's smallest round trip is known anew.
    pub fn set_smallest(&mut self, now: Time, rtt: Time) {
        self.smallest = rtt;
        self.confirmed_at = now;
        self.remark();
    }

    /// A sixteenth above the smallest, or 1.5 ms, or what the path's jitter makes necessary.
    fn remark(&mut self) {
        let jitter = (self.jitter + self.jitter / 2).min(self.smallest / 4);
        self.mark = self.smallest + (self.smallest / 16).max(3 * MS / 2).max(jitter);
    }

    /// The least of the last half of a round trip.
    pub fn least(&self) -> Time {
        self.recent[0].min(self.recent[1])
    }

    /// Whether it was above the mark.
    pub fn queued(&self) -> bool {
        let least = self.least();
        least < FOREVER && least > self.mark
    }

    /// A round without a queue of ours has ended: how far its mean was above its least.
    pub fn learn_jitter(&mut self, spread: Time) {
        self.jitter = self.jitter - self.jitter / 4 + spread / 4;
        self.remark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_packet_is_no_queue_and_a_run_of_them_is() {
        let mut r = RoundTrips::new();
        let mut at = 0;
        let mut give = |r: &mut RoundTrips, ms: Time| {
            at += 5 * MS;
            r.sample(at, ms * MS);
        };
        for ms in [50, 51, 50, 90, 50] {
            give(&mut r, ms);
            assert!(!r.queued());
        }
        for _ in 0..10 {
            give(&mut r, 60);
        }
        assert!(r.queued());
    }

    #[test]
    fn jitter_raises_the_mark_but_not_without_bound() {
        let mut r = RoundTrips::new();
        r.sample(0, 40 * MS);
        let before = r.mark;
        for _ in 0..50 {
            r.learn_jitter(100 * MS);
        }
        assert!(r.mark > before && r.mark <= 50 * MS);
    }
}

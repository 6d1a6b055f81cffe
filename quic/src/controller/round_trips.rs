//! The round trip: the smallest, and whether there is a standing queue above it. Everything in nanoseconds.

use std::time::{Duration, Instant};

/// Longer than any round trip: nothing has been measured.
pub const FOREVER: u64 = u64::MAX / 4;

const MS: u64 = 1_000_000;

/// What the samples of the round trip say.
#[derive(Debug, Clone)]
pub struct RoundTrips {
    /// The smallest of this path.
    pub smallest: u64,
    /// When a sample was last close to the smallest.
    pub confirmed_at: Instant,
    pub last: u64,
    pub smoothed: u64,
    /// Least of this quarter of a round trip and of the one before: one late packet makes no queue.
    recent: [u64; 2],
    recent_at: Instant,
    /// How far samples of one round lie above its least, without a queue.
    jitter: u64,
    /// A round trip above it is a queue.
    pub mark: u64,
    /// Since when every sample has been far above the smallest.
    pub high_since: Option<Instant>,
}

impl RoundTrips {
    pub fn new(now: Instant) -> Self {
        Self {
            smallest: FOREVER,
            confirmed_at: now,
            last: 0,
            smoothed: 0,
            recent: [FOREVER; 2],
            recent_at: now,
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
        self.smallest as f64 * 1e-9
    }

    /// The smoothed one in seconds.
    pub fn smoothed_seconds(&self) -> f64 {
        (self.smoothed as f64 * 1e-9).max(1e-4)
    }

    pub fn sample(&mut self, now: Instant, rtt: u64) {
        self.last = rtt;
        let quarter = Duration::from_nanos(self.smallest / 4);
        if !self.known() || now.duration_since(self.recent_at) > quarter {
            self.recent = [rtt, self.recent[0]];
            self.recent_at = now;
        } else {
            self.recent[0] = self.recent[0].min(rtt);
        }
        self.smoothed = if self.smoothed == 0 { rtt } else { self.smoothed - self.smoothed / 8 + rtt / 8 };
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
    pub fn set_smallest(&mut self, now: Instant, rtt: u64) {
        self.smallest = rtt;
        self.confirmed_at = now;
        self.remark();
    }

    /// A sixteenth above the smallest, or 1.5 ms, or what the path's jitter makes necessary.
    fn remark(&mut self) {
        let jitter = (self.jitter + self.jitter / 2).min(self.smallest / 4);
        self.mark = self.smallest + (self.smallest / 16).max(3 * MS / 2).max(jitter);
    }

    /// Whether the least of the last half of a round trip was above the mark.
    pub fn queued(&self) -> bool {
        let least = self.recent[0].min(self.recent[1]);
        least < FOREVER && least > self.mark
    }

    /// A round without a queue of ours has ended: how far its mean was above its least.
    pub fn learn_jitter(&mut self, spread: u64) {
        self.jitter = self.jitter - self.jitter / 4 + spread / 4;
        self.remark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_packet_is_no_queue_and_a_run_of_them_is() {
        let start = Instant::now();
        let mut r = RoundTrips::new(start);
        let mut at = start;
        let mut give = |r: &mut RoundTrips, ms: u64| {
            at += Duration::from_millis(5);
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
        let now = Instant::now();
        let mut r = RoundTrips::new(now);
        r.sample(now, 40 * MS);
        let before = r.mark;
        for _ in 0..50 {
            r.learn_jitter(100 * MS);
        }
        assert!(r.mark > before && r.mark <= 50 * MS);
    }
}

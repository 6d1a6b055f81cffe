//! What was sent, and what its acknowledgements say of the path: rate of delivery, round trips, rounds.
//!
//! The rate is measured as in BBR (draft-cheng-iccrg-delivery-rate-estimation): each packet remembers how much had
//! been delivered when it left; when it is acknowledged, what was delivered since, over the longer of the time that
//! the sending and that the acknowledging took, is a sample. A *round* ends when a packet is acknowledged that was
//! sent after the last one ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A packet under way, or just off it.
#[derive(Debug, Clone)]
pub struct Sent {
    number: u64,
    pub at: Instant,
    live: bool,
    /// The application had nothing more to send: a low rate says nothing then.
    pub app_limited: bool,
    /// Sent while holding back: what is lost of these was not our doing.
    pub modest: bool,
    /// Sent while probing for more.
    pub probing: bool,
    /// Bytes in flight once it was sent.
    pub flight: u64,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
}

/// What one batch of acknowledgements says of the rate.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Bytes a second; `None` if the time was too short to tell.
    pub rate: Option<f64>,
    pub app_limited: bool,
    /// How much had been delivered when the newest acknowledged packet left.
    pub delivered_before: u64,
}

/// The newest packet of a batch of acknowledgements.
#[derive(Debug, Clone, Copy)]
struct Newest {
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    at: Instant,
    app_limited: bool,
}

/// The ledger of packets.
#[derive(Debug, Clone)]
pub struct Delivery {
    sent: VecDeque<Sent>,
    /// Bytes unacknowledged.
    pub flight: u64,
    /// Bytes acknowledged since the start.
    pub delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    app_limited_until: u64,
    newest: Option<Newest>,
}

impl Delivery {
    pub fn new(now: Instant) -> Self {
        Self {
            sent: VecDeque::new(),
            flight: 0,
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            app_limited_until: 0,
            newest: None,
        }
    }

    /// A packet leaves.
    pub fn send(&mut self, now: Instant, number: u64, bytes: u64, modest: bool, probing: bool) {
        if self.sent.back().is_some_and(|last| number <= last.number) {
            // a later packet number space begins: nothing of the old one counts any more
            self.sent.clear();
            self.flight = 0;
        }
        if self.flight == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        self.flight += bytes;
        self.sent.push_back(Sent {
            number,
            at: now,
            live: true,
            app_limited: self.app_limited_until > self.delivered,
            modest,
            probing,
            flight: self.flight,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
        });
    }

    /// Where a packet stands. Numbers mostly follow each other, so it is near where it would be if all did.
    fn find(&self, number: u64) -> Option<usize> {
        let first = self.sent.front()?.number;
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        let mut index = guess.min(self.sent.len() - 1);
        loop {
            let found = self.sent[index].number;
            if found <= number {
                return (found == number).then_some(index);
            }
            index = index.checked_sub(1)?;
        }
    }

    fn take(&mut self, number: u64, bytes: u64) -> Option<&Sent> {
        self.flight = self.flight.saturating_sub(bytes);
        let index = self.find(number)?;
        std::mem::replace(&mut self.sent[index].live, false).then(|| &self.sent[index])
    }

    /// Forgets what is at the end of the ledger and settled.
    pub fn prune(&mut self) {
        while self.sent.front().is_some_and(|s| !s.live) {
            self.sent.pop_front();
        }
    }

    /// A packet is acknowledged; `None` for one that is not in the ledger. `prune` has to follow.
    pub fn acknowledge(&mut self, now: Instant, sent_at: Instant, number: u64, bytes: u64) -> Option<Sent> {
        let sent = self.take(number, bytes).filter(|s| s.at == sent_at)?.clone();
        self.delivered += bytes;
        self.delivered_at = now;
        if self.newest.is_none_or(|n| sent.delivered >= n.delivered) {
            self.newest = Some(Newest {
                delivered: sent.delivered,
                delivered_at: sent.delivered_at,
                first_sent: sent.first_sent,
                at: sent.at,
                app_limited: sent.app_limited,
            });
        }
        Some(sent)
    }

    /// A packet is lost. `prune` has to follow.
    pub fn lose(&mut self, number: u64, bytes: u64) -> Option<Sent> {
        self.take(number, bytes).cloned()
    }

    /// The application had nothing to send while so much was in flight.
    pub fn app_ran_dry(&mut self, in_flight: u64) {
        self.app_limited_until = self.delivered + in_flight;
    }

    /// What the batch of acknowledgements that has just ended says. `shortest`: less time than that says nothing.
    pub fn sample(&mut self, now: Instant, shortest: Duration) -> Option<Sample> {
        let n = self.newest.take()?;
        self.first_sent = n.at;
        let over = (n.at - n.first_sent).max(now - n.delivered_at);
        let rate =
            (over >= shortest && !over.is_zero()).then(|| (self.delivered - n.delivered) as f64 / over.as_secs_f64());
        Some(Sample { rate, app_limited: n.app_limited, delivered_before: n.delivered })
    }
}

/// The largest of the last so many rounds.
#[derive(Debug, Clone, Default)]
pub struct Largest {
    /// (round, rate): rates fall, so the first is the largest.
    values: VecDeque<(u64, f64)>,
    round: u64,
}

impl Largest {
    pub fn get(&self) -> Option<f64> {
        self.values.front().map(|v| v.1)
    }

    pub fn put(&mut self, rate: f64) {
        while self.values.back().is_some_and(|v| v.1 <= rate) {
            self.values.pop_back();
        }
        self.values.push_back((self.round, rate));
    }

    /// A round is over; what is older than `rounds` of them is forgotten, but never all.
    pub fn next_round(&mut self, rounds: u64) {
        self.round += 1;
        while self.values.len() > 1 && self.values[0].0 + rounds < self.round {
            self.values.pop_front();
        }
    }

    /// Only this one counts from now on.
    pub fn reset(&mut self, rate: f64) {
        self.values.clear();
        self.put(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_rate_of_a_steady_stream_is_measured() {
        let start = Instant::now();
        let mut d = Delivery::new(start);
        // 1000 bytes each millisecond, acknowledged 10 ms later: 1 MB/s
        for n in 0..100u32 {
            d.send(start + MS * n, u64::from(n), 1000, false, false);
            if n >= 10 {
                let (now, sent) = (start + MS * n, start + MS * (n - 10));
                assert!(d.acknowledge(now, sent, u64::from(n - 10), 1000).is_some());
                d.prune();
                let sample = d.sample(now, MS).unwrap();
                if n > 30 {
                    assert!((sample.rate.unwrap() - 1e6).abs() < 1e5, "{sample:?}");
                }
            }
        }
        assert_eq!(d.flight, 10_000);
    }

    #[test]
    fn a_packet_is_found_although_numbers_are_skipped() {
        let now = Instant::now();
        let mut d = Delivery::new(now);
        for n in [3, 4, 9, 10, 30] {
            d.send(now, n, 100, false, false);
        }
        assert!(d.lose(9, 100).is_some());
        assert!(d.lose(9, 100).is_none(), "once only");
        assert!(d.lose(5, 0).is_none());
        assert!(d.acknowledge(now, now, 30, 100).is_some());
        assert!(d.acknowledge(now, now + MS, 3, 100).is_none(), "another packet of that number");
        assert!(d.lose(2, 0).is_none());
    }

    #[test]
    fn the_largest_is_forgotten_after_its_rounds() {
        let mut l = Largest::default();
        assert_eq!(l.get(), None);
        l.put(5.0);
        l.put(3.0);
        for _ in 0..3 {
            l.next_round(2);
            l.put(2.0);
        }
        assert_eq!(l.get(), Some(2.0));
        l.reset(1.0);
        assert_eq!(l.get(), Some(1.0));
    }
}

//! The rate of delivery, measured as in BBR (draft-cheng-iccrg-delivery-rate-estimation): each packet remembers how
//! much had been delivered when it left; when it is acknowledged, what was delivered since, over the longer of the time
//! that the sending and that the acknowledging took, is a sample.

use std::collections::VecDeque;
use std::time::Instant;

use super::time::{seconds, Time, SECOND};

/// What a packet was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Plain,
    /// Sent while holding back: what is lost of these was not our doing.
    Modest,
    /// Sent while probing for more.
    Probing,
}

/// A packet under way, or just off it.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    number: u64,
    pub at: Time,
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    /// Bytes in flight once it was sent.
    pub flight: u32,
    live: bool,
    /// The application had nothing more to send: a low rate says nothing then.
    pub app_limited: bool,
    pub manner: Manner,
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

/// Packets behind one that is never settled (a probe of the path's size, one whose number space was given up) are
/// forgotten once there are more than this and than half of the ledger.
const SETTLED: usize = 1024;
/// After so long nobody tells any more what became of a packet.
const FORGOTTEN: Time = 60 * SECOND;

/// The ledger of packets.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// By number, rising.
    sent: VecDeque<Sent>,
    /// Those that are not settled.
    live: usize,
    /// Bytes unacknowledged.
    pub flight: u64,
    /// Bytes acknowledged since the start.
    pub delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    app_limited_until: u64,
    /// Of this batch of acknowledgements, the number of the packet that was sent last.
    newest: Option<u64>,
    /// When the packet number space began to which the packets here belong, if it is not the first.
    since: Option<Instant>,
}

impl Delivery {
    pub fn new() -> Self {
        Self {
            sent: VecDeque::new(),
            live: 0,
            flight: 0,
            delivered: 0,
            delivered_at: 0,
            first_sent: 0,
            app_limited_until: 0,
            newest: None,
            since: None,
        }
    }

    /// A packet leaves. `left` is the core's word for `now`.
    pub fn send(&mut self, now: Time, left: Instant, number: u64, bytes: u64, manner: Manner) {
        if self.sent.back().is_some_and(|last| number <= last.number) {
            // a later packet number space begins: nothing of the old one counts any more
            self.sent.clear();
            self.live = 0;
            self.newest = None;
            self.flight = 0;
            self.since = Some(left);
        }
        if self.flight == 0 {
            self.first_sent = now;
            self.delivered_at = now;
        }
        self.flight += bytes;
        self.live += 1;
        self.sent.push_back(Sent {
            number,
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            flight: u32::try_from(self.flight).unwrap_or(u32::MAX),
            live: true,
            app_limited: self.app_limited_until > self.delivered,
            manner,
        });
    }

    /// Where a packet stands. Numbers mostly follow each other, so most stand where they would if all did.
    fn find(&self, number: u64) -> Option<usize> {
        let first = self.sent.front()?.number;
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        if self.sent.get(guess).is_some_and(|s| s.number == number) {
            return Some(guess);
        }
        self.sent.binary_search_by_key(&number, |s| s.number).ok()
    }

    /// Settles a packet: where it stands, if it is here and was not settled before.
    fn settle(&mut self, number: u64, bytes: u64) -> Option<usize> {
        self.flight = self.flight.saturating_sub(bytes);
        let index = self.find(number)?;
        let was_live = std::mem::replace(&mut self.sent[index].live, false);
        self.live -= usize::from(was_live);
        was_live.then_some(index)
    }

    /// Forgets what is settled: at the end of the ledger at once, behind a packet that stays now and then.
    fn prune(&mut self, now: Time) {
        while self.sent.front().is_some_and(|s| !s.live) {
            self.sent.pop_front();
        }
        if self.sent.len() > 2 * self.live + SETTLED {
            self.sent.retain(|s| s.live && now.saturating_sub(s.at) < FORGOTTEN);
            self.live = self.sent.len();
        }
    }

    /// A packet is acknowledged; `None` for one that is not in the ledger. `sample` has to follow.
    pub fn acknowledge(&mut self, now: Time, left: Instant, number: u64, bytes: u64) -> Option<&Sent> {
        if self.since.is_some_and(|since| left < since) {
            return None; // of an earlier packet number space
        }
        let index = self.settle(number, bytes)?;
        self.delivered += bytes;
        self.delivered_at = now;
        self.newest = self.newest.max(Some(number));
        Some(&self.sent[index])
    }

    /// A packet is lost.
    pub fn lose(&mut self, now: Time, number: u64, bytes: u64) -> Option<Sent> {
        let lost = self.settle(number, bytes).map(|index| self.sent[index]);
        if self.newest.is_none() {
            self.prune(now);
        }
        lost
    }

    /// The application had nothing to send while so much was in flight.
    pub fn app_ran_dry(&mut self, in_flight: u64) {
        self.app_limited_until = self.delivered + in_flight;
    }

    /// What the batch of acknowledgements that has just ended says. `shortest`: less time than that says nothing.
    pub fn sample(&mut self, now: Time, shortest: Time) -> Option<Sample> {
        let newest = self.newest.take().and_then(|number| self.find(number)).map(|index| self.sent[index]);
        self.prune(now);
        let n = newest?;
        self.first_sent = n.at;
        let over = n.at.saturating_sub(n.first_sent).max(now.saturating_sub(n.delivered_at));
        let rate = (over >= shortest && over > 0).then(|| (self.delivered - n.delivered) as f64 / seconds(over));
        Some(Sample { rate, app_limited: n.app_limited, delivered_before: n.delivered })
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::MS;
    use super::*;

    #[test]
    fn the_rate_of_a_steady_stream_is_measured() {
        let left = Instant::now();
        let mut d = Delivery::new();
        // 1000 bytes each millisecond, acknowledged 10 ms later: 1 MB/s
        for n in 0..100 {
            let now = MS * n;
            d.send(now, left, n, 1000, Manner::Plain);
            if n >= 10 {
                assert!(d.acknowledge(now, left, n - 10, 1000).is_some());
                let sample = d.sample(now, MS).unwrap();
                if n > 30 {
                    assert!((sample.rate.unwrap() - 1e6).abs() < 1e5, "{sample:?}");
                }
            }
        }
        assert_eq!((d.flight, d.sent.len()), (10_000, 10));
    }

    #[test]
    fn a_packet_that_is_never_settled_keeps_no_others() {
        let left = Instant::now();
        let mut d = Delivery::new();
        for n in 0..100_000 {
            d.send(MS * n, left, n, 1000, Manner::Plain);
            if n >= 10 && n % 5000 != 0 {
                assert!(d.acknowledge(MS * n, left, n, 1000).is_some());
                d.sample(MS * n, MS);
            }
        }
        assert!(d.sent.len() < 1200, "{}", d.sent.len());
        assert_eq!(d.live, d.sent.iter().filter(|s| s.live).count());
    }

    #[test]
    fn a_packet_is_found_although_numbers_are_skipped() {
        let left = Instant::now();
        let mut d = Delivery::new();
        for n in [3, 4, 9, 10, 30] {
            d.send(0, left, n, 100, Manner::Plain);
        }
        assert!(d.lose(0, 9, 100).is_some());
        assert!(d.lose(0, 9, 100).is_none(), "once only");
        assert!(d.lose(0, 5, 0).is_none());
        assert!(d.acknowledge(0, left, 30, 100).is_some());
        assert!(d.lose(0, 2, 0).is_none());
    }

    #[test]
    fn a_late_acknowledgement_of_an_earlier_number_space_is_not_taken_for_one_of_this() {
        let left = Instant::now();
        let mut d = Delivery::new();
        d.send(0, left, 0, 100, Manner::Plain);
        d.send(MS, left + std::time::Duration::from_millis(1), 0, 100, Manner::Plain);
        assert!(d.acknowledge(2 * MS, left, 0, 100).is_none());
        assert_eq!(d.flight, 100);
        assert!(d.acknowledge(2 * MS, left + std::time::Duration::from_millis(1), 0, 100).is_some());
    }
}

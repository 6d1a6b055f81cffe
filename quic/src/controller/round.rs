//! What is counted: by batches of acknowledgements, by rounds, and of the loss that is not our doing.

use super::delivery::{Manner, Sent};
use super::round_trips::FOREVER;
use super::time::Time;

/// Background loss beyond which it is not believed.
const MOST_BACKGROUND: f64 = 0.12;
/// Packets from which on background loss is believed, and from which on the older ones count less.
const ENOUGH: f64 = 100.0;
const PLENTY: f64 = 2000.0;

/// What one batch of acknowledgements brought.
#[derive(Debug, Clone)]
pub struct Batch {
    pub least_rtt: Time,
    /// Packets that were sent while we held back.
    pub modest: u32,
}

impl Batch {
    pub const NONE: Self = Self { least_rtt: FOREVER, modest: 0 };

    pub fn count(&mut self, sent: &Sent, rtt: Time) {
        self.least_rtt = self.least_rtt.min(rtt);
        self.modest += u32::from(sent.manner == Manner::Modest);
    }
}

/// What was seen in the round under way.
#[derive(Debug, Clone)]
pub struct Round {
    /// It ends when so much had been delivered before a packet left that is now acknowledged.
    pub end: u64,
    pub delivered: u64,
    pub lost: u64,
    pub lost_probing: u64,
    pub lost_queued: u64,
    /// Most bytes in flight when one of its packets was sent.
    pub flight: u32,
    pub least_rtt: Time,
    rtt_sum: u64,
    rtts: u64,
    pub rate: f64,
    pub app_limited: bool,
}

impl Round {
    pub fn new(end: u64) -> Self {
        Self {
            end,
            delivered: 0,
            lost: 0,
            lost_probing: 0,
            lost_queued: 0,
            flight: 0,
            least_rtt: FOREVER,
            rtt_sum: 0,
            rtts: 0,
            rate: 0.0,
            app_limited: false,
        }
    }

    pub fn count(&mut self, sent: &Sent, bytes: u64, rtt: Time) {
        self.delivered += bytes;
        self.flight = self.flight.max(sent.flight);
        self.rtt_sum += rtt;
        self.rtts += 1;
    }

    pub fn count_lost(&mut self, sent: &Sent, bytes: u64, queued: bool) {
        self.lost += bytes;
        self.flight = self.flight.max(sent.flight);
        if sent.manner == Manner::Probing {
            self.lost_probing += bytes;
        }
        if queued {
            self.lost_queued += bytes;
        }
    }

    /// So many lost bytes as a share of the round's.
    pub fn share(&self, lost: u64) -> f64 {
        lost as f64 / (self.lost + self.delivered).max(1) as f64
    }

    /// How far the mean round trip is above the least, if there were enough of them.
    pub fn spread(&self) -> Option<Time> {
        (self.rtts >= 8).then(|| (self.rtt_sum / self.rtts).saturating_sub(self.least_rtt))
    }
}

/// What is lost while we hold back, in packets; old ones count less and less.
#[derive(Debug, Clone, Default)]
pub struct Background {
    lost: f64,
    all: f64,
    share: f64,
}

impl Background {
    /// The path's own loss.
    pub fn share(&self) -> f64 {
        self.share
    }

    pub fn count(&mut self, lost: u32, arrived: u32) {
        if lost + arrived == 0 {
            return;
        }
        self.lost += f64::from(lost);
        self.all += f64::from(lost + arrived);
        if self.all > PLENTY {
            self.all *= 0.5;
            self.lost *= 0.5;
        }
        self.share = if self.all < ENOUGH { 0.0 } else { (self.lost / self.all).min(MOST_BACKGROUND) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_loss_is_believed_only_with_enough_packets_and_up_to_a_bound() {
        let mut b = Background::default();
        b.count(5, 90);
        assert_eq!(b.share(), 0.0);
        b.count(0, 5);
        assert_eq!(b.share(), 0.05);
        b.count(900, 0);
        assert_eq!(b.share(), MOST_BACKGROUND);
    }

    #[test]
    fn old_packets_count_less_and_less() {
        let mut b = Background::default();
        b.count(100, 900);
        for _ in 0..20 {
            b.count(0, 1000);
        }
        assert!(b.share() < 0.001);
    }
}

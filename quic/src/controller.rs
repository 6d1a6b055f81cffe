//! The congestion controller: two filters, as in BBR, and its own answers to loss and to neighbours.
//!
//! For somebody who knows BBR: the largest rate of delivery of ten rounds (`rates`) sets the pacing, times the
//! smallest round trip it bounds what is in flight. A *round* ends when a packet is acknowledged that was sent after
//! the last one ended. What differs:
//!
//! * **Loss is congestion only where it comes with a queue**, or where it is far more than what is lost while we hold
//!   back. `Down` holds back once in every cycle; what is lost of the packets sent then, without a queue, is the
//!   path's own *background* loss, and everything is judged above it. So 3 % of random loss costs little.
//! * **Probing backs off.** `Up` sends a quarter more for a few rounds. If that ends in loss with a queue, the
//!   bottleneck has been found: the interval to the next probe doubles, and what is in flight stays a seventh below
//!   what it was when packets were lost (head-room, into which somebody else can grow).
//! * **Neighbours.** A queue that does not empty while we hold back, or a share of the rate that grows exactly as the
//!   queue does, or loss while we cruise, for the second time in a while, is not our doing: loss-based flows fill the
//!   bottleneck. Then `Compete` keeps a window as CUBIC would, which is what they know how to share with. Who has had
//!   the path for himself and still has more than its half gives back half of what is in flight at each loss, so that
//!   a flow that has just come finds room. `Compete` is left from time to time, to see whether anybody is still there.
//! * **Who sends little judges little.** The queue may be that of what the other side sends, two losses may be chance,
//!   and a window taken from what is in flight would be none. Such rounds count only for what they bring.
//! * **A longer path is not a queue.** Where every sample has been far above the smallest round trip for a while,
//!   `ProbeRoundTrip` empties the pipe by half and takes what it sees for the new smallest one.
//!
//! ```text
//! Startup ──full──► Drain ──► Down ──► Cruise ──interval──► Up ──full or loss──► Down
//!                                        │  ▲                │
//!                        queue or loss   ▼  │ nobody left    │ somebody else's queue
//!                                       Compete ◄────────────┘
//! any but Startup ──smallest round trip old or doubtful──► ProbeRoundTrip ──► back
//! ```
//!
//! Where what is:
//!
//! * here: what the core calls, and what becomes of it, as pacing rate and window;
//! * measurement: `delivery` (the rate), `largest` (its filter), `round_trips` (the smallest, and whether there is a
//!   queue), `round` (what is counted in each, and the background loss), `time`;
//! * `phases`: the picture above;
//! * `loss`: whether a round's loss is congestion, and the answer;
//! * `neighbours`: who is found to be there, and how we yield; `share`: CUBIC's window.

mod delivery;
mod largest;
mod loss;
mod neighbours;
mod phases;
mod round;
mod round_trips;
mod share;
mod time;

use std::sync::atomic::AtomicU8;
use std::sync::Arc;
use std::time::Instant;

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use noq_proto::RttEstimator;

use delivery::{Delivery, Manner};
use largest::Largest;
use loss::{Learnt, UNBOUNDED};
use neighbours::Neighbours;
use phases::{Cycle, Phase};
use round::{Background, Batch, Round};
use round_trips::{RoundTrips, FOREVER};
use time::{Clock, Time, MS};

/// The phases in words, in the order of [`Phase`].
pub const PHASES: [&str; 7] = ["startup", "drain", "down", "cruise", "up", "compete", "probe round trip"];

/// Packets that may leave before anything is known (RFC 9002 says ten; four more are one flight of a handshake).
const INITIAL_PACKETS: u64 = 14;
/// Rounds whose largest rate counts.
const RATE_ROUNDS: u64 = 10;
/// Samples of the rate over less than half a round trip say nothing; on a long path, over less than this.
const LONG_ENOUGH: Time = 100 * MS;

/// Seconds of the rate that may be in flight beyond what fits the pipe, and packets, at least and at most. Where ends and
/// switch share a few busy cores, what was sent a millisecond or two ago is not acknowledged yet though the path is
/// short: with a quarter of the most, a stream of 2 Gbit/s waited for its window, and cost a fifth more in smaller batches.
const SLACK: f64 = 0.002;
const LEAST_SLACK: f64 = 4.0;
const MOST_SLACK: f64 = 1024.0;

/// Makes controllers that tell of their phase.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Index into [`PHASES`].
    pub phase: Arc<AtomicU8>,
}

impl ControllerFactory for Config {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Model::new(self.phase.clone(), now, mtu))
    }
}

#[derive(Debug, Clone)]
struct Model {
    told: Arc<AtomicU8>,
    clock: Clock,
    mtu: u64,

    ledger: Delivery,
    rtts: RoundTrips,
    rates: Largest,
    batch: Batch,
    rounds: u64,
    round: Round,
    background: Background,

    learnt: Learnt,
    /// What was learnt before the last loss, if that turns out to have been none.
    undo: Option<Learnt>,
    cycle: Cycle,
    neighbours: Neighbours,

    /// Bytes a second; `None`: nothing is known, and the pacer goes by the window.
    pacing: Option<u64>,
    window: u64,
    /// Cruise: the round, rate and smallest round trip that both were made from.
    cruising_by: Option<(u64, f64, Time)>,
}

impl Model {
    fn new(told: Arc<AtomicU8>, now: Instant, mtu: u16) -> Self {
        let mut model = Self {
            told,
            clock: Clock::new(now),
            mtu: u64::from(mtu),
            ledger: Delivery::new(),
            rtts: RoundTrips::new(),
            rates: Largest::default(),
            batch: Batch::NONE,
            rounds: 0,
            round: Round::new(0),
            background: Background::default(),
            learnt: UNBOUNDED,
            undo: None,
            cycle: Cycle::new(),
            neighbours: Neighbours::new(),
            pacing: None,
            window: INITIAL_PACKETS * u64::from(mtu),
            cruising_by: None,
        };
        model.enter(Phase::Startup, 0);
        model
    }

    /// Bytes a second that the path takes.
    fn estimate(&self) -> f64 {
        self.rates.get().min(self.learnt.rate)
    }

    /// Bytes in flight at that rate without a queue.
    fn pipe(&self, rate: f64) -> f64 {
        rate * self.rtts.smallest_seconds()
    }

    fn least_flight(&self) -> f64 {
        4.0 * self.mtu as f64
    }

    /// Most bytes in flight in this round.
    fn flight(&self) -> f64 {
        f64::from(self.round.flight).max(self.least_flight())
    }

    /// Whether the application asked for less in this round than half of what it might have sent.
    fn little(&self) -> bool {
        self.round.app_limited && u64::from(self.round.flight) * 2 < self.window
    }

    /// Room for the bursts that pacing, delayed acknowledgements and the driver's timer make.
    fn slack(&self, rate: f64) -> f64 {
        let mtu = self.mtu as f64;
        (rate * SLACK).clamp(LEAST_SLACK * mtu, MOST_SLACK * mtu)
    }

    /// Pacing and window, for what is known and being done.
    fn update(&mut self, now: Time) {
        if !self.rates.is_known() || !self.rtts.known() {
            return;
        }
        let grounds = (self.rounds, self.rates.get(), self.rtts.smallest);
        if self.cycle.phase == Phase::Cruise && self.cruising_by == Some(grounds) {
            return; // most of the time nothing has changed since the last acknowledgement
        }
        self.cruising_by = (self.cycle.phase == Phase::Cruise).then_some(grounds);
        let (pace, window) = match self.cycle.phase {
            Phase::Compete => self.share_of_the_path(now),
            _ => self.share_of_the_model(),
        };
        self.pacing = (pace > 0.0).then_some(pace as u64);
        self.window = window.max(self.least_flight()) as u64;
    }

    /// Alone: pacing and window by the model.
    fn share_of_the_model(&self) -> (f64, f64) {
        let (rate, phase) = (self.estimate(), self.cycle.phase);
        let (pace, pipes) = self.gains();
        let slack = if phase == Phase::ProbeRoundTrip { 0.0 } else { self.slack(rate) };
        let (mut least, mut window) = (self.mtu as f64 * 10.0, self.pipe(rate) * pipes + slack);
        if phase == Phase::Startup {
            // what the handshake showed of the rate was the handshake's own
            let initial = (INITIAL_PACKETS * self.mtu) as f64;
            least = initial / self.rtts.smoothed_seconds() * 0.5;
            window = window.max(self.window as f64).min(initial * 3.0 + self.ledger.delivered as f64 * 2.0);
        }
        ((rate * pace).max(least), window.min(self.learnt.flight).min(self.ceiling()))
    }

    /// Among others: pacing and window as CUBIC's, but never much more than what the path can use.
    fn share_of_the_path(&self, now: Time) -> (f64, f64) {
        let round_trip = self.rtts.smoothed_seconds();
        let useful = self.rates.get() * round_trip * 2.0 + self.slack(self.estimate());
        let window = self.neighbours.share.bytes(now, self.mtu as f64, round_trip);
        let window = window.min(useful).max(self.least_flight());
        (window / round_trip * 1.25, window)
    }

    fn end_round(&mut self, now: Time) {
        let congested = self.judge_loss(now);
        self.step(now, congested);
        if matches!(self.cycle.phase, Phase::Cruise | Phase::Compete) {
            if let Some(spread) = self.round.spread() {
                self.rtts.learn_jitter(spread);
            }
        }
        self.rounds += 1;
        self.neighbours.remember(self.rates.get());
        if !self.round.app_limited {
            self.rates.next_round(RATE_ROUNDS);
        }
        self.round = Round::new(self.ledger.delivered + self.ledger.flight);
    }

    /// The round trips of a batch of acknowledgements.
    fn take_batch(&mut self, now: Time) {
        let batch = std::mem::replace(&mut self.batch, Batch::NONE);
        if batch.least_rtt == FOREVER {
            return;
        }
        self.rtts.sample(now, batch.least_rtt);
        self.round.least_rtt = self.round.least_rtt.min(batch.least_rtt);
        self.saw_round_trip(batch.least_rtt);
        if batch.modest > 0 && !self.rtts.queued() {
            self.background.count(0, batch.modest);
        }
    }
}

impl Controller for Model {
    fn on_packet_sent(&mut self, now: Instant, bytes: u16, number: u64) {
        let manner = match self.cycle.phase {
            Phase::Down => Manner::Modest,
            Phase::Up => Manner::Probing,
            _ => Manner::Plain,
        };
        let time = self.clock.read(now);
        self.ledger.send(time, now, number, bytes.into(), manner);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, number: u64, _: bool, _: &RttEstimator) {
        let now = self.clock.read(now);
        let Some(sent) = self.ledger.acknowledge(now, sent, number, bytes) else { return };
        let rtt = now.saturating_sub(sent.at);
        self.rtts.smooth(rtt);
        self.round.count(sent, bytes, rtt);
        self.batch.count(sent, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        let now = self.clock.read(now);
        self.take_batch(now);
        if app_limited {
            self.ledger.app_ran_dry(in_flight);
            self.round.app_limited = true;
        }
        let Some(sample) = self.ledger.sample(now, (self.rtts.smallest / 2).min(LONG_ENOUGH)) else { return };
        if let Some(rate) = sample.rate {
            if !sample.app_limited {
                self.round.rate = self.round.rate.max(rate);
            }
            if !sample.app_limited || rate > self.rates.get() {
                self.rates.put(rate);
            }
        }
        if sample.delivered_before >= self.round.end {
            self.end_round(now);
        }
        self.advance(now, in_flight);
        self.update(now);
    }

    fn on_packet_lost(&mut self, bytes: u16, number: u64, now: Instant) {
        let bytes = u64::from(bytes);
        let Some(sent) = self.ledger.lose(self.clock.read(now), number, bytes) else { return };
        if self.cycle.phase == Phase::Compete && sent.at < self.neighbours.share.since {
            return; // sent before the last cut, which was the answer
        }
        let queued = self.rtts.queued();
        self.round.count_lost(&sent, bytes, queued);
        if !queued && sent.manner == Manner::Modest {
            self.background.count(1, 0);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, persistent: bool, _: bool, _: u64, _: u64) {
        // single losses are judged by the round; here only a path that carried nothing for long
        if persistent {
            let now = self.clock.read(now);
            self.path_was_dead(now);
        }
    }

    fn on_spurious_congestion_event(&mut self) {
        if let Some(learnt) = self.undo.take() {
            self.learnt = learnt;
        }
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = self.pacing;
        metrics.bandwidth_estimate = Some((self.estimate() * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_two_milliseconds_up_to_a_thousand_packets() {
        let model = Model::new(Arc::default(), Instant::now(), 1444);
        let slack = |megabits: f64| model.slack(megabits * 125_000.0) as u64;
        assert_eq!(slack(1.0), 4 * 1444);
        assert_eq!(slack(100.0), 25_000);
        assert_eq!(slack(2_500.0), 625_000);
        assert_eq!(slack(40_000.0), 1024 * 1444);
    }
}

//! The congestion controller: two filters, as in BBR, and its own answers to loss and to neighbours.
//!
//! For somebody who knows BBR: the largest rate of delivery of ten rounds (`rates`) sets the pacing, times the
//! smallest round trip it bounds what is in flight. What differs:
//!
//! * **Loss is congestion only where it comes with a queue**, or where it is far more than what is lost while we hold
//!   back. `Down` holds back once in every cycle; what is lost of the packets sent then, without a queue, is the
//!   path's own *background* loss, and everything is judged above it. So 3 % of random loss costs little.
//! * **Probing backs off.** `Up` sends a quarter more for a few rounds. If that ends in loss with a queue, the
//!   bottleneck has been found: the interval to the next probe doubles, and what is in flight stays a seventh below
//!   what it was when packets were lost (head-room, into which somebody else can grow).
//! * **Neighbours.** A queue that does not empty while we hold back, or a share of the rate that grows exactly as the
//!   queue does, or loss while we cruise, is not our doing: loss-based flows fill the bottleneck. Then `Compete` keeps
//!   a window as CUBIC would (`share.rs`), which is what they know how to share with. Who has had the path for himself
//!   and still has more than its half gives back half of what is in flight at each loss, so that a flow that has just
//!   come finds room. `Compete` is left from time to time, to see whether anybody is still there.
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

mod delivery;
mod round_trips;
mod share;

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use noq_proto::RttEstimator;

use delivery::{Delivery, Largest};
use round_trips::{RoundTrips, FOREVER};
use share::{CubicWindow, BETA};

/// The phases in words, in the order of [`Phase`].
pub const PHASES: [&str; 7] = ["startup", "drain", "down", "cruise", "up", "compete", "probe round trip"];

/// Packets that may leave before anything is known (RFC 9002 says ten; four more are one flight of a handshake).
const INITIAL_PACKETS: u64 = 14;
/// Rounds whose largest rate counts.
const RATE_ROUNDS: u64 = 10;
/// Loss in a round with a queue, above the background, that is congestion.
const QUEUE_LOSS: f64 = 0.01;
/// The same during startup, where a queue is expected.
const STARTUP_QUEUE_LOSS: f64 = 0.05;
/// Loss in any round, above twice the background, that is congestion (a policer makes no queue).
const ANY_LOSS: f64 = 0.08;
/// Background loss beyond which it is not believed.
const MOST_BACKGROUND: f64 = 0.12;
/// What is left of the bytes in flight after a probe that ended in loss: the rest is head-room for others.
const HEAD_ROOM: f64 = 0.85;
/// What is left of the bytes in flight where others are found for the first time.
const MAKE_ROOM: f64 = 0.5;
/// What is left of the window after a look whether anybody else is there, if so.
const BACK_AGAIN: f64 = 0.95;
/// With this share of what the path can do, and others on it, we have more than is ours.
const MORE_THAN_HALF: f64 = 0.55;
/// Rounds of Cruise without a queue after which we know what the path can do.
const ALONE: u32 = 16;
/// How fast what the path once could do is forgotten, a round: by half in 700.
const FORGET: f64 = 0.999;
/// The longest wait between two probes for more.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3);
/// The smallest round trip is looked at again after this time without a sample near it.
const ROUND_TRIP_OLD: Duration = Duration::from_secs(10);

/// What the controller is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Startup,
    Drain,
    Down,
    Cruise,
    Up,
    Compete,
    ProbeRoundTrip,
}

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

/// What was seen in the round under way.
#[derive(Debug, Clone)]
struct Round {
    /// It ends when so much had been delivered before a packet left that is now acknowledged.
    end: u64,
    delivered: u64,
    lost: u64,
    lost_probing: u64,
    lost_queued: u64,
    /// Most bytes in flight when one of its packets was sent.
    flight: u64,
    least_rtt: u64,
    rtt_sum: u64,
    rtts: u64,
    rate: f64,
    app_limited: bool,
}

impl Round {
    fn new(end: u64) -> Self {
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

    fn share(&self, lost: u64) -> f64 {
        lost as f64 / (self.lost + self.delivered).max(1) as f64
    }
}

/// What is lost while we hold back, in packets; old ones count less and less.
#[derive(Debug, Clone, Default)]
struct Background {
    lost: f64,
    all: f64,
}

impl Background {
    fn share(&self) -> f64 {
        if self.all < 100.0 {
            0.0
        } else {
            (self.lost / self.all).min(MOST_BACKGROUND)
        }
    }
}

/// Bounds that congestion taught us; infinite where it has not.
#[derive(Debug, Clone, Copy)]
struct Learnt {
    /// Until the next probe: rate and bytes in flight.
    rate: f64,
    flight: f64,
    /// Until a probe gets further: bytes in flight.
    ceiling: f64,
}

const UNBOUNDED: Learnt = Learnt { rate: f64::INFINITY, flight: f64::INFINITY, ceiling: f64::INFINITY };

#[derive(Debug, Clone)]
struct Model {
    told: Arc<AtomicU8>,
    mtu: u64,
    ledger: Delivery,
    rtts: RoundTrips,
    rates: Largest,
    background: Background,
    learnt: Learnt,
    /// What was learnt before the last loss, if that turns out to have been none.
    undo: Option<Learnt>,
    rounds: u64,
    round: Round,

    phase: Phase,
    phase_at: Instant,
    phase_round: u64,
    /// Startup: the rate that was last a quarter more than before, and for how many rounds it has not been.
    full_rate: f64,
    full_rounds: u32,
    /// Down: the least round trip while we held back.
    down_rtt: u64,
    /// Cruise: rounds of it, and those with a queue that is not ours.
    cruise_rounds: u32,
    cruise_queued: u32,
    /// Up: how many smallest round trips apart, when the last ended, the rate before and the best, rounds without more.
    interval: u32,
    probed_at: Instant,
    up_from: f64,
    up_best: f64,
    up_stall: u32,
    up_lost: bool,
    /// The largest rate of the last minutes: what the path can do.
    capacity: f64,
    /// Rounds of Cruise without a queue: whether we have had the path for ourselves, and know what it can do.
    quiet: u32,
    /// Compete: the window, since when, how long until we look whether anybody is left, when we last did.
    share: CubicWindow,
    compete_at: Instant,
    patience: Duration,
    left_at: Instant,
    /// ProbeRoundTrip: the least it saw, and what comes after.
    probe_rtt: u64,
    after: Phase,

    rate: f64,
    window: u64,
}

impl Model {
    fn new(told: Arc<AtomicU8>, now: Instant, mtu: u16) -> Self {
        let mut model = Self {
            told,
            mtu: u64::from(mtu),
            ledger: Delivery::new(now),
            rtts: RoundTrips::new(now),
            rates: Largest::default(),
            background: Background::default(),
            learnt: UNBOUNDED,
            undo: None,
            rounds: 0,
            round: Round::new(0),
            phase: Phase::Startup,
            phase_at: now,
            phase_round: 0,
            full_rate: 0.0,
            full_rounds: 0,
            down_rtt: FOREVER,
            cruise_rounds: 0,
            cruise_queued: 0,
            interval: 8,
            probed_at: now,
            up_from: 0.0,
            up_best: 0.0,
            up_stall: 0,
            up_lost: false,
            capacity: 0.0,
            quiet: 0,
            share: CubicWindow::new(now),
            compete_at: now,
            patience: Duration::from_secs(4),
            left_at: now,
            probe_rtt: FOREVER,
            after: Phase::Cruise,
            rate: 0.0,
            window: INITIAL_PACKETS * u64::from(mtu),
        };
        model.enter(Phase::Startup, now);
        model
    }

    // ---- the model

    fn largest_rate(&self) -> f64 {
        self.rates.get().unwrap_or(0.0)
    }

    fn estimate(&self) -> f64 {
        self.largest_rate().min(self.learnt.rate)
    }

    fn pipe(&self, rate: f64) -> f64 {
        rate * self.rtts.smallest_seconds()
    }

    fn least_flight(&self) -> f64 {
        4.0 * self.mtu as f64
    }

    /// Room for the bursts that pacing, delayed acknowledgements and the driver's timer make.
    fn slack(&self) -> f64 {
        let mtu = self.mtu as f64;
        (self.estimate() * 0.002).clamp(4.0 * mtu, 256.0 * mtu)
    }

    /// Pacing and window, for what is known and being done.
    fn update(&mut self, now: Instant) {
        if self.rates.get().is_none() || !self.rtts.known() {
            return; // nothing is known: the pacer goes by the window
        }
        let rate = self.estimate();
        let (pace, pipes) = self.gains();
        let least = match self.phase {
            // what the handshake showed of the rate was the handshake's own
            Phase::Startup => (INITIAL_PACKETS * self.mtu) as f64 / self.rtts.smoothed_seconds() * 0.5,
            _ => self.mtu as f64 * 10.0,
        };
        self.rate = (rate * pace).max(least);
        let slack = if self.phase == Phase::ProbeRoundTrip { 0.0 } else { self.slack() };
        let mut window = self.pipe(rate) * pipes + slack;
        if self.phase == Phase::Startup {
            let initial = (INITIAL_PACKETS * self.mtu) as f64;
            window = window.max(self.window as f64).min(initial * 3.0 + self.ledger.delivered as f64 * 2.0);
        }
        window = window.min(self.learnt.flight).min(self.ceiling());
        if self.phase == Phase::Compete {
            let round_trip = self.rtts.smoothed_seconds();
            window = self.share.bytes(now, self.mtu as f64, round_trip);
            window = window.min(self.largest_rate() * round_trip * 2.0 + self.slack()).max(self.least_flight());
            self.rate = window / round_trip * 1.25;
        }
        self.window = window.max(self.least_flight()) as u64;
    }

    /// Pacing in estimated rates, bytes in flight in pipes.
    fn gains(&self) -> (f64, f64) {
        // background loss takes its share of what is sent
        let more = 1.0 / (1.0 - self.background.share().min(0.1));
        match self.phase {
            Phase::Startup => (if self.rtts.queued() { 1.25 } else { 2.77 }, 2.0),
            Phase::Drain => (0.5, 2.0),
            Phase::Down => (if self.rtts.queued() { 0.75 } else { 0.9 }, 2.0),
            Phase::Cruise => (more, 2.0),
            Phase::Up => (if self.rounds >= self.phase_round + 3 { 2.0 } else { 1.25 } * more, 2.25),
            Phase::ProbeRoundTrip => (1.0, 0.5),
            Phase::Compete => (1.0, 2.0),
        }
    }

    fn ceiling(&self) -> f64 {
        let raised = match self.phase {
            Phase::Up => 0.05 * f64::from(1u32 << (self.rounds - self.phase_round).min(10)),
            _ => 0.0,
        };
        self.learnt.ceiling * (1.0 + raised)
    }

    // ---- phases

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.phase_at = now;
        self.phase_round = self.rounds;
        self.told.store(phase as u8, Relaxed);
        match phase {
            Phase::Up => {
                self.cruise_queued = self.cruise_queued.saturating_sub(1);
                self.up_from = self.largest_rate();
                self.up_best = self.up_from;
                self.up_stall = 0;
                self.up_lost = false;
                self.learnt = Learnt { ceiling: self.learnt.ceiling, ..UNBOUNDED };
            }
            Phase::ProbeRoundTrip => self.probe_rtt = FOREVER,
            Phase::Down => self.down_rtt = FOREVER,
            Phase::Cruise => self.cruise_rounds = 0,
            Phase::Startup | Phase::Drain | Phase::Compete => {}
        }
    }

    /// Everything that may happen at any batch of acknowledgements.
    fn advance(&mut self, now: Instant, in_flight: u64) {
        let empty = in_flight as f64 <= self.pipe(self.estimate());
        let rounds = self.rounds - self.phase_round;
        match self.phase {
            Phase::Drain if empty || rounds > 6 => self.enter(Phase::Down, now),
            Phase::Down if rounds >= 2 && (empty && !self.rtts.queued() || rounds > 4) => {
                self.probed_at = now;
                self.enter(Phase::Cruise, now);
            }
            Phase::Cruise => {
                let wait = Duration::from_nanos(self.rtts.smallest.saturating_mul(self.interval.into()));
                if now.duration_since(self.probed_at) > wait.min(LONGEST_INTERVAL) {
                    self.enter(Phase::Up, now);
                }
            }
            Phase::ProbeRoundTrip if rounds >= 2 && now.duration_since(self.phase_at) > Duration::from_millis(100) => {
                if self.probe_rtt != FOREVER {
                    self.rtts.set_smallest(now, self.probe_rtt);
                    self.rtts.high_since = None;
                }
                self.learnt = Learnt { ceiling: self.learnt.ceiling, ..UNBOUNDED };
                self.enter(self.after, now);
            }
            _ => {}
        }
        self.doubt_round_trip(now);
    }

    /// Looks at the smallest round trip again if it is old, or if all samples have long been far above it.
    fn doubt_round_trip(&mut self, now: Instant) {
        if !self.rtts.known() || matches!(self.phase, Phase::Startup | Phase::ProbeRoundTrip) {
            return;
        }
        let age = now.duration_since(self.rtts.confirmed_at);
        let competing = self.phase == Phase::Compete;
        let long = Duration::from_nanos(self.rtts.last * 8).max(Duration::from_millis(500));
        let doubtful = !competing
            && age > Duration::from_millis(1500)
            && self.rtts.high_since.is_some_and(|since| now.duration_since(since) > long);
        if age > ROUND_TRIP_OLD || doubtful {
            self.look_at_round_trip(now, if competing { Phase::Compete } else { Phase::Cruise });
        }
    }

    fn look_at_round_trip(&mut self, now: Instant, after: Phase) {
        self.after = after;
        self.enter(Phase::ProbeRoundTrip, now);
    }

    /// A queue that is somebody else's: shares it, once the smallest round trip is known not to be out of date.
    fn meet(&mut self, now: Instant) {
        if now.duration_since(self.rtts.confirmed_at) > Duration::from_secs(1) {
            self.down_rtt = FOREVER;
            self.look_at_round_trip(now, Phase::Cruise);
        } else {
            self.compete(now, self.round.flight as f64);
        }
    }

    /// Whether others are there: the queue did not empty while we held back, or our share grows as the queue does.
    fn shared(&self) -> bool {
        let stayed = self.down_rtt != FOREVER && self.down_rtt > self.rtts.mark;
        stayed || self.rounds <= self.phase_round + 2 && self.round.rate > self.up_from * 1.05
    }

    /// Takes a loss (or somebody's presence) as CUBIC would; with more than its half, it makes room.
    fn compete(&mut self, now: Instant, flight: f64) {
        let inside = self.phase == Phase::Compete;
        let again = !inside && self.share.plateau > 0.0 && now.duration_since(self.left_at) < Duration::from_secs(5);
        let at_most = if inside {
            self.window as f64
        } else if again {
            self.share.plateau
        } else {
            f64::INFINITY
        };
        let flight = flight.min(at_most).max(self.least_flight());
        let too_much = self.quiet >= ALONE && self.largest_rate() > MORE_THAN_HALF * self.capacity;
        // having looked whether anybody is left is no reason to have less
        let left = if too_much {
            MAKE_ROOM
        } else if again {
            BACK_AGAIN
        } else {
            BETA
        };
        // fast convergence (RFC 9438, section 4.7): who is pushed back gives way
        let pushed = too_much || inside && flight < self.share.plateau;
        let plateau = if pushed { flight * (1.0 + left) / 2.0 } else { flight };
        self.share.cut(now, flight, left, plateau);
        self.learnt = UNBOUNDED;
        if !inside {
            // back again soon after an attempt to leave: wait longer before the next
            self.patience =
                if again { (self.patience * 2).min(Duration::from_secs(60)) } else { Duration::from_secs(8) };
            self.compete_at = now;
            self.enter(Phase::Compete, now);
        }
    }

    // ---- rounds

    fn end_round(&mut self, now: Instant) {
        let congested = self.judge_loss(now);
        match self.phase {
            Phase::Startup => self.startup_round(now),
            Phase::Compete => self.compete_round(now, congested),
            Phase::Cruise => self.cruise_round(now, congested),
            Phase::Up => self.up_round(now, congested),
            Phase::Drain | Phase::Down | Phase::ProbeRoundTrip => {}
        }
        if matches!(self.phase, Phase::Cruise | Phase::Compete) && self.round.rtts >= 8 {
            let mean = self.round.rtt_sum / self.round.rtts;
            self.rtts.learn_jitter(mean.saturating_sub(self.round.least_rtt));
        }
        self.rounds += 1;
        self.capacity = (self.capacity * FORGET).max(self.largest_rate());
        if !self.round.app_limited {
            self.rates.next_round(RATE_ROUNDS);
        }
        self.round = Round::new(self.ledger.delivered + self.ledger.flight);
    }

    /// Whether this round's loss was congestion; answered if so.
    fn judge_loss(&mut self, now: Instant) -> bool {
        let (loss, with_queue) = (self.round.share(self.round.lost), self.round.share(self.round.lost_queued));
        let background = self.background.share();
        let few = self.round.lost < 2 * self.mtu;
        let flood = !few && loss > background * 2.0 + ANY_LOSS;
        let allowed = if self.phase == Phase::Startup { STARTUP_QUEUE_LOSS } else { QUEUE_LOSS };
        let congested = flood
            || match self.phase {
                Phase::Compete => with_queue > background * 2.0 + 0.001,
                _ => !few && with_queue > background * 1.5 + allowed,
            };
        if congested {
            self.undo = Some(self.learnt);
            if flood && with_queue < loss * 0.5 && self.phase != Phase::Startup {
                self.policed(now);
            } else {
                self.answer_loss(now);
            }
        }
        congested
    }

    /// Much loss and no queue: what came through is what there is.
    fn policed(&mut self, now: Instant) {
        let rate = if self.round.rate > 0.0 { self.round.rate } else { self.estimate() * BETA };
        self.rates.reset(rate);
        self.background = Background::default(); // it was seen at too high a rate
        self.learnt.ceiling = (self.pipe(rate) * 1.25).max(self.least_flight());
        self.back_off();
        if matches!(self.phase, Phase::Up | Phase::Compete) {
            self.enter(Phase::Down, now);
        }
    }

    fn back_off(&mut self) {
        self.interval = (self.interval * 2).min(64);
    }

    fn answer_loss(&mut self, now: Instant) {
        let pipe = self.pipe(self.largest_rate());
        let flight = (self.round.flight as f64).max(self.least_flight());
        match self.phase {
            Phase::Startup => {
                self.learnt.ceiling = flight.max(pipe);
                self.interval = 16;
                self.enter(Phase::Drain, now);
            }
            Phase::Compete => self.compete(now, flight),
            Phase::Up if self.shared() => self.compete(now, flight),
            Phase::Up => {
                self.learnt.ceiling = (flight * HEAD_ROOM).max(pipe);
                self.back_off();
                self.up_lost = true;
                self.enter(Phase::Down, now);
            }
            _ if self.round.lost_probing * 2 > self.round.lost => {} // the tail of our own probe: answered already
            Phase::Cruise => self.compete(now, flight),
            Phase::Drain | Phase::Down | Phase::ProbeRoundTrip => {
                self.learnt.rate = self.round.rate.max(self.estimate() * BETA);
                self.learnt.flight = (flight * BETA).max(self.round.delivered as f64 * BETA);
            }
        }
    }

    fn startup_round(&mut self, now: Instant) {
        if self.round.rate > self.full_rate * 1.25 {
            self.full_rate = self.round.rate;
            self.full_rounds = 0;
        } else if !self.round.app_limited {
            self.full_rounds += 1;
            // two rounds at one rate with a queue, or three without
            let queue = self.round.least_rtt > self.rtts.smallest + self.rtts.smallest / 4;
            if self.full_rounds >= 3 || self.full_rounds >= 2 && queue {
                self.enter(Phase::Drain, now);
            }
        }
    }

    /// From time to time, near the plateau, we see whether anybody is still there.
    fn compete_round(&mut self, now: Instant, congested: bool) {
        let near = self.window as f64 >= self.share.plateau * 0.95;
        if !congested && near && now.duration_since(self.compete_at) > self.patience {
            self.interval = 4;
            self.left_at = now;
            self.rtts.high_since = None;
            self.enter(Phase::Down, now);
        }
    }

    fn cruise_round(&mut self, now: Instant, congested: bool) {
        self.cruise_rounds += 1;
        if self.round.least_rtt <= self.rtts.mark {
            self.quiet = self.quiet.saturating_add(1);
        } else if self.cruise_rounds > 2 {
            self.cruise_queued += 1;
        }
        if self.cruise_queued >= 6 && !congested {
            self.cruise_queued = 0;
            self.meet(now);
        }
    }

    fn up_round(&mut self, now: Instant, congested: bool) {
        if self.round.rate > self.up_best * 1.05 {
            self.up_best = self.round.rate;
            self.up_stall = 0;
        } else {
            self.up_stall += 1;
        }
        if congested {
            return;
        }
        if self.learnt.ceiling.is_finite() {
            self.learnt.ceiling = self.learnt.ceiling.max(self.round.flight as f64);
        }
        let queue = self.rounds > self.phase_round && self.round.least_rtt > self.rtts.mark;
        if queue && self.shared() {
            self.meet(now);
        } else if queue || self.up_stall >= 2 {
            // all there is, without loss: come back soon
            if !self.up_lost {
                self.interval = 8;
            }
            self.enter(Phase::Down, now);
        }
    }
}

impl Controller for Model {
    fn on_packet_sent(&mut self, now: Instant, bytes: u16, number: u64) {
        let (modest, probing) = (self.phase == Phase::Down, self.phase == Phase::Up);
        self.ledger.send(now, number, bytes.into(), modest, probing);
    }

    fn on_ack(&mut self, now: Instant, at: Instant, bytes: u64, number: u64, _: bool, _: &RttEstimator) {
        let Some(sent) = self.ledger.acknowledge(now, at, number, bytes) else { return };
        let rtt = u64::try_from((now - at).as_nanos()).unwrap_or(FOREVER);
        self.rtts.sample(now, rtt);
        self.round.delivered += bytes;
        self.round.flight = self.round.flight.max(sent.flight);
        self.round.least_rtt = self.round.least_rtt.min(rtt);
        self.round.rtt_sum += rtt;
        self.round.rtts += 1;
        self.probe_rtt = self.probe_rtt.min(rtt);
        if self.phase == Phase::Down && self.rounds > self.phase_round {
            self.down_rtt = self.down_rtt.min(rtt);
        }
        if sent.modest && !self.rtts.queued() {
            self.background.all += 1.0;
        }
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        self.ledger.prune();
        if app_limited {
            self.ledger.app_ran_dry(in_flight);
            self.round.app_limited = true;
        }
        let shortest = Duration::from_nanos(self.rtts.smallest.min(200_000_000) / 2);
        let Some(sample) = self.ledger.sample(now, shortest) else { return };
        if let Some(rate) = sample.rate {
            if !sample.app_limited {
                self.round.rate = self.round.rate.max(rate);
            }
            if !sample.app_limited || rate > self.largest_rate() {
                self.rates.put(rate);
            }
        }
        if sample.delivered_before >= self.round.end {
            self.end_round(now);
        }
        self.advance(now, in_flight);
        if self.background.all > 2000.0 {
            self.background.all *= 0.5;
            self.background.lost *= 0.5;
        }
        self.update(now);
    }

    fn on_packet_lost(&mut self, bytes: u16, number: u64, _: Instant) {
        let bytes = u64::from(bytes);
        let Some(sent) = self.ledger.lose(number, bytes) else { return };
        self.ledger.prune();
        if self.phase == Phase::Compete && sent.at < self.share.since {
            return; // sent before the last cut, which was the answer
        }
        let queued = self.rtts.queued();
        self.round.lost += bytes;
        self.round.flight = self.round.flight.max(sent.flight);
        if sent.probing {
            self.round.lost_probing += bytes;
        }
        if queued {
            self.round.lost_queued += bytes;
        } else if sent.modest {
            self.background.all += 1.0;
            self.background.lost += 1.0;
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, persistent: bool, _: bool, _: u64, _: u64) {
        // single losses are judged by the round; here only a path that carried nothing for long
        if persistent && self.rtts.known() && self.rates.get().is_some() {
            self.learnt.flight = self.least_flight();
            self.probed_at = now;
            if self.phase != Phase::Startup {
                self.interval = 2;
                self.enter(Phase::Cruise, now);
            }
            self.update(now);
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
        metrics.pacing_rate = (self.rate > 0.0).then_some(self.rate as u64);
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

//! The phases, what each sends, and when it ends.

use std::sync::atomic::Ordering::Relaxed;

use super::round_trips::FOREVER;
use super::time::{Time, MS, SECOND};
use super::Model;

/// Round trips between two probes that end without loss.
const INTERVAL: u32 = 8;
/// The longest wait between two probes for more.
const LONGEST_INTERVAL: Time = 3 * SECOND;
/// The smallest round trip is looked at again after this time without a sample near it.
const ROUND_TRIP_OLD: Time = 10 * SECOND;
/// It is doubted when every sample has been far above it for eight of the last ones, and for so long at least.
const DOUBT: Time = 500 * MS;
/// And never so soon after it was confirmed.
const UNDOUBTED: Time = 1500 * MS;
/// How long `ProbeRoundTrip` lasts at least.
const PROBE_ROUND_TRIP: Time = 100 * MS;
/// Rounds of Cruise with a queue that is not ours, after which it is somebody's.
const QUEUED_ROUNDS: u32 = 6;

/// What the controller is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Startup,
    Drain,
    Down,
    Cruise,
    Up,
    Compete,
    ProbeRoundTrip,
}

/// Where in the cycle of phases we are.
#[derive(Debug, Clone)]
pub struct Cycle {
    pub phase: Phase,
    /// When it began: time, and round.
    at: Time,
    pub round: u64,
    /// Startup: the rate that was last a quarter more than before, and for how many rounds it has not been.
    full_rate: f64,
    full_rounds: u32,
    /// Down: the least round trip while we held back.
    pub down_rtt: Time,
    /// Cruise: rounds of it, and those with a queue that is not ours.
    cruise_rounds: u32,
    cruise_queued: u32,
    /// Cruise: when packets were last lost for which we only held back.
    pub cruise_lost_at: Option<Time>,
    /// Up: how many smallest round trips apart, when the last ended, the rate before and the best, rounds without more.
    pub interval: u32,
    pub probed_at: Time,
    pub up_from: f64,
    up_best: f64,
    up_stall: u32,
    pub up_lost: bool,
    /// ProbeRoundTrip: the least it saw, and what comes after.
    probe_rtt: Time,
    after: Phase,
}

impl Cycle {
    pub fn new() -> Self {
        Self {
            phase: Phase::Startup,
            at: 0,
            round: 0,
            full_rate: 0.0,
            full_rounds: 0,
            down_rtt: FOREVER,
            cruise_rounds: 0,
            cruise_queued: 0,
            cruise_lost_at: None,
            interval: INTERVAL,
            probed_at: 0,
            up_from: 0.0,
            up_best: 0.0,
            up_stall: 0,
            up_lost: false,
            probe_rtt: FOREVER,
            after: Phase::Cruise,
        }
    }
}

impl Model {
    /// Pacing in estimated rates, bytes in flight in pipes.
    pub(super) fn gains(&self) -> (f64, f64) {
        // background loss takes its share of what is sent
        let more = || 1.0 / (1.0 - self.background.share().min(0.1));
        match self.cycle.phase {
            Phase::Startup => (if self.rtts.queued() { 1.25 } else { 2.77 }, 2.0),
            Phase::Drain => (0.5, 2.0),
            Phase::Down => (if self.rtts.queued() { 0.75 } else { 0.9 }, 2.0),
            Phase::Cruise => (more(), 2.0),
            Phase::Up => (if self.rounds >= self.cycle.round + 3 { 2.0 } else { 1.25 } * more(), 2.25),
            Phase::ProbeRoundTrip => (1.0, 0.5),
            Phase::Compete => (1.0, 2.0),
        }
    }

    /// A probe goes beyond what was learnt, further with every round.
    pub(super) fn ceiling(&self) -> f64 {
        let raised = match self.cycle.phase {
            Phase::Up => 0.05 * f64::from(1u32 << (self.rounds - self.cycle.round).min(10)),
            _ => 0.0,
        };
        self.learnt.ceiling * (1.0 + raised)
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Time) {
        let c = &mut self.cycle;
        (c.phase, c.at, c.round) = (phase, now, self.rounds);
        self.told.store(phase as u8, Relaxed);
        match phase {
            Phase::Up => {
                c.cruise_queued = c.cruise_queued.saturating_sub(1);
                c.up_from = self.rates.get();
                c.up_best = c.up_from;
                c.up_stall = 0;
                c.up_lost = false;
                self.learnt.forget_short();
            }
            Phase::ProbeRoundTrip => c.probe_rtt = FOREVER,
            Phase::Down => c.down_rtt = FOREVER,
            Phase::Cruise => c.cruise_rounds = 0,
            Phase::Startup | Phase::Drain | Phase::Compete => {}
        }
    }

    /// The least round trip of a batch of acknowledgements.
    pub(super) fn saw_round_trip(&mut self, rtt: Time) {
        let c = &mut self.cycle;
        match c.phase {
            Phase::Down if self.rounds > c.round => c.down_rtt = c.down_rtt.min(rtt),
            Phase::ProbeRoundTrip => c.probe_rtt = c.probe_rtt.min(rtt),
            _ => {}
        }
    }

    // ---- at every batch of acknowledgements

    pub(super) fn advance(&mut self, now: Time, in_flight: u64) {
        let rounds = self.rounds - self.cycle.round;
        match self.cycle.phase {
            Phase::Drain if rounds > 6 || self.empty(in_flight) => self.enter(Phase::Down, now),
            Phase::Down if rounds > 4 || rounds >= 2 && !self.rtts.queued() && self.empty(in_flight) => {
                self.cycle.probed_at = now;
                self.enter(Phase::Cruise, now);
            }
            Phase::Cruise => {
                let wait = self.rtts.smallest.saturating_mul(self.cycle.interval.into());
                if now - self.cycle.probed_at > wait.min(LONGEST_INTERVAL) {
                    self.enter(Phase::Up, now);
                }
            }
            Phase::ProbeRoundTrip if rounds >= 2 && now - self.cycle.at > PROBE_ROUND_TRIP => {
                self.round_trip_seen(now);
            }
            _ => {}
        }
        self.doubt_round_trip(now);
    }

    fn empty(&self, in_flight: u64) -> bool {
        in_flight as f64 <= self.pipe(self.estimate())
    }

    /// Looks at the smallest round trip again if it is old, or if all samples have long been far above it.
    fn doubt_round_trip(&mut self, now: Time) {
        let age = now - self.rtts.confirmed_at;
        let phase = self.cycle.phase;
        if age <= UNDOUBTED || !self.rtts.known() || phase == Phase::ProbeRoundTrip {
            return;
        }
        let competing = phase == Phase::Compete;
        let long = (self.rtts.last * 8).max(DOUBT);
        let doubtful = !competing && self.rtts.high_since.is_some_and(|since| now - since > long);
        if doubtful && self.little() {
            self.rtts.set_smallest(now, self.rtts.least()); // what we send makes no queue that would have to empty
            self.rtts.high_since = None;
            return;
        }
        if phase == Phase::Startup {
            return;
        }
        if age > ROUND_TRIP_OLD || doubtful {
            self.look_at_round_trip(now, if competing { Phase::Compete } else { Phase::Cruise });
        }
    }

    pub(super) fn look_at_round_trip(&mut self, now: Time, after: Phase) {
        self.cycle.after = after;
        self.enter(Phase::ProbeRoundTrip, now);
    }

    fn round_trip_seen(&mut self, now: Time) {
        if self.cycle.probe_rtt != FOREVER {
            self.rtts.set_smallest(now, self.cycle.probe_rtt);
            self.rtts.high_since = None;
        }
        self.learnt.forget_short();
        self.enter(self.cycle.after, now);
    }

    // ---- at the end of every round

    pub(super) fn step(&mut self, now: Time, congested: bool) {
        match self.cycle.phase {
            Phase::Startup => self.startup_round(now),
            Phase::Compete => self.compete_round(now, congested),
            Phase::Cruise => self.cruise_round(now, congested),
            Phase::Up => self.up_round(now, congested),
            Phase::Drain | Phase::Down | Phase::ProbeRoundTrip => {}
        }
    }

    fn startup_round(&mut self, now: Time) {
        let c = &mut self.cycle;
        if self.round.rate > c.full_rate * 1.25 {
            c.full_rate = self.round.rate;
            c.full_rounds = 0;
        } else if !self.round.app_limited {
            c.full_rounds += 1;
            // two rounds at one rate with a queue, or three without
            let queue = self.round.least_rtt > self.rtts.smallest + self.rtts.smallest / 4;
            if c.full_rounds >= 3 || c.full_rounds >= 2 && queue {
                self.enter(Phase::Drain, now);
            }
        }
    }

    fn cruise_round(&mut self, now: Time, congested: bool) {
        if self.little() {
            return; // see `shared`
        }
        let c = &mut self.cycle;
        c.cruise_rounds += 1;
        if self.round.least_rtt <= self.rtts.mark {
            self.neighbours.quiet = self.neighbours.quiet.saturating_add(1);
        } else if c.cruise_rounds > 2 {
            c.cruise_queued += 1;
        }
        if c.cruise_queued >= QUEUED_ROUNDS && !congested {
            c.cruise_queued = 0;
            self.meet(now);
        }
    }

    fn up_round(&mut self, now: Time, congested: bool) {
        let c = &mut self.cycle;
        if self.round.rate > c.up_best * 1.05 {
            c.up_best = self.round.rate;
            c.up_stall = 0;
        } else {
            c.up_stall += 1;
        }
        if congested {
            return;
        }
        if self.learnt.ceiling.is_finite() {
            self.learnt.ceiling = self.learnt.ceiling.max(f64::from(self.round.flight));
        }
        let queue = self.rounds > c.round && self.round.least_rtt > self.rtts.mark;
        if queue && self.shared() {
            self.meet(now);
        } else if queue || self.cycle.up_stall >= 2 {
            // all there is, without loss: come back soon
            if !self.cycle.up_lost {
                self.cycle.interval = INTERVAL;
            }
            self.enter(Phase::Down, now);
        }
    }
}

//! Whether a round's loss is congestion, and the answer to it.
//!
//! Three kinds are told apart. Loss *with a queue*, above the background: the bottleneck is full. A *flood*, with a queue
//! or without: more is dropped than any path loses by itself; without a queue it is a policer. And the rest, which is
//! the path's own and is not answered at all.

use super::phases::Phase;
use super::round::Background;
use super::share::BETA;
use super::time::{Time, SECOND};
use super::Model;

/// Loss in a round with a queue, above the background, that is congestion.
const QUEUE_LOSS: f64 = 0.01;
/// The same during startup, where a queue is expected.
const STARTUP_QUEUE_LOSS: f64 = 0.05;
/// The same among others, where every loss is a signal to share.
const SHARED_LOSS: f64 = 0.001;
/// Loss in any round, above twice the background, that is congestion (a policer makes no queue).
const ANY_LOSS: f64 = 0.08;
/// The same where the application asks for little: so few packets lose two by chance.
const ANY_LOSS_OF_FEW: f64 = 0.25;
/// What is left of the bytes in flight after a probe that ended in loss: the rest is head-room for others.
const HEAD_ROOM: f64 = 0.85;
/// Loss in Cruise so soon after the last such loss is somebody else's doing.
const ONCE: Time = 4 * SECOND;
/// Round trips between two probes: after a full startup, at most, and after a path that was dead.
const AFTER_STARTUP: u32 = 16;
const AT_MOST: u32 = 64;
const AFTER_DEATH: u32 = 2;

/// Bounds that congestion taught us; infinite where it has not.
#[derive(Debug, Clone, Copy)]
pub struct Learnt {
    /// Until the next probe: rate and bytes in flight.
    pub rate: f64,
    pub flight: f64,
    /// Until a probe gets further: bytes in flight.
    pub ceiling: f64,
}

pub const UNBOUNDED: Learnt = Learnt { rate: f64::INFINITY, flight: f64::INFINITY, ceiling: f64::INFINITY };

impl Learnt {
    /// Only what was learnt for longer.
    pub fn forget_short(&mut self) {
        *self = Self { ceiling: self.ceiling, ..UNBOUNDED };
    }
}

impl Model {
    /// Whether this round's loss was congestion; answered if so.
    pub(super) fn judge_loss(&mut self, now: Time) -> bool {
        if self.round.lost == 0 {
            return false;
        }
        let (loss, with_queue) = (self.round.share(self.round.lost), self.round.share(self.round.lost_queued));
        let background = self.background.share();
        let few = self.round.lost < 2 * self.mtu;
        if self.little() {
            // nobody's window was full, ours least of all: only a flood is answered
            let flood = self.round.lost >= 5 * self.mtu && loss > background * 2.0 + ANY_LOSS_OF_FEW;
            if flood {
                self.undo = Some(self.learnt);
                self.policed(now);
            }
            return flood;
        }
        let flood = !few && loss > background * 2.0 + ANY_LOSS;
        let full = match self.cycle.phase {
            Phase::Compete => with_queue > background * 2.0 + SHARED_LOSS,
            Phase::Startup => !few && with_queue > background * 1.5 + STARTUP_QUEUE_LOSS,
            _ => !few && with_queue > background * 1.5 + QUEUE_LOSS,
        };
        if flood || full {
            self.undo = Some(self.learnt);
            if flood && with_queue < loss * 0.5 && self.cycle.phase != Phase::Startup {
                self.policed(now);
            } else {
                self.answer_loss(now);
            }
        }
        flood || full
    }

    /// Much loss and no queue: what came through is what there is.
    fn policed(&mut self, now: Time) {
        let rate = if self.round.rate > 0.0 { self.round.rate } else { self.estimate() * BETA };
        self.rates.reset(rate);
        self.background = Background::default(); // it was seen at too high a rate
        self.learnt.ceiling = (self.pipe(rate) * 1.25).max(self.least_flight());
        self.back_off();
        if matches!(self.cycle.phase, Phase::Up | Phase::Compete) {
            self.enter(Phase::Down, now);
        }
    }

    fn back_off(&mut self) {
        self.cycle.interval = (self.cycle.interval * 2).min(AT_MOST);
    }

    /// The bottleneck is full.
    fn answer_loss(&mut self, now: Time) {
        let (pipe, flight) = (self.pipe(self.rates.get()), self.flight());
        match self.cycle.phase {
            Phase::Startup => {
                self.learnt.ceiling = flight.max(pipe);
                self.cycle.interval = AFTER_STARTUP;
                self.enter(Phase::Drain, now);
            }
            Phase::Compete => self.compete(now, flight),
            Phase::Up if self.shared() => self.compete(now, flight),
            Phase::Up => {
                self.learnt.ceiling = (flight * HEAD_ROOM).max(pipe);
                self.back_off();
                self.cycle.up_lost = true;
                self.enter(Phase::Down, now);
            }
            _ if self.round.lost_probing * 2 > self.round.lost => {} // the tail of our own probe: answered already
            Phase::Cruise if self.cycle.cruise_lost_at.is_none_or(|at| now - at > ONCE) => {
                // perhaps the estimate is a little too high, and the queue our own: once we only hold back
                self.cycle.cruise_lost_at = Some(now);
                self.rates.reset(self.round.rate.max(self.estimate() * HEAD_ROOM));
                self.enter(Phase::Down, now);
            }
            Phase::Cruise => self.compete(now, flight),
            Phase::Drain | Phase::Down | Phase::ProbeRoundTrip => {
                self.learnt.rate = self.round.rate.max(self.estimate() * BETA);
                self.learnt.flight = (flight * BETA).max(self.round.delivered as f64 * BETA);
            }
        }
    }

    /// The path has carried nothing for long: a few packets, and soon a probe.
    pub(super) fn path_was_dead(&mut self, now: Time) {
        if !self.rtts.known() || !self.rates.is_known() {
            return;
        }
        self.learnt.flight = self.least_flight();
        self.cycle.probed_at = now;
        if self.cycle.phase != Phase::Startup {
            self.cycle.interval = AFTER_DEATH;
            self.enter(Phase::Cruise, now);
        }
        self.cruising_by = None;
        self.update(now);
    }
}

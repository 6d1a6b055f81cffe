//! Others at the bottleneck: how they are noticed, and how we yield to them.
//!
//! A flow that fills the queue until packets are lost shows itself in one of three ways: the queue stays while we hold
//! back; our rate grows exactly as the queue does, which it can only at somebody's cost; or packets are lost although
//! we send no more than before. From then on the window is CUBIC's, in its growth and in its cuts.

use super::phases::Phase;
use super::round_trips::FOREVER;
use super::share::{CubicWindow, BETA};
use super::time::{Time, SECOND};
use super::{loss, Model};

/// What is left of the bytes in flight where we have had more than our half.
const MAKE_ROOM: f64 = 0.5;
/// What is left of the window after a look whether anybody else is there, if so.
const BACK_AGAIN: f64 = 0.95;
/// With this share of what the path can do, and others on it, we have more than is ours.
const MORE_THAN_HALF: f64 = 0.55;
/// With this share of it, nobody else has anything worth speaking of.
const NEARLY_ALL: f64 = 0.9;
/// Rounds of Cruise without a queue after which we know what the path can do.
const ALONE: u32 = 16;
/// How fast what the path once could do is forgotten, a round: by half in 700.
const FORGET: f64 = 0.999;
/// How long we compete before we look whether anybody is left: at first, and at most.
const PATIENCE: Time = 3 * SECOND;
const MOST_PATIENCE: Time = 60 * SECOND;
/// Who is back so soon after such a look has learnt that they are.
const SOON: Time = 5 * SECOND;
/// So many rounds without a queue, and we look without being near the plateau.
const LONG_EMPTY: u32 = 16;
/// Round trips between two probes during such a look.
const LOOKING: u32 = 4;
/// A queue is believed to be somebody's only while the smallest round trip is as fresh as this.
const FRESH: Time = SECOND;

/// What is known of others.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// The window among them.
    pub share: CubicWindow,
    /// Since when we compete, how long until we look whether anybody is left, when we last did.
    since: Time,
    patience: Time,
    left_at: Time,
    /// Rounds in a row without a queue while we compete.
    empty: u32,
    /// The largest rate of the last minutes: what the path can do.
    capacity: f64,
    /// Rounds of Cruise without a queue: whether we have had the path for ourselves, and know what it can do.
    pub quiet: u32,
}

impl Neighbours {
    pub fn new() -> Self {
        let share = CubicWindow::new();
        Self { share, since: 0, patience: PATIENCE, left_at: 0, empty: 0, capacity: 0.0, quiet: 0 }
    }

    /// A round in which the path's largest rate was this.
    pub fn remember(&mut self, rate: f64) {
        self.capacity = (self.capacity * FORGET).max(rate);
    }

    fn too_much(&self, rate: f64) -> bool {
        self.quiet >= ALONE && rate > MORE_THAN_HALF * self.capacity
    }

    /// Who gets nearly all that the path can do has found what lay idle, and takes it from nobody.
    fn all(&self, rate: f64) -> bool {
        self.quiet >= ALONE && rate > NEARLY_ALL * self.capacity
    }
}

impl Model {
    /// Whether others are there: the queue did not empty while we held back, or our share grows as the queue does.
    ///
    /// Of those who send little it says nothing: what is queued may be what the other side sends, with their
    /// acknowledgements behind it, and a window taken from the little they have in flight would be none.
    pub(super) fn shared(&self) -> bool {
        if self.little() {
            return false;
        }
        let c = &self.cycle;
        let stayed = c.down_rtt != FOREVER && c.down_rtt > self.rtts.mark;
        stayed
            || !self.neighbours.all(self.round.rate) && self.rounds <= c.round + 2 && self.round.rate > c.up_from * 1.08
    }

    /// A queue that is somebody else's: shares it, once the smallest round trip is known not to be out of date.
    pub(super) fn meet(&mut self, now: Time) {
        if now - self.rtts.confirmed_at > FRESH {
            self.cycle.down_rtt = FOREVER;
            self.look_at_round_trip(now, Phase::Cruise);
        } else {
            self.compete(now, self.flight());
        }
    }

    /// Takes a loss (or somebody's presence) as CUBIC would; with more than its half, it makes room.
    pub(super) fn compete(&mut self, now: Time, flight: f64) {
        let inside = self.cycle.phase == Phase::Compete;
        let n = &self.neighbours;
        let again = !inside && n.share.plateau > 0.0 && now - n.left_at < SOON;
        let flight = match (inside, again) {
            (true, _) => flight.min(self.window as f64),
            (_, true) => flight.min(n.share.plateau),
            _ => flight,
        };
        let flight = flight.max(self.least_flight());
        let too_much = n.too_much(self.rates.get());
        let left = match again {
            _ if too_much => MAKE_ROOM,
            true => BACK_AGAIN, // having looked whether anybody is left is no reason to have less
            false => BETA,
        };
        // fast convergence (RFC 9438, section 4.7): who is pushed back gives way
        let pushed = too_much || inside && flight < n.share.plateau;
        let plateau = if pushed { flight * (1.0 + left) / 2.0 } else { flight };
        self.neighbours.share.cut(now, flight * left, plateau, self.mtu as f64);
        self.learnt = loss::UNBOUNDED;
        if !inside {
            self.begin_competing(now, again);
        }
    }

    fn begin_competing(&mut self, now: Time, again: bool) {
        let n = &mut self.neighbours;
        // back again soon after an attempt to leave: wait longer before the next
        n.patience = if again { (n.patience * 2).min(MOST_PATIENCE) } else { PATIENCE };
        n.since = now;
        n.empty = 0;
        self.enter(Phase::Compete, now);
    }

    /// From time to time, near the plateau, we see whether anybody is still there.
    pub(super) fn compete_round(&mut self, now: Time, congested: bool) {
        let n = &mut self.neighbours;
        let queue = self.round.least_rtt > self.rtts.mark;
        n.empty = if queue { 0 } else { n.empty + 1 };
        let near = n.empty >= LONG_EMPTY || self.window as f64 >= n.share.plateau * 0.95;
        if !congested && near && now - n.since > n.patience {
            n.left_at = now;
            self.cycle.interval = LOOKING;
            self.rtts.high_since = None;
            self.enter(Phase::Down, now);
        }
    }
}

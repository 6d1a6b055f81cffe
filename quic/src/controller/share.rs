//! A window that behaves as CUBIC's does (RFC 9438), for the time that loss-based flows share the bottleneck.

use super::time::{seconds, Time};

/// RFC 9438, section 5: how fast the window grows.
const C: f64 = 0.4;
/// What is left of the window after a loss.
pub const BETA: f64 = 0.7;
/// Section 4.3: how fast a flow of Reno's would grow, in packets a round trip.
const RENO_GROWTH: f64 = 0.53;

/// The window since the last loss.
#[derive(Debug, Clone)]
pub struct CubicWindow {
    /// Where it was when the loss came; growth is slow around it.
    pub plateau: f64,
    /// Where it was cut to.
    floor: f64,
    /// When that was.
    pub since: Time,
    /// Seconds from then until it is back at the plateau (RFC 9438's K).
    back: f64,
}

impl CubicWindow {
    /// None has been needed.
    pub fn new() -> Self {
        Self { plateau: 0.0, floor: 0.0, since: 0, back: 0.0 }
    }

    /// A loss: cut to `floor` bytes, to grow towards `plateau`.
    pub fn cut(&mut self, now: Time, floor: f64, plateau: f64, mtu: f64) {
        self.plateau = plateau;
        self.floor = floor;
        self.since = now;
        self.back = ((plateau - floor).max(0.0) / mtu / C).cbrt();
    }

    /// Bytes that may be in flight.
    pub fn bytes(&self, now: Time, mtu: f64, round_trip: f64) -> f64 {
        let t = seconds(now - self.since);
        let cubic = C * (t - self.back).powi(3) * mtu + self.plateau;
        let reno = self.floor + RENO_GROWTH * mtu * t / round_trip;
        cubic.max(reno).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_returns_to_the_plateau_stays_there_and_leaves_it() {
        let mut w = CubicWindow::new();
        w.cut(0, 1e6 * BETA, 1e6, 1444.0);
        let at = |s: f64| w.bytes((s * 1e9) as Time, 1444.0, 0.1);
        assert!((at(0.0) - 7e5).abs() < 1e4);
        let k = ((1e6 - 7e5) / 1444.0f64 / C).cbrt();
        assert!((at(k) - 1e6).abs() < 1e4);
        assert!(at(2.0 * k) > 1.25e6);
    }
}

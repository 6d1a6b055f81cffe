//! A window that behaves as CUBIC's does (RFC 9438), for the time that loss-based flows share the bottleneck.

use std::time::Instant;

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
    pub since: Instant,
}

impl CubicWindow {
    /// None has been needed.
    pub fn new(now: Instant) -> Self {
        Self { plateau: 0.0, floor: 0.0, since: now }
    }

    /// A loss at so many bytes in flight: cut to the share `left` of them.
    pub fn cut(&mut self, now: Instant, flight: f64, left: f64, plateau: f64) {
        self.plateau = plateau;
        self.floor = flight * left;
        self.since = now;
    }

    /// Bytes that may be in flight.
    pub fn bytes(&self, now: Instant, mtu: f64, round_trip: f64) -> f64 {
        let t = now.duration_since(self.since).as_secs_f64();
        let k = ((self.plateau - self.floor).max(0.0) / mtu / C).cbrt();
        let cubic = C * (t - k).powi(3) * mtu + self.plateau;
        let reno = self.floor + RENO_GROWTH * mtu * t / round_trip;
        cubic.max(reno).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_returns_to_the_plateau_stays_there_and_leaves_it() {
        let now = Instant::now();
        let mut w = CubicWindow::new(now);
        w.cut(now, 1e6, BETA, 1e6);
        let at = |s: f64| w.bytes(now + Duration::from_secs_f64(s), 1444.0, 0.1);
        assert!((at(0.0) - 7e5).abs() < 1e4);
        let k = ((1e6 - 7e5) / 1444.0f64 / C).cbrt();
        assert!((at(k) - 1e6).abs() < 1e4);
        assert!(at(2.0 * k) > 1.25e6);
    }
}

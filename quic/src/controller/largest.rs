//! The largest rate of the last so many rounds.

use std::collections::VecDeque;

/// A sliding maximum.
#[derive(Debug, Clone, Default)]
pub struct Largest {
    /// (round, rate): rounds rise and rates fall, so the first is the largest.
    values: VecDeque<(u64, f64)>,
    round: u64,
    first: f64,
}

impl Largest {
    /// Whether there was any rate yet.
    pub fn is_known(&self) -> bool {
        !self.values.is_empty()
    }

    /// The largest, 0 if there is none.
    pub fn get(&self) -> f64 {
        self.first
    }

    pub fn put(&mut self, rate: f64) {
        // one of the same round that is no smaller will be forgotten no sooner
        if self.values.back().is_some_and(|v| v.0 == self.round && v.1 >= rate) {
            return;
        }
        while self.values.back().is_some_and(|v| v.1 <= rate) {
            self.values.pop_back();
        }
        self.values.push_back((self.round, rate));
        self.first = self.values[0].1;
    }

    /// A round is over; what is older than `rounds` of them is forgotten, but never all.
    pub fn next_round(&mut self, rounds: u64) {
        self.round += 1;
        while self.values.len() > 1 && self.values[0].0 + rounds < self.round {
            self.values.pop_front();
            self.first = self.values[0].1;
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

    #[test]
    fn the_largest_is_forgotten_after_its_rounds() {
        let mut l = Largest::default();
        assert!(!l.is_known());
        l.put(5.0);
        l.put(3.0);
        for _ in 0..3 {
            l.next_round(2);
            l.put(2.0);
            l.put(1.0);
        }
        assert_eq!(l.get(), 2.0);
        l.reset(1.0);
        assert_eq!(l.get(), 1.0);
    }

    #[test]
    fn the_only_one_is_never_forgotten() {
        let mut l = Largest::default();
        l.put(5.0);
        for _ in 0..50 {
            l.next_round(10);
        }
        assert_eq!(l.get(), 5.0);
    }
}

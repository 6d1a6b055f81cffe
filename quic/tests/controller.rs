//! The controller on the simulated link: one case for each behaviour, medians over five seeds.
//!
//! Minutes of a processor, so in release mode only: `cargo test --no-default-features --release --test controller`.
//! The link, where nothing else is said: 100 Mbit/s, 50 ms there and back, a queue of 50 ms. With
//! `CONTROLLER_TABLE=controller-table.md` in the environment a run of all cases writes that table.

mod cost;
mod link;
mod table;

use link::{Link, Outcome, Plan, World};
use table::{at_least, at_most, note};
use warren_quic::gauge::Kind::{self, Cubic, Model};
use warren_quic::paths::PathChange;

fn alone(link: Link, seed: u64, seconds: f64) -> Outcome {
    World::new(link, &[Plan::of(Model)], seed).run(seconds).remove(0)
}

macro_rules! case {
    ($name:ident, $body:block) => {
        #[test]
        #[cfg_attr(debug_assertions, ignore = "in release mode")]
        fn $name() $body
    };
}

case!(random_loss_is_not_congestion, {
    for (loss, least) in [(0.01, 85.0), (0.03, 75.0)] {
        let link = Link { loss, ..Link::default() };
        let what = format!("{} % random loss each way: Mbit/s", loss * 100.0);
        at_least(what, least, |seed| alone(link.clone(), seed, 20.0).goodput(0.0, 20.0));
    }
});

case!(a_clean_link_is_filled_and_hardly_overrun, {
    for queue in [5.0, 10.0, 25.0, 55.0] {
        let link = Link { queue, ..Link::default() };
        let run = |seed| alone(link.clone(), seed, 20.0);
        at_least(format!("queue of {queue} ms: Mbit/s"), 88.0, |seed| run(seed).goodput(0.0, 20.0));
        at_most(format!("queue of {queue} ms: own drops, %"), 2.0, |seed| run(seed).own_drops(0.0, 20.0) * 100.0);
    }
});

case!(a_deep_queue_is_not_filled, {
    let link = Link { rate: vec![(0.0, 20.0)], round_trip: vec![(0.0, 30.0)], queue: 300.0, ..Link::default() };
    at_most("20 Mbit/s, 30 ms, queue of 300 ms: mean wait, ms", 25.0, |seed| {
        alone(link.clone(), seed, 20.0).mean_queue()
    });
});

case!(a_path_that_becomes_longer_is_not_taken_for_a_queue, {
    let link = Link { round_trip: vec![(0.0, 10.0), (10.0, 100.0)], queue: 25.0, ..Link::default() };
    at_least("round trip 10 → 100 ms: Mbit/s in the fifth second after", 70.0, |seed| {
        alone(link.clone(), seed, 15.0).goodput(14.0, 15.0)
    });
});

case!(the_rate_falls_and_rises_again, {
    let link = Link { rate: vec![(0.0, 100.0), (8.0, 20.0), (16.0, 100.0)], ..Link::default() };
    let run = |seed| alone(link.clone(), seed, 24.0);
    at_least("rate 100 → 20: Mbit/s from 2 to 8 s after", 17.0, |seed| run(seed).goodput(10.0, 16.0));
    // probes for more are up to three seconds apart
    at_least("rate 20 → 100: Mbit/s from 3 to 8 s after", 55.0, |seed| run(seed).goodput(19.0, 24.0));
});

case!(a_policer_is_recognised, {
    for depth in [100.0, 1000.0] {
        let link = Link { policer: Some((20.0, depth)), ..Link::default() };
        let run = |seed| alone(link.clone(), seed, 15.0);
        at_least(format!("policer of 20 Mbit/s, {depth} KB: Mbit/s"), 16.0, |seed| run(seed).goodput(0.0, 15.0));
        at_most(format!("policer of 20 Mbit/s, {depth} KB: dropped after 3 s, %"), 10.0, |seed| {
            run(seed).own_drops(3.0, 15.0) * 100.0
        });
    }
});

case!(half_a_gigabit, {
    let link = Link { rate: vec![(0.0, 500.0)], round_trip: vec![(0.0, 20.0)], queue: 20.0, ..Link::default() };
    at_least("500 Mbit/s, 20 ms, queue of 20 ms: Mbit/s", 440.0, |seed| {
        alone(link.clone(), seed, 8.0).goodput(0.0, 8.0)
    });
});

case!(an_application_that_sends_little_then_much, {
    let plan = Plan { modest: Some((0.0, 6.0, 5.0)), ..Plan::of(Model) };
    let link = Link { queue: 25.0, ..Link::default() };
    let run = |seed| World::new(link.clone(), std::slice::from_ref(&plan), seed).run(12.0).remove(0);
    at_least("application of 5 Mbit/s for 6 s: Mbit/s", 4.5, |seed| run(seed).goodput(1.0, 6.0));
    at_least("then as much as it can: Mbit/s from 2 s after", 80.0, |seed| run(seed).goodput(8.0, 12.0));
});

case!(little_that_is_sent_does_not_tell_whose_queue_it_is, {
    // what the other side sends fills its queue again and again, and our acknowledgements wait in it
    let waits = (0..32).map(|n| (4.0 + 0.25 * f64::from(n), if n % 4 == 0 { 50.0 } else { 62.0 }));
    let round_trip = [(0.0, 50.0)].into_iter().chain(waits).chain([(12.0, 50.0)]).collect();
    let link = Link { round_trip, loss: 0.01, ..Link::default() };
    let plan = Plan { modest: Some((4.0, 12.0, 0.05)), ..Plan::of(Model) };
    let run = |seed| World::new(link.clone(), std::slice::from_ref(&plan), seed).run(16.0).remove(0);
    at_least("little beside much from the other side, then much: Mbit/s from 1 s after", 75.0, |seed| {
        run(seed).goodput(13.0, 16.0)
    });
});

case!(after_a_blackout_it_goes_on_within_a_round_trip_or_two, {
    let link = Link { cut: Some((5.0, 15.0)), ..Link::default() };
    for (kind, most) in [(PathChange::Resumed, 150.0), (PathChange::Moved, 250.0)] {
        let run = |seed| World::new(link.clone(), &[Plan::of(Model)], seed).tell(15.001, kind).run(20.0).remove(0);
        at_most(format!("10 s of blackout, then {kind:?}: first bytes after, ms"), most, |seed| {
            (run(seed).after_cut.unwrap_or(99.0) - 15.0) * 1e3
        });
        at_least(format!("10 s of blackout, then {kind:?}: Mbit/s from 2 s after"), 60.0, |seed| {
            run(seed).goodput(17.0, 20.0)
        });
    }
});

case!(two_of_ours_beside_two_of_cubic, {
    let fair = 23.5;
    let (mut within, mut runs) = (0, 0);
    for queue in [12.0, 50.0, 100.0] {
        for seed in 1..=3 {
            let plans = [Model, Model, Cubic, Cubic].map(Plan::of);
            let outcomes = World::new(Link { queue, ..Link::default() }, &plans, seed).run(40.0);
            let shares: Vec<f64> = outcomes.iter().map(|o| o.goodput(0.0, 40.0)).collect();
            let fairly = shares.iter().all(|s| (fair / 2.0..=fair * 2.0).contains(s));
            let what = format!("2 of ours, 2 of CUBIC, queue of {queue} ms, seed {seed}: Mbit/s of each in 40 s");
            note(what, "11.75 to 47", &shares, fairly);
            runs += 1;
            within += usize::from(fairly);
        }
    }
    note("2 of ours, 2 of CUBIC: fair runs of 9", "at least 8", &[within as f64], within >= runs - 1);
    assert!(within >= runs - 1, "{within} of {runs}");
});

/// What a flow has, 25 to 30 seconds after it joined one of ours.
#[track_caller]
fn joins(second: Kind, name: &str) {
    for queue in [12.0, 50.0, 100.0] {
        let plans = [Plan::of(Model), Plan::from(second, 5.0)];
        let what = format!("{name} joins one of ours, queue of {queue} ms: its Mbit/s after 25 to 30 s");
        // fair were 47
        at_least(what, 0.4 * 47.0, |seed| {
            World::new(Link { queue, ..Link::default() }, &plans, seed).run(35.0)[1].goodput(30.0, 35.0)
        });
    }
}

case!(a_flow_of_cubic_that_joins_finds_room, { joins(Cubic, "CUBIC") });

case!(a_flow_of_ours_that_joins_finds_room, { joins(Model, "one of ours") });

case!(it_costs_at_most_half_of_what_the_prototype_does, {
    let (ours, prototype) = cost::measure();
    let share = ours / prototype;
    let what = format!("{ours:.0} ns a packet where the prototype takes {prototype:.0}, in turns: the ratio");
    note(what, "at most 0.5", &[share], share <= 0.5);
    assert!(share <= 0.5, "{share}");
});

/// Not a case: what a run looks like, for somebody who changes the controller. `SECOND=cubic QUEUE=50 SEED=1`.
#[test]
#[ignore = "prints"]
fn trace() {
    let get = |name: &str, otherwise: f64| std::env::var(name).map_or(otherwise, |v| v.parse().unwrap());
    let second = if std::env::var("SECOND").is_ok_and(|v| v == "cubic") { Cubic } else { Model };
    let link = Link { queue: get("QUEUE", 50.0), ..Link::default() };
    let outcomes = World::new(link, &[Plan::of(Model), Plan::from(second, 5.0)], get("SEED", 1.0) as u64).run(40.0);
    if get("DROPS", 0.0) > 0.0 {
        let o = alone(Link { queue: get("QUEUE", 25.0), ..Link::default() }, 1, 20.0);
        println!("drops: {:?}", (0..20).map(|s| o.dropped[s * 10 + 9]).collect::<Vec<_>>());
        println!("phases: {:?}", (0..60).map(|s| o.phases[s].0).collect::<Vec<_>>());
    }
    for tick in (5..400).step_by(5) {
        print!("{:5.1}", tick as f64 / 10.0);
        for o in &outcomes {
            let (phase, window, round_trip) = o.phases[tick];
            let goodput = o.goodput(tick as f64 / 10.0 - 0.5, tick as f64 / 10.0);
            print!(" | {goodput:5.1} Mbit/s {phase:16} {:5} KB {:4.0} ms", window / 1000, round_trip * 1e3);
        }
        println!();
    }
}

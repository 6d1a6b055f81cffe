//! The controller's table: one row for each demand, in the order of the source, whichever case is over first.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::Location;
use std::sync::Mutex;

const SEEDS: u64 = 5;
/// Rows of a complete run.
const ROWS: usize = 43;

struct Row {
    what: String,
    demanded: String,
    values: Vec<f64>,
    met: bool,
}

/// By line of the source, then as they came.
static TABLE: Mutex<BTreeMap<(u32, usize), Row>> = Mutex::new(BTreeMap::new());

/// The median over all seeds has to be at least so much.
#[track_caller]
pub fn at_least(what: impl Into<String>, least: f64, measure: impl Fn(u64) -> f64) {
    let (median, values) = medians(measure);
    note(what, &format!("at least {least}"), &values, median >= least);
    assert!(median >= least, "{median}");
}

/// The median over all seeds has to be at most so much.
#[track_caller]
pub fn at_most(what: impl Into<String>, most: f64, measure: impl Fn(u64) -> f64) {
    let (median, values) = medians(measure);
    note(what, &format!("at most {most}"), &values, median <= most);
    assert!(median <= most, "{median}");
}

fn medians(measure: impl Fn(u64) -> f64) -> (f64, Vec<f64>) {
    let mut values: Vec<f64> = (1..=SEEDS).map(measure).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values)
}

/// A row, and the table as far as it is known.
#[track_caller]
pub fn note(what: impl Into<String>, demanded: &str, values: &[f64], met: bool) {
    let row = Row { what: what.into(), demanded: demanded.into(), values: values.to_vec(), met };
    println!("{}", row.text());
    let mut table = TABLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let number = table.len();
    table.insert((Location::caller().line(), number), row);
    if let Ok(path) = std::env::var("CONTROLLER_TABLE") {
        std::fs::write(path, text(&table)).unwrap();
    }
}

impl Row {
    fn text(&self) -> String {
        let figure = |v: &f64| if v.abs() < 1.0 { format!("{v:.2}") } else { format!("{v:.1}") };
        let values: Vec<String> = self.values.iter().map(figure).collect();
        let met = if self.met { "yes" } else { "**no**" };
        format!("| {} | {} | {} | {met} |", self.what, self.demanded, values.join(" · "))
    }
}

fn text(table: &BTreeMap<(u32, usize), Row>) -> String {
    let mut text = String::from(
        "# What the controller does\n\n\
         Written by `CONTROLLER_TABLE=controller-table.md cargo test --no-default-features --release --test controller`;\n\
         don't edit it. The link is simulated, in virtual time: 100 Mbit/s, 50 ms, a queue of 50 ms where nothing else is\n\
         said. Five figures are five seeds, sorted: their median counts.\n\n",
    );
    if table.len() != ROWS {
        let _ = writeln!(text, "**Incomplete: {} rows of {ROWS}.**\n", table.len());
    }
    text.push_str("| what | demanded | figures | met |\n|---|---|---|---|\n");
    table.values().for_each(|row| text.push_str(&format!("{}\n", row.text())));
    text
}

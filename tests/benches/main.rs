//! What levin costs against doing the bare minimum by hand: `./bench` builds it and `levin` in release mode and
//! runs it.
//!
//! Times on one machine say little; the ratios within one run are what counts. Names on the command line
//! (`./bench diff memory`) choose among the parts; `LEVIN_BENCH_ROWS` makes the tables of `diff` smaller.

mod decoding;
mod delivery;
mod diff;
mod memory;
mod project;
mod service;

use std::path::PathBuf;

/// One line of the table.
struct Line {
    /// What was measured.
    what: String,
    /// Of levin, in `unit`.
    levin: f64,
    /// Of the bare minimum, in `unit`; none where the figure stands for itself.
    bare: Option<f64>,
    unit: &'static str,
    /// What must be reached, and what would be good: of the ratio, or of the figure that stands for itself.
    must: Option<f64>,
    aim: Option<f64>,
}

impl Line {
    fn figure(&self) -> f64 {
        self.bare.map_or(self.levin, |bare| self.levin / bare)
    }

    fn print(&self) {
        let number = |n: Option<f64>| n.map_or(String::new(), |n| format!("{n}"));
        let verdict = match self.must {
            Some(must) if self.figure() > must => " **missed**",
            _ => "",
        };
        let bare = self.bare.map_or(String::new(), |b| format!("{b:.2} {}", self.unit));
        println!(
            "| {} | {:.2} {} | {bare} | {:.2}{verdict} | {} | {} |",
            self.what,
            self.levin,
            self.unit,
            self.figure(),
            number(self.must),
            number(self.aim),
        );
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    // `cargo bench` passes its own flags; a `cargo test --benches` must not start this.
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if !asked.iter().any(|a| a == "--bench") {
        return;
    }
    if decoding::read() {
        return;
    }
    let wanted = |name: &str| {
        let mut names = asked.iter().filter(|a| !a.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|n| n == name)
    };
    let levin = PathBuf::from(std::env::var("LEVIN_BIN").expect("LEVIN_BIN: run ./bench"));
    println!("| what | levin | bare | ratio | must | aim |\n|---|---|---|---|---|---|");
    let mut missed = 0;
    let mut print = |line: Line| {
        line.print();
        missed += usize::from(line.must.is_some_and(|must| line.figure() > must));
    };
    if wanted("diff") {
        diff::measure(&levin, &mut print);
    }
    if wanted("delivery") {
        delivery::measure(&levin, &mut print);
    }
    if wanted("memory") {
        memory::measure(&levin, &mut print);
    }
    if wanted("service") {
        service::measure(&levin, &mut print);
    }
    // The doubles and MariaDB are not at hand on every machine.
    if asked.iter().any(|a| a == "decoding") {
        decoding::measure(&mut print);
    }
    if asked.iter().any(|a| a == "thirty-million") {
        diff::measure_thirty_million(&levin, &mut print);
    }
    println!("\n{missed} of the figures that must be reached were missed.");
}

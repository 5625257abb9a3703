//! How much memory a run holds at its highest.

use std::path::Path;

use super::Line;
use super::diff::{COLUMNS, Engine, Postgres};
use super::project::Project;

pub fn measure(levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut million = 0.0;
    for rows in [1_000_000, 10_000_000] {
        let mut warehouse = Postgres::new(true);
        warehouse.prepare(rows);
        let model = format!("source: wh\nprimary_key: id\nsql: select {COLUMNS} from model\n");
        let project = Project::new(levin, &warehouse.source(), &model);
        project.to_files();
        let first = project.run();
        assert_eq!(first.sent(), rows);
        warehouse.settle();
        if rows == 1_000_000 {
            million = first.peak;
            let plan = project.call(&["plan", "bench", "--json"]);
            print(figure(
                "plan of 1M rows on Postgres, nothing changed: peak memory",
                plan.peak,
                150.0,
                60.0,
            ));
        }
        warehouse.timed("update model set visits = visits + 1");
        warehouse.settle();
        let changed = project.run();
        assert_eq!(changed.sent(), rows);
        let what = format!("Postgres to files, {} million changed rows: peak memory", rows / 1_000_000);
        print(figure(&what, changed.peak.max(first.peak), 200.0, 100.0));
    }
    println!("| (1M rows, first run: {million:.0} MB) | | | | | |");
}

fn figure(what: &str, megabytes: f64, must: f64, aim: f64) -> Line {
    Line { what: what.to_owned(), levin: megabytes, bare: None, unit: "MB", must: Some(must), aim: Some(aim) }
}

//! Laws that hold for every shape and every value: random keys, columns and types, two random states, and the rules in
//! memory, which know each value by one form.
//!
//! Nothing differs from itself. What a diff says, applied to the one state, gives the other, and back again; whatever
//! was refused, lost or interrupted between them. However a diff is asked for, it is the same.

mod domain;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use fastrand::Rng;
use futures::FutureExt;
use tests::seeds;

use self::domain::{Domain, Drawn};
use super::Bench;
use super::oracle::{End, Key, Oracle, Values, Wanted};
use super::trial::{DiffRow, EVERY, Ending, Exception, Found, Question, Text, Trial, UPSERTS};

/// Shapes in every `./test`, and in the long form.
const FEW: u64 = 6;
const MANY: u64 = 300;
/// So many share a database.
const TOGETHER: i64 = 20;

const NAMES: &[&str] = &[
    "id",
    "email",
    "select",
    "Upper",
    "with space",
    "it's",
    "say \"x\"",
    "é",
    "a.b",
    "--",
    "n",
    "k0",
    "c0",
    "m",
    "_levi",
    "order",
    "key",
    "value",
    "rowid_",
    "%s",
    "{{ x }}",
    "👍",
];

struct Column {
    name: String,
    domain: Domain,
    pool: Vec<Drawn>,
}

impl Column {
    fn quoted(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }
}

/// The number of a value in its column's pool; `None` for null.
type Cell = Option<usize>;
/// Cells of the key, then of the other columns.
type Row = Vec<Cell>;

struct World {
    trial: Trial,
    table: String,
    /// The key's columns, then the others.
    columns: Vec<Column>,
    keys: usize,
    /// Keys, then values, as the engine describes the model: numbers of columns.
    shape: Vec<usize>,
    oracle: Oracle,
    /// In what form each key leaves.
    texts: BTreeMap<Key, Key>,
    told: Vec<String>,
}

impl World {
    async fn new(bench: Bench, sync: i64, random: &mut Rng) -> Self {
        let postgres = bench.engine() == "postgres";
        let keys = random.usize(1..=3);
        let values = random.usize(0..=6);
        let mut names: Vec<&str> = NAMES.to_vec();
        random.shuffle(&mut names);
        let columns: Vec<Column> = (0..keys + values)
            .map(|i| {
                let mut domain = domain::domain(postgres, random);
                while i < keys
                    && !bench.warehouse.dialect().type_fact(&domain.engine_type).is_some_and(|f| f.key)
                {
                    domain = domain::domain(postgres, random);
                }
                let size = if i < keys { [14, 5, 4][keys - 1] } else { random.usize(1..5) };
                let pool = domain.pool(postgres, size, random);
                Column { name: names[i].to_owned(), domain, pool }
            })
            .collect();
        let mut order: Vec<usize> = (0..columns.len()).collect();
        random.shuffle(&mut order);
        let table = format!("t{sync}");
        let list: Vec<String> = order
            .iter()
            .map(|i| format!("{} {}", columns[*i].quoted(), columns[*i].domain.engine_type))
            .collect();
        bench.setup(&[&format!("create table {table} ({})", list.join(", "))]).await;
        let model = format!("select * from {table}");
        let names: Vec<&str> = columns[..keys].iter().map(|c| c.name.as_str()).collect();
        let trial = Trial::begin(bench, sync, &model, &names).await;
        let place =
            |name: &String| columns.iter().position(|c| c.name == *name).expect("a column of the table");
        let shape = trial.shape.keys.iter().chain(&trial.shape.columns).map(|c| place(&c.name)).collect();
        let told =
            columns.iter().map(|c| format!("{} {}: {:?}", c.name, c.domain.engine_type, c.pool)).collect();
        Self { trial, table, columns, keys, shape, oracle: Oracle::default(), texts: BTreeMap::new(), told }
    }

    fn cell(&self, column: usize, nulls: u8, random: &mut Rng) -> Cell {
        (random.u8(..100) >= nulls).then(|| random.usize(..self.columns[column].pool.len()))
    }

    fn row(&self, random: &mut Rng) -> Row {
        (0..self.columns.len()).map(|i| self.cell(i, if i < self.keys { 2 } else { 20 }, random)).collect()
    }

    /// Some rows of `base`, some of them edited, and some more; keys that occur twice are few.
    fn state(&self, base: &[Row], random: &mut Rng) -> Vec<Row> {
        let (stays, edited) = (random.u8(30..100), random.u8(..60));
        let mut rows: Vec<Row> = base.iter().filter(|_| random.u8(..100) < stays).cloned().collect();
        for row in &mut rows {
            if random.u8(..100) < edited && self.columns.len() > self.keys {
                let column = random.usize(self.keys..self.columns.len());
                row[column] = self.cell(column, 20, random);
            }
        }
        let mut taken: BTreeSet<Row> = rows.iter().map(|r| r[..self.keys].to_vec()).collect();
        for _ in 0..random.usize(..16) {
            let row = self.row(random);
            if taken.insert(row[..self.keys].to_vec()) || random.u8(..100) < 8 {
                rows.push(row);
            }
        }
        random.shuffle(&mut rows);
        rows
    }

    /// Puts these rows where the model reads them, each value in one of its spellings.
    async fn write(&mut self, rows: &[Row], random: &mut Rng) {
        let mut statements = vec![format!("delete from {}", self.table)];
        let names: Vec<String> = self.columns.iter().map(Column::quoted).collect();
        for row in rows {
            let values: Vec<String> = row
                .iter()
                .zip(&self.columns)
                .map(|(cell, column)| match cell {
                    Some(n) => random.choice(&column.pool[*n].spellings).expect("a spelling").clone(),
                    None => format!("cast(null as {})", column.domain.engine_type),
                })
                .collect();
            statements.push(format!(
                "insert into {} ({}) values ({})",
                self.table,
                names.join(", "),
                values.join(", ")
            ));
        }
        self.told.extend(statements.iter().cloned());
        self.trial.bench.setup(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    /// The rows as the rules see them.
    fn parts(&self, rows: &[Row]) -> Vec<(Key, Values)> {
        let text =
            |row: &Row, column: usize| row[column].map(|n| self.columns[column].pool[n].canonical.clone());
        let of = |row: &Row, columns: &[usize]| columns.iter().map(|c| text(row, *c)).collect::<Vec<Text>>();
        let (keys, values) = self.shape.split_at(self.keys);
        rows.iter().map(|row| (of(row, keys), of(row, values))).collect()
    }

    /// Each value of the diff in the one form that stands for it.
    fn canonical(&self, found: &Found) -> Vec<DiffRow> {
        let (keys, values) = self.shape.split_at(self.keys);
        let of = |texts: &[Text], columns: &[usize]| -> Vec<Text> {
            let forms = texts.iter().zip(columns);
            forms.map(|(t, c)| t.as_ref().map(|t| self.columns[*c].domain.canonical(t))).collect()
        };
        found
            .rows
            .iter()
            .map(|row| DiffRow {
                key: of(&row.key, keys),
                values: of(&row.values, values),
                previous: of(&row.previous, values),
                ..row.clone()
            })
            .collect()
    }

    /// The diff, which must be what the rules want, however it is asked for.
    async fn diff(&mut self, rows: &[Row], first: bool, random: &mut Rng) -> (Found, Vec<DiffRow>) {
        let wants = self.oracle.diff(&self.parts(rows), false);
        let due_before = (self.oracle.due_before > 0).then_some(self.oracle.due_before);
        let question = Question { first, due_before, ..Question::default() };
        let mut ways = vec![
            question,
            Question { plain: !first, ..question },
            Question { typed: true, ..question },
            Question { careful: true, ..question },
        ];
        random.shuffle(&mut ways);
        ways.truncate(2);
        let mut last = None;
        for way in ways {
            if let Some((found, _)) = last.take() {
                self.forget(&found).await;
            }
            let found = self.trial.diff(way).await;
            let canonical = self.canonical(&found);
            assert_eq!(found.counts, wants.counts, "counted: {way:?}");
            let counts = &found.counts;
            let set_aside = counts.duplicate_key_rows + counts.null_keys;
            let unchanged = self.unchanged(rows, &canonical);
            assert_eq!(counts.queried, unchanged + counts.added + counts.changed + set_aside, "{way:?}");
            let of_diff: BTreeMap<Key, Wanted> =
                canonical.iter().map(|r| (r.key.clone(), wanted(r))).collect();
            assert_eq!(
                of_diff.len(),
                canonical.len(),
                "a key stands in a diff once: {way:?} {:#?}",
                found.rows
            );
            let mut expected = wants.rows.clone();
            if first {
                // A first diff has no marks: all of it is new.
                expected.values_mut().for_each(|row| row.changed = None);
            }
            assert_eq!(of_diff, expected, "{way:?}");
            for row in canonical.iter().filter(|r| r.operation == "changed") {
                assert_eq!(
                    row.previous, self.oracle.snapshot[&row.key].0,
                    "what was accepted before: {way:?}"
                );
            }
            for (row, raw) in canonical.iter().zip(&found.rows) {
                let before = self.texts.entry(row.key.clone()).or_insert_with(|| raw.key.clone());
                assert_eq!(*before, raw.key, "keys that are equal have one text: {way:?}");
            }
            last = Some((found, canonical));
        }
        last.expect("asked at least once")
    }

    /// Rows with keys of their own that are in no diff.
    fn unchanged(&self, rows: &[Row], diff: &[DiffRow]) -> i64 {
        let mut keys: BTreeMap<Key, i64> = BTreeMap::new();
        for (key, _) in self.parts(rows).into_iter().filter(|(key, _)| key.iter().all(Option::is_some)) {
            *keys.entry(key).or_default() += 1;
        }
        let differs: BTreeSet<&Key> = diff.iter().map(|r| &r.key).collect();
        keys.iter().filter(|(key, rows)| **rows == 1 && !differs.contains(key)).count() as i64
    }

    async fn forget(&mut self, found: &Found) {
        let tables: Vec<_> = std::iter::once(found.table.clone()).chain(found.set_aside.clone()).collect();
        self.trial.run(&[sql_templates::Statement::Prune { drop: &tables }]).await.expect("dropped");
    }

    /// A run: the rows of the diff end as `ends` says, in turn; returns how many rows differed.
    async fn run(&mut self, rows: &[Row], ends: &[Option<Exception>], end: End, random: &mut Rng) -> usize {
        let first =
            self.trial.generation == 1 && end.complete && ends.iter().all(Option::is_none) && random.bool();
        let (found, canonical) = self.diff(rows, first, random).await;
        let wants = self.oracle.diff(&self.parts(rows), false);
        let sent = if end.sends_removed { EVERY } else { UPSERTS };
        let ended: Vec<(DiffRow, Option<Exception>)> =
            canonical.into_iter().zip(ends.iter().copied().cycle()).collect();
        let exceptions: Vec<(i64, Exception)> = ended
            .iter()
            .filter(|(row, _)| sent.contains(&row.operation))
            .filter_map(|(row, end)| Some((row.sequence, (*end)?)))
            .collect();
        self.told.push(format!("run {}: {end:?} {exceptions:?}", self.trial.generation));
        let ending = Ending { sent, exceptions, complete: end.complete, adopt: first, ..Ending::default() };
        self.trial.commit(&found, ending).await.unwrap_or_else(|e| panic!("the commit: {e}"));
        self.oracle.commit(end, self.trial.generation, &wants, &ended);
        let state = self.trial.state().await;
        assert_eq!(state.doubts, self.oracle.doubts.len() as i64, "keys in doubt");
        assert_eq!(state.rejections, self.oracle.rejected.len() as i64, "{:?}", self.oracle.rejected);
        if !first {
            self.forget(&found).await;
        }
        self.trial.take_lease().await;
        ended.len()
    }

    /// What the destination holds, when it holds what it accepted.
    fn held(&self) -> BTreeMap<Key, Values> {
        self.oracle.snapshot.iter().map(|(key, (values, _))| (key.clone(), values.clone())).collect()
    }

    /// The rows with keys of their own, and of those set aside what was accepted.
    fn model(&self, rows: &[Row]) -> BTreeMap<Key, Values> {
        let mut by_key: BTreeMap<Key, Vec<Values>> = BTreeMap::new();
        for (key, values) in self.parts(rows) {
            by_key.entry(key).or_default().push(values);
        }
        let mut model = BTreeMap::new();
        for (key, mut values) in by_key {
            if key.iter().any(Option::is_none) || values.len() > 1 {
                if let Some((known, _)) = self.oracle.snapshot.get(&key) {
                    model.insert(key, known.clone());
                }
            } else {
                model.insert(key, values.remove(0));
            }
        }
        model
    }

    async fn live(&mut self, random: &mut Rng) {
        const ALL: End = End { sends_removed: true, complete: true, resync: false };
        let a = self.state(&[], random);
        let b = self.state(&a, random);
        self.write(&a, random).await;
        self.run(&a, &[None], ALL, random).await;
        assert_eq!(self.held(), self.model(&a), "a first run gives the model");
        // The same values, said in other words.
        self.write(&a, random).await;
        assert_eq!(self.diff(&a, false, random).await.1, [], "nothing differs from itself");
        self.trial.take_lease().await;
        self.write(&b, random).await;
        self.run(&b, &[None], ALL, random).await;
        assert_eq!(self.held(), self.model(&b), "a diff, applied, gives the model");
        self.write(&a, random).await;
        self.run(&a, &[None], ALL, random).await;
        assert_eq!(self.held(), self.model(&a), "and back again");
        // With trouble on the way.
        for base in [&b, &a] {
            let now = self.state(base, random);
            let ends: Vec<Option<Exception>> = (0..7)
                .map(|_| {
                    let exceptions = [
                        Exception::Rejected,
                        Exception::RejectedInDoubt,
                        Exception::InDoubt,
                        Exception::NotSent,
                    ];
                    (random.u8(..7) < 3).then(|| exceptions[random.usize(..4)])
                })
                .collect();
            let end = End { sends_removed: random.bool(), complete: random.u8(..5) > 0, resync: false };
            self.write(&now, random).await;
            self.run(&now, &ends, end, random).await;
        }
        self.write(&b, random).await;
        self.run(&b, &[None], ALL, random).await;
        assert_eq!(self.held(), self.model(&b), "once all is accepted, it is the model");
        let left = self.diff(&b, false, random).await.1;
        assert_eq!(left, [], "and nothing is left");
    }
}

fn wanted(row: &DiffRow) -> Wanted {
    Wanted {
        operation: row.operation,
        values: row.values.clone(),
        changed: row.changed.clone(),
        version: row.version.clone(),
    }
}

async fn laws(bench: fn() -> Bench, first: u64) {
    let mut failed = Vec::new();
    let mut lived = 0;
    let mut shared = None;
    for seed in seeds::seeds(first, FEW, MANY) {
        if lived % TOGETHER == 0 || !failed.is_empty() {
            let fresh = bench();
            let setup = domain::setup(fresh.engine() == "postgres");
            fresh.setup(&setup.iter().map(String::as_str).collect::<Vec<_>>()).await;
            shared = Some(fresh);
        }
        lived += 1;
        let bench = shared.clone().expect("a bench");
        println!("{}: LEVIN_SEED={seed}", bench.engine());
        let mut random = Rng::with_seed(seed);
        let world = AssertUnwindSafe(World::new(bench, lived, &mut random)).catch_unwind().await;
        let Ok(mut world) = world else {
            failed.push(seed);
            continue;
        };
        if AssertUnwindSafe(world.live(&mut random)).catch_unwind().await.is_err() {
            println!("{:#?}", world.told);
            failed.push(seed);
        }
    }
    println!("{lived} shapes");
    assert!(failed.is_empty(), "these failed; LEVIN_SEED lives one again: {failed:?}");
}

#[tokio::test]
async fn a_diff_leads_from_any_state_to_any_other_in_duckdb() {
    laws(Bench::duckdb_in_memory, 0).await;
}

#[tokio::test]
async fn a_diff_leads_from_any_state_to_any_other_in_postgres() {
    laws(Bench::postgres, 1_000).await;
}

//! One sync on a live warehouse, driven statement by statement as a run drives it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::util::display::array_value_to_string;
use connectors::warehouse::{Effect, ErrorKind, Session, WarehouseError};
use futures::TryStreamExt;
use sql_templates::{
    Atomicity, Column, CommitFacts, DeliverFacts, Dialect, DiffFacts, DiffShape, EndedRange, ModelSql, Shape,
    Sql, Statement, SyncScope, SyncTables, TableRef, script,
};

use super::Bench;

/// A value in its text form; `None` for null.
pub type Text = Option<String>;

/// The project whose tables the trials make.
pub const PROJECT: &str = "6f0c2a9e-0000-4000-8000-000000000000";

/// A sync and what it knows of itself.
pub struct Trial {
    pub bench: Bench,
    pub session: Box<dyn Session>,
    pub dialect: Dialect,
    pub tables: SyncTables,
    pub model: ModelSql,
    pub keys: Vec<String>,
    pub shape: Shape,
    pub generation: i64,
    pub checkpoint: i64,
}

/// How a diff is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    pub first: bool,
    pub plain: bool,
    pub compared: bool,
    pub due_before: Option<i64>,
    pub resync: bool,
    /// Hashes of rows are not compared, whatever the dialect prefers.
    pub typed: bool,
    /// Keys are set aside at once, not only once the quick way found that some must be.
    pub careful: bool,
}

impl Default for Question {
    fn default() -> Self {
        Self {
            first: false,
            plain: false,
            compared: true,
            due_before: None,
            resync: false,
            typed: false,
            careful: false,
        }
    }
}

impl Question {
    pub const FIRST: Self = Self {
        first: true,
        plain: false,
        compared: true,
        due_before: None,
        resync: false,
        typed: false,
        careful: false,
    };
}

/// A diff that stands in its table.
#[derive(Debug, Clone)]
pub struct Found {
    pub table: TableRef,
    pub shape: DiffShape,
    pub set_aside: Option<TableRef>,
    pub generation: i64,
    pub counts: Counts,
    pub rows: Vec<DiffRow>,
}

/// What the step `count` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub queried: i64,
    pub null_keys: i64,
    pub duplicate_key_rows: i64,
    pub added: i64,
    pub changed: i64,
    pub removed: i64,
}

/// A row as it leaves for the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffRow {
    pub operation: &'static str,
    pub sequence: i64,
    pub key: Vec<Text>,
    /// Current values, for removals the last known ones.
    pub values: Vec<Text>,
    /// For changed rows the values before.
    pub previous: Vec<Text>,
    pub changed: Text,
    pub version: Text,
}

/// How the delivery of one row ended, when not with a yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    Rejected,
    RejectedInDoubt,
    InDoubt,
    NotSent,
}

/// How a run ends.
#[derive(Debug, Clone)]
pub struct Ending<'a> {
    pub sent: &'a [&'a str],
    /// `None`: every row of the operations that are sent.
    pub ranges: Option<Vec<EndedRange>>,
    pub exceptions: Vec<(i64, Exception)>,
    pub last: bool,
    pub complete: bool,
    pub keep_removals: bool,
    pub adopt: bool,
    pub keep_set_aside: bool,
    pub reset: bool,
    pub keeps_snapshot: bool,
    pub due_before: Option<i64>,
}

pub const EVERY: &[&str] = &["added", "changed", "removed"];
pub const UPSERTS: &[&str] = &["added", "changed"];

impl Default for Ending<'_> {
    fn default() -> Self {
        Self {
            sent: EVERY,
            ranges: None,
            exceptions: Vec::new(),
            last: true,
            complete: true,
            keep_removals: false,
            adopt: false,
            keep_set_aside: false,
            reset: false,
            keeps_snapshot: true,
            due_before: None,
        }
    }
}

/// The state's row.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub generation: i64,
    pub checkpoint: i64,
    pub due_before: i64,
    pub doubts: i64,
    pub rejections: i64,
    pub delivering: Option<i64>,
    pub texts: BTreeMap<String, Text>,
}

impl Trial {
    /// A sync of the model, with the lease of its first generation and empty tables.
    pub async fn begin(bench: Bench, sync_id: i64, model: &str, keys: &[&str]) -> Self {
        let session = bench.session().await;
        let dialect = bench.warehouse.dialect();
        let spelled = bench.spelled(model);
        let tables =
            SyncTables::new(&bench.planner_schema, &bench.audit_schema, PROJECT, sync_id).expect("names");
        let mut trial = Self {
            bench,
            session,
            dialect,
            tables,
            model: ModelSql::query(&spelled, dialect).expect("a model"),
            keys: keys.iter().map(|k| (*k).to_owned()).collect(),
            shape: Shape { keys: Vec::new(), columns: Vec::new(), matching: Vec::new() },
            generation: 0,
            checkpoint: 0,
        };
        trial.describe().await;
        let tables = trial.tables.clone();
        trial
            .run(&[
                Statement::CreateSchemas { tables: &tables },
                Statement::CreateState {
                    tables: &tables,
                    project: PROJECT,
                    sync_id,
                    slug: "it's-a-sync",
                    generation: 0,
                },
                Statement::CreateAudit { tables: &tables },
            ])
            .await
            .expect("the state");
        trial.take_lease().await;
        let (tables, shape, model) = (trial.tables.clone(), trial.shape.clone(), trial.model.clone());
        let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
        trial.run(&[Statement::CreateTables { scope }]).await.expect("the tables");
        trial
    }

    /// Asks the engine what the model returns.
    async fn describe(&mut self) {
        let select = Statement::Model { model: &self.model }.sql(self.dialect).expect("rendered");
        let columns = self.session.describe(&select).await.expect("described");
        let named = |name: &str| columns.iter().find(|c| c.name == name).cloned();
        let key = |name: &String| named(name).or_else(|| named(&self.bench.folded(name))).expect("the key");
        let keys: Vec<Column> = self.keys.iter().map(key).collect();
        self.shape = Shape {
            columns: columns.iter().filter(|c| !keys.iter().any(|k| k.name == c.name)).cloned().collect(),
            keys,
            matching: Vec::new(),
        };
    }

    /// The same sync with another model. Its tables stay as they are.
    pub async fn remodel(&mut self, model: &str) {
        self.model = ModelSql::query(&self.bench.spelled(model), self.dialect).expect("a model");
        self.describe().await;
    }

    /// Runs statements as one script.
    pub async fn run(&mut self, statements: &[Statement<'_>]) -> Result<Effect, WarehouseError> {
        self.run_as(Atomicity::Transaction, statements).await
    }

    pub async fn run_as(
        &mut self,
        atomicity: Atomicity,
        statements: &[Statement<'_>],
    ) -> Result<Effect, WarehouseError> {
        let script = script(self.dialect, atomicity, statements).expect("rendered");
        let effect = self.session.execute(&script).await.map_err(|mut e| {
            let step = script.steps.iter().find(|s| Some(&s.name) == e.step.as_ref());
            let text = step.map_or("", |s| s.sql.text());
            e.message = format!("{}\nin step {:?}:\n{text}", e.message, e.step);
            e
        })?;
        if script.steps.len() > 1 {
            self.bench.assert_survives_a_crash(self.session.as_mut()).await;
        }
        Ok(effect)
    }

    /// Takes the next generation, whoever held the one before.
    pub async fn take_lease(&mut self) {
        let tables = self.tables.clone();
        let generation = self.generation + 1;
        self.run(&[Statement::TakeLease {
            tables: &tables,
            slug: "it's-a-sync",
            generation,
            holder: "{\"pid\":1}",
            lease_seconds: 60,
            replace_holder: true,
        }])
        .await
        .expect("the lease");
        self.generation = generation;
        self.checkpoint = 0;
    }

    pub async fn state(&mut self) -> State {
        let tables = self.tables.clone();
        let effect = self.run(&[Statement::ReadState { tables: &tables }]).await.expect("the state");
        let [batch] = effect.result("read the state") else { panic!("one state") };
        assert_eq!(batch.num_rows(), 1);
        let number = |name: &str| {
            let column = batch.column_by_name(name).expect("the column");
            column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0))
        };
        let names = batch.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
        State {
            generation: number("generation").expect("a generation"),
            checkpoint: number("checkpoint").expect("a checkpoint"),
            due_before: number("due_before").expect("a number"),
            doubts: number("doubts").expect("a number"),
            rejections: number("rejections").expect("a number"),
            delivering: number("delivering"),
            texts: names
                .iter()
                .enumerate()
                .map(|(i, name)| (name.clone(), texts(std::slice::from_ref(batch), i).remove(0)))
                .collect(),
        }
    }

    /// Whether model and snapshot have the same types, where that matters.
    async fn is_alike(&mut self) -> bool {
        let snapshot = Statement::Snapshot { tables: &self.tables }.sql(self.dialect).expect("rendered");
        let stored = self.session.describe(&snapshot).await.expect("the snapshot");
        let columns = self.shape.keys.iter().chain(&self.shape.columns);
        self.dialect.facts().hashes_first
            && columns
                .into_iter()
                .all(|c| stored.iter().any(|s| s.name == c.name && s.engine_type == c.engine_type))
    }

    /// Computes the diff as a run does: quickly, and carefully when some key is null or comes twice.
    pub async fn diff(&mut self, question: Question) -> Found {
        self.try_diff(question).await.unwrap_or_else(|e| panic!("the diff: {e}"))
    }

    pub async fn try_diff(&mut self, question: Question) -> Result<Found, WarehouseError> {
        let of = self.generation.to_string();
        let in_doubt = self.state().await.doubts > 0;
        let quick = DiffFacts {
            of: &of,
            generation: self.generation,
            stage: !question.plain,
            set_aside: false,
            compared: question.compared,
            in_doubt,
            due_before: question.due_before,
            resync: question.resync,
            sorted: question.plain,
            // A warehouse that can do that does it in every second diff.
            halves: question.plain && self.generation % 2 == 0,
            by_hash: !question.first
                && !question.typed
                && !in_doubt
                && question.due_before.is_none()
                && self.is_alike().await,
            counted: None,
            taken: &[],
            parked: None,
        };
        let careful = DiffFacts {
            stage: true,
            set_aside: true,
            sorted: false,
            halves: false,
            by_hash: false,
            ..quick.clone()
        };
        let table = self.tables.diff(&of);
        let mut set_aside = None;
        let effect = match self.run_diff(question, &quick).await {
            Ok(effect) if !question.careful && is_unique(&effect) => effect,
            Ok(_) => {
                self.run(&[Statement::Prune { drop: std::slice::from_ref(&table) }]).await?;
                set_aside = Some(self.tables.set_aside(&of));
                self.run_diff(question, &careful).await?
            }
            Err(e) if e.kind == ErrorKind::UniqueViolation => {
                set_aside = Some(self.tables.set_aside(&of));
                self.run_diff(question, &careful).await?
            }
            Err(e) => return Err(e),
        };
        let count = |name: &str| number(&effect, "count", name);
        let counts = Counts {
            queried: count("queried"),
            null_keys: count("null_keys"),
            duplicate_key_rows: count("duplicate_key_rows"),
            added: count("added"),
            changed: count("changed"),
            removed: count("removed"),
        };
        assert_eq!(count("own_duplicates"), 0, "no key comes twice in a diff");
        let shape = if question.first { DiffShape::First } else { DiffShape::Full };
        let mut rows = Vec::new();
        for operation in EVERY {
            if shape == DiffShape::Full || *operation == "added" {
                rows.extend(self.delivered(&table, shape, operation, None, None).await);
            }
        }
        Ok(Found { table, shape, set_aside, generation: self.generation, counts, rows })
    }

    async fn run_diff(
        &mut self,
        question: Question,
        facts: &DiffFacts<'_>,
    ) -> Result<Effect, WarehouseError> {
        let (tables, shape, model) = (self.tables.clone(), self.shape.clone(), self.model.clone());
        let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
        let diff = if question.first {
            Statement::DiffFirst { scope, facts }
        } else {
            Statement::Diff { scope, facts }
        };
        self.run_as(Atomicity::Snapshot, &[diff]).await
    }

    /// The rows of one operation, as they leave.
    pub async fn delivered(
        &mut self,
        table: &TableRef,
        shape: DiffShape,
        operation: &'static str,
        after: Option<i64>,
        through: Option<i64>,
    ) -> Vec<DiffRow> {
        let previous = if shape == DiffShape::Full { self.shape.columns.clone() } else { Vec::new() };
        let facts = DeliverFacts {
            diff: table.clone(),
            diff_shape: shape,
            operation,
            previous: &previous,
            after,
            through,
            limit: None,
            waits: None,
        };
        let select =
            Statement::Deliver { shape: &self.shape, facts: &facts }.sql(self.dialect).expect("rendered");
        let batches = self.rows(&select).await;
        let Some(first) = batches.first() else { return Vec::new() };
        let schema = first.schema();
        let column = |name: &str| schema.index_of(name).ok().map(|i| texts(&batches, i));
        let many = |prefix: &str| -> Vec<Vec<Text>> {
            (0..).map_while(|i| column(&format!("{prefix}{i}"))).collect()
        };
        let sequences = column("_levin_sequence").expect("sequences");
        let (changed, version) = (column("_levin_changed"), column("_levin_version"));
        let (keys, values, previous) = (many("k"), many("c"), many("p"));
        let of = |columns: &[Vec<Text>], row: usize| columns.iter().map(|c| c[row].clone()).collect();
        (0..sequences.len())
            .map(|row| DiffRow {
                operation,
                sequence: sequences[row].as_deref().expect("a sequence").parse().expect("a number"),
                key: of(&keys, row),
                values: of(&values, row),
                previous: of(&previous, row),
                changed: changed.as_ref().and_then(|c| c[row].clone()),
                version: version.as_ref().and_then(|v| v[row].clone()),
            })
            .collect()
    }

    pub async fn rows(&mut self, select: &Sql) -> Vec<RecordBatch> {
        let stream = self.session.query(select).await.unwrap_or_else(|e| panic!("{e}\n{select}"));
        stream.try_collect().await.unwrap_or_else(|e| panic!("{e}\n{select}"))
    }

    /// Columns of a managed table in their text form, sorted.
    pub async fn table(&mut self, table: &TableRef, columns: &[&str]) -> Vec<Vec<Text>> {
        // Redshift makes no text of a boolean; its driver makes texts of all others.
        let casts = self.bench.engine() != "redshift";
        let text = |(i, name): (usize, &&str)| {
            let name = format!("\"{}\"", name.replace('"', "\"\""));
            if casts { format!("cast({name} as text) as c{i}") } else { format!("{name} as c{i}") }
        };
        let list: Vec<String> = columns.iter().enumerate().map(text).collect();
        let select = self.bench.spelled(&format!("select {} from {table}", list.join(", ")));
        let batches = self.rows(&Sql::for_tests(&select)).await;
        let by_column: Vec<Vec<Text>> = (0..columns.len()).map(|i| texts(&batches, i)).collect();
        let mut rows: Vec<Vec<Text>> = (0..by_column.first().map_or(0, Vec::len))
            .map(|r| by_column.iter().map(|c| c[r].clone()).collect())
            .collect();
        rows.sort();
        rows
    }

    /// The snapshot: key and values of every row.
    pub async fn snapshot(&mut self) -> BTreeMap<Vec<Text>, Vec<Text>> {
        let names: Vec<String> =
            self.shape.keys.iter().chain(&self.shape.columns).map(|c| c.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let rows = self.table(&self.tables.snapshot(), &names).await;
        let count = rows.len();
        let by_key: BTreeMap<_, _> = rows
            .into_iter()
            .map(|mut row| {
                let values = row.split_off(self.shape.keys.len());
                (row, values)
            })
            .collect();
        assert_eq!(by_key.len(), count, "a key stands in the snapshot once");
        by_key
    }

    /// The facts of a commit, and its outcomes written.
    pub async fn commit(&mut self, found: &Found, ending: Ending<'_>) -> Result<Effect, WarehouseError> {
        let outcomes = self.tables.outcomes(&format!("{}_{}", self.generation, self.checkpoint));
        if !ending.exceptions.is_empty() {
            self.run(&[
                Statement::Prune { drop: std::slice::from_ref(&outcomes) },
                Statement::CreateOutcomes { outcomes: outcomes.clone() },
            ])
            .await?;
            self.session.load(&outcomes, vec![outcomes_batch(&ending.exceptions)]).await?;
        }
        let outcomes = (!ending.exceptions.is_empty()).then_some(outcomes);
        let state = self.state().await;
        let ranges = ending.ranges.clone().unwrap_or_else(|| all_of(found, ending.sent));
        let facts = facts(self, found, &ending, &ranges, outcomes, &state);
        let (tables, shape, model) = (self.tables.clone(), self.shape.clone(), self.model.clone());
        let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
        let effect = self.run(&[Statement::Commit { scope, facts: &facts }]).await?;
        self.checkpoint += 1;
        Ok(effect)
    }

    /// A whole run in which every row that is sent is accepted.
    pub async fn accept_all(&mut self, question: Question) -> Found {
        let found = self.diff(question).await;
        self.accept_all_of(found).await
    }

    /// Commits a diff of which every row was accepted, and takes the next lease.
    pub async fn accept_all_of(&mut self, found: Found) -> Found {
        let adopt = found.shape == DiffShape::First;
        self.commit(&found, Ending { adopt, ..Ending::default() }).await.expect("committed");
        self.take_lease().await;
        found
    }
}

/// The commit facts of an ending.
pub fn facts<'a>(
    trial: &Trial,
    found: &Found,
    ending: &Ending<'a>,
    ranges: &'a [EndedRange],
    outcomes: Option<TableRef>,
    state: &State,
) -> CommitFacts<'a> {
    CommitFacts {
        generation: trial.generation,
        checkpoint: trial.checkpoint,
        last: ending.last,
        complete: ending.complete,
        ranges,
        outcomes,
        set_aside: found.set_aside.clone(),
        sent: ending.sent,
        keep_removals: ending.keep_removals,
        had_rejections: state.rejections > 0,
        had_doubts: state.doubts > 0,
        keeps_snapshot: ending.keeps_snapshot,
        adopt: ending.adopt,
        keep_set_aside: ending.keep_set_aside,
        reset: ending.reset,
        due_before: ending.due_before,
        ..CommitFacts::new(found.table.clone(), found.shape, found.generation, trial.generation * 10)
    }
}

/// Every row of the named operations has ended.
pub fn all_of(found: &Found, operations: &[&str]) -> Vec<EndedRange> {
    EVERY
        .iter()
        .filter(|o| operations.contains(o))
        .filter_map(|operation| {
            let of = || found.rows.iter().filter(|r| r.operation == *operation).map(|r| r.sequence);
            Some(EndedRange { operation, first: of().min()?, last: of().max()? })
        })
        .collect()
}

fn outcomes_batch(exceptions: &[(i64, Exception)]) -> RecordBatch {
    let word = |e: &Exception| match e {
        Exception::Rejected | Exception::RejectedInDoubt => "rejected",
        Exception::InDoubt => "in_doubt",
        Exception::NotSent => "not_sent",
    };
    let schema = Schema::new(vec![
        Field::new("sequence", DataType::Int64, false),
        Field::new("outcome", DataType::Utf8, false),
        Field::new("in_doubt", DataType::Boolean, false),
        Field::new("code", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
    ]);
    let all = exceptions.iter();
    let doubtful = |e: &Exception| matches!(e, Exception::InDoubt | Exception::RejectedInDoubt);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(all.clone().map(|e| e.0).collect::<Int64Array>()),
        Arc::new(all.clone().map(|e| Some(word(&e.1))).collect::<StringArray>()),
        Arc::new(all.clone().map(|e| Some(doubtful(&e.1))).collect::<BooleanArray>()),
        Arc::new(all.clone().map(|_| Some("REFUSED")).collect::<StringArray>()),
        Arc::new(all.map(|_| Some("it's; not --fine")).collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length")
}

/// A column of a result in its text form.
pub fn texts(batches: &[RecordBatch], column: usize) -> Vec<Text> {
    let text = |array: &ArrayRef, row| {
        array.is_valid(row).then(|| array_value_to_string(array, row).expect("a text form"))
    };
    let mut all = Vec::new();
    for batch in batches {
        let array = match batch.column(column) {
            // Arrow prints zones by name only with a table of all zones.
            instants if let DataType::Timestamp(unit, Some(zone)) = instants.data_type() => {
                assert_eq!(&**zone, "UTC");
                cast(instants, &DataType::Timestamp(*unit, Some("+00:00".into()))).expect("the same instants")
            }
            other => other.clone(),
        };
        all.extend((0..batch.num_rows()).map(|row| text(&array, row)));
    }
    all
}

/// An integer of the only row that a step returned.
pub fn number(effect: &Effect, step: &str, column: &str) -> i64 {
    let [batch] = effect.result(step) else { panic!("{step} returns one batch") };
    assert_eq!(batch.num_rows(), 1, "{step} returns one row");
    let column = batch.schema().index_of(column).expect("the column");
    texts(std::slice::from_ref(batch), column)[0].as_deref().expect("a value").parse().expect("a number")
}

/// What a run concludes from the counts of a quick diff.
fn is_unique(effect: &Effect) -> bool {
    let count = |name| number(effect, "count", name);
    count("null_keys") == 0 && count("own_duplicates") == 0 && count("expected") == count("queried")
}

/// A row of texts; `"∅"` stands for null.
pub fn row(values: &[&str]) -> Vec<Text> {
    values.iter().map(|v| (*v != "∅").then(|| (*v).to_owned())).collect()
}

//! Columns that come, go and change their type, with a snapshot that stays.

use connectors::warehouse::{Effect, ErrorKind, WarehouseError};
use sql_templates::{
    Atomicity, Column, EngineType, ReshapedColumn, Shape, SnapshotPart, Statement, SyncScope,
};

use super::trial::{Ending, Exception, Found, Question, Trial, number, row};
use super::{Bench, on_every_warehouse};

on_every_warehouse!(
    columns_come_and_go,
    a_wider_type_resends_nothing,
    another_form_on_the_wire_falls_due,
    keys_become_text,
    keys_that_are_not_one_to_one_are_refused,
    composite_keys_change_their_type,
);

/// Brings the trial's tables from the shape they have into the shape of another model, as a run does.
async fn reshape(trial: &mut Trial, model: &str) -> Result<Effect, WarehouseError> {
    let was = trial.shape.clone();
    trial.remodel(model).await;
    let (tables, shape, model) = (trial.tables.clone(), trial.shape.clone(), trial.model.clone());
    let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
    let (columns, due) = change(&was, &shape);
    let keys = &columns[..shape.keys.len()];
    let of = "1";
    trial
        .run(&[
            Statement::Reshape { scope, of, part: SnapshotPart::Snapshot, columns: &columns, due: &due },
            Statement::Reshape { scope, of, part: SnapshotPart::Doubts, columns: &columns, due: &[] },
            Statement::Reshape { scope, of, part: SnapshotPart::Rejections, columns: keys, due: &[] },
            Statement::PutInPlace { tables: &tables, of, part: SnapshotPart::Snapshot },
            Statement::PutInPlace { tables: &tables, of, part: SnapshotPart::Doubts },
            Statement::PutInPlace { tables: &tables, of, part: SnapshotPart::Rejections },
        ])
        .await
}

fn change(was: &Shape, is: &Shape) -> (Vec<ReshapedColumn>, Vec<Column>) {
    let before = |list: &[Column], c: &Column| list.iter().find(|b| b.name == c.name).cloned();
    let mut columns = Vec::new();
    let mut due = Vec::new();
    for key in &is.keys {
        let recast = before(&was.keys, key).unwrap().logical != key.logical;
        let cast = recast.then(|| EngineType::from_engine(&key.engine_type).unwrap());
        columns.push(ReshapedColumn { column: key.clone(), kept: true, cast });
    }
    for column in &is.columns {
        let old = before(&was.columns, column);
        let kept = old.as_ref().is_some_and(|o| o.logical == column.logical);
        due.extend(old.filter(|_| !kept));
        columns.push(ReshapedColumn { column: column.clone(), kept, cast: None });
    }
    (columns, due)
}

fn changes(found: &Found) -> Vec<(String, &'static str, Option<String>)> {
    let mut all: Vec<_> =
        found.rows.iter().map(|r| (r.key[0].clone().unwrap(), r.operation, r.changed.clone())).collect();
    all.sort();
    all
}

fn change_of(key: &str, changed: &str) -> (String, &'static str, Option<String>) {
    (key.to_owned(), "changed", Some(changed.to_owned()))
}

async fn started(bench: Bench, keys: &str) -> Trial {
    bench
        .setup(&[
            &format!("create table people (id {keys}, email text, n int, city text)"),
            "insert into people values ('1', 'a', 1, 'x'), ('2', 'b', null, null), ('3', null, 3, '')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select id, email, n from people", &["id"]).await;
    trial.accept_all(Question::FIRST).await;
    trial
}

/// Puts row 1 in doubt and has row 2 refused.
async fn with_exceptions(trial: &mut Trial) {
    trial.bench.setup(&["update people set email = 'z' where id = '1' or id = '2'"]).await;
    let found = trial.diff(Question::default()).await;
    let end = |key: &str| if key == "1" { Exception::InDoubt } else { Exception::Rejected };
    let exceptions = found.rows.iter().map(|r| (r.sequence, end(r.key[0].as_deref().unwrap()))).collect();
    trial.commit(&found, Ending { exceptions, ..Ending::default() }).await.unwrap();
    trial.take_lease().await;
}

async fn columns_come_and_go(bench: Bench) {
    let mut trial = started(bench, "int").await;
    with_exceptions(&mut trial).await;
    // `n` goes, `city` comes, the order is another.
    reshape(&mut trial, "select city, email, id from people").await.unwrap();
    let found = trial.diff(Question::default()).await;
    assert_eq!(
        changes(&found),
        [change_of("1", "11"), change_of("2", "01"), change_of("3", "10")],
        "a new column is sent where it is not null"
    );
    assert_eq!(found.rows.iter().find(|r| r.key == row(&["3"])).unwrap().previous, row(&["∅", "∅"]));
    // The delivery in doubt had no `city`: sending it is another delivery.
    assert!(found.rows.iter().all(|r| r.version.is_none()));
    trial.accept_all_of(found).await;
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (0, 0));
    assert!(trial.diff(Question { plain: true, ..Question::default() }).await.rows.is_empty());
    trial.take_lease().await;

    // A column that goes alone sends nothing.
    reshape(&mut trial, "select id, email from people").await.unwrap();
    assert!(trial.diff(Question::default()).await.rows.is_empty());
    assert_eq!(trial.snapshot().await[&row(&["3"])], row(&["∅"]));
}

async fn a_wider_type_resends_nothing(bench: Bench) {
    let mut trial = started(bench, "int").await;
    let model = "select cast(id as bigint) as id, cast(email as varchar(20)) as email, cast(n as bigint) as n from people";
    reshape(&mut trial, model).await.unwrap();
    assert!(trial.diff(Question { plain: true, ..Question::default() }).await.rows.is_empty());
    trial.take_lease().await;
    // Values beyond the old type fit.
    let model = "select cast(id as bigint) as id, email, n + 5000000000 as n from people";
    reshape(&mut trial, model).await.unwrap();
    let found = trial.accept_all(Question::default()).await;
    assert_eq!(changes(&found), [change_of("1", "01"), change_of("3", "01")]);
    assert_eq!(trial.snapshot().await[&row(&["3"])], row(&["∅", "5000000003"]));
    // And back again.
    reshape(&mut trial, "select id, email, n from people").await.unwrap();
    assert_eq!(trial.accept_all(Question::default()).await.counts.changed, 2);
    assert!(trial.diff(Question::default()).await.rows.is_empty());
}

async fn another_form_on_the_wire_falls_due(bench: Bench) {
    let mut trial = started(bench, "int").await;
    // The number 1 becomes the text 1, and what was 3 becomes null.
    let model = "select id, email, case when n < 3 then cast(n as text) end as n from people";
    reshape(&mut trial, model).await.unwrap();
    let due = Question { due_before: Some(1), ..Question::default() };
    let found = trial.diff(due).await;
    assert_eq!(changes(&found), [change_of("1", "11"), change_of("3", "11")], "row 2 was null and is null");
    trial.accept_all_of(found).await;
    assert!(trial.diff(due).await.rows.is_empty(), "due once");
    assert_eq!(trial.snapshot().await[&row(&["3"])], row(&["∅", "∅"]));
}

async fn keys_become_text(bench: Bench) {
    let mut trial = started(bench, "int").await;
    with_exceptions(&mut trial).await;
    let effect = reshape(&mut trial, "select cast(id as text) as id, email, n from people").await.unwrap();
    assert_eq!(number(&effect, "keys stay one to one", "found"), 3);
    assert_eq!(number(&effect, "keys stay one to one", "kept"), 3);
    let found = trial.diff(Question::default()).await;
    assert_eq!(
        changes(&found),
        [change_of("1", "11"), change_of("2", "10")],
        "the key's type alone resends nothing"
    );
    assert!(found.rows.iter().any(|r| r.version.is_some()), "the delivery in doubt is known by its new key");
    trial.accept_all_of(found).await;
    let state = trial.state().await;
    assert_eq!((state.doubts, state.rejections), (0, 0));
}

async fn keys_that_are_not_one_to_one_are_refused(bench: Bench) {
    let mut trial = started(bench, "text").await;
    trial.bench.setup(&["insert into people values ('01', 'one', 1, 'x')"]).await;
    trial.accept_all(Question::default()).await;
    let snapshot = trial.snapshot().await;
    assert_eq!(snapshot.len(), 4);
    let was = trial.shape.clone();
    let sql = "select distinct cast(id as int) as id, email, n from people where id <> '01'";
    trial.remodel(sql).await;
    let (tables, shape, model) = (trial.tables.clone(), trial.shape.clone(), trial.model.clone());
    let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
    let (columns, due) = change(&was, &shape);
    let part = SnapshotPart::Snapshot;
    let reshape = Statement::Reshape { scope, of: "1", part, columns: &columns, due: &due };
    match trial.run_as(Atomicity::Rehearsal, &[reshape]).await {
        Ok(effect) => {
            assert_eq!(number(&effect, "keys stay one to one", "found"), 4);
            assert_eq!(number(&effect, "keys stay one to one", "kept"), 3);
        }
        // The index says it too.
        Err(e) => assert_eq!(e.kind, ErrorKind::UniqueViolation, "{e}"),
    }
    let aside = [tables.aside("1").snapshot()];
    if !trial.dialect.facts().undoes_ddl {
        trial.run(&[Statement::Prune { drop: &aside }]).await.unwrap();
    }
    trial.remodel("select id, email, n from people").await;
    assert_eq!(trial.snapshot().await, snapshot, "a refusal leaves all as it was");
    if !trial.dialect.facts().undoes_ddl {
        let aside = [tables.aside("1").snapshot()];
        trial.run(&[Statement::Prune { drop: &aside }]).await.unwrap();
    }

    // A text that is no number is refused by the cast.
    trial
        .bench
        .setup(&[
            "delete from people where id = '01'",
            "insert into people values ('x', 'no number', 1, 'x')",
        ])
        .await;
    trial.accept_all(Question::default()).await;
    trial.remodel("select cast(id as int) as id, email, n from people where id <> 'x'").await;
    let (shape, model) = (trial.shape.clone(), trial.model.clone());
    let scope = SyncScope { tables: &tables, shape: &shape, model: &model };
    let part = SnapshotPart::Snapshot;
    let reshape = Statement::Reshape { scope, of: "2", part, columns: &columns, due: &due };
    assert_eq!(trial.run(&[reshape]).await.unwrap_err().kind, ErrorKind::Data);
}

async fn composite_keys_change_their_type(bench: Bench) {
    bench
        .setup(&[
            "create table orders (tenant text, no int, v text)",
            "insert into orders values ('1', 1, 'x'), ('1', 2, 'x'), ('2', 1, 'x')",
        ])
        .await;
    let mut trial = Trial::begin(bench, 1, "select * from orders", &["tenant", "no"]).await;
    trial.accept_all(Question::FIRST).await;
    let effect =
        reshape(&mut trial, "select cast(tenant as int) as tenant, cast(no as bigint) as no, v from orders")
            .await
            .unwrap();
    assert_eq!(number(&effect, "keys stay one to one", "kept"), 3);
    assert!(trial.diff(Question::default()).await.rows.is_empty());
    assert_eq!(trial.snapshot().await.len(), 3);
}

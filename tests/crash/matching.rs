//! Killed while rows are under way to a destination that knows its records by another field than the key.

use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project, Running, levin_with_failpoints};

/// A project whose people go to a table that knows them by their address.
struct Contacts {
    project: Project,
    database: String,
}

impl Contacts {
    fn new(engine: Engine) -> Self {
        let database = PostgresServer::start().fresh_database();
        postgres::run(&database, "create table contacts (email text primary key, name text)");
        let project = Project::new(engine).with_variable("CONTACTS_URL", &database);
        project.sql("create table people (id integer, name text, email text)");
        project.write("destinations/crm.yml", "type: postgres\nurl: ${CONTACTS_URL}\n");
        project.write(
            "models/people.yml",
            "source: wh\nprimary_key: id\nsql: select id, name, email from people\n",
        );
        project.write(
            "syncs/people.yml",
            "model: people\ndestination: crm\nmode: mirror\nobject: contacts\nmatch: {from: email, to: email}\n\
         guards: {max_removed: {rows: 1000}, max_set_aside: {percent: 100}}\n\
         mappings: [{from: email, to: email}, {from: name, to: name}]\n",
        );
        Self { project, database }
    }

    fn records(&self) -> Vec<String> {
        let select = "select email || ' ' || name from contacts order by 1";
        postgres::texts(&self.database, select).into_iter().flatten().collect()
    }

    /// A run that is killed while its first batch is under way.
    fn killed(&self, arguments: &[&str]) {
        let words = [&["run", "people", "--json"], arguments].concat();
        let mut command = self.project.command_of(levin_with_failpoints(), &[], &words);
        command.env("LEVIN_KILL_AT", "deliver.after_start_note:1");
        let killed = Running::start(command).ended();
        assert_eq!(killed.code, -9, "{killed:?}");
    }

    fn assert_quiet(&self) {
        let run = self.project.run("people");
        assert_eq!((run.code, run.planned()), (0, [0, 0, 0]), "{run:#?}");
    }
}

/// A batch holds rows too that never leave: somebody has their address. A doubt about such a row would be ended by
/// a removal, of a record that is another row's.
fn a_row_that_never_left_takes_nobodys_record(engine: Engine) {
    let contacts = Contacts::new(engine);
    let project = &contacts.project;
    project.sql("insert into people values (1, 'ann', 'a'), (4, 'dan', 'd')");
    assert_eq!(project.run("people").code, 0);

    // One claims an address that is held; the other is simply new, and both are of one batch.
    project.sql("insert into people values (2, 'bob', 'a'), (3, 'cid', 'c')");
    contacts.killed(&[]);

    project.sql("update people set email = 'b' where id = 2");
    let run = project.run("people");
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(contacts.records(), ["a ann", "b bob", "c cid", "d dan"]);
    contacts.assert_quiet();
}

/// A full resync leaves removals to the next run, and a row that needs one waits. It was in a batch and never left.
fn a_row_that_waited_in_a_resync_takes_nobodys_record(engine: Engine) {
    let contacts = Contacts::new(engine);
    let project = &contacts.project;
    project.sql("insert into people values (1, 'ann', 'a'), (4, 'dan', 'd')");
    assert_eq!(project.run("people").code, 0);
    postgres::run(&contacts.database, "insert into contacts values ('b', 'somebody else')");

    // Ann's old record has to go before she is added under her new address; the other row leaves.
    project.sql("update people set email = 'b' where id = 1");
    contacts.killed(&["--full-resync"]);

    // She has her old address after all, and nothing of hers was ever sent to the new one.
    project.sql("update people set email = 'a' where id = 1");
    let run = project.run("people");
    assert_eq!((run.code, run.planned()[2]), (0, 0), "{run:#?}");
    assert_eq!(contacts.records(), ["a ann", "b somebody else", "d dan"]);
    contacts.assert_quiet();
}

#[test]
fn a_row_that_never_left_takes_nobodys_record_from_duckdb() {
    a_row_that_never_left_takes_nobodys_record(Engine::DuckDb);
}

#[test]
fn a_row_that_never_left_takes_nobodys_record_from_postgres() {
    a_row_that_never_left_takes_nobodys_record(Engine::Postgres);
}

#[test]
fn a_row_that_waited_in_a_resync_takes_nobodys_record_from_duckdb() {
    a_row_that_waited_in_a_resync_takes_nobodys_record(Engine::DuckDb);
}

#[test]
fn a_row_that_waited_in_a_resync_takes_nobodys_record_from_postgres() {
    a_row_that_waited_in_a_resync_takes_nobodys_record(Engine::Postgres);
}

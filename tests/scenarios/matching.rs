//! A destination that knows records by an e-mail address while the model's key is a number. The
//! table at the destination has one row per address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tests::postgres::{self, PostgresServer};
use tests::project::{Engine, Project, Run};
use tests::receiver::Reply;

use super::{Crm, on_both_warehouses};

on_both_warehouses!(
    two_rows_with_one_address_overwrite_each_other,
    a_row_without_an_address_is_written,
    a_removal_deletes_a_record_that_somebody_else_holds,
    a_changed_address_leaves_the_old_record,
    the_second_half_of_a_changed_address_is_lost,
    two_rows_that_swap_their_addresses_lose_them,
    an_address_that_is_handed_on_and_refused_is_forgotten,
    a_refused_removal_is_overtaken,
    a_full_resync_forgets_the_old_record,
    an_address_that_a_resync_hands_on_has_two_holders,
    an_address_that_a_resync_could_not_hand_on_is_forgotten,
    an_address_that_may_have_been_overwritten_is_taken_for_unchanged,
    an_address_that_may_have_been_handed_on_is_taken_away,
    addresses_that_wander_end_where_the_model_has_them,
);
tests::on_mariadb_too!(
    two_rows_that_swap_their_addresses_lose_them,
    an_address_that_is_handed_on_and_refused_is_forgotten,
    addresses_that_wander_end_where_the_model_has_them,
);

const SYNC: &str = "people";

/// People in a warehouse, and a table of contacts that knows them by address.
struct Contacts {
    project: Project,
    database: String,
}

impl Contacts {
    fn new(engine: Engine) -> Self {
        let database = PostgresServer::start().fresh_database();
        postgres::run(
            &database,
            "create table contacts (email text primary key, name text, check (name <> 'refused'))",
        );
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
             guards: {allow_empty: true, max_removed: {rows: 1000}, max_set_aside: {percent: 100}}\n\
             mappings: [{from: email, to: email}, {from: name, to: name}]\n",
        );
        Self { project, database }
    }

    fn sql(&self, statements: &str) {
        self.project.sql(statements);
    }

    /// A run that succeeds, or succeeds but for refused rows; per operation what was sent and accepted.
    fn run(&self) -> Run {
        let run = self.project.run(SYNC);
        assert!(matches!(run.code, 0 | 1), "{run:#?}");
        run
    }

    fn sends(&self, counts: [u64; 3]) -> Run {
        let run = self.run();
        assert_eq!((run.code, run.successful()), (0, counts), "{run:#?}");
        run
    }

    fn codes(&self) -> Vec<(String, String)> {
        let mut codes: Vec<(String, String)> = self
            .project
            .rejected(SYNC)
            .iter()
            .map(|r| {
                let text = |name: &str| r[name].as_str().unwrap_or_default().to_owned();
                (text("key"), text("code"))
            })
            .collect();
        codes.sort();
        codes
    }

    fn is_quiet(&self) {
        let run = self.run();
        assert_eq!((run.code, run.planned()), (0, [0, 0, 0]), "{run:#?}");
    }

    /// The records, `address name`.
    fn records(&self) -> Vec<String> {
        let records = postgres::texts(
            &self.database,
            "select email || ' ' || coalesce(name, '-') from contacts order by 1",
        );
        records.into_iter().flatten().collect()
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, code)| ((*key).to_owned(), (*code).to_owned())).collect()
}

fn two_rows_with_one_address_overwrite_each_other(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a'), (2, 'bob', 'b'), (3, 'bea', 'b')");
    let run = contacts.run();
    assert_eq!(
        (run.code, run.status(), run.successful(), run.failed()),
        (1, "warning", [1, 0, 0], [2, 0, 0])
    );
    assert_eq!(contacts.codes(), owned(&[("2", "DUPLICATE_MATCH_VALUE"), ("3", "DUPLICATE_MATCH_VALUE")]));
    assert_eq!(contacts.records(), ["a ann"]);
    // One of the two gives up; then somebody claims what another has.
    contacts.sql("delete from people where id = 3; insert into people values (4, 'alf', 'a')");
    let run = contacts.run();
    assert_eq!((run.successful(), run.failed()), ([1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(contacts.codes(), owned(&[("4", "DUPLICATE_MATCH_VALUE")]));
    assert_eq!(contacts.records(), ["a ann", "b bob"]);
    // The holder changes and stays the holder; the newcomer waits until it leaves.
    contacts.sql("update people set name = 'anna' where id = 1");
    let run = contacts.run();
    assert_eq!((run.successful(), run.failed()), ([0, 1, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(contacts.records(), ["a anna", "b bob"]);
    contacts.sql("delete from people where id = 1");
    let run = contacts.run();
    assert_eq!((run.code, run.successful(), run.number("supersededCount")), (0, [1, 0, 0], 1), "{run:#?}");
    assert_eq!(contacts.records(), ["a alf", "b bob"]);
    contacts.is_quiet();
}

fn a_row_without_an_address_is_written(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a'), (2, 'bob', null)");
    let run = contacts.run();
    assert_eq!((run.code, run.successful(), run.failed()), (1, [1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(contacts.codes(), owned(&[("2", "NULL_MATCH_VALUE")]));
    // A known row loses its address: its record goes.
    contacts.sql("update people set email = null where id = 1; update people set email = 'b' where id = 2");
    let run = contacts.run();
    assert_eq!((run.successful(), run.failed()), ([1, 0, 1], [1, 0, 0]), "{run:#?}");
    assert_eq!(contacts.codes(), owned(&[("1", "NULL_MATCH_VALUE")]));
    assert_eq!(contacts.records(), ["b bob"]);
    contacts.sql("update people set email = 'a' where id = 1");
    contacts.sends([1, 0, 0]);
    assert_eq!(contacts.records(), ["a ann", "b bob"]);
    contacts.is_quiet();
}

fn a_removal_deletes_a_record_that_somebody_else_holds(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a')");
    contacts.sends([1, 0, 0]);
    // One leaves, another arrives with the same address, in one run.
    contacts.sql("delete from people; insert into people values (2, 'amy', 'a')");
    let run = contacts.sends([1, 0, 0]);
    assert_eq!((run.planned(), run.number("supersededCount")), ([1, 0, 1], 1), "{run:#?}");
    assert_eq!(contacts.records(), ["a amy"]);
    contacts.is_quiet();
    contacts.sql("delete from people");
    contacts.sends([0, 0, 1]);
    assert!(contacts.records().is_empty());
    contacts.is_quiet();
}

fn a_changed_address_leaves_the_old_record(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a'), (2, 'bob', 'b')");
    contacts.sends([2, 0, 0]);
    contacts.sql("update people set email = 'c' where id = 1; update people set name = 'bo' where id = 2");
    let run = contacts.sends([1, 1, 1]);
    assert_eq!(run.number("unchangedCount"), 0, "{run:#?}");
    assert_eq!(contacts.records(), ["b bo", "c ann"]);
    contacts.is_quiet();
}

fn the_second_half_of_a_changed_address_is_lost(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a')");
    contacts.sends([1, 0, 0]);
    contacts.sql("update people set email = 'z', name = 'refused'");
    let run = contacts.run();
    assert_eq!((run.successful(), run.failed()), ([0, 0, 1], [1, 0, 0]), "{run:#?}");
    assert!(contacts.records().is_empty(), "the removal was accepted on its own");
    // From then on the key is new.
    contacts.sql("update people set name = 'ann'");
    contacts.sends([1, 0, 0]);
    assert_eq!(contacts.records(), ["z ann"]);
    contacts.is_quiet();
}

fn two_rows_that_swap_their_addresses_lose_them(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a'), (2, 'bob', 'b')");
    contacts.sends([2, 0, 0]);
    contacts.sql("update people set email = case email when 'a' then 'b' else 'a' end");
    let run = contacts.sends([2, 0, 0]);
    assert_eq!(run.number("supersededCount"), 2, "nothing is deleted to be made again: {run:#?}");
    assert_eq!(contacts.records(), ["a bob", "b ann"]);
    contacts.is_quiet();
}

fn an_address_that_is_handed_on_and_refused_is_forgotten(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a')");
    contacts.sends([1, 0, 0]);
    // 1 moves to b and leaves a to 2, which the destination refuses: who removes a now?
    contacts.sql("update people set email = 'b'; insert into people values (2, 'refused', 'a')");
    let run = contacts.run();
    assert_eq!((run.successful(), run.failed()), ([1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(contacts.records(), ["a ann", "b ann"]);
    contacts.sql("delete from people where id = 2");
    contacts.run();
    assert_eq!(contacts.records(), ["b ann"]);
    contacts.is_quiet();
}

fn a_refused_removal_is_overtaken(engine: Engine) {
    let contacts = Contacts::new(engine);
    contacts.sql("insert into people values (1, 'ann', 'a'), (2, 'bob', 'b')");
    contacts.sends([2, 0, 0]);
    postgres::run(
        &contacts.database,
        "create table orders (email text references contacts); insert into orders values ('a')",
    );
    contacts.sql("update people set email = 'c' where id = 1; delete from people where id = 2");
    let run = contacts.run();
    assert_eq!((run.successful(), run.failed()), ([0, 0, 1], [1, 0, 1]), "{run:#?}");
    assert_eq!(contacts.codes(), owned(&[("1", "MATCH_VALUE_HELD")]));
    assert_eq!(contacts.records(), ["a ann"], "its new record would leave the old one behind");
    postgres::run(&contacts.database, "drop table orders");
    contacts.sends([1, 0, 1]);
    assert_eq!(contacts.records(), ["c ann"]);
    contacts.is_quiet();
}

/// A small random walk: whatever wanders, once everything is accepted the records are the model's.
fn addresses_that_wander_end_where_the_model_has_them(engine: Engine) {
    let contacts = Contacts::new(engine);
    let seed = std::env::var("LEVIN_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or_else(|| 1 + u64::from(std::process::id()) * 0x9e37_79b9);
    println!("LEVIN_SEED={state}");
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..12 {
        for _ in 0..4 {
            let (id, letter) = (next(5), char::from(b'a' + u8::try_from(next(4)).expect("few")));
            let name = if next(5) == 0 { "refused".to_owned() } else { format!("n{}", next(3)) };
            match next(4) {
                0 => contacts.sql(&format!("delete from people where id = {id}")),
                _ => contacts.sql(&format!(
                    "delete from people where id = {id}; insert into people values ({id}, '{name}', '{letter}')"
                )),
            }
        }
        contacts.run();
    }
    // In the end no two claim one address, and nothing is refused.
    contacts.sql(
        "update people set name = 'n' || cast(id as text); \
         delete from people where id in (select p.id from people p join people q on p.email = q.email and p.id > q.id)",
    );
    for _ in 0..3 {
        contacts.run();
    }
    let model = contacts.project.texts("select email || ' ' || name from people order by 1");
    assert_eq!(contacts.records(), model.into_iter().flatten().collect::<Vec<_>>());
    contacts.is_quiet();
}

fn a_full_resync_forgets_the_old_record(engine: Engine) {
    let crm = Contacts::new(engine);
    crm.sql("insert into people values (1, 'one', 'a@x'), (2, 'two', 'b@x'), (3, 'three', 'c@x')");
    crm.run();
    crm.sql("update people set email = 'd@x' where id = 1; delete from people where id = 3");
    // What is owed to be removed is left to the next run: whoever needs that waits for it.
    let run = crm.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.code, run.successful(), run.failed()), (1, [1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(crm.project.rejected(SYNC)[0]["code"], "MATCH_VALUE_HELD");
    let run = crm.run();
    assert_eq!((run.code, run.successful()), (0, [1, 0, 2]), "{run:#?}");
    assert_eq!(crm.records(), ["b@x two", "d@x one"]);
    // With its removals a resync does all of it at once.
    crm.sql("update people set email = 'e@x' where id = 1");
    let run = crm.project.run_with(SYNC, &["--full-resync", "--keep-removals"]);
    assert_eq!((run.code, run.successful()), (0, [2, 0, 1]), "{run:#?}");
    assert_eq!(crm.records(), ["b@x two", "e@x one"]);
}

fn an_address_that_a_resync_could_not_hand_on_is_forgotten(engine: Engine) {
    let crm = Contacts::new(engine);
    crm.sql("insert into people values (1, 'one', 'a@x')");
    crm.sends([1, 0, 0]);
    crm.sql("update people set email = 'b@x'; insert into people values (2, 'refused', 'a@x')");
    let run = crm.project.run_with(SYNC, &["--full-resync"]);
    assert_eq!((run.successful(), run.failed()), ([1, 0, 0], [1, 0, 0]), "{run:#?}");
    assert_eq!(crm.records(), ["a@x one", "b@x one"]);
    crm.sql("delete from people where id = 2");
    crm.run();
    assert_eq!(crm.records(), ["b@x one"]);
    crm.is_quiet();
}

/// A destination that knows its records by their address, and applies no version twice.
struct ByAddress {
    crm: Crm,
    records: Arc<Mutex<BTreeMap<String, String>>>,
    versions: Arc<Mutex<BTreeSet<String>>>,
}

impl ByAddress {
    fn new(engine: Engine, batch_size: u32) -> Self {
        let sync = format!(
            "mode: mirror\nmatch: {{from: email, to: email}}\nguards: {{allow_empty: true}}\n\
             each: {{path: /rows, batch_size: {batch_size}}}"
        );
        let this =
            Self { crm: Crm::new(engine, 0, &sync), records: Arc::default(), versions: Arc::default() };
        this.answers(&[], &[]);
        this
    }

    /// From now on these keys are refused, and for those it applies what it gets and never answers; for keys of both
    /// kinds it does that once.
    fn answers(&self, refused: &'static [&str], silent: &'static [&str]) {
        let (records, versions) = (self.records.clone(), self.versions.clone());
        let mut heard = BTreeSet::new();
        self.crm.receiver.behave(move |request| {
            let mut is_silent = |key: &str| {
                silent.contains(&key) && (!refused.contains(&key) || heard.insert(key.to_owned()))
            };
            let breaks_off = request.keys().iter().any(|key| is_silent(key));
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            for row in request.rows() {
                let (address, name) = (text(&row["fields"]["email"]), text(&row["fields"]["name"]));
                if (!breaks_off && refused.contains(&text(&row["key"]).as_str()))
                    || !versions.lock().unwrap().insert(text(&row["version"]))
                {
                    continue;
                }
                match request.operation() {
                    "removed" => records.lock().unwrap().remove(&address),
                    _ => records.lock().unwrap().insert(address, name),
                };
            }
            if breaks_off {
                return Reply::applied_but_cut();
            }
            let refused: Vec<&str> = refused.iter().copied().filter(|key| request.has(key)).collect();
            if refused.is_empty() { Reply::accept() } else { Reply::reject(&refused, "not this one") }
        });
    }

    /// The table's rows, `(id, name, email)`.
    fn people(&self, rows: &str) {
        let insert =
            if rows.is_empty() { String::new() } else { format!("insert into customers values {rows};") };
        self.crm.sql(&format!("begin; delete from customers; {insert} commit"));
    }

    fn run(&self, more: &[&str]) {
        let run = self.crm.project.run_with(super::SYNC, more);
        assert!((0..=2).contains(&run.code), "{run:#?}");
    }

    /// It holds what the model has, and a last run has nothing to do.
    fn assert_same(&self) {
        let model = self.crm.project.texts("select email || ' ' || name from customers order by 1");
        let there: Vec<String> =
            self.records.lock().unwrap().iter().map(|(a, n)| format!("{a} {n}")).collect();
        assert_eq!(there, model.into_iter().flatten().collect::<Vec<_>>());
        self.crm.project.assert_quiet(super::SYNC, &self.crm.receiver);
    }
}

fn an_address_that_may_have_been_overwritten_is_taken_for_unchanged(engine: Engine) {
    let to = ByAddress::new(engine, 1);
    to.people("(1, 'one', 'a')");
    to.run(&[]);
    // 1 cannot move on, and whether 2 has overwritten its record nobody knows.
    to.people("(1, 'one', 'b'), (2, 'two', 'a')");
    to.answers(&["1"], &["2"]);
    to.run(&[]);
    // Row 1 is what it was when it was accepted.
    to.people("(1, 'one', 'a'), (2, 'two', 'c')");
    to.answers(&[], &[]);
    to.run(&[]);
    to.run(&[]);
    to.assert_same();
}

fn an_address_that_may_have_been_handed_on_is_taken_away(engine: Engine) {
    let to = ByAddress::new(engine, 10);
    to.people("(1, 'one', 'a')");
    to.run(&[]);
    // Both arrive, and neither is known to have.
    to.people("(1, 'one', 'b'), (2, 'two', 'a')");
    to.answers(&[], &["1", "2"]);
    to.run(&[]);
    to.run(&[]);
    // With its old record removed, the same version of row 2 would not be applied again.
    to.answers(&[], &[]);
    to.run(&[]);
    to.run(&[]);
    to.assert_same();
}

fn an_address_that_a_resync_hands_on_has_two_holders(engine: Engine) {
    let to = ByAddress::new(engine, 1);
    to.crm.destination("retries: 1");
    to.people("(2, 'two', 'a')");
    to.run(&[]);
    to.people("(1, 'one', 'a'), (2, 'two', 'b')");
    to.answers(&["2"], &["2"]);
    to.run(&["--full-resync"]);
    assert_eq!(to.records.lock().unwrap()["a"], "one");
    // What is in doubt of row 2 has to go; what it once had is another's by now.
    to.people("(1, 'one', 'a'), (2, 'two', 'c')");
    to.answers(&[], &[]);
    to.run(&[]);
    to.run(&[]);
    to.assert_same();
}

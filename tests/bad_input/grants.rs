//! Roles that lack a right: the message names the grant, and giving just that makes it work.

use tests::postgres::{PostgresServer, run as sql};
use tests::project::Engine;

use super::{Case, SYNC, as_role, says};

/// A database that `owner` owns and in which `levin` has no right; the addresses of both.
struct Roles {
    levin: String,
    owner: String,
    owner_url: String,
}

impl Roles {
    fn new(case: &mut Case) -> Self {
        let url = case.project.warehouse().to_owned();
        let database = url.rsplit('/').next().and_then(|d| d.split('?').next()).expect("a database");
        let (levin, owner) = (format!("{database}_Levin"), format!("{database}_owner"));
        // An owner that is no superuser and no member of the other role.
        PostgresServer::start().run(
            "postgres",
            &format!(
                "create role \"{levin}\" login; create role {owner} login; \
                 alter database {database} owner to {owner}"
            ),
        );
        sql(&url, &format!("alter schema public owner to {owner}; alter table t owner to {owner}"));
        case.project.set_variable("WAREHOUSE_URL", &as_role(&url, &levin, None));
        Self { owner_url: as_role(&url, &owner, None), levin, owner }
    }

    fn owner_runs(&self, statements: &str) {
        sql(&self.owner_url, statements);
    }
}

#[test]
fn the_script_of_levin_grants_is_enough() {
    let mut case = Case::small(Engine::Postgres);
    let roles = Roles::new(&mut case);
    let script = case.project.levin(&["grants", "wh"]);
    assert_eq!(script.code, 0, "{script:#?}");
    says(&script.stdout, &[&format!("to \"{}\"", roles.levin)]);
    roles.owner_runs(&script.stdout);
    case.check_passes();
    case.sends([3, 0, 0]);
    // It can be run again, and rows that come later may be read too.
    roles.owner_runs(&script.stdout);
    roles.owner_runs("insert into t values (4, 'd')");
    case.sends([1, 0, 0]);
    case.quiet();
}

#[test]
fn levin_makes_its_schemas_itself_where_it_may() {
    let mut case = Case::small(Engine::Postgres);
    let roles = Roles::new(&mut case);
    let script = case.project.levin(&["grants", "wh", "--create-schemas"]);
    assert_eq!(script.code, 0, "{script:#?}");
    assert!(!script.stdout.contains("create schema"), "{}", script.stdout);
    roles.owner_runs(&script.stdout);
    case.check_passes();
    case.sends([3, 0, 0]);
    case.quiet();
}

#[test]
fn check_names_every_missing_grant_and_they_are_enough() {
    let mut case = Case::small(Engine::Postgres);
    let roles = Roles::new(&mut case);
    roles
        .owner_runs("create schema \"Sales\"; create table \"Sales\".\"Orders\" (id integer, total integer)");
    case.model("id", "with o as (select * from \"Sales\".\"Orders\") select id, total from o");
    let ended = case.project.levin(&["check"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    let levin = &roles.levin;
    says(
        &ended.stderr,
        &[
            "error[GRANT_MISSING]",
            "source wh:",
            "model rows:",
            &format!("grant usage, create on schema \"levin_planner\" to \"{levin}\";"),
            &format!("grant usage on schema \"Sales\" to \"{levin}\";"),
            &format!("grant select on \"Sales\".\"Orders\" to \"{levin}\";"),
        ],
    );
    let statements: Vec<&str> =
        ended.stderr.lines().filter(|l| l.starts_with("  ") && l.ends_with(';')).collect();
    roles.owner_runs(&statements.join("\n"));
    case.check_passes();
    roles.owner_runs("insert into \"Sales\".\"Orders\" values (1, 10)");
    case.sends([1, 0, 0]);
}

#[test]
fn a_run_without_the_right_to_read_the_model_names_the_grant() {
    let mut case = Case::small(Engine::Postgres);
    let roles = Roles::new(&mut case);
    roles.owner_runs(&format!("grant create on database {} to \"{}\"", database(&case), roles.levin));
    let grant = format!("grant select on \"t\" to \"{}\";", roles.levin);
    case.fails("GRANT_MISSING", &["model `rows`", "permission denied for table t", &grant]);
    let plan = case.project.levin(&["plan", SYNC]);
    super::failed(&case.project, &plan, 2, "GRANT_MISSING", &[&grant]);
    let preview = case.project.levin(&["preview", "rows"]);
    super::failed(&case.project, &preview, 2, "GRANT_MISSING", &[&grant]);
    roles.owner_runs(&grant);
    case.check_passes();
    case.sends([3, 0, 0]);

    // Taken away again, nothing is forgotten.
    roles.owner_runs(&format!(
        "revoke select on t from \"{}\"; update t set name = 'x' where id = 1",
        roles.levin
    ));
    case.fails("GRANT_MISSING", &[&grant]);
    roles.owner_runs(&grant);
    case.sends([0, 1, 0]);
    case.quiet();
}

#[test]
fn schemas_that_the_owner_made_need_no_right_on_the_database() {
    let mut case = Case::small(Engine::Postgres);
    let roles = Roles::new(&mut case);
    let levin = &roles.levin;
    roles.owner_runs(&format!("grant select on t to \"{levin}\""));
    let grant = format!("grant usage, create on schema \"levin_planner\" to \"{levin}\";");
    case.fails("GRANT_MISSING", &["cannot write the managed schemas", &database(&case), &grant]);
    let plan = case.project.levin(&["plan", SYNC]);
    super::failed(&case.project, &plan, 2, "GRANT_MISSING", &["cannot write the managed schemas", &grant]);

    roles.owner_runs("create schema levin_planner; create schema levin_audit");
    case.fails("GRANT_MISSING", &["levin_", &grant]);
    case.check_finds("GRANT_MISSING", 2, &["source wh:", &grant]);
    roles.owner_runs(&format!("grant usage, create on schema levin_planner, levin_audit to \"{levin}\""));
    case.check_passes();
    case.sends([3, 0, 0]);
    case.quiet();
    assert!(!roles.owner.is_empty());
}

fn database(case: &Case) -> String {
    let url = case.project.warehouse();
    url.rsplit('/').next().and_then(|d| d.split('?').next()).expect("a database").to_owned()
}

//! Looks whether a project can run: its sources, models, destinations and syncs are all asked, and
//! nothing is changed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{SecondsFormat, Utc};
use connectors::warehouse::{ErrorKind, Session, Tag};
use futures::future::join_all;
use sql_templates::{Atomicity, AuditFacts, Shape, Statement, script};

use crate::error::Error;
use crate::fields;
use crate::grants;
use crate::mapping::{Mapper, RunValues};
use crate::project::{DestinationSpec, ModelSpec, Project, SourceSpec, SyncSpec};
use crate::run::{Returned, define, delivery_spec, look_at_model, model_trouble, result_rows, tables_of};

/// What is wrong with a part of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// `source wh`, `model customers`, `destination crm`, `sync customers-to-crm`.
    pub subject: String,
    /// What is wrong.
    pub error: Error,
}

impl Trouble {
    fn new(kind: &str, slug: &str, error: Error) -> Self {
        Self { subject: format!("{kind} {slug}"), error }
    }
}

/// Asks every source (can it be reached, can its models be read, can the managed schemas be
/// written), every destination, and for every sync whether its destination can take its rows. All
/// at once, so that one that does not answer holds up none of the others; what is wrong comes in
/// the order sources, models, destinations, syncs, each in the order of the project.
pub async fn online(project: &Project) -> Vec<Trouble> {
    let sources = join_all(project.sources.iter().map(|source| look_at_source(project, source)));
    let destinations = join_all(project.destinations.iter().map(|spec| look_at_destination(spec)));
    let (sources, destinations) = futures::future::join(sources, destinations).await;

    let mut troubles = Vec::new();
    let mut of_models = Vec::new();
    let mut models = BTreeMap::new();
    for source in sources {
        troubles.extend(source.troubles);
        of_models.extend(source.troubles_of_models);
        models.extend(source.models);
    }
    troubles.extend(of_models);
    let unusable: BTreeSet<&str> = project
        .destinations
        .iter()
        .zip(&destinations)
        .filter_map(|(spec, trouble)| trouble.as_ref().map(|_| spec.slug.as_str()))
        .collect();
    let syncs = join_all(project.syncs.iter().map(|sync| {
        let returned = models.get(sync.model.slug.as_str());
        let usable = !unusable.contains(sync.destination.slug.as_str());
        async move {
            let error = look_at_sync(project, sync, returned?, usable).await.err()?;
            Some(Trouble::new("sync", &sync.slug, error))
        }
    }));
    let syncs = syncs.await;
    troubles.extend(destinations.into_iter().flatten());
    troubles.extend(syncs.into_iter().flatten());
    troubles
}

/// What a source answered.
#[derive(Default)]
struct Answers<'a> {
    troubles: Vec<Trouble>,
    troubles_of_models: Vec<Trouble>,
    models: BTreeMap<&'a str, Returned>,
}

async fn look_at_source<'a>(project: &'a Project, source: &SourceSpec) -> Answers<'a> {
    let mut answers = Answers::default();
    let tag = Tag { sync: "check".to_owned(), run: None, stage: "check" };
    let mut session = match source.session(&tag).await {
        Ok(session) => session,
        Err(error) => {
            answers.troubles.push(Trouble::new("source", &source.slug, error));
            return answers;
        }
    };
    for model in project.models.iter().filter(|m| m.source.slug == source.slug) {
        let looked = async {
            let returned = look_at_model(session.as_mut(), model, source.warehouse.dialect()).await?;
            read_nothing(session.as_mut(), model, &returned).await?;
            Ok(returned)
        };
        match looked.await {
            Ok(returned) => drop(answers.models.insert(&model.slug, returned)),
            Err(error) => answers.troubles_of_models.push(Trouble::new("model", &model.slug, error)),
        }
    }
    if let Err(error) = rehearse_writing(project, source, session.as_mut()).await {
        answers.troubles.push(Trouble::new("source", &source.slug, error));
    }
    answers
}

/// Runs the model for no row: describing it asks some engines for no rights.
async fn read_nothing(
    session: &mut dyn Session,
    model: &ModelSpec,
    returned: &Returned,
) -> Result<(), Error> {
    let shape = Shape { keys: Vec::new(), columns: returned.columns.clone(), matching: Vec::new() };
    let read = Statement::Preview { shape: &shape, model: &returned.model, limit: 0 };
    let dialect = model.source.warehouse.dialect();
    session
        .execute(&script(dialect, Atomicity::Rehearsal, &[read])?)
        .await
        .map(drop)
        .map_err(|e| model_trouble(model, e))
}

/// Makes what a run would make first, in a transaction that is undone: the managed schemas where they
/// are missing, the state of a sync and a row of the audit.
async fn rehearse_writing(
    project: &Project,
    source: &SourceSpec,
    session: &mut dyn Session,
) -> Result<(), Error> {
    let dialect = source.warehouse.dialect();
    let id = project.uuid.to_string();
    // Syncs are numbered from 1.
    let tables = tables_of(source, &id, 0)?;
    let find = script(dialect, Atomicity::Transaction, &[Statement::FindSchemas { tables: &tables }])?;
    let found = session.execute(&find).await?;
    let there = result_rows(found.result("find the managed schemas")).count();
    let wanted = if tables.planner_schema() == tables.audit_schema() { 1 } else { 2 };
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let audit = AuditFacts {
        sync_id: 0,
        run: 0,
        primary_key: "",
        destination: "",
        model_name: "",
        error: None,
        status: "check",
        started_at: &now,
        finished_at: &now,
        numbers: [0; 12],
    };
    let mut statements = Vec::new();
    if there < wanted {
        statements.push(Statement::CreateSchemas { tables: &tables });
    }
    statements.extend([
        Statement::CreateState { tables: &tables, project: &id, sync_id: 0, slug: "check", generation: 0 },
        Statement::CreateAudit { tables: &tables },
    ]);
    // Where nothing is undone, only what leaves no trace is tried.
    let state = [tables.state()];
    statements.push(if dialect.facts().undoes_ddl {
        Statement::AuditRun { tables: &tables, facts: &audit }
    } else {
        Statement::Prune { drop: &state }
    });
    match session.execute(&script(dialect, Atomicity::Rehearsal, &statements)?).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == ErrorKind::Permission => {
            Err(grants::missing_for_writing(source, &error.message))
        }
        Err(error) => Err(error.into()),
    }
}

async fn look_at_destination(spec: &DestinationSpec) -> Option<Trouble> {
    let error = Error::from(spec.destination.check(None).await.err()?);
    Some(Trouble::new("destination", &spec.slug, error))
}

/// Whether a sync finds the columns that it maps, and its destination the fields; `usable` says
/// whether there is any sense in asking the latter.
async fn look_at_sync(
    project: &Project,
    sync: &SyncSpec,
    returned: &Returned,
    usable: bool,
) -> Result<(), Error> {
    let dialect = sync.model.source.warehouse.dialect();
    let (definition, needed) = define(sync, dialect, returned)?;
    let values = RunValues {
        run_id: 0,
        generation: 0,
        run_started_at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        project: project.uuid.to_string(),
    };
    let shape: Shape = definition.shape();
    let mapper = Mapper::new(sync, &shape, &needed.previous, values)?;
    let spec = delivery_spec(sync, &mapper);
    let destination = &sync.destination.destination;
    destination.validate(&spec).map_err(|e| Error::from(e).at(sync.file.clone(), 1))?;
    if !usable {
        return Ok(());
    }
    let Err(error) = destination.check(Some(&spec)).await else { return Ok(()) };
    Err(fields::missing(destination.as_ref(), &spec).await.unwrap_or_else(|| error.into()))
}

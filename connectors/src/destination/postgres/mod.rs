//! `postgres`: rows into a table of a PostgreSQL database.
//!
//! Rows are staged with binary COPY in a temporary table and applied in one transaction per batch,
//! all or nothing. A batch that the server refuses is left to the caller to halve, until the bad
//! row stands alone.
//!
//! Decided here:
//! * `insert` is a plain insert: a row that repeats an identity is rejected with the constraint's
//!   message. So a row whose acceptance got lost on the way back is rejected, in doubt, when it is
//!   sent again, although it stands in the table.
//! * A removal of a row that the table does not hold is accepted: it is as it should be.
//! * Sessions run in UTC: timestamps without a zone that go into `timestamptz` are read as UTC, and
//!   instants that go into `timestamp` are written in UTC.
//! * `segment` and `add` upsert the rows that join: being on the list already is no trouble. `remove` deletes
//!   the model's rows.
//! * `all` upserts every row; with `replace: true` it replaces the content (`replace.rs`), and its
//!   outcomes are deferred until closing.

mod apply;
mod copy;
mod delivery;
mod replace;
mod show;
mod table;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Field;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::apply::{Plan, Planning};
use self::delivery::PostgresDelivery;
use self::replace::ReplaceDelivery;
use self::table::{Table, TableName, differently_cased, quoted, quoted_list};
use self::trouble::Troubles;
use super::{
    BatchLimits, Delivery, DeliverySpec, Destination, DestinationField, RunFacts, Trial, only_whole,
};
use crate::catalogue::{BuildContext, ConfigError, DestinationConnector};
use crate::change::{ChangeBatch, Mode, OnRemoved, Operation};
use crate::duration::Span;
use crate::outcome::DeliveryError;
use crate::postgres_client::{PostgresConnection, PostgresUrl};

/// The catalogue's entry.
pub static POSTGRES: DestinationConnector = DestinationConnector {
    name: "postgres",
    title: "PostgreSQL",
    summary: "Inserts, updates and deletes rows of a table. A batch is applied in one transaction, all or nothing.",
    modes: &[
        Mode::Insert,
        Mode::Update,
        Mode::Upsert,
        Mode::Mirror,
        Mode::Segment,
        Mode::Add,
        Mode::Remove,
        Mode::All,
    ],
    on_removed: &[OnRemoved::Clear, OnRemoved::Delete],
    needs_object: true,
    whole_rows: false,
    deferred: false,
    config_schema: || schemars::schema_for!(PostgresConfig),
    options_schema: || schemars::schema_for!(PostgresOptions),
    build: |config, context| Ok(Arc::new(Postgres::build(config, context)?)),
};

/// The keys of a destination file of type `postgres`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PostgresConfig {
    /// `postgres://user:password@host:5432/database`, with libpq's parameters such as `sslmode`.
    #[schemars(extend("x-secret" = true))]
    url: String,
    /// How long connecting may take.
    #[serde(default = "connect_timeout")]
    connect_timeout: Span,
    /// How long a batch may take, from its first statement to its commit.
    #[serde(default = "statement_timeout")]
    statement_timeout: Span,
    /// How many batches of one run may be applied at once, each on a connection of its own.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 64))]
    concurrency: usize,
    /// How often a batch is repeated after a trouble that may pass.
    #[serde(default = "retries")]
    retries: u32,
}

fn connect_timeout() -> Span {
    Span(Duration::from_secs(10))
}

fn statement_timeout() -> Span {
    Span(Duration::from_secs(300))
}

fn concurrency() -> usize {
    2
}

fn retries() -> u32 {
    5
}

/// The keys that `postgres` adds to a sync. Its `object` is `table` or `schema.table`; names that
/// are not lower case stand in double quotes, as in SQL.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PostgresOptions {
    /// Make the table when it is missing: a column per mapped field, the identity as primary key.
    create: bool,
    /// Mode `all`: the rows of the run take the place of the table's whole content, at once and
    /// only when the run has come to its end.
    replace: bool,
    /// The most rows in one transaction.
    #[schemars(range(min = 1, max = 1_000_000))]
    batch_size: usize,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { create: false, replace: false, batch_size: 10_000 }
    }
}

/// The bytes of a batch; one transaction stays small enough to be repeated.
const BATCH_BYTES: usize = 8 << 20;

/// What [`Destination::timeout`] leaves above the time in which an attempt ends by itself.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Postgres {
    server: Arc<Server>,
    concurrency: usize,
    retries: u32,
}

/// How the server is reached.
#[derive(Debug)]
struct Server {
    url: PostgresUrl,
    connect_timeout: Duration,
    statement_timeout: Duration,
    troubles: Troubles,
}

/// What a sync says, checked.
#[derive(Debug, Clone)]
struct Checked {
    name: TableName,
    options: PostgresOptions,
}

impl Server {
    /// A connection that is set up for writing.
    async fn connect(&self, application_name: &str) -> Result<PostgresConnection, DeliveryError> {
        let connection =
            self.url.connect(application_name).await.map_err(|e| self.troubles.connecting(e, &self.url))?;
        let limit = format!("{}ms", self.statement_timeout.as_millis());
        connection
            .client
            .query(
                "select set_config('statement_timeout', $1, false), set_config('TimeZone', 'UTC', false),
                     set_config('idle_in_transaction_session_timeout', $1, false),
                     case current_setting('synchronous_commit') when 'off'
                         then set_config('synchronous_commit', 'on', false) end",
                &[&limit],
            )
            .await
            .map_err(|e| self.troubles.of(&e, None))?;
        Ok(connection)
    }
}

/// The fields that an inserted row has: the identity, then the mapped fields that are not part of it. What
/// only removes needs no more than the identity.
fn written_fields(sync: &DeliverySpec) -> impl Iterator<Item = &Field> {
    let identity = sync.identity.fields().iter();
    let others = sync
        .fields
        .fields()
        .iter()
        .filter(|f| sync.mode != Mode::Remove && sync.identity.field_with_name(f.name()).is_err());
    identity.chain(others).map(AsRef::as_ref)
}

impl Postgres {
    fn build(config: Value, context: &BuildContext) -> Result<Self, ConfigError> {
        let config: PostgresConfig = serde_json::from_value(config)
            .map_err(|e| ConfigError { path: String::new(), message: e.to_string() })?;
        let refused = |path: &str, message: String| ConfigError { path: path.into(), message };
        if config.concurrency == 0 {
            return Err(refused("concurrency", "must be at least 1".into()));
        }
        let url = PostgresUrl::parse(&config.url, &context.project).map_err(|e| refused("url", e))?;
        let secrets = url.secrets().iter().chain(&context.secrets).cloned().collect();
        Ok(Self {
            server: Arc::new(Server {
                url: url.with_connect_timeout(config.connect_timeout.0),
                connect_timeout: config.connect_timeout.0,
                statement_timeout: config.statement_timeout.0,
                troubles: Troubles::new(secrets),
            }),
            concurrency: config.concurrency,
            retries: config.retries,
        })
    }

    fn checked(sync: &DeliverySpec) -> Result<Checked, ConfigError> {
        let refused = |path: &str, message: String| ConfigError { path: path.into(), message };
        if !POSTGRES.modes.contains(&sync.mode) {
            return Err(refused("mode", format!("postgres knows no mode {}", sync.mode.name())));
        }
        let options = match &sync.options {
            Value::Null => PostgresOptions::default(),
            options => PostgresOptions::deserialize(options).map_err(|e| refused("", e.to_string()))?,
        };
        if options.batch_size == 0 {
            return Err(refused("batch_size", "must be at least 1".into()));
        }
        if options.replace && sync.mode != Mode::All {
            return Err(refused("replace", "belongs to mode all".into()));
        }
        let object = sync.object.as_deref().unwrap_or_default();
        let name = TableName::parse(object)
            .map_err(|e| refused("object", format!("{e}; write it as schema.table")))?;
        if let Some(field) = written_fields(sync).find(|f| f.name().is_empty() || f.name().contains('\0')) {
            return Err(refused("mappings", format!("{:?} cannot be the name of a column", field.name())));
        }
        Ok(Checked { name, options })
    }

    /// The table and how it is written; `None` when it is missing and will be created.
    async fn look(
        &self,
        connection: &PostgresConnection,
        sync: &DeliverySpec,
        checked: &Checked,
    ) -> Result<Option<Table>, DeliveryError> {
        let troubles = &self.server.troubles;
        let table = Table::load(&connection.client, &checked.name)
            .await
            .map_err(|e| troubles.of(&e, Some(&checked.name)))?;
        if table.is_some() || checked.options.create {
            return Ok(table);
        }
        let similar = differently_cased(&connection.client, &checked.name)
            .await
            .map_err(|e| troubles.of(&e, Some(&checked.name)))?;
        Err(DeliveryError::Unauthorized {
            message: format!("there is no table {} in {}", checked.name.quoted(), self.server.url.identity()),
            hint: match similar {
                Some(similar) => format!("there is {}: write it like this, in quotes", similar.quoted()),
                None => format!("create it, set `create: true`, or correct `object` of {}", sync.sync),
            },
        })
    }

    /// The grants that the sync needs and the role does not have.
    async fn check_grants(
        &self,
        connection: &PostgresConnection,
        sync: &DeliverySpec,
        checked: &Checked,
        table: &Table,
    ) -> Result<(), DeliveryError> {
        let mut needed: Vec<&str> = match sync.mode {
            _ if checked.options.replace => vec!["SELECT", "INSERT", "DELETE"],
            Mode::Insert => vec!["INSERT"],
            Mode::Remove => Vec::new(),
            Mode::Update => vec!["SELECT", "UPDATE"],
            _ => vec!["SELECT", "INSERT", "UPDATE"],
        };
        match removal(sync) {
            OnRemoved::Delete => needed.extend(["SELECT", "DELETE"]),
            OnRemoved::Clear => needed.extend(["SELECT", "UPDATE"]),
            OnRemoved::Nothing => {}
        }
        needed.sort_unstable();
        needed.dedup();
        let columns: Vec<&str> = written_fields(sync).map(|f| f.name().as_str()).collect();
        let row = connection
            .client
            .query_one(
                "select current_user::text, current_database()::text,
                     has_schema_privilege($1, 'USAGE'), has_database_privilege(current_database(), 'TEMPORARY'),
                     array(select p from unnest($4::text[]) p where not case when p = 'DELETE'
                         then has_table_privilege($2::oid, p)
                         else (select coalesce(bool_and(has_column_privilege($2::oid, c, p)), true)
                               from unnest($3::text[]) c) end)",
                &[&table.name.schema, &table.oid, &columns, &needed],
            )
            .await
            .map_err(|e| self.server.troubles.of(&e, Some(&table.name)))?;
        let (role, database): (String, String) = (row.get(0), row.get(1));
        let mut grants = Vec::new();
        if !row.get::<_, bool>(2) {
            grants.push(format!(
                "GRANT USAGE ON SCHEMA {} TO {};",
                quoted(&table.name.schema),
                quoted(&role)
            ));
        }
        if !row.get::<_, bool>(3) {
            grants.push(format!("GRANT TEMPORARY ON DATABASE {} TO {};", quoted(&database), quoted(&role)));
        }
        let missing: Vec<String> = row.get(4);
        if !missing.is_empty() {
            grants.push(format!(
                "GRANT {} ON {} TO {};",
                missing.join(", "),
                table.name.quoted(),
                quoted(&role)
            ));
        }
        if grants.is_empty() {
            return Ok(());
        }
        Err(DeliveryError::Unauthorized {
            message: format!("the role {role} lacks rights on {}", table.name.quoted()),
            hint: format!("run as the owner: {}", grants.join(" ")),
        })
    }
}

/// What happens to removed rows.
fn removal(sync: &DeliverySpec) -> OnRemoved {
    sync.mode.fixed_removal().unwrap_or(sync.on_removed)
}

#[async_trait]
impl Destination for Postgres {
    fn target(&self, sync: &DeliverySpec) -> String {
        let object = sync.object.as_deref().unwrap_or_default();
        let table = TableName::parse(object).map_or_else(|_| object.to_owned(), |name| name.quoted());
        let mut identity: Vec<&str> = sync.identity.fields().iter().map(|f| f.name().as_str()).collect();
        identity.sort_unstable();
        format!("{} {table} ({})", self.server.url.identity(), quoted_list(identity))
    }

    fn validate(&self, sync: &DeliverySpec) -> Result<(), ConfigError> {
        Self::checked(sync).map(|_| ())
    }

    async fn check(&self, sync: Option<&DeliverySpec>) -> Result<(), DeliveryError> {
        let Some(sync) = sync else {
            return self.server.connect("levin/check").await.map(|_| ());
        };
        let checked = Self::checked(sync).map_err(trouble::misconfigured)?;
        let connection = self.server.connect(&format!("levin/{}/check", sync.sync)).await?;
        let Some(table) = self.look(&connection, sync, &checked).await? else {
            let row = connection
                .client
                .query_one(
                    "select current_user::text, to_regnamespace(quote_ident($1)) is not null
                         and has_schema_privilege($1, 'CREATE')",
                    &[&checked.name.schema],
                )
                .await
                // The function fails where the schema is missing.
                .map_err(|e| self.server.troubles.of(&e, Some(&checked.name)))?;
            let (role, may): (String, bool) = (row.get(0), row.get(1));
            if may {
                return Ok(());
            }
            let schema = quoted(&checked.name.schema);
            return Err(DeliveryError::Unauthorized {
                message: format!("the role {role} cannot create {}", checked.name.quoted()),
                hint: format!(
                    "run as the owner: GRANT CREATE, USAGE ON SCHEMA {schema} TO {};",
                    quoted(&role)
                ),
            });
        };
        Plan::new(Planning { sync, table: &table, unique: true })?;
        if !matches!(sync.mode, Mode::Update | Mode::Remove) && !table.fills_columns {
            let mapped = |name: &str| written_fields(sync).any(|f| f.name() == name);
            if let Some(column) = table.columns.iter().find(|c| c.required && !mapped(&c.name)) {
                return Err(DeliveryError::Unauthorized {
                    message: format!(
                        "column {} of {} must have a value, and no field is mapped to it",
                        quoted(&column.name),
                        table.name.quoted()
                    ),
                    hint: "map a field to it, or give it a default".into(),
                });
            }
        }
        self.check_grants(&connection, sync, &checked, &table).await
    }

    async fn fields(&self, object: &str) -> Result<Option<Vec<DestinationField>>, DeliveryError> {
        let name = TableName::parse(object)
            .map_err(|message| trouble::misconfigured(ConfigError { path: "object".into(), message }))?;
        let connection = self.server.connect("levin/fields").await?;
        let table = Table::load(&connection.client, &name)
            .await
            .map_err(|e| self.server.troubles.of(&e, Some(&name)))?;
        Ok(table.map(|table| {
            let field = |c: table::TableColumn| DestinationField {
                name: c.name,
                type_name: c.type_name,
                required: c.required,
            };
            table.columns.into_iter().filter(|c| !c.generated).map(field).collect()
        }))
    }

    async fn open(&self, sync: &DeliverySpec, _run: &RunFacts) -> Result<Box<dyn Delivery>, DeliveryError> {
        let checked = Self::checked(sync).map_err(trouble::misconfigured)?;
        let delivery = PostgresDelivery::new(self.server.clone(), sync.clone(), checked.name.clone());
        let connection = self.server.connect(delivery.application_name()).await?;
        // What cannot work is said here; a missing table is made with the first rows.
        let table = self.look(&connection, sync, &checked).await?;
        if let Some(table) = &table {
            delivery.plan_for(&connection, table).await?;
        }
        if checked.options.replace {
            let server = self.server.clone();
            return Ok(Box::new(ReplaceDelivery::new(server, sync, checked.name, connection)));
        }
        delivery.keep(connection);
        Ok(Box::new(delivery))
    }

    async fn try_row(
        &self,
        sync: &DeliverySpec,
        run: &RunFacts,
        row: &ChangeBatch,
        send: bool,
    ) -> Result<Trial, DeliveryError> {
        let checked = Self::checked(sync).map_err(trouble::misconfigured)?;
        if send && checked.options.replace {
            return Err(only_whole("a table that is replaced"));
        }
        let connection = self.server.connect(&format!("levin/{}/test-row", sync.sync)).await?;
        let request = match self.look(&connection, sync, &checked).await? {
            None => show::creation(&checked.name, sync, row),
            Some(table) => {
                let identity: Vec<String> = sync.identity.fields().iter().map(|f| f.name().clone()).collect();
                let unique = table
                    .is_unique(&connection.client, &identity)
                    .await
                    .map_err(|e| self.server.troubles.of(&e, Some(&table.name)))?;
                let plan = Plan::new(Planning { sync, table: &table, unique })?;
                show::transaction(&plan, row)
            }
        };
        drop(connection);
        let delivered = if send {
            let delivery = self.open(sync, run).await?;
            let delivered = delivery.deliver(row).await;
            delivery.close(true).await?;
            Some(delivered)
        } else {
            None
        };
        Ok(Trial { request, delivered })
    }

    fn can_clear(&self, sync: &DeliverySpec) -> Result<(), ConfigError> {
        let checked = Self::checked(sync)?;
        if checked.options.replace {
            let message = "`replace: true` replaces the table's content in every run as it is";
            return Err(ConfigError { path: "replace".into(), message: message.into() });
        }
        Ok(())
    }

    /// One statement, and so one transaction: the table is empty, or as it was.
    async fn clear(&self, sync: &DeliverySpec, _run: &RunFacts) -> Result<(), DeliveryError> {
        let checked = Self::checked(sync).map_err(trouble::misconfigured)?;
        let connection = self.server.connect(&format!("levin/{}/clear", sync.sync)).await?;
        let Some(table) = self.look(&connection, sync, &checked).await? else {
            return Ok(());
        };
        let delete = format!("delete from {}", table.name.quoted());
        let deleted = connection.client.batch_execute(&delete).await;
        deleted.map_err(|e| self.server.troubles.of(&e, Some(&table.name)))
    }

    fn timeout(&self) -> Duration {
        self.server.connect_timeout + self.server.statement_timeout + GRACE
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn retries(&self) -> u32 {
        self.retries
    }

    fn batch_limits(&self, sync: &DeliverySpec, _operation: Operation) -> BatchLimits {
        let options = PostgresOptions::deserialize(&sync.options).unwrap_or_default();
        BatchLimits { rows: options.batch_size.max(1), bytes: BATCH_BYTES }
    }
}

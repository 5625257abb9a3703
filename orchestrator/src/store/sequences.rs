//! Runs of sequences: which member runs, and what the end of it means for the next.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AnyConnection, Row};

use super::asked::Cause;
use super::queue::{Wish, now, place};
use super::{Store, failed, text_of_now};
use crate::error::{Error, ErrorCode};
use crate::project::{Limit, OnFailure};
use crate::store::Asked;

/// A sequence that is to run.
#[derive(Debug, Clone)]
pub struct SequenceWish {
    /// Its number.
    pub sequence_id: i64,
    /// Its slug.
    pub sequence: String,
    /// Its members as they are now: a run of a sequence goes on as it began.
    pub members: Vec<MemberWish>,
    /// Who asks.
    pub cause: Cause,
    /// Its first member runs not before this moment, in milliseconds since 1970.
    pub ready_at: i64,
}

/// A member of a sequence that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberWish {
    /// The sync's number.
    pub sync_id: i64,
    /// Its slug.
    pub sync: String,
    /// The number of its source.
    pub source_id: i64,
    /// The number of its destination.
    pub destination_id: i64,
    /// What a failed run means.
    pub on_failure: OnFailure,
    /// How many rejected rows mean the same as a failed run that stops.
    pub max_rejected: Limit,
    /// Its file disables it: the sequence passes it over.
    #[serde(default)]
    pub rests: bool,
}

/// A run of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceRun {
    /// Its number, a UUID.
    pub id: String,
    /// The sequence's number.
    pub sequence_id: i64,
    /// The sequence's slug when it began.
    pub sequence: String,
    /// `running`, `done`, `failed` or `cancelled`.
    pub status: String,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// The runs of its members so far, in their order.
    pub runs: Vec<MemberRun>,
}

/// The run of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberRun {
    /// The sync's number.
    pub sync_id: i64,
    /// The run's.
    pub run: i64,
    /// The run's status.
    pub status: String,
    /// When it ended.
    pub finished_at: Option<String>,
}

impl Store {
    /// Asks for a run of a sequence. While one goes on that is the answer: a sequence never runs beside itself.
    pub async fn ask_sequence(&self, wish: &SequenceWish) -> Result<String, Error> {
        let mut transaction = self.deciding().await?;
        let id = begin(&mut transaction, wish).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(id)
    }

    /// A run of a sequence.
    pub async fn sequence_run(&self, id: &str) -> Result<Option<SequenceRun>, Error> {
        let row = sqlx::query(
            "select sequence_id, sequence, status, created_at, finished_at from levin_sequence_runs where id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let members = sqlx::query(
            "select r.sync_id, r.id, r.status, r.finished_at from levin_sequence_members m
             join levin_runs r on r.id = m.run where m.sequence_run = $1 order by m.position",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(Some(SequenceRun {
            id: id.to_owned(),
            sequence_id: row.get(0),
            sequence: row.get(1),
            status: row.get(2),
            created_at: row.get(3),
            finished_at: row.get(4),
            runs: members
                .iter()
                .map(|row| MemberRun {
                    sync_id: row.get(0),
                    run: row.get(1),
                    status: row.get(2),
                    finished_at: row.get(3),
                })
                .collect(),
        }))
    }

    /// Goes on with every sequence whose member has ended. Returns whether a run was queued.
    pub async fn advance_sequences(&self) -> Result<bool, Error> {
        const ENDED: &str = "select s.id, s.members, s.position, s.sequence, r.status, r.report
             from levin_sequence_runs s
             join levin_sequence_members m on m.sequence_run = s.id and m.position = s.position
             join levin_runs r on r.id = m.run
             where s.finished_at is null and r.finished_at is not null";
        if sqlx::query(ENDED).fetch_optional(&self.pool).await.map_err(failed)?.is_none() {
            return Ok(false);
        }
        let mut transaction = self.deciding().await?;
        let rows = sqlx::query(ENDED).fetch_all(&mut *transaction).await.map_err(failed)?;
        let mut queued = false;
        for row in rows {
            let id: String = row.get(0);
            let members: Vec<MemberWish> = serde_json::from_str(&row.get::<String, _>(1)).map_err(|e| {
                Error::new(ErrorCode::StoreFailed, format!("a run of a sequence cannot be read: {e}"))
            })?;
            let position: i64 = row.get(2);
            let status: String = row.get(4);
            let report = row.get::<Option<String>, _>(5).and_then(|text| serde_json::from_str(&text).ok());
            let at = usize::try_from(position).unwrap_or_default();
            let verdict = match members.get(at) {
                Some(member) => verdict(member, &status, report.as_ref()),
                None => Verdict::GoOn,
            };
            match verdict {
                Verdict::Stop if status == "cancelled" => {
                    end(&mut transaction, &id, "cancelled").await?;
                }
                Verdict::Stop => end(&mut transaction, &id, "failed").await?,
                Verdict::GoOn => queued |= go_on(&mut transaction, &id, &members, at + 1, now()).await?,
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(queued)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoOn,
    Stop,
}

fn verdict(member: &MemberWish, status: &str, report: Option<&Value>) -> Verdict {
    let ran = matches!(status, "success" | "warning");
    // It was disabled while its run waited.
    if report.is_some_and(|report| report["error"]["code"] == ErrorCode::SyncDisabled.name()) {
        return Verdict::GoOn;
    }
    if !ran && (member.on_failure == OnFailure::Stop || status == "cancelled") {
        return Verdict::Stop;
    }
    let total = |of: &str| -> u64 {
        let counts = ["addedCount", "changedCount", "removedCount"];
        counts.iter().filter_map(|count| report?[of][count].as_u64()).sum()
    };
    let (rejected, planned) = (total("failedRows"), total("plannedRows"));
    let limit = member.max_rejected;
    let too_many = limit.rows.is_some_and(|rows| rejected > rows)
        || limit
            .percent
            .is_some_and(|percent| planned > 0 && rejected as f64 * 100.0 > percent * planned as f64);
    if too_many { Verdict::Stop } else { Verdict::GoOn }
}

pub(super) async fn begin(connection: &mut AnyConnection, wish: &SequenceWish) -> Result<String, Error> {
    super::follow::count_anew(connection, &format!("sequence:{}", wish.sequence_id)).await?;
    let written = |e: serde_json::Error| Error::new(ErrorCode::Internal, e.to_string());
    let open = sqlx::query(
        "select id, causes from levin_sequence_runs where sequence_id = $1 and finished_at is null",
    )
    .bind(wish.sequence_id)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failed)?;
    if let Some(row) = open {
        let id: String = row.get(0);
        let mut causes: Vec<Cause> = serde_json::from_str(&row.get::<String, _>(1)).unwrap_or_default();
        causes.push(wish.cause.clone());
        sqlx::query("update levin_sequence_runs set causes = $1 where id = $2")
            .bind(serde_json::to_string(&causes).map_err(written)?)
            .bind(&id)
            .execute(connection)
            .await
            .map_err(failed)?;
        return Ok(id);
    }
    let id = uuid::Uuid::new_v4().to_string();
    sqlx::query(
        "insert into levin_sequence_runs (id, sequence_id, sequence, status, members, position, causes, created_at)
         values ($1, $2, $3, 'running', $4, 0, $5, $6)",
    )
    .bind(&id)
    .bind(wish.sequence_id)
    .bind(&wish.sequence)
    .bind(serde_json::to_string(&wish.members).map_err(written)?)
    .bind(serde_json::to_string(&[&wish.cause]).map_err(written)?)
    .bind(text_of_now())
    .execute(&mut *connection)
    .await
    .map_err(failed)?;
    go_on(connection, &id, &wish.members, 0, wish.ready_at).await?;
    Ok(id)
}

/// Queues the run of the next member that does not rest; where there is none, the sequence is done. Returns whether
/// a run was queued.
async fn go_on(
    connection: &mut AnyConnection,
    sequence_run: &str,
    members: &[MemberWish],
    from: usize,
    ready_at: i64,
) -> Result<bool, Error> {
    let rows = sqlx::query("select sync_id from levin_disabled").fetch_all(&mut *connection).await;
    let disabled: Vec<i64> = rows.map_err(failed)?.iter().map(|row| row.get(0)).collect();
    let rests = |member: &MemberWish| member.rests || disabled.contains(&member.sync_id);
    let next = (0..).zip(members).skip(from).find(|(_, member)| !rests(member));
    match next {
        Some((position, member)) => {
            start(connection, sequence_run, position, member, ready_at).await.map(|()| true)
        }
        None => end(connection, sequence_run, "done").await.map(|()| false),
    }
}

async fn end(connection: &mut AnyConnection, sequence_run: &str, status: &str) -> Result<(), Error> {
    sqlx::query("update levin_sequence_runs set status = $1, finished_at = $2 where id = $3")
        .bind(status)
        .bind(text_of_now())
        .bind(sequence_run)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
}

async fn start(
    connection: &mut AnyConnection,
    sequence_run: &str,
    position: i64,
    member: &MemberWish,
    ready_at: i64,
) -> Result<(), Error> {
    let wish = Wish {
        sync_id: member.sync_id,
        sync: member.sync.clone(),
        source_id: member.source_id,
        destination_id: member.destination_id,
        asked: Asked::because(Cause::Sequence { run: sequence_run.to_owned() }),
        ready_at,
    };
    let placed = place(connection, &wish).await?;
    sqlx::query("insert into levin_sequence_members (sequence_run, position, run) values ($1, $2, $3)")
        .bind(sequence_run)
        .bind(position)
        .bind(placed.run)
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    sqlx::query("update levin_sequence_runs set position = $1 where id = $2")
        .bind(position)
        .bind(sequence_run)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_ends_its_sequence_by_its_own_rules() {
        let member = |on_failure, max_rejected| MemberWish {
            sync_id: 1,
            sync: "a".to_owned(),
            source_id: 1,
            destination_id: 1,
            on_failure,
            max_rejected,
            rests: false,
        };
        let report =
            json!({"plannedRows": {"addedCount": 90, "changedCount": 10}, "failedRows": {"addedCount": 5}});
        let look = |on_failure, limit: Limit, status: &str| {
            verdict(&member(on_failure, limit), status, Some(&report))
        };
        let (none, stop, go_on) = (Limit::default(), OnFailure::Stop, OnFailure::Continue);
        assert_eq!(look(stop, none, "warning"), Verdict::GoOn);
        assert_eq!(look(stop, none, "failed"), Verdict::Stop);
        assert_eq!(look(go_on, none, "failed"), Verdict::GoOn);
        assert_eq!(look(go_on, none, "cancelled"), Verdict::Stop);
        assert_eq!(look(go_on, Limit { percent: Some(5.0), rows: None }, "warning"), Verdict::GoOn);
        assert_eq!(look(go_on, Limit { percent: Some(4.9), rows: None }, "warning"), Verdict::Stop);
        assert_eq!(look(go_on, Limit { percent: None, rows: Some(4) }, "warning"), Verdict::Stop);
        assert_eq!(look(stop, Limit { percent: None, rows: Some(5) }, "warning"), Verdict::GoOn);
        let rested = json!({"error": {"code": "SYNC_DISABLED"}});
        assert_eq!(verdict(&member(stop, none), "cancelled", Some(&rested)), Verdict::GoOn);
    }
}

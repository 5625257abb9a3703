//! What a delivery costs, against the least that anyone could do.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::diff::{COLUMNS, Engine, Postgres};
use super::project::Project;
use super::{Line, median};

const ROWS: u64 = 1_000_000;
const ROUNDS: usize = 3;

pub fn measure(levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut warehouse = Postgres::new(true);
    warehouse.prepare(ROWS);
    to_postgres(&mut warehouse, levin, print);
    to_http(&mut warehouse, levin, print);
}

fn model() -> String {
    format!("source: wh\nprimary_key: id\nsql: select {COLUMNS} from model\n")
}

fn psql(url: &str, commands: &[String]) -> f64 {
    let began = Instant::now();
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", url]);
    for command in commands {
        psql.args(["--command", command]);
    }
    let output = psql.output().expect("psql, PostgreSQL's own client, is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    began.elapsed().as_secs_f64()
}

/// Postgres to Postgres: rows out of one database and into a table of another.
fn to_postgres(warehouse: &mut Postgres, levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut target = Postgres::new(true);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows");
    let definition =
        "(id bigint primary key, email text, name text, ltv numeric(10, 2), visits integer, born date,
        active boolean, digest text, seen_at timestamp, country text)";
    let out = format!("\\copy (select {COLUMNS} from model) to '{}' with (format binary)", file.display());
    let set: Vec<String> =
        COLUMNS.split(", ").skip(1).map(|column| format!("{column} = excluded.{column}")).collect();
    let upsert = [
        format!("create temporary table stage as select {COLUMNS} from people where false"),
        format!("\\copy stage from '{}' with (format binary)", file.display()),
        format!("insert into people select * from stage on conflict (id) do update set {}", set.join(", ")),
    ];
    let fresh = |target: &mut Postgres| {
        target.timed(&format!("drop table if exists people; create table people {definition}"));
        target.settle();
    };
    let project = Project::new(levin, &warehouse.source(), &model());
    project.sync(&format!("type: postgres\nurl: {}\n", target.url), "mode: upsert\nobject: public.people\n");
    let (mut first, mut bare_first, mut again, mut bare_again) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        fresh(&mut target);
        bare_first.push(psql(&warehouse.url, std::slice::from_ref(&out)) + psql(&target.url, &upsert));
        target.settle();
        bare_again.push(psql(&target.url, &upsert));

        project.forget();
        warehouse
            .timed("drop schema if exists levin_planner cascade; drop schema if exists levin_audit cascade");
        warehouse.settle();
        fresh(&mut target);
        let run = project.run();
        assert_eq!(run.sent(), ROWS);
        first.push(run.seconds);
        warehouse.timed(&format!("update model set visits = -1 - {round}"));
        warehouse.settle();
        target.settle();
        let run = project.run();
        assert_eq!(run.sent(), ROWS);
        again.push(run.stage("deliver"));
    }
    print(Line {
        what: "first sync of 1M rows, Postgres to Postgres, against COPY out, COPY in and upsert by psql"
            .into(),
        levin: median(first),
        bare: Some(median(bare_first)),
        unit: "s",
        must: Some(1.8),
        aim: Some(1.3),
    });
    print(Line {
        what: "delivery of 1M changed rows to Postgres, against COPY in and upsert by psql".into(),
        levin: median(again),
        bare: Some(median(bare_again)),
        unit: "s",
        must: Some(1.5),
        aim: Some(1.1),
    });
}

/// Batches of 1,000 rows by HTTP, against a client that posts bodies of the same bytes on as many connections.
fn to_http(warehouse: &mut Postgres, levin: &Path, print: &mut dyn FnMut(Line)) {
    const CONNECTIONS: usize = 4;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (bodies, mut received) = tokio::sync::mpsc::unbounded_channel();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, bodies.clone()));
        }
    });
    let project = Project::new(levin, &warehouse.source(), &model());
    project.sync(
        &format!(
            "type: http_request\nbase_url: http://{address}\nallow_private_networks: true\nconcurrency: {CONNECTIONS}\n"
        ),
        "mode: upsert\nobject: people\neach: {method: POST, path: /people, batch_size: 1000}\n",
    );
    let (mut rates, mut bare_rates) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        project.forget();
        warehouse
            .timed("drop schema if exists levin_planner cascade; drop schema if exists levin_audit cascade");
        warehouse.settle();
        while received.try_recv().is_ok() {}
        let run = project.run();
        assert_eq!(run.sent(), ROWS);
        rates.push(ROWS as f64 / run.stage("deliver"));
        let mut sizes = Vec::new();
        while let Ok(bytes) = received.try_recv() {
            sizes.push(bytes);
        }
        assert_eq!(sizes.len() as u64, ROWS / 1000);
        let began = Instant::now();
        runtime.block_on(async {
            let posts = sizes.chunks(sizes.len().div_ceil(CONNECTIONS)).map(|share| {
                let share = share.to_vec();
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut answer = vec![0; 1024];
                    for bytes in share {
                        let head = format!(
                            "POST /people HTTP/1.1\r\nhost: bench\r\ncontent-length: {bytes}\r\n\r\n"
                        );
                        let mut request = head.into_bytes();
                        request.resize(request.len() + bytes, b' ');
                        stream.write_all(&request).await.unwrap();
                        assert!(stream.read(&mut answer).await.unwrap() > 0);
                    }
                })
            });
            for post in posts.collect::<Vec<_>>() {
                post.await.unwrap();
            }
        });
        bare_rates.push(ROWS as f64 / began.elapsed().as_secs_f64());
    }
    // More is better here: the ratio is turned round so that less is better everywhere.
    let (rate, bare) = (median(rates), median(bare_rates));
    println!(
        "| (http_request: {rate:.0} rows/s, bare client {bare:.0} rows/s: {:.2} of it; must 0.6, aim 0.85) | | | | | |",
        rate / bare
    );
    print(Line {
        what: "http_request, 1M rows in batches of 1,000, against a bare client that posts as many bytes"
            .into(),
        levin: ROWS as f64 / rate,
        bare: Some(ROWS as f64 / bare),
        unit: "s",
        must: Some(1.0 / 0.6),
        aim: Some(1.0 / 0.85),
    });
}

/// The least that a server can do: reads a request, tells its size, says yes.
async fn answer(mut stream: TcpStream, bodies: tokio::sync::mpsc::UnboundedSender<usize>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 1 << 20];
    let mut held = 0;
    loop {
        let Some(end) = buffer[..held].windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read(&mut buffer[held..]).await {
                Ok(0) | Err(_) => return,
                Ok(more) => held += more,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0);
        let mut left = (end + 4 + length).saturating_sub(held);
        let over = held.saturating_sub(end + 4 + length);
        buffer.copy_within(held - over..held, 0);
        held = over;
        while left > 0 {
            let most = left.min(buffer.len());
            match stream.read(&mut buffer[..most]).await {
                Ok(0) | Err(_) => return,
                Ok(more) => left -= more,
            }
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.is_err() {
            return;
        }
        let _ = bodies.send(length);
    }
}

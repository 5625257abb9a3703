//! What a delivery costs, against the least that anyone could do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::diff::{COLUMNS, Duck, Engine, Postgres};
use super::project::{FORGET, Project, stay_on};
use super::{Line, median};

const ROWS: u64 = 1_000_000;
const ROUNDS: usize = 3;

pub fn measure(levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut warehouse = Postgres::new(true);
    warehouse.prepare(ROWS);
    to_postgres(&mut warehouse, levin, print);
    drop(warehouse);
    let folder = tempfile::tempdir().unwrap();
    let mut warehouse = Duck::new(folder.path());
    warehouse.prepare(ROWS);
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

/// Batches of 1,000 rows by HTTP, against a client that posts the same bytes, ready made, on as many connections. The
/// server reads JSON, as every destination must, and has a core of its own, as a destination has a machine of its own.
/// On the other are the client, or levin with its warehouse, whose rows cost little to read: this is not about that.
fn to_http(warehouse: &mut Duck, levin: &Path, print: &mut dyn FnMut(Line)) {
    const CONNECTIONS: usize = 4;
    let on_core = |core: usize| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).on_thread_start(move || stay_on(core)).enable_all().build().unwrap()
    };
    let (server, client) = (on_core(0), on_core(1));
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (bodies, mut received) = tokio::sync::mpsc::unbounded_channel();
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, bodies.clone()));
        }
    });
    let mut project = Project::new(levin, &warehouse.source(), &model());
    project.stays_on(1);
    project.sync(
        &format!(
            "type: http_request\nbase_url: http://{address}\nallow_private_networks: true\nconcurrency: {CONNECTIONS}\n"
        ),
        "mode: upsert\nobject: people\neach: {method: POST, path: /people, batch_size: 1000}\n",
    );
    let (mut seconds, mut bare) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        project.forget();
        warehouse.timed(FORGET);
        warehouse.settle();
        while received.try_recv().is_ok() {}
        let run = project.run();
        assert_eq!(run.sent(), ROWS);
        seconds.push(run.stage("deliver"));
        let mut sent: Vec<Vec<u8>> = Vec::new();
        while let Ok(body) = received.try_recv() {
            sent.push(body);
        }
        assert_eq!(sent.len() as u64, ROWS / 1000);
        let share = sent.len().div_ceil(CONNECTIONS);
        let mut shares: Vec<Vec<Vec<u8>>> = Vec::new();
        while !sent.is_empty() {
            shares.push(sent.split_off(sent.len().saturating_sub(share)));
        }
        let began = Instant::now();
        client.block_on(async {
            let posts: Vec<_> = shares.into_iter().map(|share| tokio::spawn(post(address, share))).collect();
            for post in posts {
                post.await.unwrap();
            }
        });
        bare.push(began.elapsed().as_secs_f64());
    }
    print(Line {
        what: "http_request, 1M rows in batches of 1,000, against a bare client that posts the same bytes"
            .into(),
        levin: median(seconds),
        bare: Some(median(bare)),
        unit: "s",
        // As rates: 0.6 and 0.85 of the bare client's.
        must: Some(1.67),
        aim: Some(1.18),
    });
}

/// Posts bodies one after another on one connection.
async fn post(address: SocketAddr, bodies: Vec<Vec<u8>>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = vec![0; 1024];
    for body in bodies {
        let head = format!("POST /people HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        assert!(stream.read(&mut answer).await.unwrap() > 0);
    }
}

/// The least that a destination can do: reads a request as JSON, and says yes.
async fn answer(mut stream: TcpStream, bodies: tokio::sync::mpsc::UnboundedSender<Vec<u8>>) {
    let _ = stream.set_nodelay(true);
    let mut held = Vec::with_capacity(1 << 20);
    loop {
        let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read_buf(&mut held).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8_lossy(&held[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0);
        while held.len() < end + 4 + length {
            match stream.read_buf(&mut held).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let rest = held.split_off(end + 4 + length);
        let body = held.split_off(end + 4);
        held = rest;
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "a body that is no JSON");
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.is_err() {
            return;
        }
        let _ = bodies.send(body);
    }
}

//! The service: what ten thousand schedules cost while nothing is due, how soon what is due runs, and how fast the API
//! answers about all of them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::postgres::PostgresServer;

use super::Line;

/// Schedules while nothing is due.
const MANY: usize = 10_000;
/// Schedules that are due in one second.
const AT_ONCE: usize = 200;
/// Runs at once that are allowed.
const ALLOWED: usize = 16;
/// Triggers whose median counts.
const TRIGGERS: usize = 21;
/// Requests whose slowest hundredth counts.
const REQUESTS: usize = 1_000;
/// For how long nothing happens.
const IDLE: Duration = Duration::from_secs(30);

pub fn measure(levin: &Path, print: &mut dyn FnMut(Line)) {
    idle(levin, print);
    due(levin, print);
    triggered(levin, print);
}

/// A project on PostgreSQL whose model has ten rows.
struct Served {
    folder: tempfile::TempDir,
    levin: PathBuf,
    url: String,
    process: Option<Child>,
    address: String,
    key: String,
}

impl Served {
    fn new(levin: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = PostgresServer::start().fresh_database();
        tests::postgres::run(
            &url,
            "create table model as select i as id, i as v from generate_series(1, 10) i",
        );
        let served = Self {
            folder,
            levin: levin.to_owned(),
            url,
            process: None,
            address: String::new(),
            key: String::new(),
        };
        served.write(
            "levin.yml",
            &format!("name: bench\nserve: {{runs_at_once: {ALLOWED}, requests_per_second: 10000}}\n"),
        );
        served.write("sources/wh.yml", "type: postgres\nurl: ${WAREHOUSE}\n");
        served.write("models/model.yml", "source: wh\nprimary_key: id\ntable: model\n");
        served.write("destinations/out.yml", "type: files\npath: out\n");
        served
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    fn sync(&self, number: usize, schedule: &str) {
        self.write(
            &format!("syncs/s{number}.yml"),
            &format!(
                "model: model\ndestination: out\nmode: diff\nobject: s{number}-{{{{ run_id }}}}.jsonl\nformat: jsonl\n{schedule}"
            ),
        );
    }

    fn levin(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.levin);
        command.arg("--project").arg(self.folder.path()).args(arguments).env("WAREHOUSE", &self.url);
        command.stdin(Stdio::null());
        command
    }

    fn begin(&mut self) {
        let made = self.levin(&["keys", "create", "bench", "--scope", "admin", "--json"]).output();
        let made = made.expect("levin runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made: Value = serde_json::from_slice(&made.stdout).expect("it is JSON");
        self.key = made["key"].as_str().expect("a key").to_owned();
        let mut process = self
            .levin(&["serve", "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("levin runs");
        let mut stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while self.address.is_empty() {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("it says something") > 0, "it ended");
            if let Some((_, rest)) = line.split_once("listening on http://") {
                self.address = rest.split_whitespace().next().expect("an address").to_owned();
            }
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        self.process = Some(process);
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Asks on a connection that stays open.
    fn connection(&self) -> Connection {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Connection {
            reader: BufReader::new(stream.try_clone().expect("a socket")),
            stream,
            key: self.key.clone(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

struct Connection {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    key: String,
}

impl Connection {
    fn ask(&mut self, method: &str, path: &str) -> Value {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: levin\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
            self.key
        );
        self.stream.write_all(request.as_bytes()).expect("it is sent");
        let (mut line, mut length, mut status) = (String::new(), 0, String::new());
        loop {
            line.clear();
            self.reader.read_line(&mut line).expect("an answer");
            if status.is_empty() {
                status = line.trim().to_owned();
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).expect("the whole answer");
        assert!(status.contains(" 200"), "{status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("it is JSON")
    }
}

fn idle(levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut served = Served::new(levin);
    for number in 0..MANY {
        // Never while this measures: half a day away.
        let later = chrono::Utc::now() + chrono::TimeDelta::hours(12);
        let minute = number % 60;
        served.sync(number, &format!("schedule: {{cron: '{minute} {} * * *'}}\n", later.format("%H")));
    }
    served.begin();
    std::thread::sleep(Duration::from_secs(5));
    let before = processor(served.pid());
    std::thread::sleep(IDLE);
    let used = processor(served.pid()) - before;
    print(figure(
        "10,000 schedules, nothing due: share of one core",
        used / IDLE.as_secs_f64() * 100.0,
        "%",
        3.0,
    ));
    print(figure("10,000 schedules, nothing due: memory", memory(served.pid()), "MB", 150.0));
    let mut connection = served.connection();
    let mut seconds: Vec<f64> = (0..REQUESTS)
        .map(|number| {
            let began = Instant::now();
            let page =
                connection.ask("GET", &format!("/api/v1/syncs?limit=100&offset={}", number * 100 % MANY));
            assert_eq!(page["data"].as_array().map(Vec::len), Some(100));
            began.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let slow = seconds[REQUESTS * 99 / 100] * 1_000.0;
    print(figure("GET /syncs of 10,000, a hundred a page: p99 of 1,000", slow, "ms", 20.0));
}

fn due(levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut served = Served::new(levin);
    let moment = chrono::Utc::now() + chrono::TimeDelta::seconds(20);
    let moment = moment - chrono::TimeDelta::nanoseconds(i64::from(moment.timestamp_subsec_nanos()));
    for number in 0..AT_ONCE {
        served.sync(number, &format!("schedule: {{cron: '{}'}}\n", moment.format("%-S %-M %-H * * *")));
    }
    served.begin();
    assert!(chrono::Utc::now() < moment, "the machine is too slow to begin in time");
    let mut connection = served.connection();
    let deadline = Instant::now() + Duration::from_secs(180);
    let runs = loop {
        std::thread::sleep(Duration::from_millis(500));
        let syncs = connection.ask("GET", &format!("/api/v1/syncs?limit={AT_ONCE}"));
        let done = syncs["data"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|sync| sync["status"] == "success")
            .count();
        if done == AT_ONCE {
            let ids = syncs["data"].as_array().expect("a list").iter().map(|sync| sync["id"].as_u64());
            let mut newest = |id: u64| {
                let run = connection.ask("GET", &format!("/api/v1/syncs/{id}/runs"))["data"][0]["id"].clone();
                connection.ask("GET", &format!("/api/v1/syncs/{id}/runs/{run}"))
            };
            break ids.map(|id| newest(id.expect("an id"))).collect::<Vec<Value>>();
        }
        assert!(Instant::now() < deadline, "{done} of {AT_ONCE} runs have ended");
    };
    let since = |text: &Value| {
        let at: chrono::DateTime<chrono::Utc> = text.as_str().expect("a moment").parse().expect("a moment");
        (at - moment).num_milliseconds() as f64 / 1_000.0
    };
    let queued = runs.iter().map(|run| since(&run["createdAt"])).fold(0.0, f64::max);
    let mut first: Vec<f64> = runs.iter().map(|run| since(&run["report"]["firstStatementAt"])).collect();
    first.sort_by(f64::total_cmp);
    print(figure("200 due in one second: the last is queued", queued, "s", 1.0));
    print(figure(
        &format!("200 due in one second: {ALLOWED} (all that may) have begun to ask"),
        first[ALLOWED - 1],
        "s",
        5.0,
    ));
    println!("| (the last of the 200 began after {:.1} s) | | | | | |", first[AT_ONCE - 1]);
}

fn triggered(levin: &Path, print: &mut dyn FnMut(Line)) {
    let mut served = Served::new(levin);
    served.sync(0, "");
    served.begin();
    let mut connection = served.connection();
    let mut latencies: Vec<f64> = (0..TRIGGERS)
        .map(|_| {
            let asked = chrono::Utc::now();
            let run =
                connection.ask("POST", "/api/v1/syncs/1/trigger")["id"].as_str().expect("an id").to_owned();
            loop {
                std::thread::sleep(Duration::from_millis(30));
                let run = connection.ask("GET", &format!("/api/v1/syncs/1/runs/{run}"));
                if let Some(first) = run["report"]["firstStatementAt"].as_str() {
                    let first: chrono::DateTime<chrono::Utc> = first.parse().expect("a moment");
                    break (first - asked).num_microseconds().unwrap_or_default() as f64 / 1_000.0;
                }
            }
        })
        .collect();
    latencies.sort_by(f64::total_cmp);
    print(figure("from a trigger to the first statement: median", latencies[TRIGGERS / 2], "ms", 50.0));
}

/// Seconds of processor time of a process so far: fields 14 and 15 of its stat, in hundredths (proc(5)).
fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    (fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number")) / 100.0
}

/// Megabytes that a process holds at its highest.
fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it says so");
    line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1_024.0
}

fn figure(what: &str, levin: f64, unit: &'static str, must: f64) -> Line {
    Line { what: what.to_owned(), levin, bare: None, unit, must: Some(must), aim: None }
}

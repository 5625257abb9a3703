//! A `levin serve` that tests ask over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::process::{Running, levin_binary};
use tests::project::{Engine, Project};
use tests::receiver::{Receiver, Reply};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A service on a port of this machine.
pub struct Serving {
    pub process: Running,
    pub address: String,
}

impl Serving {
    /// Waits until a service that was started says where it listens.
    pub fn heard(mut process: Running) -> Self {
        process.hears(" of them scheduled");
        let said = process.heard().to_owned();
        let address = said.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("no address: {said}")).to_owned();
        Self { process, address }
    }

    /// Serves a project.
    pub fn of(project: &Project, before: &[&str]) -> Self {
        let words = [before, &["serve", "--listen", "127.0.0.1:0"]].concat();
        Self::heard(Running::start(project.command_of(levin_binary(), &[], &words)))
    }

    /// The answer to a request, head and body.
    pub fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let request = format!("{method} {path} HTTP/1.1\r\nhost: levin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The body of a page that is there.
    pub fn page(&self, path: &str) -> String {
        let answer = self.ask("GET", path);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        body.to_owned()
    }

    /// Ends it gracefully; what it said on standard error.
    pub fn end(self) -> String {
        self.process.terminate();
        let ended = self.process.ended();
        assert_eq!(ended.code, 0, "{ended:#?}");
        ended.stderr
    }
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Four people on their way to a receiver that refuses the one named `refused`; the sync is called `people-to-crm`.
pub fn people(schedule: &str) -> (Project, Receiver) {
    let receiver = Receiver::start();
    receiver.behave(|request| {
        let keys = request.keys();
        let refused = request.rows().iter().zip(&keys).filter(|(row, _)| row["fields"]["name"] == "refused");
        Reply::reject(&refused.map(|(_, key)| key.as_str()).collect::<Vec<_>>(), "nobody is called so")
    });
    let project = Project::new(Engine::DuckDb).with_variable("TO", &receiver.url());
    project.sql("create table people (id bigint, name text)");
    project.sql("insert into people values (1, 'Ada'), (2, 'Grace'), (3, 'refused'), (4, 'Edsger')");
    project.write("models/people.yml", "source: wh\nprimary_key: id\ntable: people\n");
    project
        .write("destinations/crm.yml", "type: http_request\nbase_url: ${TO}\nallow_private_networks: true\n");
    let sync = "model: people\ndestination: crm\nmode: mirror\neach: {path: /rows, batch_size: 2}\n";
    project.write("syncs/people-to-crm.yml", &format!("{sync}{schedule}"));
    (project, receiver)
}

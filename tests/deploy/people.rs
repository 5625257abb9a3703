//! A small project, for what a levin tells of itself.

use tests::project::{Engine, Project};
use tests::receiver::{Receiver, Reply};

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

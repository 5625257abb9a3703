//! What the README tells a newcomer to type, typed.

use std::path::PathBuf;
use std::process::Command;

use tests::process::{Running, levin_binary};
use tests::receiver::Receiver;
use tests::service::until;

/// The commands below a heading of the README, block by block.
fn commands(heading: &str) -> Vec<String> {
    let readme = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).expect("the README");
    let section = text.split_once(&format!("\n### {heading}\n")).expect("the section is there").1;
    let section = section.split("\n## ").next().expect("it has an end");
    section
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("a block").to_owned())
        .collect()
}

#[test]
fn a_newcomer_gets_from_nothing_to_a_schedule_and_an_alert() {
    let slack = Receiver::start();
    let folder = tempfile::tempdir().expect("a folder");
    let project = folder.path().join("shop");
    let path = format!(
        "{}:{}",
        levin_binary().parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let shell = |script: &str, folder: &PathBuf| {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(folder).env("PATH", &path);
        command.env("SLACK_URL", format!("{}/services/T/B/x", slack.url()));
        Running::start(command)
    };
    let [begin, serve, wrong, right]: [String; 4] =
        commands("From nothing to a schedule and an alert").try_into().expect("four steps");

    // A test does not wait for a minute, and its Slack is on this machine.
    let begin = begin.replace("every: 1m", "every: 1s");
    let begin =
        begin.replace("levin check", "echo 'allow_private_networks: true' >> channels/team.yml\nlevin check");
    let began = shell(&begin, &folder.path().to_owned()).ended();
    assert_eq!(began.code, 0, "{began:?}");

    let mut serving = shell(&format!("exec {} --listen 127.0.0.1:0", serve.trim()), &project);
    serving.hears("listening on");
    let ended = |status: &str| {
        let runs = shell("levin runs --json", &project).ended().stdout;
        runs.lines().filter(|line| line.contains(&format!("\"status\":\"{status}\""))).count()
    };
    until("two runs", || (ended("success") >= 2).then_some(()));
    assert_eq!(slack.count(), 0, "all is well, and nobody is told");

    assert_eq!(shell(&wrong, &project).ended().code, 0);
    slack.wait_for(1);
    until("it fails again", || (ended("failed") >= 3).then_some(()));
    let said = slack.requests();
    assert!(said.len() == 1 && said[0].text.contains("guard"), "once, and why: {said:?}");

    assert_eq!(shell(&right, &project).ended().code, 0);
    slack.wait_for(2);
    serving.terminate();
    assert_eq!(serving.ended().code, 0);
}

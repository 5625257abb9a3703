//! Channels, hooks and alerts in project files.

use super::*;

#[test]
fn what_is_told_is_said_by_the_project_the_destination_and_the_sync() {
    use crate::alert::{Drift, Recipient, Times};

    let folder = Folder::new();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let webhook = format!("type: webhook\nurl: https://example.com\nsigning_secret: {secret}\n");
    folder
        .with("levin.yml", "name: demo\nalerts: {channels: [all], run_failed: {consecutive: 3}, too_slow: {warning: 10m, critical: 30m}}\n")
        .with("channels/all.yml", &webhook)
        .with("channels/crm-team.yml", &webhook)
        .with("destinations/crm.yml", "type: crm\ntoken: ${TOKEN}\nalerts: {channels: [crm-team]}\n")
        .with("syncs/files.yml", "model: customers\ndestination: out\nmode: diff\nformat: csv\n")
        .with("syncs/own.yml", "model: customers\ndestination: crm\nobject: contacts\nalerts:
  channels: [all, {channel: crm-team, only: critical}]
  run_failed: {}
  rejected_rows: {critical: {rows: 5}}
  too_slow: {}
  not_run_for: {critical: 25h}
  rows_queried: {dropped: {percent: 30}, severity: critical}
")
        .with("hooks/dbt.yml", "type: dbt_cloud\nsecret: ${TOKEN}-and-a-little-more\n")
        .with("sequences/night.yml", "syncs: [own]\nschedule: {dbt_cloud: {job: 123, account: '9', hook: dbt}}\n");
    let loaded = folder.load();
    // The two secrets that stand in clear.
    assert!(lines(&loaded).iter().all(|line| line.starts_with("~channels/")), "{:?}", lines(&loaded));
    let project = loaded.project.unwrap();
    let recipients = |sync: &str| -> Vec<String> {
        project.sync(sync).unwrap().alerts.recipients.iter().map(|r| r.channel.clone()).collect()
    };
    assert_eq!(recipients("files"), ["all"]);
    assert_eq!(recipients("to-crm"), ["crm-team"]);
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    let general = &project.sync("to-crm").unwrap().alerts;
    assert_eq!(
        (general.consecutive, general.too_slow),
        (3, Times { warning: minutes(10), critical: minutes(30) })
    );
    assert_eq!((general.rejected_warning.rows, general.rejected_critical.percent), (Some(1), Some(10.0)));
    let own = &project.sync("own").unwrap().alerts;
    let recipient = |channel: &str, only_critical| Recipient { channel: channel.to_owned(), only_critical };
    assert_eq!(own.recipients, [recipient("all", false), recipient("crm-team", true)]);
    assert_eq!((own.consecutive, own.too_slow), (1, Times::default()));
    assert_eq!(own.not_run_for, Times { warning: None, critical: minutes(1_500) });
    assert_eq!((own.rejected_warning, own.rejected_critical.rows), (Limit::default(), Some(5)));
    assert_eq!(own.drift, Some(Drift { dropped: Some(30.0), jumped: None, runs: 10, critical: true }));
    assert_eq!(
        project.sequences[0].schedule,
        Some(Schedule::DbtCloud {
            job: "123".to_owned(),
            account: Some("9".to_owned()),
            hook: Some("dbt".to_owned())
        })
    );
    assert!(!folder.read("levin.lock.yml").contains("channels"), "nothing is remembered by their number");
}

#[test]
fn channels_hooks_and_alerts_that_are_wrong_are_named() {
    let folder = Folder::new();
    folder
        .with("levin.yml", "name: demo\nalerts:\n  channels: [tema]\n  too_slow: {warning: soon}\n")
        .with("channels/team.yml", "type: slack\n")
        .with("channels/odd.yml", "type: pigeon\n")
        .with("channels/half.yml", "type: pagerduty\nevents: [run.failed]\n")
        .with("hooks/short.yml", "type: fivetran\nsecret: ${TOKEN}\n")
        .with(
            "syncs/to-crm.yml",
            "model: customers\ndestination: crm\nobject: contacts
schedule: {fivetran: {connector: lake, hook: shor}}
alerts:
  channels: [{channel: team, only: warning}]
  rows_queried: {runs: 1}
",
        )
        .with(
            "syncs/other.yml",
            "model: customers\ndestination: crm\nobject: contacts\nschedule: {dbt_cloud: {job: 1}}\n",
        );
    let found = lines(&folder.load());
    for line in [
        "levin.yml:3: there is no channel `tema` (did you mean `team`?)",
        "levin.yml:4: `alerts.too_slow.warning`: `soon` is not a duration such as `30s`, `15m`, `2h` or `1h30m`",
        "channels/team.yml:1: give `url` (an incoming webhook), or `token` and `channel`",
        "channels/odd.yml:1: there is no channel of type `pigeon`",
        "channels/half.yml:1: the key `routing_key` is missing",
        "channels/half.yml:2: unknown key `events`",
        "hooks/short.yml:2: `secret`: must have at least 16 characters",
        "syncs/to-crm.yml:4: there is no hook `shor` of type `fivetran` (did you mean `short`?)",
        "syncs/to-crm.yml:6: `alerts.channels[0].only` must be `critical`, not the text `warning`",
        "syncs/to-crm.yml:7: `alerts.rows_queried.runs` must not be less than 3",
        "~syncs/other.yml:4: no hook of type `dbt_cloud` ever starts this (make one: `hooks/NAME.yml` with `type: dbt_cloud` and its secret)",
    ] {
        assert!(found.iter().any(|known| known.starts_with(line)), "{line}\n{}", found.join("\n"));
    }
    assert_eq!(found.iter().filter(|line| line.contains("too_slow")).count(), 1, "once, not sync by sync");
}

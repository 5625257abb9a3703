//! What `deploy/` promises: image, compose file, chart, unit, dashboards; and what a running levin tells of itself.

#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/checked.rs"]
mod checked;
#[path = "deploy/container.rs"]
mod container;
#[path = "deploy/dashboards.rs"]
mod dashboards;
#[path = "deploy/logs.rs"]
mod logs;
#[path = "deploy/metrics.rs"]
mod metrics;
#[path = "deploy/people.rs"]
mod people;
#[path = "deploy/rootfs.rs"]
mod rootfs;
#[path = "deploy/traces.rs"]
mod traces;
#[path = "deploy/unit.rs"]
mod unit;

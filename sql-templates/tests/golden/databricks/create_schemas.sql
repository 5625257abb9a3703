-- create the planner schema
create schema if not exists `levin_planner`;

-- create the audit schema
create schema if not exists `levin_audit`;


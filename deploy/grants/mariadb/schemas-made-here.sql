-- create the planner schema
create schema if not exists `levin_planner`;

-- create the audit schema
create schema if not exists `levin_audit`;

-- let the role write the planner schema
grant all privileges on `levin_planner`.* to `levin`;

-- let the role write the audit schema
grant all privileges on `levin_audit`.* to `levin`;

-- let the role read the models
grant select on `models`.* to `levin`;


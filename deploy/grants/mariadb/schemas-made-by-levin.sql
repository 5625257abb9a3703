-- let the role write the planner schema
grant all privileges on `levin_planner`.* to `levin`;

-- let the role write the audit schema
grant all privileges on `levin_audit`.* to `levin`;

-- let the role read the models
grant select on `models`.* to `levin`;


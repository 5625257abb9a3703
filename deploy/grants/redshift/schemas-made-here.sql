-- create the planner schema
create schema if not exists "levin_planner";

-- let the role write the planner schema
grant usage, create on schema "levin_planner" to "levin";

-- create the audit schema
create schema if not exists "levin_audit";

-- let the role write the audit schema
grant usage, create on schema "levin_audit" to "levin";

-- let the role see the models
grant usage on schema "models" to "levin";

-- let the role read the models
grant select on all tables in schema "models" to "levin";

-- let the role read future models
alter default privileges in schema "models" grant select on tables to "levin";


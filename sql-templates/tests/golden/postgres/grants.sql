-- create the planner schema
create schema if not exists "levin_planner" authorization "levin";

-- create the audit schema
create schema if not exists "levin_audit" authorization "levin";

-- let the role connect
grant connect on database "analytics" to "levin";

-- let the role see the models
grant usage on schema public to "levin";

-- let the role read the models
grant select on all tables in schema public to "levin";

-- let the role read future models
alter default privileges in schema public grant select on tables to "levin";


-- create the planner schema
create schema if not exists "analytics"."levin_planner";

-- let the role write the planner schema
grant usage, create table on schema "analytics"."levin_planner" to role "levin";

-- create the audit schema
create schema if not exists "analytics"."levin_audit";

-- let the role write the audit schema
grant usage, create table on schema "analytics"."levin_audit" to role "levin";

-- let the role use the database
grant usage on database "analytics" to role "levin";

-- let the role see the models
grant usage on schema "analytics"."models" to role "levin";

-- let the role read the tables
grant select on all tables in schema "analytics"."models" to role "levin";

-- let the role read the views
grant select on all views in schema "analytics"."models" to role "levin";

-- let the role read future tables
grant select on future tables in schema "analytics"."models" to role "levin";

-- let the role read future views
grant select on future views in schema "analytics"."models" to role "levin";


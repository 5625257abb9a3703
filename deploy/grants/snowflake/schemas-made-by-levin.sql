-- let the role create its schemas
grant create schema on database "analytics" to role "levin";

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


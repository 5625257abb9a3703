-- let the role create its schemas
grant create on database "analytics" to "levin";

-- let the role see the models
grant usage on schema "shop" to "levin";

-- let the role read the models
grant select on all tables in schema "shop" to "levin";

-- let the role read future models
alter default privileges in schema "shop" grant select on tables to "levin";


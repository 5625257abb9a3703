-- let the role see the models
grant usage on schema "Sales" to "levin";

-- let the role read the model
grant select on "customers" to "levin";

-- let the role read the model
grant select on "Sales"."orders" to "levin";


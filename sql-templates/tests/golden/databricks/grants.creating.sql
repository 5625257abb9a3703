-- let the principal create its schemas
grant create schema on catalog `analytics` to `levin`;

-- let the principal use the catalog
grant use catalog on catalog `analytics` to `levin`;

-- let the principal read the models
grant use schema, select on schema `analytics`.`shop` to `levin`;


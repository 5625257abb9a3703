-- create the planner schema
create schema if not exists `analytics`.`levin_planner`;

-- let the principal write the planner schema
grant use schema, create table, select, modify on schema `analytics`.`levin_planner` to `levin`;

-- create the audit schema
create schema if not exists `analytics`.`levin_audit`;

-- let the principal write the audit schema
grant use schema, create table, select, modify on schema `analytics`.`levin_audit` to `levin`;

-- let the principal use the catalog
grant use catalog on catalog `analytics` to `levin`;

-- let the principal read the models
grant use schema, select on schema `analytics`.`shop` to `levin`;


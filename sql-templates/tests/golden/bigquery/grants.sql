-- create the planner schema
create schema if not exists `levin_planner`;

-- let the account write the planner schema
grant `roles/bigquery.dataEditor` on schema `levin_planner` to 'serviceAccount:levin';

-- create the audit schema
create schema if not exists `levin_audit`;

-- let the account write the audit schema
grant `roles/bigquery.dataEditor` on schema `levin_audit` to 'serviceAccount:levin';

-- let the account read the models
grant `roles/bigquery.dataViewer` on schema `shop` to 'serviceAccount:levin';


-- create the planner schema
create schema if not exists `levin_planner`;

-- let the account write the planner schema
grant `roles/bigquery.dataEditor` on schema `levin_planner` to 'serviceAccount:levin@my-project.iam.gserviceaccount.com';

-- create the audit schema
create schema if not exists `levin_audit`;

-- let the account write the audit schema
grant `roles/bigquery.dataEditor` on schema `levin_audit` to 'serviceAccount:levin@my-project.iam.gserviceaccount.com';

-- let the account read the models
grant `roles/bigquery.dataViewer` on schema `models` to 'serviceAccount:levin@my-project.iam.gserviceaccount.com';


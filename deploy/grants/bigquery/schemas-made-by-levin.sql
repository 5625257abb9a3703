-- let the account read the models
grant `roles/bigquery.dataViewer` on schema `models` to 'serviceAccount:levin@my-project.iam.gserviceaccount.com';


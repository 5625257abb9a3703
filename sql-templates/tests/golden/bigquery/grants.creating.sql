-- let the account read the models
grant `roles/bigquery.dataViewer` on schema `shop` to 'serviceAccount:levin';


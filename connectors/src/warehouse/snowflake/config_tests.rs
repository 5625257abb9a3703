//! What a source's file may say.

use std::path::PathBuf;

use serde_json::json;

use super::*;

fn build(change: Value) -> Result<Arc<dyn Warehouse>, ConfigError> {
    let context = BuildContext { slug: "wh".into(), project: PathBuf::from("/project"), secrets: Vec::new() };
    let mut config = json!({
        "account": "XY12345.eu-central-1", "user": "LEVIN", "auth": {"token": "hunter2"}, "role": "levin_role",
        "database": "analytics",
    });
    for (key, value) in change.as_object().unwrap() {
        config[key] = value.clone();
    }
    (SNOWFLAKE.build)(config, &context)
}

#[test]
fn a_source_is_built_from_its_file() {
    let warehouse = build(json!({})).unwrap();
    assert_eq!(warehouse.identity(), "snowflake://xy12345.eu-central-1/ANALYTICS");
    assert_eq!(warehouse.role().as_deref(), Some("LEVIN_ROLE"));
    assert_eq!(warehouse.database().as_deref(), Some("ANALYTICS"));
    assert_eq!(build(json!({"database": "\"Ana\"\"x\""})).unwrap().database().as_deref(), Some("Ana\"x"));
    assert!(!format!("{warehouse:?}").contains("hunter2"));
}

#[test]
fn mistakes_in_the_file_are_refused_where_they_stand() {
    for (change, path) in [
        (json!({"account": ""}), "account"),
        (json!({"account": "https://xy12345.snowflakecomputing.com"}), "account"),
        (json!({"account": "xy12345.snowflakecomputing.com"}), "account"),
        (json!({"host": "http://example.com"}), "host"),
        (json!({"host": "https://u:hunter2@example.com"}), "host"),
        (json!({"host": "https://example.com/path"}), "host"),
        (json!({"user": ""}), "user"),
        (json!({"database": ""}), "database"),
        (json!({"auth": {}}), "auth"),
        (json!({"auth": {"token": "hunter2", "password": "hunter2"}}), "auth"),
        (json!({"auth": {"token": " "}}), "auth.token"),
        (json!({"auth": {"password": ""}}), "auth.password"),
        (json!({"auth": {"private_key": "hunter2"}}), "auth.private_key"),
        (json!({"auth": {"token": "x", "private_key_passphrase": "hunter2"}}), "auth.private_key_passphrase"),
        (json!({"auth": {"oauth": {}}}), "auth.oauth"),
        (json!({"auth": {"oauth": {"token": "hunter2", "client_id": "x"}}}), "auth.oauth"),
        (
            json!({"auth": {"oauth": {"token_url": "http://example.com", "client_id": "x", "client_secret": "hunter2"}}}),
            "auth.oauth.token_url",
        ),
        (json!({"statement_timeout": "soon"}), "statement_timeout"),
        (json!({"connect_timeout": "0s"}), "connect_timeout"),
        (json!({"network_timeout": "1"}), "network_timeout"),
        (json!({"warehous": "x"}), "wh"),
    ] {
        let error = build(change.clone()).unwrap_err();
        assert_eq!(error.path, path, "{change}");
        assert!(!error.message.is_empty() && !error.message.contains("hunter2"), "{error}");
    }
}

#[test]
fn accounts_answer_where_snowflake_says() {
    let at = |account: &str, host: Option<&str>| base(account, host).map(|url| url.to_string());
    assert_eq!(
        at("XY12345.eu-central-1", None).unwrap(),
        "https://xy12345.eu-central-1.snowflakecomputing.com/"
    );
    assert_eq!(at("my_org-my_account", None).unwrap(), "https://my-org-my-account.snowflakecomputing.com/");
    assert_eq!(at("xy1.cn-northwest-1", None).unwrap(), "https://xy1.cn-northwest-1.snowflakecomputing.cn/");
    assert_eq!(at("x", Some("x.privatelink.example.com")).unwrap(), "https://x.privatelink.example.com/");
    assert_eq!(at("x", Some("http://127.0.0.1:8080")).unwrap(), "http://127.0.0.1:8080/");
    assert_eq!(at("x", Some("http://localhost:8080")).unwrap(), "http://localhost:8080/");
    assert!(at("x", Some("http://10.0.0.1")).is_err());
    assert!(at("x", Some("ftp://127.0.0.1")).is_err());
}

#[test]
fn the_schema_describes_every_key() {
    let schema = (SNOWFLAKE.config_schema)().to_value();
    for key in ["account", "host", "user", "role", "warehouse", "database", "schema", "network_timeout"] {
        assert!(schema["properties"][key]["description"].is_string(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["required"], json!(["account", "auth", "database"]));
}

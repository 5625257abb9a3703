//! Who asks: every kind of credentials, against a server that gives tokens only to those who prove themselves.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use connectors::warehouse::{Tag, WarehouseError};

use super::*;

/// A key pair of its own, made by the command `openssl`.
struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Self { folder };
        openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
            &keys.path("private.pem"),
        ]);
        openssl(&["pkey", "-in", &keys.path("private.pem"), "-pubout", "-out", &keys.path("public.pem")]);
        keys
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The file that Google gives out for a service account.
    fn service_account(&self) -> String {
        json!({
            "type": "service_account", "project_id": "p", "private_key_id": "key-1",
            "private_key": fs::read_to_string(self.path("private.pem")).unwrap(),
            "client_email": "levin@p.iam.gserviceaccount.com", "client_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        })
        .to_string()
    }

    /// The claims of a token that this key's owner signed; nothing for any other token.
    fn claims(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let head: Value = serde_json::from_slice(&part(header)?).ok()?;
        if head["alg"] != "RS256" || head["kid"] != "key-1" {
            return None;
        }
        let name = format!("{:x}", fastrand::u64(..));
        fs::write(self.path(&format!("{name}.signed")), signed).ok()?;
        fs::write(self.path(&format!("{name}.signature")), part(signature)?).ok()?;
        let verified = Command::new("openssl")
            .args(["dgst", "-sha256", "-verify", &self.path("public.pem"), "-signature"])
            .args([self.path(&format!("{name}.signature")), self.path(&format!("{name}.signed"))])
            .output()
            .unwrap();
        verified.status.success().then(|| serde_json::from_slice(&part(claims)?).ok())?
    }
}

fn openssl(arguments: &[&str]) {
    let ran = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("the command openssl is needed for this test");
    assert!(ran.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn unauthorized() -> Answer {
    Answer::json(
        401,
        &json!({"error": {"code": 401, "message": "Request had invalid authentication credentials.",
            "errors": [{"reason": "authError", "message": "Invalid Credentials"}], "status": "UNAUTHENTICATED"}}),
    )
}

/// BigQuery that takes only such tokens.
fn guarded(takes: impl Fn(&str) -> bool + Send + Sync + 'static) -> Front {
    Front::before(Some(BigqueryDouble::start().address()), move |asked| {
        if takes(asked.token()) { Answer::Pass } else { unauthorized() }
    })
}

async fn works(front: &Front, auth: Value, more: Value) -> Result<(), WarehouseError> {
    let mut more = more;
    more["auth"] = auth;
    let warehouse = at(&front.url(), more).await;
    let tag = Tag { sync: "s".into(), run: None, stage: "check" };
    let mut session = warehouse.session(&tag).await?;
    assert_eq!(number(&mut *session, "select 42").await, 42);
    Ok(())
}

#[tokio::test]
async fn a_service_account_signs_its_own_tokens() {
    let keys = Arc::new(Keys::new());
    let judge = keys.clone();
    let front = guarded(move |token| {
        judge.claims(token).is_some_and(|claims| {
            let (from, to) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
            let now = seconds_now();
            claims["iss"] == "levin@p.iam.gserviceaccount.com"
                && claims["scope"] == "https://www.googleapis.com/auth/bigquery"
                && from <= now
                && now < to
                && to - from <= 3_700
        })
    });
    works(&front, json!({"service_account": keys.service_account()}), json!({})).await.unwrap();
    works(&front, json!({"credentials": keys.service_account()}), json!({})).await.unwrap();

    // Somebody else's key is no proof, and no word of it is told.
    let other = Keys::new();
    let failed =
        works(&front, json!({"service_account": other.service_account()}), json!({})).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
    assert!(!failed.message.contains("PRIVATE KEY"), "{failed}");
    let mut broken: Value = serde_json::from_str(&keys.service_account()).unwrap();
    broken["private_key"] = json!("-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n");
    let failed = works(&front, json!({"service_account": broken.to_string()}), json!({})).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
    assert!(!failed.message.contains("bm90IGEga2V5"), "{failed}");
}

/// Gives tokens as Google's servers do: for a refresh token, for another identity provider's token, and as another
/// account. Each is worth something once only the one before it was.
fn token_server() -> Front {
    let given = AtomicUsize::new(0);
    Front::before(None, move |asked| {
        let form: BTreeMap<String, String> = String::from_utf8_lossy(&asked.body)
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let number = given.fetch_add(1, Ordering::SeqCst);
        let token = |kind: &str| {
            json!({"access_token": format!("{kind}-{number}"), "expires_in": 3600, "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "scope": "x"})
        };
        match asked.path.as_str() {
            "/refresh"
                if asked.json()["refresh_token"] == "r-1"
                    || form.get("refresh_token").is_some_and(|t| t == "r-1") =>
            {
                Answer::json(200, &token("user"))
            }
            "/sts" if form.get("subject_token").is_some_and(|t| t == "from-elsewhere") => {
                Answer::json(200, &token("federated"))
            }
            path if path.ends_with(":generateAccessToken") && asked.token().starts_with("user-") => {
                Answer::json(
                    200,
                    &json!({"accessToken": format!("impersonated-{number}"), "expireTime": "2999-01-01T00:00:00Z"}),
                )
            }
            _ => Answer::json(
                401,
                &json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
            ),
        }
    })
}

fn authorized_user(tokens: &Front, refresh_token: &str) -> Value {
    json!({"type": "authorized_user", "client_id": "c", "client_secret": "s3cret", "refresh_token": refresh_token,
        "token_uri": format!("{}/refresh", tokens.url())})
}

#[tokio::test]
async fn other_credentials_are_exchanged_for_tokens() {
    let tokens = token_server();
    let user = authorized_user(&tokens, "r-1");
    let front = guarded(|token| token.starts_with("user-"));
    works(&front, json!({"credentials": user.to_string()}), json!({})).await.unwrap();
    let revoked = authorized_user(&tokens, "r-2");
    let failed = works(&front, json!({"credentials": revoked.to_string()}), json!({})).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Authentication, "{failed}");
    assert!(!failed.message.contains("s3cret") && !failed.message.contains("r-2"), "{failed}");

    // Workload identity: the token of another identity provider, from a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "from-elsewhere").unwrap();
    let federated = json!({"type": "external_account", "token_url": format!("{}/sts", tokens.url()),
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": {"file": file}});
    let front = guarded(|token| token.starts_with("federated-"));
    works(&front, json!({"credentials": federated.to_string()}), json!({})).await.unwrap();

    // Another account's token, for whoever may have it.
    let impersonated = json!({"type": "impersonated_service_account", "source_credentials": user,
        "service_account_impersonation_url":
            format!("{}/v1/projects/-/serviceAccounts/levin@p.iam.gserviceaccount.com:generateAccessToken", tokens.url())});
    let front = guarded(|token| token.starts_with("impersonated-"));
    works(&front, json!({"credentials": impersonated.to_string()}), json!({})).await.unwrap();
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_is_renewed() {
    let tokens = token_server();
    let user = authorized_user(&tokens, "r-1").to_string();
    // Every token is good for four requests.
    let used: std::sync::Mutex<BTreeMap<String, usize>> = std::sync::Mutex::default();
    let front = guarded(move |token| {
        let mut used = used.lock().unwrap();
        let times = used.entry(token.to_owned()).or_default();
        *times += 1;
        *times <= 4
    });
    let warehouse = at(&front.url(), json!({"auth": {"credentials": user}})).await;
    let mut session = open(&*warehouse).await;
    let batches = rows(&mut *session, "select n from unnest(generate_array(1, 150000)) as n").await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 150_000);
    let refused = front.asked().iter().filter(|a| a.token() == "user-0").count();
    assert_eq!(refused, 5, "the first token, four times with success and once without");
    assert!(tokens.asked().len() >= 2);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_ends_as_what_it_is() {
    let front = guarded(|token| token == "good");
    works(&front, json!({"access_token": "good"}), json!({})).await.unwrap();
    let failed = works(&front, json!({"access_token": "expired-t0ken"}), json!({})).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Authentication);
    assert!(failed.message.contains("invalid authentication credentials"), "{failed}");
    assert!(!failed.message.contains("t0ken"), "{failed}");
    let asked = front.asked().iter().filter(|a| a.token() == "expired-t0ken").count();
    assert_eq!(asked, 1, "it is not asked again");
}

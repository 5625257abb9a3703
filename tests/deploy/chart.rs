//! The chart: rendered by Helm, and judged by Kubernetes' own schemas.

use serde_json::{Value, json};

use super::checked::{check, path_of, read, written};

const CHART: &str = "deploy/helm";
/// The oldest Kubernetes that the chart is for, and the newest whose schemas are at hand.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// The least that must be said: replicas that share a store.
fn least() -> Value {
    json!({
        "store": {"secret": {"name": "levin-store"}},
        "project": {"files": {
            "levin.yml": "name: shop\nstore: ${LEVIN_STORE}\n",
            "levin.lock.yml": "project: 5f0f…\n",
            "syncs/customers-to-crm.yml": "model: customers\n",
        }},
    })
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut values = least();
    for (pointer, value) in changes {
        let mut at = &mut values;
        for word in pointer.split('.') {
            at = &mut at[word];
        }
        *at = value.clone();
    }
    values
}

fn rendered(values: &Value) -> Value {
    check(&["chart", CHART, path_of(&written(values))])
}

/// Every manifest of a chart that is not refused.
fn manifests(values: &Value) -> Vec<Value> {
    let rendered = rendered(values);
    assert!(rendered["refused"].is_null(), "{rendered:#}");
    rendered["manifests"]
        .as_object()
        .expect("manifests")
        .values()
        .flat_map(|m| m.as_array().expect("a list"))
        .cloned()
        .collect()
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> Option<&'a Value> {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let first = found.next();
    assert!(found.next().is_none(), "two of {kind}");
    first
}

/// With everything that can be switched on.
fn most() -> Value {
    with(&[
        ("replicas", json!(3)),
        ("image", json!({"repository": "registry.example.com/levin", "tag": "0.1.0-1"})),
        ("imagePullSecrets", json!([{"name": "pull"}])),
        ("secrets", json!({"env": ["crm", "warehouse"], "files": "keys"})),
        ("env", json!([{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}])),
        ("service.annotations", json!({"a": "b"})),
        ("serviceAccount.annotations", json!({"iam.gke.io/gcp-service-account": "levin@example.iam"})),
        (
            "serviceMonitor",
            json!({"enabled": true, "labels": {"release": "prometheus"}, "key": {"name": "metrics-key"}}),
        ),
        ("podAnnotations", json!({"c": "d"})),
        ("podLabels", json!({"team": "data"})),
        ("nodeSelector", json!({"kubernetes.io/arch": "amd64"})),
        ("tolerations", json!([{"key": "k", "operator": "Exists"}])),
        ("affinity", json!({"nodeAffinity": {}})),
        ("extraVolumes", json!([{"name": "files", "emptyDir": {}}])),
        ("extraVolumeMounts", json!([{"name": "files", "mountPath": "/files"}])),
    ])
}

fn on_sqlite() -> Value {
    with(&[
        ("replicas", json!(1)),
        ("store", json!({"sqlite": {"enabled": true, "size": "2Gi", "storageClassName": "fast"}})),
        ("project", json!({"volume": {"persistentVolumeClaim": {"claimName": "project", "readOnly": true}}})),
        ("preStopSeconds", json!(0)),
        ("serviceAccount", json!({"create": false})),
    ])
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    let found = check(&["lint", CHART]);
    let errors: Vec<&Value> = found["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter(|m| m["severity"].as_u64() > Some(1))
        .collect();
    assert!(errors.is_empty(), "{found:#}");
}

#[test]
fn chart_and_compose_file_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("deploy/helm/Chart.yaml");
    for line in [format!("version: {version}"), format!("appVersion: {version}")] {
        assert!(chart.lines().any(|found| found == line), "{line} is missing");
    }
    assert!(read("deploy/container/compose.yaml").contains(&format!("image: levin:{version}\n")));
    assert!(read("deploy/README.md").contains(&format!("--tag levin:{version} ")));
}

#[test]
fn kubernetes_would_take_what_it_renders() {
    for (what, values) in [("least", least()), ("most", most()), ("sqlite", on_sqlite())] {
        let manifests = manifests(&values);
        // A kind of the Prometheus operator's, which Kubernetes' schemas do not know.
        let known: Vec<&Value> = manifests.iter().filter(|m| m["kind"] != "ServiceMonitor").collect();
        assert!(known.len() >= 3, "{what}: {manifests:#?}");
        let file = written(&json!(known));
        for version in VERSIONS {
            assert_eq!(check(&["manifests", path_of(&file), version]), json!([]), "{what} on {version}");
        }
    }
    let mut spoiled = of_kind(&manifests(&least()), "Deployment").expect("a deployment").clone();
    spoiled["spec"]["replicas"] = json!("two");
    let found = check(&["manifests", path_of(&written(&json!([spoiled]))), VERSIONS[0]]);
    assert_eq!(found.as_array().map(Vec::len), Some(1), "a spoiled manifest passes: {found}");
}

#[test]
fn pods_are_closed_and_end_gracefully() {
    for values in [least(), most(), on_sqlite()] {
        let manifests = manifests(&values);
        let deployment = of_kind(&manifests, "Deployment").expect("a deployment");
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        let levin = &pod["containers"][0];
        let closed = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
        assert_eq!(levin["securityContext"], closed);
        assert_eq!(levin["livenessProbe"]["httpGet"]["path"], "/healthz");
        assert_eq!(levin["readinessProbe"]["httpGet"]["path"], "/readyz");
        assert_eq!(levin["startupProbe"]["httpGet"]["path"], "/healthz");
        assert!(
            levin["resources"]["limits"]["memory"].is_string()
                && levin["resources"]["requests"]["cpu"].is_string()
        );
        let before = levin["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
        let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(grace >= before + 60, "levin has {grace} - {before} s, and may need 60");
        // Every mount has its volume, and what is a project is only read.
        let volumes: Vec<&Value> =
            pod["volumes"].as_array().expect("volumes").iter().map(|v| &v["name"]).collect();
        for mount in levin["volumeMounts"].as_array().expect("mounts") {
            assert!(volumes.contains(&&mount["name"]), "{mount} has no volume");
            assert_eq!(
                mount["readOnly"] == true,
                ["project", "secrets"].iter().any(|n| mount["name"] == *n),
                "{mount}"
            );
        }
        // No secret stands in a manifest: what is secret is named.
        assert!(of_kind(&manifests, "Secret").is_none());
        let service = of_kind(&manifests, "Service").expect("a service");
        let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object().expect("labels");
        for (name, value) in service["spec"]["selector"].as_object().expect("a selector") {
            assert_eq!(labels.get(name), Some(value), "the service finds the pods");
        }
        assert_eq!(levin["ports"][0]["name"], service["spec"]["ports"][0]["targetPort"]);
    }
}

#[test]
fn a_project_reaches_the_pod_as_it_is() {
    let manifests = manifests(&least());
    let map = of_kind(&manifests, "ConfigMap").expect("a config map");
    let pod = &of_kind(&manifests, "Deployment").expect("a deployment")["spec"]["template"]["spec"];
    let volume = pod["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .find(|v| v["name"] == "project")
        .expect("a volume");
    assert_eq!(volume["configMap"]["name"], map["metadata"]["name"]);
    let files = least()["project"]["files"].as_object().expect("files").clone();
    let items = volume["configMap"]["items"].as_array().expect("items");
    assert_eq!(items.len(), files.len());
    for item in items {
        let (key, path) = (item["key"].as_str().expect("a key"), item["path"].as_str().expect("a path"));
        assert_eq!(map["data"][key], files[path], "{path}");
    }
    let env = &pod["containers"][0]["env"];
    let store =
        env.as_array().expect("a list").iter().find(|v| v["name"] == "LEVIN_STORE").expect("the store");
    assert_eq!(store["valueFrom"]["secretKeyRef"], json!({"name": "levin-store", "key": "store-url"}));
}

#[test]
fn one_replica_may_keep_its_store_in_a_file() {
    let manifests = manifests(&on_sqlite());
    let deployment = of_kind(&manifests, "Deployment").expect("a deployment");
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate", "two pods cannot have one file");
    let claim = of_kind(&manifests, "PersistentVolumeClaim").expect("a claim");
    assert_eq!(claim["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    let pod = &deployment["spec"]["template"]["spec"];
    let env = pod["containers"][0]["env"].to_string();
    assert!(env.contains("sqlite:///var/lib/levin/store.db"), "{env}");
    assert!(of_kind(&manifests, "PodDisruptionBudget").is_none(), "one replica can never be spared");
    assert!(of_kind(&manifests, "ServiceAccount").is_none() && pod["serviceAccountName"] == "default");
}

#[test]
fn replicas_are_watched_and_never_all_evicted() {
    let manifests = manifests(&most());
    let budget = of_kind(&manifests, "PodDisruptionBudget").expect("a budget");
    let pods = &of_kind(&manifests, "Deployment").expect("a deployment")["spec"]["selector"]["matchLabels"];
    assert_eq!(
        (&budget["spec"]["minAvailable"], &budget["spec"]["selector"]["matchLabels"]),
        (&json!(1), pods)
    );
    let monitor = of_kind(&manifests, "ServiceMonitor").expect("a monitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["path"], &endpoint["port"]), (&json!("/metrics"), &json!("http")));
    let key = json!({"type": "Bearer", "credentials": {"name": "metrics-key", "key": "api-key"}});
    assert_eq!(endpoint["authorization"], key);
    let service = of_kind(&manifests, "Service").expect("a service");
    assert_eq!(service["spec"]["ports"][0]["name"], "http", "the monitor finds the port");
}

#[test]
fn values_that_cannot_work_are_refused_and_say_why() {
    for (values, why) in [
        (with(&[("replica", json!(2))]), "replica"),
        (with(&[("replicas", json!(0))]), "replicas"),
        (with(&[("image.tags", json!("x"))]), "tags"),
        (with(&[("store", json!({}))]), "where is the store?"),
        (with(&[("store.sqlite", json!({"enabled": true}))]), "exclude each other"),
        (with(&[("store", json!({"sqlite": {"enabled": true}}))]), "serves one replica"),
        (with(&[("project", json!({}))]), "where is the project?"),
        (with(&[("project.volume", json!({"emptyDir": {}}))]), "exclude each other"),
        (with(&[("project", json!({"files": {"levin.yml": ""}}))]), "has no levin.lock.yml"),
        (with(&[("project.files", json!({"../x": ""}))]), "invalid propertyName"),
        (with(&[("terminationGracePeriodSeconds", json!(60))]), "at least 60 + preStopSeconds"),
        (with(&[("serviceMonitor", json!({"enabled": true}))]), "serviceMonitor.key.name is missing"),
    ] {
        let refused = rendered(&values)["refused"].clone();
        assert!(refused.as_str().is_some_and(|text| text.contains(why)), "{why:?}: {refused}");
    }
}

#[test]
fn whoever_installs_it_is_told_what_to_do() {
    let notes = rendered(&least())["notes"].clone();
    let notes = notes.as_str().expect("notes");
    for words in
        ["2 replicas", "store: ${LEVIN_STORE}", "deployment/shop-levin -- levin check", "--namespace data"]
    {
        assert!(notes.contains(words), "{words}: {notes}");
    }
}

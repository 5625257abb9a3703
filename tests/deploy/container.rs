//! The image and the compose file, as far as they can be judged where no container runs.

use std::collections::BTreeSet;

use super::checked::{check, program, read, root};

const DOCKERFILE: &str = "deploy/container/Dockerfile";

/// The instructions, each in one line.
fn instructions() -> Vec<String> {
    let text = read(DOCKERFILE).replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_dockerfile_is_what_its_linter_wants() {
    if let Err(said) = program("hadolint", &["--failure-threshold", "style", DOCKERFILE]) {
        panic!("{said}");
    }
    // The linter finds faults at all.
    let spoiled = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(spoiled.path(), "FROM debian\nRUN apt-get install curl\n").expect("write it");
    let said = program("hadolint", &[spoiled.path().to_str().expect("UTF-8")]);
    assert!(said.is_err_and(|said| said.contains("DL3006")), "an image without a tag passes");
}

#[test]
fn the_image_is_pinned_small_and_nobodys_root() {
    let all = instructions();
    let bases: Vec<&str> = all.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases.last(), Some(&"scratch"), "what runs holds nothing that was not put there");
    for base in &bases[..bases.len() - 1] {
        let tag = base.split_once(':').map_or("", |(_, tag)| tag.split(' ').next().unwrap_or_default());
        assert!(tag.matches('.').count() == 2, "{base} names no exact version");
    }
    let last = all.iter().rposition(|line| line.starts_with("FROM ")).expect("there is one");
    let image = &all[last..];
    for line in [
        "USER 10001:10001",
        "STOPSIGNAL SIGTERM",
        "ENTRYPOINT [\"levin\"]",
        "CMD [\"serve\", \"--listen\", \"0.0.0.0:8484\"]",
    ] {
        assert!(image.iter().any(|found| found == line), "{line} is missing in {image:#?}");
    }
    assert!(
        image
            .iter()
            .any(|line| line.starts_with("HEALTHCHECK ") && line.ends_with("CMD [\"levin\", \"health\"]"))
    );
    assert!(image.iter().any(|line| line.starts_with("LABEL org.opencontainers.image.title=\"levin\"")));
    assert!(!image.iter().any(|line| line.starts_with("RUN ")), "nothing runs in an empty image");
    let version = read("Cargo.toml");
    let version = version.lines().find_map(|line| line.strip_prefix("version = ")).expect("a version");
    assert!(image.contains(&format!("ARG VERSION={}", version.trim_matches('"'))), "{version}: {image:#?}");
}

#[test]
fn the_image_holds_the_library_that_is_tested() {
    let setup = read(".ci/setup");
    let tested = setup.lines().find_map(|line| line.strip_prefix("DUCKDB_NPM_VERSION=")).expect("a version");
    assert!(instructions().contains(&format!("ARG DUCKDB_NPM_VERSION={tested}")), "{tested}");
    // The same package: one file of it, under the same name.
    assert!(setup.contains("@duckdb/node-bindings-$platform-$npm_arch@$DUCKDB_NPM_VERSION"));
    assert!(read(DOCKERFILE).contains("@duckdb/node-bindings-linux-$arch@$DUCKDB_NPM_VERSION"));
    let wanted = read("Cargo.toml");
    let wanted = wanted.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    let builder = format!("FROM rust:{}.", wanted.trim_matches('"'));
    assert!(read(DOCKERFILE).contains(&builder), "the image is built by Rust {wanted}");
}

#[test]
fn the_build_gets_what_it_needs_and_no_project() {
    let patterns = read("deploy/container/Dockerfile.dockerignore");
    let patterns: Vec<&str> = patterns.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(patterns[0], "*", "everything is kept out that is not named");
    let admitted: BTreeSet<&str> = patterns.iter().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &admitted {
        assert!(root().join(path).exists(), "{path} is not there");
    }
    let members = read("Cargo.toml");
    let members = members.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    let members: Vec<String> = serde_json::from_str(members).expect("a list");
    for needed in
        members.iter().map(String::as_str).chain(["Cargo.toml", "Cargo.lock", "deploy/container/rootfs"])
    {
        assert!(admitted.contains(needed), "{needed} does not reach the build");
    }
    assert!(patterns.contains(&"**/.levin"), "a store may lie in a folder that reaches the build");
}

#[test]
fn the_compose_file_is_valid_and_closed() {
    let compose = check(&["compose", "deploy/container/compose.yaml"]);
    for (name, service) in compose["services"].as_object().expect("services") {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert!(service["cap_add"].is_null(), "{name}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        assert!(
            service["healthcheck"]["test"].as_array().is_some_and(|words| words[0] == "CMD"),
            "{name}: {service:#}"
        );
        assert!(service["tmpfs"].to_string().contains("/tmp"), "{name}");
        let user = service["user"].to_string();
        assert!(user.contains(':') && !user.contains("\"0"), "{name}: {user}");
        let image = service["image"].as_str().expect("an image");
        assert!(image.split_once(':').is_some_and(|(_, tag)| tag.contains('.')), "{image} is not pinned");
        assert!(
            !service["environment"].to_string().contains("PASSWORD\":"),
            "{name} has a password in clear"
        );
    }
    let levin = &compose["services"]["levin"];
    assert_eq!(levin["depends_on"]["store"]["condition"], "service_healthy");
    assert_eq!(levin["stop_grace_period"], "1m15s", "runs under way have 60 s to commit");
    assert!(levin["ports"].to_string().contains("127.0.0.1"), "{}", levin["ports"]);
    assert!(compose["services"]["store"]["ports"].is_null(), "nobody else reaches the store");
    assert_eq!(compose["networks"]["store"]["internal"], true);
    for (name, secret) in compose["secrets"].as_object().expect("secrets") {
        assert!(secret["file"].is_string(), "{name} comes from a file");
    }
}

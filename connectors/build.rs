//! Test binaries look for DuckDB's library one folder up, where `./test` puts it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(unix)]
    println!(
        "cargo:rustc-link-arg=-Wl,-rpath,{}",
        if cfg!(target_os = "macos") { "@loader_path/.." } else { "$ORIGIN/.." }
    );
}

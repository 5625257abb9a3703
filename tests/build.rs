//! Test binaries look for DuckDB's library beside themselves and one folder up.

fn main() {
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN:$ORIGIN/..");
    println!("cargo:rerun-if-changed=build.rs");
}

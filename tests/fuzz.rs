//! What levin reads from strangers: project files, manifests, templates with the values of rows, the answers of
//! destinations. Whatever they hold, levin says what is wrong with them or makes proper use of them; it never
//! panics, hangs or grows.
//!
//! A round prints its seed when it fails; `LEVIN_SEED=N ./test NAME` replays it. `LEVIN_LONG_MINUTES=N ./test fuzz`
//! goes on for so long, from a seed that nobody had before.

#[path = "fuzz/answers.rs"]
mod answers;
#[path = "fuzz/bodies.rs"]
mod bodies;
#[path = "fuzz/files.rs"]
mod files;
#[path = "fuzz/http.rs"]
mod http;
#[path = "fuzz/mappings.rs"]
mod mappings;
#[path = "fuzz/mutation.rs"]
mod mutation;
#[path = "fuzz/rounds.rs"]
mod rounds;

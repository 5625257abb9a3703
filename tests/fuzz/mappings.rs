//! Mappings, sensible and not, over rows that hold anything.

use std::fs;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use connectors::change::{Operation, logical_type};
use orchestrator::catalogue::Catalogue;
use orchestrator::config::{LoadOptions, load};
use orchestrator::mapping::{Mapper, RunValues, needed};
use orchestrator::project::{MappingValue, Mappings, SyncSpec};
use orchestrator::redact::Redactor;
use sql_templates::{Column, LogicalType, Shape};

use crate::mutation::{awkward, spoiled};
use crate::rounds::rounds;

const POWER: &str = "{{ row.score ** 999 }}";
const TEMPLATES: &[&str] = &[
    "{{ row.name | upper }}",
    "{{ row.name }} of {{ row.extra.x }}",
    "{{ row.score * 2 }}",
    "{{ row.score / 0 }}",
    POWER,
    "{{ row.extra }}",
    "{{ [row.name, row.score, none] }}",
    "{{ {'a': row.name, 'b': {'c': row.extra}} }}",
    "{% for x in range(row.id) %}{{ x }},{% endfor %}",
    "{% if row.name %}{{ row.name | replace('a', 'b') | title }}{% else %}-{% endif %}",
    "{{ row.name[:3] ~ row['name'] }}",
    "{{ row.extra | tojson }}",
    "{{ row.name }}}",
    "{{{'a': row.name}}}",
    "{{ run_id }}-{{ operation }}-{{ row_version }}",
    "{{ row.name | int }}",
    "{{ row.name | split(',') | list }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
];
const WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    " | safe",
    " | tojson",
    " | float",
    " | round(400)",
    " | batch(0)",
    " | format",
    " | indent(9999)",
    " ** 99999",
    " // 0",
    " % 0",
    "[::0]",
    "[99999999999999999999]",
    "'x' * 999999",
    "row",
    "previous",
    "previous.name",
    "changed",
    "namespace()",
    "{% set x = 1 %}",
    "{% raw %}",
    "loop(1)",
    "caller()",
    "\"",
    "'",
    "\\",
    "\0",
    "1e999",
    "-",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "not ",
    " in row",
    " if row",
    " else ",
    " is defined",
    "self",
    "debug()",
];

fn column(name: &str, engine_type: &str, logical: LogicalType) -> Column {
    Column { name: name.to_owned(), engine_type: engine_type.to_owned(), logical }
}

/// The sync with mappings of a list, if its project is right.
fn sync_with(root: &std::path::Path, mappings: &str) -> Option<Arc<SyncSpec>> {
    for folder in ["sources", "models", "destinations", "syncs"] {
        fs::create_dir_all(root.join(folder)).expect("make a folder");
    }
    let sync = format!(
        "model: people\ndestination: disk\nmode: all\nobject: x-{{{{ run_id }}}}.jsonl\nmappings:\n{mappings}"
    );
    for (path, text) in [
        ("levin.yml", "name: fuzz\n"),
        ("sources/wh.yml", "type: duckdb\npath: nowhere.duckdb\n"),
        ("models/people.yml", "source: wh\nprimary_key: id\ntable: people\n"),
        ("destinations/disk.yml", "type: files\npath: out\n"),
        ("syncs/s.yml", sync.as_str()),
    ] {
        fs::write(root.join(path), text).expect("write a file");
    }
    let options = LoadOptions { offline: false, environment: &|_| None };
    let loaded = load(root, &Catalogue::levin(), &Redactor::default(), options).expect("it can be looked at");
    loaded.project.map(|project| project.syncs[0].clone())
}

fn rows(random: &mut fastrand::Rng, count: usize) -> RecordBatch {
    let scores = ["0", "1.5", "-0", "1e308", "12345678901234567890"];
    let extras =
        [r#"{"x":[1,2.50],"y":null}"#, "17", "\"a\\\"b\"", "[]", "null", "[[[[[[]]]]]]", "{\"\":{\"\":{}}}"];
    let texts = |random: &mut fastrand::Rng, of: &dyn Fn(&mut fastrand::Rng) -> String| -> ArrayRef {
        Arc::new((0..count).map(|_| (random.u8(..8) > 0).then(|| of(random))).collect::<StringArray>())
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("sequence", Arc::new(Int64Array::from_iter_values(0..count as i64))),
        ("id", Arc::new(Int64Array::from_iter_values((0..count).map(|_| random.i64(..))))),
        ("name", texts(random, &|random| awkward(random))),
        ("score", {
            let of = |random: &mut fastrand::Rng| {
                scores[random.usize(..scores.len())].parse::<f64>().expect("a number")
            };
            Arc::new((0..count).map(|_| Some(of(random))).collect::<arrow::array::Float64Array>())
        }),
        ("extra", texts(random, &|random| extras[random.usize(..extras.len())].to_owned())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, c)| c).collect())
        .expect("a batch")
}

/// Whatever a template and a row hold: every row is mapped or rejected, and what stands for JSON is JSON.
#[test]
fn no_mapping_loses_a_row_or_breaks_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let described = [
        column("id", "bigint", LogicalType::Integer),
        column("name", "varchar", LogicalType::Text),
        column("score", "double", LogicalType::Float),
        column("extra", "json", LogicalType::Json),
    ];
    let (mut mapped, mut rejected) = (0, 0);
    rounds("mappings", 40, |random| {
        let texts: Vec<String> = (0..random.usize(1..=3))
            .map(|_| {
                let template = TEMPLATES[random.usize(..TEMPLATES.len())];
                if random.bool() {
                    return template.to_owned();
                }
                let others: Vec<&[u8]> = TEMPLATES.iter().map(|t| t.as_bytes()).collect();
                String::from_utf8_lossy(&spoiled(random, template.as_bytes(), WORDS, &others)).into_owned()
            })
            .collect();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut mappings = "  - {from: id, to: id}\n".to_owned();
        for (at, text) in texts.iter().enumerate() {
            mappings.push_str(&format!("  - {{template: {}, to: f{at}}}\n", quoted(text)));
        }
        mappings.push_str(&format!(
            "  - {{to: deep, object: [{{from: extra, to: e}}, {{template: {}, to: t}}]}}\n",
            quoted(&texts[0])
        ));
        let Some(sync) = sync_with(folder.path(), &mappings) else { return };
        let Mappings::Fields(fields) = &sync.mappings else { panic!("{mappings}") };
        assert!(fields.iter().any(|f| matches!(f.value, MappingValue::Object(_))));
        let Ok(needed) = needed(&sync, &["id".to_owned()], &described) else { return };
        let shape =
            Shape { keys: vec![described[0].clone()], columns: needed.tracked.clone(), matching: Vec::new() };
        let run = RunValues {
            run_id: 1,
            generation: 1,
            run_started_at: "2026-11-21T00:00:00Z".to_owned(),
            project: "p".to_owned(),
        };
        let mut mapper = Mapper::new(&sync, &shape, &[], run).expect("what `check` accepts can be prepared");
        let all = rows(random, 3);
        let wanted: Vec<usize> = ["sequence", "id"]
            .into_iter()
            .chain(needed.tracked.iter().map(|c| c.name.as_str()))
            .map(|name| all.schema().index_of(name).expect("a column"))
            .collect();
        let batch = all.project(&wanted).expect("columns");
        let done =
            mapper.map(Operation::Added, false, &batch).expect("troubles of rows are told with the rows");
        assert_eq!(done.batch.len() + done.rejected.len(), 3, "{mappings}");
        mapped += done.batch.len();
        rejected += done.rejected.len();
        for (field, values) in done.batch.fields.schema().fields().iter().zip(done.batch.fields.columns()) {
            if logical_type(field) != LogicalType::Json || *values.data_type() != DataType::Utf8 {
                continue;
            }
            // The scores are numbers, one beyond what a power of it can be: that is no null.
            let power = texts.iter().position(|t| t == POWER).map(|at| format!("f{at}"));
            for text in values.as_string::<i32>().iter().flatten() {
                assert!(power.as_ref() != Some(field.name()) || text != "null", "{mappings}");
                serde_json::from_str::<&serde_json::value::RawValue>(text)
                    .unwrap_or_else(|e| panic!("{} is no JSON: {e}: {text}\n{mappings}", field.name()));
            }
        }
    });
    println!("mappings: {mapped} rows were mapped, {rejected} rejected");
}

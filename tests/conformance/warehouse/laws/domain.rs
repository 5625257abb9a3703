//! Random values of a type, and when two of them are the same, worked out without an engine.

use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, NaiveTime};
use fastrand::Rng;
use serde_json::Value as Json;

/// A value: SQL expressions that are cast to its type and all mean it, and the one form that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    pub spellings: Vec<String>,
    pub canonical: String,
}

/// A type, as its engine spells it, and what its values are.
#[derive(Debug, Clone)]
pub struct Domain {
    pub engine_type: String,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Boolean,
    Integer(i128, i128),
    /// Digits in all, and behind the point.
    Decimal(u32, u32),
    /// Any number of digits, and what is not a number.
    Numeric,
    Double,
    Real,
    Text,
    /// One of a few words.
    Word,
    /// Filled up with spaces.
    Padded,
    Date,
    /// Digits of a second, of nine.
    Timestamp(u32),
    Instant,
    Time,
    Interval,
    Uuid,
    Binary,
    Bits,
    /// Whether the order of keys counts.
    Json {
        ordered: bool,
    },
    Integers,
    Texts,
    Struct,
    Map,
}

const WORDS: &[&str] = &["a", "b'c", "", "A"];

/// A type that one engine or the other knows.
pub fn domain(postgres: bool, random: &mut Rng) -> Domain {
    let (engine_type, form) = match random.u8(..26) {
        0 => ("boolean".to_owned(), Form::Boolean),
        1 => ("smallint".to_owned(), Form::Integer(i16::MIN.into(), i16::MAX.into())),
        2 => ("integer".to_owned(), Form::Integer(i32::MIN.into(), i32::MAX.into())),
        3 => ("bigint".to_owned(), Form::Integer(i64::MIN.into(), i64::MAX.into())),
        4 if postgres => ("xid8".to_owned(), Form::Integer(0, u64::MAX.into())),
        4 => ("hugeint".to_owned(), Form::Integer(i128::MIN + 1, i128::MAX)),
        5 if postgres => ("oid".to_owned(), Form::Integer(0, u32::MAX.into())),
        5 => ("ubigint".to_owned(), Form::Integer(0, u64::MAX.into())),
        6 | 7 => {
            let digits = random.u32(1..=38);
            let scale = random.u32(0..=digits);
            let name = if postgres { "numeric" } else { "decimal" };
            (format!("{name}({digits},{scale})"), Form::Decimal(digits, scale))
        }
        8 if postgres => ("numeric".to_owned(), Form::Numeric),
        8 => ("tinyint".to_owned(), Form::Integer(-128, 127)),
        9 => (if postgres { "double precision" } else { "double" }.to_owned(), Form::Double),
        10 => ("real".to_owned(), Form::Real),
        11..14 => ("text".to_owned(), Form::Text),
        14 if postgres => ("\"word\"".to_owned(), Form::Word),
        14 => {
            (format!("enum({})", WORDS.iter().map(|w| literal(w)).collect::<Vec<_>>().join(", ")), Form::Word)
        }
        15 => ("date".to_owned(), Form::Date),
        16 => {
            let (name, digits) = match (postgres, random.u8(..4)) {
                (true, 0) => ("timestamp(3) without time zone", 3),
                (true, _) => ("timestamp without time zone", 6),
                (false, 0) => ("timestamp_s", 0),
                (false, 1) => ("timestamp_ms", 3),
                (false, 2) => ("timestamp_ns", 9),
                (false, _) => ("timestamp", 6),
            };
            (name.to_owned(), Form::Timestamp(digits))
        }
        17 => ("timestamp with time zone".to_owned(), Form::Instant),
        18 => ("time".to_owned(), Form::Time),
        19 => ("interval".to_owned(), Form::Interval),
        20 => ("uuid".to_owned(), Form::Uuid),
        21 => (if postgres { "bytea" } else { "blob" }.to_owned(), Form::Binary),
        22 if postgres && random.bool() => ("jsonb".to_owned(), Form::Json { ordered: false }),
        22 => ("json".to_owned(), Form::Json { ordered: !postgres }),
        23 => ("integer[]".to_owned(), Form::Integers),
        24 => ("text[]".to_owned(), Form::Texts),
        _ if postgres && random.bool() => ("character(5)".to_owned(), Form::Padded),
        _ if postgres => ("bit varying(12)".to_owned(), Form::Bits),
        _ => match random.u8(..3) {
            0 => ("bit".to_owned(), Form::Bits),
            1 => ("struct(a integer, b varchar)".to_owned(), Form::Struct),
            _ => ("map(varchar, integer)".to_owned(), Form::Map),
        },
    };
    Domain { engine_type, form }
}

/// What an engine has to be told before it knows all types.
pub fn setup(postgres: bool) -> Vec<String> {
    let words: Vec<String> = WORDS.iter().map(|w| literal(w)).collect();
    if postgres { vec![format!("create type \"word\" as enum ({})", words.join(", "))] } else { Vec::new() }
}

impl Domain {
    /// Up to so many values that differ.
    pub fn pool(&self, postgres: bool, size: usize, random: &mut Rng) -> Vec<Drawn> {
        let mut pool: Vec<Drawn> = Vec::new();
        for _ in 0..size * 2 {
            let drawn = self.draw(postgres, random);
            if pool.len() < size && pool.iter().all(|known| known.canonical != drawn.canonical) {
                pool.push(drawn);
            }
        }
        pool
    }

    fn draw(&self, postgres: bool, random: &mut Rng) -> Drawn {
        let said = |text: String| (vec![literal(&text)], text);
        let (spellings, canonical) = match &self.form {
            Form::Boolean => {
                let value = random.bool().to_string();
                (vec![value.clone()], value)
            }
            Form::Integer(least, most) => said(integer(*least, *most, random).to_string()),
            Form::Decimal(digits, scale) => decimals(*digits, *scale, random),
            Form::Numeric => match random.u8(..12) {
                0 => said("NaN".to_owned()),
                1 => said("Infinity".to_owned()),
                2 => said("-Infinity".to_owned()),
                _ => {
                    let digits = random.u32(1..=38);
                    decimals(digits, random.u32(0..=digits), random)
                }
            },
            Form::Double => {
                let value = match random.u8(..4) {
                    0 => [f64::MIN_POSITIVE, f64::MAX, 5e-324, 0.1 + 0.2, 0.3][random.usize(..5)],
                    1 => f64::from(random.i8(..)) / 4.0,
                    2 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0][random.usize(..4)],
                    _ => f64::from_bits(random.u64(..)),
                };
                (floats(value, &format!("{value:e}"), &self.engine_type), float(value))
            }
            Form::Real => {
                let value = match random.u8(..4) {
                    0 => [f32::MIN_POSITIVE, f32::MAX, 1e-45, 0.1, 0.3][random.usize(..5)],
                    1 => f32::from(random.i8(..)) / 4.0,
                    2 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0][random.usize(..4)],
                    _ => f32::from_bits(random.u32(..)),
                };
                (floats(value.into(), &format!("{value:e}"), &self.engine_type), float(value.into()))
            }
            Form::Text => said(text(random)),
            Form::Word => said(WORDS[random.usize(..WORDS.len())].to_owned()),
            Form::Padded => {
                let word = ["a", "b", "", "é", "a b"][random.usize(..5)];
                (vec![literal(word), literal(&format!("{word} "))], word.to_owned())
            }
            Form::Date => said(date(random).to_string()),
            Form::Timestamp(digits) => {
                // Nanoseconds since 1970 have 292 years on both sides.
                let day = if *digits == 9 { days(random.i64(-100_000..100_000)) } else { date(random) };
                let nanos = nanos_of_day(*digits, random);
                let when = day.and_time(NaiveTime::MIN) + Duration::nanoseconds(nanos);
                let text = when.format("%Y-%m-%d %H:%M:%S%.f").to_string();
                (vec![literal(&text)], stamp(when))
            }
            Form::Instant => {
                let when =
                    date(random).and_time(NaiveTime::MIN) + Duration::nanoseconds(nanos_of_day(6, random));
                let spelling = |minutes: i64, zone: &str| {
                    let there = when + Duration::minutes(minutes);
                    literal(&format!("{}{zone}", there.format("%Y-%m-%d %H:%M:%S%.f")))
                };
                let spellings = vec![spelling(0, "+00"), spelling(60, "+01"), spelling(-330, "-05:30")];
                (spellings, stamp(when))
            }
            Form::Time => {
                let time = (NaiveDateTime::default() + Duration::nanoseconds(nanos_of_day(6, random))).time();
                (
                    vec![literal(&time.format("%H:%M:%S%.f").to_string())],
                    time.format("%H:%M:%S%.9f").to_string(),
                )
            }
            Form::Interval => intervals(random),
            Form::Uuid => {
                let digits = format!("{:032x}", random.u128(..));
                let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
                let canonical = parts.join("-");
                (vec![literal(&canonical), literal(&canonical.to_uppercase())], canonical)
            }
            Form::Binary => {
                let bytes: Vec<u8> = (0..random.usize(..6)).map(|_| random.u8(..)).collect();
                let canonical: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                let escaped: String = bytes.iter().map(|b| format!("\\x{b:02X}")).collect();
                let spelling = if postgres { format!("\\x{canonical}") } else { escaped };
                (vec![literal(&spelling)], canonical)
            }
            Form::Bits => {
                said((0..random.usize(1..12)).map(|_| if random.bool() { '1' } else { '0' }).collect())
            }
            Form::Json { ordered } => {
                let value = json(random, 3);
                let mut spellings = vec![literal(&value.to_string()), literal(&spaced(&value))];
                if !ordered {
                    spellings.push(literal(&turned(&value).to_string()));
                }
                (spellings, canonical_json(&value, *ordered))
            }
            Form::Integers => {
                let list: Vec<Json> = (0..random.usize(..4))
                    .map(|_| if random.u8(..4) == 0 { Json::Null } else { random.i32(-2..3).into() })
                    .collect();
                (vec![array(postgres, &list)], Json::from(list).to_string())
            }
            Form::Texts => {
                let list: Vec<Json> = (0..random.usize(..4))
                    .map(|_| if random.u8(..4) == 0 { Json::Null } else { text(random).into() })
                    .collect();
                (vec![array(postgres, &list)], Json::from(list).to_string())
            }
            Form::Struct => {
                let (a, b) = (random.i32(-2..3), text(random));
                let a = (random.u8(..4) > 0).then_some(a);
                let sql = format!(
                    "{{'a': {}, 'b': {}}}",
                    a.map_or("null".to_owned(), |a| a.to_string()),
                    literal(&b)
                );
                (vec![sql], serde_json::json!({"a": a, "b": b}).to_string())
            }
            Form::Map => {
                let keys = ["x", "it's", ""];
                let entries: Vec<(&str, i32)> =
                    keys[..random.usize(..4)].iter().map(|k| (*k, random.i32(-2..3))).collect();
                let sql: Vec<String> = entries.iter().map(|(k, v)| format!("{}: {v}", literal(k))).collect();
                let value: serde_json::Map<String, Json> =
                    entries.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
                (vec![format!("map {{{}}}", sql.join(", "))], Json::from(value).to_string())
            }
        };
        let spellings = spellings.into_iter().map(|s| format!("cast({s} as {})", self.engine_type)).collect();
        Drawn { spellings, canonical }
    }

    /// The form that stands for a value, from the text of the one that left.
    pub fn canonical(&self, wire: &str) -> String {
        let parsed = |value: Option<String>| value.unwrap_or_else(|| panic!("{} {wire:?}", self.engine_type));
        match &self.form {
            Form::Decimal(..) | Form::Numeric => trimmed(wire),
            Form::Double => parsed(wire.parse().ok().map(float)),
            Form::Real => parsed(wire.parse::<f32>().ok().map(|v| float(v.into()))),
            Form::Timestamp(_) => {
                parsed(NaiveDateTime::parse_from_str(wire, "%Y-%m-%dT%H:%M:%S%.f").ok().map(stamp))
            }
            Form::Instant => parsed(DateTime::parse_from_rfc3339(wire).ok().map(|t| stamp(t.naive_utc()))),
            Form::Time => {
                let time = NaiveTime::parse_from_str(wire, "%H:%M:%S%.f").ok();
                parsed(time.map(|t| t.format("%H:%M:%S%.9f").to_string()))
            }
            Form::Interval => parsed(interval(wire)),
            Form::Json { ordered } => {
                parsed(serde_json::from_str(wire).ok().map(|v: Json| canonical_json(&v, *ordered)))
            }
            Form::Integers | Form::Texts | Form::Struct | Form::Map => {
                parsed(serde_json::from_str(wire).ok().map(|v: Json| v.to_string()))
            }
            _ => wire.to_owned(),
        }
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn integer(least: i128, most: i128, random: &mut Rng) -> i128 {
    match random.u8(..4) {
        0 => [least, most, 0, 1][random.usize(..4)],
        1 => random.i128(0..=most.min(9)),
        _ => random.i128(least..=most),
    }
}

/// A number with so many digits, so many of them behind the point, with and without zeros at the end.
fn decimals(digits: u32, scale: u32, random: &mut Rng) -> (Vec<String>, String) {
    let most = 10_i128.pow(digits) - 1;
    let mut units =
        if random.bool() { random.i128(-most..=most) } else { random.i128(-most.min(3)..=most.min(3)) };
    if random.bool() && scale > 0 {
        let zeros = 10_i128.pow(random.u32(0..=scale));
        units = units / zeros * zeros;
    }
    let width = scale as usize + 1;
    let plain = format!("{:0width$}", units.unsigned_abs());
    let (whole, part) = plain.split_at(plain.len() - scale as usize);
    let sign = if units < 0 { "-" } else { "" };
    let full = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") };
    let canonical = trimmed(&full);
    (vec![literal(&full), literal(&canonical)], canonical)
}

fn trimmed(number: &str) -> String {
    let short =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    match short {
        "-0" => "0".to_owned(),
        other => other.to_owned(),
    }
}

fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:e}")
    }
}

fn floats(value: f64, shortest: &str, engine_type: &str) -> Vec<String> {
    if value.is_nan() {
        vec!["'NaN'".to_owned(), format!("-cast('NaN' as {engine_type})")]
    } else if value == 0.0 {
        vec!["'0.0'".to_owned(), "'-0.0'".to_owned()]
    } else if value.is_infinite() {
        vec![literal(if value > 0.0 { "Infinity" } else { "-Infinity" })]
    } else {
        vec![literal(shortest)]
    }
}

fn text(random: &mut Rng) -> String {
    const PIECES: &[&str] = &[
        "",
        "a",
        "A",
        " ",
        "null",
        "NULL",
        "'",
        "\"",
        "\\",
        "\\\\",
        "é",
        "e\u{301}",
        "👩‍👩‍👧",
        "\n",
        "\t",
        "\r",
        "0",
        "00",
        "$1",
        "$$",
        "{{ x }}",
        "--",
        "/*",
        "\u{200b}",
        "ß",
        "ẞ",
        "\u{202e}",
        "\u{feff}",
        "∅",
        ",",
        "{",
        "[",
        "%",
        "_",
        "\u{1}",
        "\u{7f}",
        "\u{10ffff}",
    ];
    match random.u8(..12) {
        0 => String::new(),
        1 => "x".repeat(random.usize(1..300)),
        _ => (0..random.usize(1..4)).map(|_| PIECES[random.usize(..PIECES.len())]).collect(),
    }
}

fn days(since: i64) -> NaiveDate {
    NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date") + Duration::days(since)
}

/// Of the years that four digits name.
fn date(random: &mut Rng) -> NaiveDate {
    if random.bool() { days(random.i64(-719_000..2_932_000)) } else { days(random.i64(20_000..20_010)) }
}

fn nanos_of_day(digits: u32, random: &mut Rng) -> i64 {
    let unit = 10_i64.pow(9 - digits);
    let count = 86_400_000_000_000 / unit;
    if random.u8(..4) == 0 { 0 } else { random.i64(0..count) * unit }
}

fn stamp(when: NaiveDateTime) -> String {
    when.format("%Y-%m-%d %H:%M:%S%.9f").to_string()
}

fn intervals(random: &mut Rng) -> (Vec<String>, String) {
    let months = random.i64(-30..30) * i64::from(random.bool());
    let days = random.i64(-40..40) * i64::from(random.bool());
    let micros = match random.u8(..4) {
        0 => 0,
        1 => 86_400_000_000,
        2 => random.i64(-5..5) * 500_000,
        _ => random.i64(-100_000_000_000..100_000_000_000),
    };
    let plain = format!("{months} months {days} days {micros} microseconds");
    let years = format!("{} years {} months {days} days {micros} microseconds", months / 12, months % 12);
    (vec![literal(&plain), literal(&years)], format!("{months} {days} {micros}"))
}

/// Months, days and microseconds of an ISO 8601 interval.
fn interval(wire: &str) -> Option<String> {
    let (mut months, mut days, mut micros) = (0_i64, 0_i64, 0_i64);
    let mut in_time = false;
    let mut number = String::new();
    for c in wire.strip_prefix('P')?.chars() {
        if c.is_ascii_digit() || c == '-' || c == '.' {
            number.push(c);
            continue;
        }
        if c == 'T' {
            in_time = true;
            continue;
        }
        let (whole, part) = number.split_once('.').unwrap_or((&number, ""));
        let sign = if whole.starts_with('-') { -1 } else { 1 };
        let units: i64 = whole.trim_start_matches('-').parse().ok()?;
        match (c, in_time) {
            ('Y', false) => months += sign * units * 12,
            ('M', false) => months += sign * units,
            ('W', false) => days += sign * units * 7,
            ('D', false) => days += sign * units,
            ('H', true) => micros += sign * units * 3_600_000_000,
            ('M', true) => micros += sign * units * 60_000_000,
            ('S', true) => {
                micros += sign * (units * 1_000_000 + format!("{part:0<6}").parse::<i64>().ok()?)
            }
            _ => return None,
        }
        number.clear();
    }
    Some(format!("{months} {days} {micros}"))
}

fn json(random: &mut Rng, depth: u8) -> Json {
    match random.u8(..if depth == 0 { 5 } else { 8 }) {
        0 => Json::Null,
        1 => random.bool().into(),
        2 => random.i64(-3..4).into(),
        3 => i64::MAX.into(),
        4 => text(random).into(),
        5 => (0..random.usize(..4)).map(|_| json(random, depth - 1)).collect(),
        _ => {
            let keys = ["a", "b", "é", "it's", "", "A"];
            let mut map = serde_json::Map::new();
            for _ in 0..random.usize(..4) {
                map.insert(keys[random.usize(..keys.len())].to_owned(), json(random, depth - 1));
            }
            map.into()
        }
    }
}

/// The same value with spaces where they mean nothing.
fn spaced(value: &Json) -> String {
    match value {
        Json::Array(list) => format!("[ {} ]", list.iter().map(spaced).collect::<Vec<_>>().join(" , ")),
        Json::Object(map) => {
            let entry = |(k, v): (&String, &Json)| format!("{} :\n{}", Json::from(k.as_str()), spaced(v));
            format!("{{ {} }}", map.iter().map(entry).collect::<Vec<_>>().join(" ,"))
        }
        other => other.to_string(),
    }
}

/// The same value with its keys in another order.
fn turned(value: &Json) -> Json {
    match value {
        Json::Array(list) => list.iter().map(turned).collect(),
        Json::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), turned(v))).collect();
            entries.reverse();
            entries.into_iter().collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn canonical_json(value: &Json, ordered: bool) -> String {
    fn sorted(value: &Json) -> Json {
        match value {
            Json::Array(list) => list.iter().map(sorted).collect(),
            Json::Object(map) => {
                let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.into_iter().collect::<serde_json::Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }
    if ordered { value.to_string() } else { sorted(value).to_string() }
}

fn array(postgres: bool, list: &[Json]) -> String {
    let elements: Vec<String> = list
        .iter()
        .map(|element| match element {
            Json::String(text) => literal(text),
            other => other.to_string(),
        })
        .collect();
    match (postgres, elements.is_empty()) {
        (true, true) => "'{}'".to_owned(),
        (true, false) => format!("array[{}]", elements.join(", ")),
        (false, _) => format!("[{}]", elements.join(", ")),
    }
}

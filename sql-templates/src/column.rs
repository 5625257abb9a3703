//! What a column is, apart from how one engine spells its type.

use serde::{Deserialize, Serialize};

/// The form in which a column's values leave the warehouse.
///
/// Two engine types with the same logical type have the same form on the wire, so a change from
/// one to the other (`int4` to `int8`) is no change of rows; a change of logical type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogicalType {
    /// `true` or `false`.
    Boolean,
    /// Whole numbers of any size.
    Integer,
    /// Exact decimals of any size; they leave as their digits.
    Decimal,
    /// Binary floating point of 32 or 64 bits.
    Float,
    /// UTF-8 text.
    Text,
    /// A calendar day.
    Date,
    /// A time of day without a zone.
    Time,
    /// Date and time without a zone.
    Timestamp,
    /// An instant.
    TimestampTz,
    /// A span, ISO 8601 (`P1DT2H`).
    Interval,
    /// A UUID in its text form.
    Uuid,
    /// Bytes; base64 in JSON.
    Binary,
    /// JSON, lists, structs and maps: nested values as JSON text.
    Json,
}

impl LogicalType {
    /// The name under which the type stands in `dialect.toml`, in snapshots' definitions and in
    /// Arrow field metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Float => "float",
            Self::Text => "text",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamp_tz",
            Self::Interval => "interval",
            Self::Uuid => "uuid",
            Self::Binary => "binary",
            Self::Json => "json",
        }
    }

    /// The reverse of [`LogicalType::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }

    /// Every logical type, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::Boolean,
        Self::Integer,
        Self::Decimal,
        Self::Float,
        Self::Text,
        Self::Date,
        Self::Time,
        Self::Timestamp,
        Self::TimestampTz,
        Self::Interval,
        Self::Uuid,
        Self::Binary,
        Self::Json,
    ];
}

/// One column of a model, as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name exactly as the engine returns it.
    pub name: String,
    /// The engine's own spelling of the type, for messages and for casts of keys.
    pub engine_type: String,
    /// What the values are on the wire.
    pub logical: LogicalType,
}

//! What Snowflake's codes mean.

use super::super::{ErrorKind, WarehouseError};

/// What goes wrong while somebody logs in: the kind, and what to do next.
pub(super) fn refused_login(code: &str, said: &str) -> WarehouseError {
    let (kind, next) = match code {
        "390189" => (ErrorKind::Permission, "grant the role to the user, or set another `role`"),
        "390420" | "390422" | "390429" => {
            (ErrorKind::Permission, "a network policy refuses this address: let an administrator allow it")
        }
        "390144" => (
            ErrorKind::Authentication,
            "check that `account` and `user` are right and that the user's RSA_PUBLIC_KEY belongs to `auth.private_key`",
        ),
        "394301" | "394302" | "394303" => (
            ErrorKind::Authentication,
            "set this machine's clock: the key pair's token is refused because of its time",
        ),
        "394304" => {
            (ErrorKind::Authentication, "`auth.private_key` does not belong to the user's RSA_PUBLIC_KEY")
        }
        "390303" | "390318" | "390317" => {
            (ErrorKind::Authentication, "check `auth.oauth`: the access token is not valid, or no longer")
        }
        code if code.starts_with("3944") => (
            ErrorKind::Authentication,
            "check `auth.token`: a programmatic access token expires, and may be bound to a role",
        ),
        code if code.starts_with("390") || code.starts_with("394") => {
            (ErrorKind::Authentication, "check `account`, `user` and `auth`")
        }
        _ => (ErrorKind::Other, "see the code in Snowflake's documentation"),
    };
    let message = format!("{}; {next}", one_line(said));
    WarehouseError { code: Some(code.to_owned()), ..WarehouseError::new(kind, message) }
}

/// What went wrong with a statement. `query` is Snowflake's id for it.
pub(super) fn failed_statement(code: &str, state: &str, said: &str, query: Option<&str>) -> WarehouseError {
    let kind = kind(code, state, said);
    let mut message = one_line(said);
    if let Some(next) = next_step(code) {
        message.push_str("; ");
        message.push_str(next);
    }
    if let Some(query) = query {
        message.push_str(&format!(" [query {query}]"));
    }
    WarehouseError { code: Some(code.to_owned()), ..WarehouseError::new(kind, message) }
}

fn next_step(code: &str) -> Option<&'static str> {
    Some(match code {
        "000606" => "set `warehouse` in the source's file, or a default warehouse for the user",
        "090105" | "090106" => "set `database` and `schema` in the source's file, or name them in the model",
        "090073" => "an administrator can raise the resource monitor's quota, or set another `warehouse`",
        "000625" | "000626" | "000628" => "another transaction holds the table",
        _ => return None,
    })
}

fn kind(code: &str, state: &str, said: &str) -> ErrorKind {
    match code {
        "000604" => ErrorKind::Cancelled,
        "000630" | "000629" => ErrorKind::TookTooLong,
        // Object, column, function, schema, database, stage.
        "002003" | "002043" | "000904" | "002140" | "002141" | "000709" | "090105" | "090106" => {
            ErrorKind::NotFound
        }
        "002002" | "002041" | "002042" | "003510" => ErrorKind::AlreadyExists,
        "003001" | "003003" | "003011" | "003041" | "003540" => ErrorKind::Permission,
        "200001" => ErrorKind::UniqueViolation,
        "000625" | "000626" | "000628" | "000627" => ErrorKind::Busy,
        // The warehouse has no quota left, or is suspended and may not be resumed.
        "090073" => ErrorKind::OutOfSpace,
        "000606" | "000607" | "000608" | "000609" => ErrorKind::Unreachable,
        "390110" | "390111" | "390112" | "390113" | "390114" | "390115" => ErrorKind::ConnectionLost,
        "001003" => ErrorKind::Invalid,
        "002099" | "002098" if said.contains("already exists") => ErrorKind::AlreadyExists,
        code if code.starts_with("100") => ErrorKind::Data,
        code if code.starts_with("001") || code.starts_with("002") => ErrorKind::Invalid,
        code if code.starts_with("390") || code.starts_with("394") => ErrorKind::Authentication,
        _ => match state {
            "57014" => ErrorKind::Cancelled,
            "42501" => ErrorKind::Permission,
            "42S02" | "02000" => ErrorKind::NotFound,
            "42710" => ErrorKind::AlreadyExists,
            "0A000" => ErrorKind::Unsupported,
            "57P03" => ErrorKind::Unreachable,
            state if state.starts_with("22") || state.starts_with("23") => ErrorKind::Data,
            state if state.starts_with("42") => ErrorKind::Invalid,
            state if state.starts_with("53") => ErrorKind::OutOfSpace,
            _ => ErrorKind::Other,
        },
    }
}

/// Snowflake breaks its messages into lines.
pub(super) fn one_line(said: &str) -> String {
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(['.', ';']);
    if line.is_empty() { "Snowflake gives no reason".to_owned() } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_kinds() {
        for (code, state, expected) in [
            ("002003", "42S02", ErrorKind::NotFound),
            ("000904", "42000", ErrorKind::NotFound),
            ("002002", "42710", ErrorKind::AlreadyExists),
            ("001003", "42000", ErrorKind::Invalid),
            ("001044", "42P13", ErrorKind::Invalid),
            ("003001", "42501", ErrorKind::Permission),
            ("100038", "22018", ErrorKind::Data),
            ("100132", "22003", ErrorKind::Data),
            ("000604", "57014", ErrorKind::Cancelled),
            ("000630", "57014", ErrorKind::TookTooLong),
            ("000606", "57P03", ErrorKind::Unreachable),
            ("090073", "22000", ErrorKind::OutOfSpace),
            ("000625", "57014", ErrorKind::Busy),
            ("200001", "22000", ErrorKind::UniqueViolation),
            ("390112", "08001", ErrorKind::ConnectionLost),
            ("999999", "0A000", ErrorKind::Unsupported),
            ("000603", "XX000", ErrorKind::Other),
        ] {
            assert_eq!(failed_statement(code, state, "said", None).kind, expected, "{code} {state}");
        }
        for (code, expected) in [
            ("390100", ErrorKind::Authentication),
            ("390144", ErrorKind::Authentication),
            ("394302", ErrorKind::Authentication),
            ("394400", ErrorKind::Authentication),
            ("390318", ErrorKind::Authentication),
            ("390189", ErrorKind::Permission),
            ("390422", ErrorKind::Permission),
        ] {
            assert_eq!(refused_login(code, "said").kind, expected, "{code}");
        }
    }

    #[test]
    fn a_message_is_one_line_that_says_what_to_do() {
        let error = failed_statement("000606", "57P03", "No active warehouse\nselected.  \n", Some("01b-2"));
        assert_eq!(
            error.message,
            "No active warehouse selected; set `warehouse` in the source's file, or a default warehouse for the user \
             [query 01b-2]"
        );
        assert_eq!(failed_statement("1", "", "", None).message, "Snowflake gives no reason");
    }
}

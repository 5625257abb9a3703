//! Spans of time as project files write them.

use std::time::Duration;

use crate::duration::Span;

/// Reads `500ms`, `30s`, `5m` or `2h`: a whole number above zero and a unit.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time; write it like 500ms, 30s, 5m or 2h");
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    format!("{number}{}", unit.trim()).parse::<Span>().map(|span| span.0).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_span() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5 m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7_200)));
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in
            ["", "30", "s", "0s", "-1s", "1.5s", "3 weeks", "99999999999999999999h", "18446744073709551615h"]
        {
            assert!(parse(text).unwrap_err().contains("30s"), "{text}");
        }
    }
}

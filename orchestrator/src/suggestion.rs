//! What somebody probably meant.

/// The candidate that is nearest to a word, when one is near enough to be a slip.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            let longest = lower.chars().count().max(candidate.chars().count());
            *distance <= (longest / 3).max(1) && *distance < longest
        })
        .min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(b.1)))
        .map(|(_, candidate)| candidate)
}

/// A hint towards the nearest candidate; without one, the list of all of them.
pub(crate) fn hint(word: &str, candidates: &[&str], plural: &str) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if candidates.is_empty() => format!("there are no {plural} yet"),
        None => format!("{plural}: {}", listed(candidates)),
    }
}

/// `a`, `b`, `c`: names as a sentence shows them, cut after twenty.
pub(crate) fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 20;
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_slips_and_nothing_far_fetched() {
        let keys = ["primary_key", "source", "sql", "table"];
        assert_eq!(nearest("primarykey", keys), Some("primary_key"));
        assert_eq!(nearest("SQL", keys), Some("sql"));
        assert_eq!(nearest("tabel", keys), Some("table"));
        assert_eq!(nearest("destination", keys), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn without_a_slip_it_lists_what_there_is() {
        assert_eq!(hint("crm", &["wh", "lake"], "sources"), "sources: `wh`, `lake`");
        assert_eq!(hint("wq", &["wh"], "sources"), "did you mean `wh`?");
        assert_eq!(hint("wh", &[], "sources"), "there are no sources yet");
    }
}

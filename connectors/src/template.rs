//! Templates that users write are read and written out here, within bounds.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::{Environment, Error, ErrorKind, Template, Value};

/// The most bytes that one rendering gives: more than any API takes in one request.
pub const MOST_BYTES: usize = 64 << 20;

/// Compiles a template.
///
/// # Errors
/// When it cannot be read. The library's compiler panics over some templates
/// (`{% import "x" as t % u %}`, minijinja 3.0.5); that is an error like the others.
pub fn read<'t>(environment: &'t Environment<'_>, text: &'t str) -> Result<Template<'t, 't>, Error> {
    catch_unwind(AssertUnwindSafe(|| environment.template_from_str(text))).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::SyntaxError, "a name is expected where a value is given to it"))
    })
}

/// What a template gives for these variables.
///
/// # Errors
/// When it fails, or gives more than [`MOST_BYTES`].
pub fn render(template: &Template<'_, '_>, variables: &Value) -> Result<String, Error> {
    let mut bounded = Bounded { written: Vec::new(), full: false };
    let rendered = template.render_captured_to(variables.clone(), &mut bounded).map(drop);
    if bounded.full {
        return Err(Error::new(ErrorKind::InvalidOperation, "the result is larger than 64 MiB"));
    }
    rendered?;
    String::from_utf8(bounded.written)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "the result is no valid UTF-8"))
}

struct Bounded {
    written: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= self.written.len() + bytes.len() > MOST_BYTES;
        if self.full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_the_compiler_panic_is_an_error() {
        for text in ["{% import 'template' as t % t %}", "{% import 'a' as b ~ c %}"] {
            let error = read(&Environment::new(), text).expect_err("it is wrong");
            assert_eq!(error.kind(), ErrorKind::SyntaxError, "{text}");
        }
    }

    #[test]
    fn a_result_has_a_largest_size() {
        let environment = Environment::new();
        let text = format!("{{% for _ in range(n) %}}{}{{% endfor %}}", "x".repeat(1 << 16));
        let template = read(&environment, &text).expect("it is right");
        let of = |n: usize| render(&template, &minijinja::context!(n)).map(|text| text.len());
        assert_eq!(of(1024).expect("it fits"), MOST_BYTES);
        let error = of(1025).expect_err("it is one too many");
        assert!(error.to_string().contains("larger than 64 MiB"), "{error}");
    }
}

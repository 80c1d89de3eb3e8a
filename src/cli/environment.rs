//! The process's environment, read here and nowhere else.

/// Returns a variable that is set, is not empty and is UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

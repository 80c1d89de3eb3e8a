//! JSON with its fields in the order in which the original writes them.

use std::fmt::{Display, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An object that grows. What has a `…_always` twin is left out while it is zero or empty.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::etcdctl::v3) struct Object(String);

impl Object {
    /// Adds JSON that is there already.
    pub(super) fn raw(mut self, name: &str, json: impl Display) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}\"{name}\":{json}");
        self
    }

    pub(super) fn number<T: Display + Default + PartialEq>(self, name: &str, value: T) -> Self {
        if value == T::default() { self } else { self.raw(name, value) }
    }

    pub(super) fn yes(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, true) } else { self }
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.text_always(name, value) }
    }

    pub(super) fn text_always(self, name: &str, value: &str) -> Self {
        self.raw(name, text(value))
    }

    pub(super) fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.raw(name, bytes(value)) }
    }

    pub(super) fn object(self, name: &str, value: Option<Self>) -> Self {
        match value {
            Some(value) => self.raw(name, value.end()),
            None => self,
        }
    }

    pub(super) fn list<T>(self, name: &str, values: &[T], each: impl Fn(&T) -> String) -> Self {
        if values.is_empty() { self } else { self.raw(name, list(values, each)) }
    }

    pub(super) fn end(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// Makes a string of text.
pub(super) fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// Makes a string of bytes.
pub(super) fn bytes(value: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(value))
}

/// Makes a list.
pub(super) fn list<T>(values: &[T], each: impl Fn(&T) -> String) -> String {
    let values: Vec<_> = values.iter().map(each).collect();
    format!("[{}]", values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_zero_is_left_out() {
        let inner = Object::default().number("n", 0).text("t", "a\"b");
        let json = Object::default()
            .object("z", Some(inner))
            .number("big", u64::MAX)
            .yes("no", false)
            .bytes("b", b"foo")
            .list("l", &[1, 2], ToString::to_string)
            .list("none", &[] as &[i32], ToString::to_string)
            .text_always("e", "")
            .end();
        let expected =
            r#"{"z":{"t":"a\"b"},"big":18446744073709551615,"b":"Zm9v","l":[1,2],"e":""}"#;
        assert_eq!(json, expected);
    }
}

//! JSON objects one after the other, as a client streams them: cut apart, however they arrive.

use axum::body::Bytes;

/// What a client streams is no sequence of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ObjectsError {
    /// Something stands between two objects.
    #[error("the body is not JSON: an object was expected")]
    Between,
    /// One is too long.
    #[error("the body has an object of more than {bytes_max} bytes")]
    TooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// It ended within one.
    #[error("the body is not JSON: it ends within an object")]
    Unfinished,
}

/// What has arrived and is not taken yet. Each byte is looked at once.
#[derive(Debug)]
pub(super) struct Objects {
    arrived: Vec<u8>,
    looked_at: usize,
    depth: usize,
    within_text: bool,
    escaped: bool,
    bytes_max: usize,
}

impl Objects {
    /// Begins with nothing; objects may have `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            arrived: Vec::new(),
            looked_at: 0,
            depth: 0,
            within_text: false,
            escaped: false,
            bytes_max,
        }
    }

    /// Adds what has arrived.
    pub(super) fn add(&mut self, bytes: &Bytes) {
        self.arrived.extend_from_slice(bytes);
    }

    /// Takes the next object that is whole.
    pub(super) fn take(&mut self) -> Result<Option<Vec<u8>>, ObjectsError> {
        while let Some(byte) = self.arrived.get(self.looked_at).copied() {
            self.looked_at += 1;
            if self.ends_object(byte)? {
                let rest = self.arrived.split_off(self.looked_at);
                self.looked_at = 0;
                return Ok(Some(std::mem::replace(&mut self.arrived, rest)));
            }
        }
        if self.arrived.len() > self.bytes_max {
            return Err(ObjectsError::TooLong { bytes_max: self.bytes_max });
        }
        Ok(None)
    }

    /// Checks that nothing is left when the body has ended.
    pub(super) fn end(&self) -> Result<(), ObjectsError> {
        if self.depth == 0 { Ok(()) } else { Err(ObjectsError::Unfinished) }
    }

    fn ends_object(&mut self, byte: u8) -> Result<bool, ObjectsError> {
        if self.within_text {
            self.within_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return Ok(false);
        }
        match byte {
            b'{' => self.depth += 1,
            b'}' if self.depth > 0 => {
                self.depth -= 1;
                return Ok(self.depth == 0);
            }
            b'"' if self.depth > 0 => self.within_text = true,
            _ if self.depth > 0 || byte.is_ascii_whitespace() => {}
            _ => return Err(ObjectsError::Between),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&'static str]) -> Result<Vec<String>, ObjectsError> {
        let mut objects = Objects::new(40);
        let mut taken = Vec::new();
        for part in parts {
            objects.add(&Bytes::from_static(part.as_bytes()));
            while let Some(object) = objects.take()? {
                taken.push(String::from_utf8(object).unwrap().trim().to_owned());
            }
        }
        objects.end().map(|()| taken)
    }

    #[test]
    fn objects_are_cut_apart_wherever_they_are_torn() {
        let text = r#"{"a":{"b":"}\\"}}  {}"#;
        let expected = [r#"{"a":{"b":"}\\"}}"#, "{}"];
        for at in 0..text.len() {
            let (first, second) = text.split_at(at);
            assert_eq!(cut(&[first, second]).unwrap(), expected, "torn at {at}");
        }
        assert_eq!(cut(&["{\"a\":\"\\\"}\"}\n"]).unwrap(), ["{\"a\":\"\\\"}\"}"]);
        assert_eq!(cut(&["", " \n"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_sequence_of_objects_is_refused() {
        assert_eq!(cut(&["{} [1]"]), Err(ObjectsError::Between));
        assert_eq!(cut(&["}"]), Err(ObjectsError::Between));
        assert_eq!(cut(&["{\"a\": {}"]), Err(ObjectsError::Unfinished));
        let long = "{\"a\":\"0123456789012345678901234567890123456789";
        assert_eq!(cut(&[long]), Err(ObjectsError::TooLong { bytes_max: 40 }));
    }
}

//! A message inside of our own formats: its encoding, as bytes. For `#[serde(with = …)]`.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// Writes a message.
pub fn serialize<M: Message, S: Serializer>(message: &M, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(&message.encode_to_vec())
}

/// Reads a message.
pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<M, D::Error> {
    from.deserialize_bytes(Encoded(PhantomData))
}

struct Encoded<M>(PhantomData<M>);

impl<M: Message + Default> Visitor<'_> for Encoded<M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a message")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<M, E> {
        M::decode(bytes).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::etcd::v3::etcdserverpb::PutRequest;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept(#[serde(with = "super")] PutRequest);

    #[test]
    fn a_message_comes_back_out_of_our_format() {
        let put = PutRequest { key: b"k".into(), lease: -3, ..PutRequest::default() };
        let bytes = postcard::to_stdvec(&Kept(put.clone())).unwrap();
        assert_eq!(postcard::from_bytes::<Kept>(&bytes), Ok(Kept(put)));
        assert!(postcard::from_bytes::<Kept>(&[1, 0xff]).is_err());
    }
}

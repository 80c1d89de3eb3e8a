//! A listing page by page, all of one revision, as an apiserver continues it. Pure.

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::mvccpb::KeyValue;

use crate::etcd_v3::{end_of, revision};
use crate::trace::history::{Value, Version};
use crate::trace::violation::Violation;

/// Keys on one page: an apiserver asks for 500, of more keys than there are here.
const PAGE: i64 = 50;

/// Pages so far.
#[derive(Debug)]
pub(super) struct Listing {
    prefix: String,
    /// Where the next page begins.
    next: Vec<u8>,
    /// The revision of all pages; 0 before the first.
    revision: i64,
    /// How many keys there are from the next page on, once it is known.
    left: Option<i64>,
    found: Vec<(String, Version)>,
}

impl Listing {
    /// A listing of what begins with a prefix, as it is now.
    pub(super) fn new(prefix: &str) -> Self {
        let next = prefix.as_bytes().to_vec();
        Self { prefix: prefix.to_owned(), next, revision: 0, left: None, found: Vec::new() }
    }

    /// What to ask for the next page.
    pub(super) fn ask(&self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.next.clone(),
            range_end: end_of(&self.prefix),
            limit: PAGE,
            revision: self.revision,
            ..pb::RangeRequest::default()
        }
    }

    /// Takes a page; tells whether it was the last.
    pub(super) fn take(&mut self, answer: &pb::RangeResponse) -> Result<bool, Violation> {
        let wrong = |why: String| Violation::WrongPage { prefix: self.prefix.clone(), why };
        let here = i64::try_from(answer.kvs.len()).unwrap_or(i64::MAX);
        if here > PAGE {
            return Err(wrong(format!("{here} keys, where {PAGE} were asked for")));
        }
        if self.left.is_some_and(|left| left != answer.count) {
            return Err(wrong(format!("{} keys are left, not {:?}", answer.count, self.left)));
        }
        if answer.more != (answer.count > here) {
            return Err(wrong(format!("{here} of {} keys, more: {}", answer.count, answer.more)));
        }
        if answer.more && here < PAGE {
            return Err(wrong(format!("{here} keys, and there are more")));
        }
        for kv in &answer.kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            if kv.key < self.next || !key.starts_with(&self.prefix) {
                return Err(Violation::WrongPage {
                    prefix: self.prefix.clone(),
                    why: format!("`{key}` is not in its place"),
                });
            }
            self.next = [&kv.key[..], b"\0"].concat();
            self.found.push((key, version(kv)));
        }
        if self.revision == 0 {
            self.revision = revision(answer.header.as_ref());
        }
        self.left = Some(answer.count - here);
        Ok(!answer.more)
    }

    /// The revision of all pages, and what is on them.
    pub(super) fn done(self) -> (i64, Vec<(String, Version)>) {
        (self.revision, self.found)
    }
}

/// What is compared of a key.
pub(super) fn version(kv: &KeyValue) -> Version {
    Version {
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
        value: Value::of(&kv.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: std::ops::Range<i64>, count: i64) -> pb::RangeResponse {
        let kv = |number: i64| KeyValue {
            key: format!("/p/{number:03}").into(),
            mod_revision: number,
            ..KeyValue::default()
        };
        let more = keys.end - keys.start < count;
        let header = Some(pb::ResponseHeader { revision: 9, ..pb::ResponseHeader::default() });
        pb::RangeResponse { header, kvs: keys.map(kv).collect(), more, count }
    }

    /// A listing behind its first page.
    fn begun() -> Listing {
        let mut listing = Listing::new("/p/");
        assert!(!listing.take(&page(0..50, 70)).unwrap());
        listing
    }

    #[test]
    fn pages_are_of_one_revision_and_follow_each_other() {
        let mut listing = begun();
        let ask = listing.ask();
        assert_eq!((ask.revision, ask.key, ask.limit), (9, b"/p/049\0".to_vec(), PAGE));
        assert!(listing.take(&page(50..70, 20)).unwrap());
        let (revision, found) = listing.done();
        assert_eq!((revision, found.len()), (9, 70));
    }

    #[test]
    fn a_page_that_contradicts_itself_or_the_one_before_is_refused() {
        for (wrong, why) in [
            (page(50..101, 51), "51 keys, where 50 were asked for"),
            (page(50..70, 21), "21 keys are left, not Some(20)"),
            (page(49..69, 20), "`/p/049` is not in its place"),
            (pb::RangeResponse { more: true, ..page(50..70, 20) }, "20 of 20 keys, more: true"),
            (pb::RangeResponse { more: false, ..page(50..60, 20) }, "10 of 20 keys, more: false"),
            (page(50..60, 20), "10 keys, and there are more"),
        ] {
            let violation = begun().take(&wrong).unwrap_err().to_string();
            assert_eq!(violation, format!("a page of /p/: {why}"));
        }
        let mut elsewhere = page(0..1, 1);
        elsewhere.kvs[0].key = b"/q/".to_vec();
        let violation = Listing::new("/p/").take(&elsewhere).unwrap_err().to_string();
        assert_eq!(violation, "a page of /p/: `/q/` is not in its place");
    }
}

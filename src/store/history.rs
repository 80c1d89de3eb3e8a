//! The last thousand changes of the v2 keys, for watchers that ask for the past.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::foundation::limits::V2_HISTORY_EVENTS;
use crate::store::event::{Action, Code, Event, Refusal};

/// Changes in the order of their indexes, without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    events: VecDeque<Arc<Event>>,
    /// The index of the newest change that was forgotten.
    forgotten: u64,
}

/// What a watcher waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// The clean path.
    pub path: String,
    /// Everything below it too.
    pub recursive: bool,
}

impl History {
    /// Adds a change; the oldest is forgotten if there are too many.
    pub fn push(&mut self, event: Arc<Event>) {
        if self.events.len() == V2_HISTORY_EVENTS {
            self.forgotten = self.events.pop_front().map_or(0, |event| event.index());
        }
        self.events.push_back(event);
    }

    /// Finds the first change at or after the index `since` that `interest` is about.
    ///
    /// `now` is the index of the store, which the refusal (401) tells.
    pub fn find(
        &self,
        interest: &Interest,
        since: u64,
        now: u64,
    ) -> Result<Option<Arc<Event>>, Refusal> {
        if since <= self.forgotten {
            let oldest = self.forgotten + 1;
            let cause = format!("the requested history has been cleared [{oldest}/{since}]");
            return Err(Refusal { code: Code::EventIndexCleared, cause, index: now });
        }
        let first = self.events.partition_point(|event| event.index() < since);
        let mut rest = self.events.range(first..);
        Ok(rest.find(|event| interest.concerns(event)).cloned())
    }
}

impl Interest {
    /// Tells whether a change is one that this watcher is told of.
    fn concerns(&self, event: &Event) -> bool {
        if event.refresh {
            return false;
        }
        let changed = event.node.key.as_str();
        if changed == self.path {
            return true;
        }
        let gone = matches!(event.action, Action::Delete | Action::Expire)
            && event.prev.as_ref().is_some_and(|prev| prev.dir);
        if gone && below(&self.path, changed).is_some() {
            return true;
        }
        self.recursive && below(changed, &self.path).is_some_and(|rest| !rest.contains("/_"))
    }
}

/// Returns the part of `path` after `above`, with its leading `/`, if it is below it.
fn below<'a>(path: &'a str, above: &str) -> Option<&'a str> {
    if above == "/" {
        return (path != "/").then_some(path);
    }
    path.strip_prefix(above).filter(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::event::NodeView;

    fn event(action: Action, key: &str, index: u64) -> Arc<Event> {
        let node = NodeView { key: key.into(), modified: index, ..NodeView::default() };
        Arc::new(Event { action, node, prev: None, refresh: false })
    }

    fn told(action: Action, key: &str, path: &str, recursive: bool) -> bool {
        Interest { path: path.into(), recursive }.concerns(&event(action, key, 1))
    }

    fn told_of_a_folder(action: Action, path: &str, recursive: bool) -> bool {
        let node = NodeView { key: "/a".into(), dir: true, ..NodeView::default() };
        let event = Event { action, prev: Some(node.clone()), node, refresh: false };
        Interest { path: path.into(), recursive }.concerns(&event)
    }

    #[test]
    fn a_watcher_is_told_of_its_path_and_of_what_is_below_if_it_asked() {
        assert!(told(Action::Set, "/a", "/a", false));
        assert!(!told(Action::Set, "/a/b", "/a", false));
        assert!(told(Action::Set, "/a/b", "/a", true));
        assert!(told(Action::Set, "/a", "/", true));
        assert!(!told(Action::Set, "/ab", "/a", true));
    }

    #[test]
    fn hidden_keys_are_told_only_to_those_who_name_them() {
        assert!(!told(Action::Set, "/_h", "/", true));
        assert!(!told(Action::Set, "/a/_h/x", "/a", true));
        assert!(told(Action::Set, "/_h/x", "/_h", true));
        assert!(told(Action::Set, "/_h", "/_h", false));
    }

    #[test]
    fn a_removed_directory_is_told_to_those_below() {
        assert!(told_of_a_folder(Action::Delete, "/a/b/c", false));
        assert!(told_of_a_folder(Action::Expire, "/a/b", true));
        assert!(!told_of_a_folder(Action::Set, "/a/b", false));
    }

    #[test]
    fn a_removed_value_is_told_to_nobody_below() {
        assert!(!told(Action::Delete, "/a", "/a/b", false));
        assert!(!told(Action::Expire, "/a", "/a/b", true));
        assert!(told(Action::Delete, "/a", "/a", false));
    }

    #[test]
    fn the_past_is_kept_for_a_thousand_changes() {
        let mut history = History::default();
        for index in 4..=1113 {
            history.push(event(Action::Set, &format!("/{index}"), index));
        }
        let interest = Interest { path: "/114".into(), recursive: false };
        assert!(history.find(&interest, 114, 1113).unwrap().is_some());
        let refused = history.find(&interest, 8, 1113).unwrap_err();
        assert_eq!(refused.cause, "the requested history has been cleared [114/8]");
        assert_eq!(history.find(&interest, 2000, 1113).unwrap(), None);
    }
}

//! The requests of a kube-apiserver as a trace, and what they must come to.
//!
//! ```text
//!   mix: what to ask next ─▶ run: asks at a fixed rate ─▶ requests, listing: calls and answers
//!   watching: a watch for each resource          compacting: as apiservers agree on it
//!        └──────────────┬───────────────────────────────────┘
//!                   checker ◀─ history: what every key was at every revision
//!                   report: figures for each kind of request
//! ```
//! Source: the specification B.11. `mix`, `checker`, `history` and `listing` are pure: a mistake of
//! the store is told to them in tests, one after the other.
//!
//! **Not here:** retries of writes. A write whose answer is missing may be in the store or not, and
//! either is right; what watches and reads say of it must agree.

pub mod checker;
mod compacting;
pub mod history;
mod listing;
pub mod mix;
pub mod report;
mod requests;
pub mod run;
mod shared;
pub mod violation;
mod watching;

pub use report::Report;
pub use run::{Plan, Trouble, run};

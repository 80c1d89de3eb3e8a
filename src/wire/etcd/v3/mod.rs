//! etcd's v3 API as it is on the wire: messages, clients and servers, made of the `.proto` files
//! beside this one by `build.rs`.
//!
//! Bytes are copied out of what was received: a slice of it would keep a whole read buffer alive
//! for as long as a key lives in the store.

pub mod as_bytes;
pub mod json;

/// Declares the module of one package.
macro_rules! package {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[allow(
            missing_docs,
            unused_qualifications,
            clippy::all,
            clippy::pedantic,
            clippy::restriction,
            reason = "generated"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}

package!(mvccpb, "Keys with their history, and what happens to them.");
package!(authpb, "Users, roles and what they may do.");
package!(etcdserverpb, "The services a client calls.");
package!(v3electionpb, "Elections that the server holds for its clients.");
package!(v3lockpb, "Locks that the server keeps for its clients.");

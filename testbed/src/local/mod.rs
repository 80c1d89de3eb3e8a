//! A cluster inside one process: for a first look, and for tests that need no machine.
//!
//! ```text
//!   serve      the process that lives on after `cargo xtask up --local`
//!     control    a socket on which it is told to pull a node's plug, or to put it back
//!     nodes      the nodes together
//!       node       a thread with a runtime of its own: dropping that is a loss of power
//!         store      the product's member: real ports on loopback, real files
//!         fleet      the product's daemon: a real socket
//!         systemd    in memory: a unit that was started is active, and nothing is executed
//!   places     where all of it is: addresses, sockets, folders
//! ```
//!
//! **Not here:** a boot, a disk image, a cloud-config, ssh, journals. What needs a machine is shown
//! on machines, by `nodes` and `vm`.

pub mod control;
pub mod node;
pub mod nodes;
pub mod places;
pub mod serve;

pub use control::Order;
pub use node::Node;
pub use nodes::Nodes;
pub use places::Places;

//! Mistakes that can be planted, to see that the simulation finds them.
//!
//! A binary without the feature `planted-mistakes` cannot make any of them: every question below
//! is then the constant `false`.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Entries and votes count as stored once they are written, before they are synced.
    AckBeforeSync,
    /// Any member answers a read from its own store.
    ReadAnywhere,
    /// The leader answers a read from its own store without asking a quorum.
    ReadLocal,
    /// The vote is kept in memory only.
    ForgetVote,
    /// Recovery leaves a torn tail in the log and writes on behind it.
    KeepTornTail,
    /// A restarted leader goes on leading without an election (openraft's default).
    RestoreLeader,
    /// What could not be written or synced counts as stored.
    IgnoreDiskErrors,
}

impl Mistake {
    /// All of them, by the names of `cargo xtask sim --break`.
    pub const ALL: [(&str, Self); 7] = [
        ("ack-before-sync", Self::AckBeforeSync),
        ("read-anywhere", Self::ReadAnywhere),
        ("read-local", Self::ReadLocal),
        ("forget-vote", Self::ForgetVote),
        ("keep-torn-tail", Self::KeepTornTail),
        ("restore-leader", Self::RestoreLeader),
        ("ignore-disk-errors", Self::IgnoreDiskErrors),
    ];
}

/// What a binary with planted mistakes contains, and one that ships must not.
#[cfg(feature = "planted-mistakes")]
pub const MARK: &str = "this-binary-has-planted-mistakes";

/// The mistake that a member makes, if any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mistakes {
    #[cfg(feature = "planted-mistakes")]
    planted: Option<Mistake>,
}

impl Mistakes {
    /// Plants one.
    #[cfg(feature = "planted-mistakes")]
    pub fn planted(mistake: Mistake) -> Self {
        tracing::warn!("{MARK}: {mistake:?}");
        Self { planted: Some(mistake) }
    }

    /// Tells whether the member makes this mistake.
    #[cfg(feature = "planted-mistakes")]
    pub fn makes(self, mistake: Mistake) -> bool {
        self.planted == Some(mistake)
    }

    /// Tells whether the member makes this mistake: never, in this binary.
    #[cfg(not(feature = "planted-mistakes"))]
    pub fn makes(self, _mistake: Mistake) -> bool {
        false
    }
}

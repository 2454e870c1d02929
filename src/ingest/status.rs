//! How a camera is, why a connection ended, and how often each of those happened. Plain data.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::SystemTime,
};

use serde::Serialize;

/// A camera's state as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The first connection is being made.
    Connecting,
    /// Pictures come.
    Live,
    /// It was live, then sent nothing for the configured time; it is being connected anew.
    Stalled,
    /// It cannot be reached or played; it is tried again unless it was to be played once.
    Failed,
}

/// A camera's state, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraStatus {
    /// The state.
    pub state: State,
    /// Wall-clock time of the last change of state.
    pub since: SystemTime,
    /// For people; `None` while all is well.
    pub reason: Option<String>,
    /// Connections that ended since the camera was started, whatever the reason.
    pub restarts: u64,
}

/// Why a connection ended: what is counted, and what decides how soon to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestartReason {
    /// Nothing listens, the host does not answer, or its name is unknown.
    Unreachable,
    /// Credentials are missing or wrong (401, 403).
    Unauthorized,
    /// The server, or the disk, has no such path.
    NotFound,
    /// The server's certificate is not trusted.
    Tls,
    /// The source could not be opened for another reason.
    Open,
    /// Connected, but no picture came in time.
    NoFirstFrame,
    /// Pictures came, then none for the configured time.
    Stalled,
    /// The stream ended.
    EndOfStream,
    /// The stream broke.
    Stream,
    /// The pipeline refused to start.
    StateChange,
    /// The stream changed to another codec.
    CodecChanged,
}

impl RestartReason {
    /// Every reason, in the order of its counter.
    pub const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Unauthorized,
        Self::NotFound,
        Self::Tls,
        Self::Open,
        Self::NoFirstFrame,
        Self::Stalled,
        Self::EndOfStream,
        Self::Stream,
        Self::StateChange,
        Self::CodecChanged,
    ];

    /// The reason's name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Tls => "tls",
            Self::Open => "open",
            Self::NoFirstFrame => "no_first_frame",
            Self::Stalled => "stalled",
            Self::EndOfStream => "end_of_stream",
            Self::Stream => "stream",
            Self::StateChange => "state_change",
            Self::CodecChanged => "codec_changed",
        }
    }
}

/// The end of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What kind of end.
    pub reason: RestartReason,
    /// What happened and what to do, for people; holds no secrets.
    pub text: String,
}

impl End {
    /// An end for `reason`.
    pub fn new(reason: RestartReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// How often a camera's connection ended, by reason.
#[derive(Debug, Default)]
pub struct Restarts([AtomicU64; RestartReason::ALL.len()]);

impl Restarts {
    /// Counts one more.
    pub(super) fn count(&self, reason: RestartReason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// How many ended for `reason`.
    pub fn of(&self, reason: RestartReason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// How many ended.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|n| n.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_their_own_counter() {
        for (i, reason) in RestartReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}

//! Everything that can go wrong between a hub and a model's folder, in words that say what to do.

use std::{io, path::PathBuf};

/// What helps when the disk of the cache is full.
const FULL_CACHE: &str = "set HF_HUB_CACHE to a larger disk";
/// What helps when the disk with the models is.
const FULL_MODELS: &str = "choose a folder on a larger disk by --into or GROUNDD_MODELS";

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The catalog is not what a catalog should be.
    #[error("{place}: {reason}")]
    Catalog {
        /// The file, or that it is the built-in one.
        place: String,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// Nothing is known by that name.
    #[error(
        "the catalog has no model `{name}`; it has: {known}. A repository is named `owner/name` or `owner/name@revision`"
    )]
    Unknown {
        /// As given.
        name: String,
        /// The catalog's names.
        known: String,
    },
    /// Not a way to name a repository.
    #[error("`{text}` does not name a repository: {reason}; write `owner/name` or `owner/name@revision`")]
    Reference {
        /// As given.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The environment is set to something that cannot be.
    #[error("{variable}: {reason}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// There is no such repository, revision or file.
    #[error(
        "{what} is not at {host}: 404. Look at the spelling and the revision; a private repository asks for HF_TOKEN"
    )]
    Missing {
        /// Repository, revision, file.
        what: String,
        /// The server.
        host: String,
    },
    /// The server wants to know who asks, or does not let them.
    #[error(
        "{host} does not give {what} away: {status}. Set HF_TOKEN to a token that may read it; a model with terms of use has \
         to be agreed to on its page first"
    )]
    Forbidden {
        /// Repository, file.
        what: String,
        /// The server.
        host: String,
        /// 401 or 403.
        status: u16,
    },
    /// The server does not answer as it should, or not at all.
    #[error("{what}: {host}: {reason}. What has come is kept; run the command again to go on from there")]
    Server {
        /// Repository, file.
        what: String,
        /// The server.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The network must not be used, and what is wanted is not here.
    #[error("{what} is not in the cache {}, and HF_HUB_OFFLINE is set; unset it, or fetch the model before", .cache.display())]
    Offline {
        /// What is missing.
        what: String,
        /// The cache that was looked at.
        cache: PathBuf,
    },
    /// The network must not be used, and what is here is not what its name says.
    #[error(
        "{file}: what the cache has of it, {}, is not what its name says, and HF_HUB_OFFLINE is set; unset it and pull once, \
         which fetches the file anew", .place.display()
    )]
    Spoiled {
        /// The file in the repository.
        file: String,
        /// Where its content lies.
        place: PathBuf,
    },
    /// The model's place is somebody else's.
    #[error(
        "{} is there already, and {reason}; {repository} does not replace it. Move it away, or choose another folder by --into",
        .place.display()
    )]
    Taken {
        /// What has the name.
        place: PathBuf,
        /// Why it may not be replaced.
        reason: String,
        /// What was going to be put there.
        repository: String,
    },
    /// The repository has nothing that runs here.
    #[error("{repository}: {reason}")]
    Unfit {
        /// The repository.
        repository: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// What was fetched is not what the server or the catalog vouched for.
    #[error(
        "{file}: {what} should be {expected} and is {found}. It was thrown away; if this happens again, something between \
         {host} and here changes files: try another network or HF_ENDPOINT"
    )]
    Corrupt {
        /// The file in the repository.
        file: String,
        /// `its length` or `its SHA-256`.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
        /// The server.
        host: String,
    },
    /// The server has another file than the catalog was made for.
    #[error(
        "{file}: the catalog says {what} {expected}, {host} offers {found}: this is not the file that was reviewed, and no \
         model was made of it; name the repository itself to take what is there"
    )]
    Pinned {
        /// The file in the repository.
        file: String,
        /// `SHA-256` or `length`.
        what: &'static str,
        /// The catalog's.
        expected: String,
        /// The server's.
        found: String,
        /// The server.
        host: String,
    },
    /// The disk is full, or would be.
    #[error("{}: no space left: {reason}. What has come is kept; make room, or {remedy}", .place.display())]
    Full {
        /// The file or folder.
        place: PathBuf,
        /// How much is needed, or what the system said.
        reason: String,
        /// What helps but making room.
        remedy: &'static str,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: cannot be {action}", .place.display())]
    File {
        /// The file or folder.
        place: PathBuf,
        /// `read`, `written`, …
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Whose fault it is, which is what the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command line's.
    Usage,
    /// Of something outside: a server, the network, the disk.
    Outside,
    /// The configuration's, or the model's.
    Setup,
}

impl HubError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unknown { .. } | Self::Reference { .. } | Self::Taken { .. } => Fault::Usage,
            Self::Server { .. }
            | Self::Offline { .. }
            | Self::Spoiled { .. }
            | Self::Corrupt { .. }
            | Self::Full { .. }
            | Self::File { .. } => Fault::Outside,
            Self::Catalog { .. }
            | Self::Environment { .. }
            | Self::Missing { .. }
            | Self::Forbidden { .. }
            | Self::Unfit { .. }
            | Self::Pinned { .. } => Fault::Setup,
        }
    }

    /// A failed access to `place`; one for want of space says so.
    pub(super) fn file(place: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Self {
        let place = place.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::full(place, source.to_string())
            }
            _ => Self::File { place, action, source },
        }
    }

    /// A disk that is full, or would be; the cache's unless [`HubError::among_models`] says otherwise.
    pub(super) fn full(place: PathBuf, reason: String) -> Self {
        Self::Full { place, reason, remedy: FULL_CACHE }
    }

    /// Itself, where it is about the folder of models: a larger disk for the cache does not help there.
    pub(super) fn among_models(self) -> Self {
        match self {
            Self::Full { place, reason, .. } => Self::Full { place, reason, remedy: FULL_MODELS },
            other => other,
        }
    }
}

//! What goes wrong between the configuration and the broker, said so that the reader knows what to change.

use std::{io, path::PathBuf, time::Duration};

use super::TopicError;
use crate::types::may_pass;

/// Why the publisher cannot start, or has no connection.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A key of the `[mqtt]` table cannot be used.
    #[error("mqtt.{key}: {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A topic in the `[mqtt]` table cannot be used.
    #[error("mqtt.{key}: {source}")]
    Topic {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        source: TopicError,
    },
    /// The folder for waiting events cannot be used.
    #[error("mqtt.spool_dir: {0}")]
    Spool(#[from] SpoolError),
    /// The system gives no thread to write the spool with.
    #[error("cannot start a thread to write the spool with: {0}")]
    Thread(#[source] io::Error),
    /// There is no tokio runtime to run in.
    #[error("the publisher needs a tokio runtime; call it from within one")]
    NoRuntime,
    /// Nobody answers at the address.
    #[error("no broker at {broker}: {problem}; check that it runs and that mqtt.url names it")]
    Unreachable {
        /// Host and port.
        broker: String,
        /// What the system says.
        problem: String,
    },
    /// The encrypted connection could not be made.
    #[error("TLS with {broker} failed: {problem}; check mqtt.ca_file and that the certificate names this host")]
    Tls {
        /// Host and port.
        broker: String,
        /// What the TLS library says.
        problem: String,
    },
    /// The broker answered, and does not want us.
    #[error("the broker at {broker} refused the connection: {problem}")]
    Refused {
        /// Host and port.
        broker: String,
        /// Why, and what to do.
        problem: String,
    },
    /// Another client came with our id.
    #[error(
        "another client took over the client id `{client_id}` on {broker}; two daemons on one broker each need their \
         own mqtt.client_id"
    )]
    TakenOver {
        /// Host and port.
        broker: String,
        /// The id both use.
        client_id: String,
    },
    /// Something listens, but does not speak MQTT 5 in time.
    #[error("{broker} accepted the connection but did not answer within {waited:?}; is it an MQTT 5 broker?")]
    Silent {
        /// Host and port.
        broker: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The broker closed a working connection without a reason we could read.
    #[error("the broker at {broker} closed the connection of client id `{client_id}`")]
    Closed {
        /// Host and port.
        broker: String,
        /// The id we used.
        client_id: String,
    },
    /// A working connection ended.
    #[error("the connection to the broker at {broker} ended: {problem}")]
    Lost {
        /// Host and port.
        broker: String,
        /// How it ended.
        problem: String,
    },
    /// The broker sent something that cannot be understood.
    #[error("the broker at {broker} broke the protocol: {problem}")]
    Protocol {
        /// Host and port.
        broker: String,
        /// What it sent.
        problem: String,
    },
}

impl PublishError {
    /// Whether trying again at once could only annoy: somebody has to change something first.
    pub(super) fn needs_patience(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TakenOver { .. } | Self::Tls { .. })
    }

    /// Whether it may pass by itself, as a broker that is away does, rather than that the configuration is wrong.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Config { .. } | Self::Topic { .. } => false,
            Self::Spool(error) => error.is_unavailable(),
            _ => true,
        }
    }

    /// The key of the `[mqtt]` table that is wrong, if one is; `control.query` is one of the table `[mqtt.control]`.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Config { key, .. } | Self::Topic { key, .. } => Some(*key),
            _ => None,
        }
    }

    /// Whether a message of ours may have caused it.
    pub(super) fn blames_a_message(&self) -> bool {
        matches!(self, Self::Protocol { .. })
    }
}

/// Why the spool folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder or a file in it cannot be read or written.
    #[error("cannot use the spool `{path}`: {source}; it must be a folder this user can write to")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the spool `{0}` is in use by another groundd; give each its own spool_dir")]
    InUse(PathBuf),
}

impl SpoolError {
    /// Whether it may pass while the setting stays as it is.
    pub(super) fn is_unavailable(&self) -> bool {
        match self {
            Self::InUse(_) => true,
            Self::Io { source, .. } => may_pass(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::publish::spool::Spool;

    #[test]
    fn a_spool_that_may_be_had_later_is_no_fault_of_the_configuration() {
        let io = |source: io::Error| SpoolError::Io { path: "/spool".into(), source };
        let passing = [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ROFS, Errno::STALE].map(|errno| io(errno.into()));
        let passing = passing.into_iter().chain([SpoolError::InUse("/spool".into())]);
        assert!(passing.into_iter().all(|error| PublishError::from(error).is_unavailable()));
        let wrong = [Errno::NOENT, Errno::NOTDIR, Errno::ACCESS, Errno::NAMETOOLONG].map(|errno| io(errno.into()));
        assert!(!wrong.into_iter().any(|error| PublishError::from(error).is_unavailable()));
        // A file is no folder, and cannot have one in it.
        let file = tempfile::NamedTempFile::new().unwrap();
        for place in [file.path().to_owned(), file.path().join("spool")] {
            let error = Spool::open(&place).err().unwrap();
            assert!(!error.is_unavailable(), "{error}");
        }
    }
}

//! What a hub calls its files by: the SHA-256 of large ones, the git hash of small ones. Either proves the content.

use std::{fmt, io::Read, path::Path};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::HubError;

/// A file's hash, as the server's `etag` has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-256 of the content: files that git keeps elsewhere (LFS).
    Sha256(String),
    /// SHA-1 of `blob <length>\0` and the content: files that git keeps itself.
    Git(String),
}

impl Digest {
    /// Reads an `etag`; `None` if it is no hash of the content. Only hex digits pass, for it becomes a file's name.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let bare = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let hex = bare.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match bare.len() {
            64 if hex => Some(Self::Sha256(bare.to_owned())),
            40 if hex => Some(Self::Git(bare.to_owned())),
            _ => None,
        }
    }

    /// The hex digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    /// The kind of hash, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "its SHA-256",
            Self::Git(_) => "its git hash",
        }
    }

    /// A hasher that arrives at this digest over `bytes` bytes of the right content.
    pub(super) fn hasher(&self, bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex())
    }
}

/// A hash under way.
#[derive(Debug, Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(piece),
            Self::Git(hasher) => hasher.update(piece),
        }
    }

    /// The hex digits.
    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => data_encoding::HEXLOWER.encode(&hasher.finalize()),
            Self::Git(hasher) => data_encoding::HEXLOWER.encode(&hasher.finalize()),
        }
    }

    /// Adds the file at `path`, as long as it is said to be; how long it was.
    pub(super) fn read(&mut self, path: &Path) -> Result<u64, HubError> {
        let unreadable = |e| HubError::file(path, "read", e);
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let end = file.metadata().map_err(unreadable)?.len();
        let mut file = file.take(end);
        let (mut piece, mut length) = (vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut piece).map_err(unreadable)? {
                0 => return Ok(length),
                n => {
                    self.update(&piece[..n]);
                    length += n as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_that_are_hashes_are_read_and_no_others() {
        let (long, short) = ("ab".repeat(32), "0".repeat(40));
        assert_eq!(Digest::from_etag(&format!("\"{long}\"")), Some(Digest::Sha256(long.clone())));
        assert_eq!(Digest::from_etag(&format!("W/\"{short}\"")), Some(Digest::Git(short.clone())));
        assert_eq!(Digest::from_etag(&long), Some(Digest::Sha256(long.clone())));
        let slashes = "../".repeat(20) + "abcd";
        for bad in ["", "\"\"", "abc", &long.to_uppercase(), &format!("{short}-gzip"), &slashes] {
            assert_eq!(Digest::from_etag(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_git_hash_is_git_s() {
        // `printf 'hello\n' | git hash-object --stdin`
        let digest = Digest::Git("ce013625030ba8dba906f756967f9e9ca394464a".into());
        let mut hasher = digest.hasher(6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        assert_eq!(hasher.finish(), digest.hex());
    }
}

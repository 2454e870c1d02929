//! A file that comes in pieces: appended, hashed as it goes, and renamed only when it is what it should be.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use super::{HubError, Remote, cache::Repository, digest::Hasher};

/// A file under way.
#[derive(Debug)]
pub(super) struct Partial<'a> {
    remote: &'a Remote,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    /// Bytes of it that are here.
    pub(super) length: u64,
}

impl<'a> Partial<'a> {
    /// Goes on where an earlier attempt stopped, if there was one.
    pub(super) fn open(repository: &Repository, remote: &'a Remote) -> Result<Self, HubError> {
        let path = repository.partial(&remote.digest);
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| HubError::file(&path, "written", e))?;
        let mut partial = Self { remote, path, file, hasher: remote.digest.hasher(remote.bytes), length: 0 };
        partial.length = partial.hasher.read(&partial.path)?;
        if partial.length > remote.bytes {
            partial.restart()?;
        }
        Ok(partial)
    }

    /// Forgets what came so far.
    pub(super) fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(|e| HubError::file(&self.path, "emptied", e))?;
        self.hasher = self.remote.digest.hasher(self.remote.bytes);
        self.length = 0;
        Ok(())
    }

    /// Appends a piece.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), HubError> {
        self.file.write_all(piece).map_err(|e| HubError::file(&self.path, "written", e))?;
        self.hasher.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Whether it has its full length.
    pub(super) fn is_full(&self) -> bool {
        self.length >= self.remote.bytes
    }

    /// What is wrong with it: what, what it should be, what it is.
    pub(super) fn fault(&self) -> Option<(&'static str, String, String)> {
        let Remote { bytes, digest, .. } = self.remote;
        if self.length != *bytes {
            return Some(("its length", format!("{bytes} bytes"), format!("{} bytes", self.length)));
        }
        let found = self.hasher.clone().finish();
        (found != digest.hex()).then(|| (digest.what(), digest.hex().to_owned(), found))
    }

    /// Throws it away.
    pub(super) fn discard(self) {
        // If it cannot be removed it is found too long or wrong the next time, and emptied.
        fs::remove_file(&self.path).ok();
    }

    /// Puts the whole file where content lies, once it is on the disk.
    pub(super) fn keep(self, repository: &Repository) -> Result<(), HubError> {
        self.file.sync_all().map_err(|e| HubError::file(&self.path, "written", e))?;
        let blob = repository.blob(&self.remote.digest);
        fs::rename(&self.path, &blob).map_err(|e| HubError::file(blob, "written", e))
    }
}

//! Hidden folders beside a model's place, for what is not the model yet, or not any more. Each is locked by who made it, so
//! that what a killed pull left can be told from what another one is busy with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What follows a model's name in the names of these folders; nobody else's are called so.
const MARK: &str = "pulling-";
/// Random letters and digits that follow the mark.
const RANDOM: usize = 6;

/// A hidden folder of one's own. Dropping it removes it, and whatever lies under its name by then.
#[derive(Debug)]
pub(super) struct Aside {
    dir: tempfile::TempDir,
    /// `None` where the file system knows no locks of folders; nobody tidies up there.
    _lock: Option<fs::File>,
}

impl Aside {
    /// A new one in `folder`, for the model `name`.
    pub(super) fn new(folder: &Path, name: &str) -> io::Result<Self> {
        loop {
            let dir = tempfile::Builder::new().prefix(&prefix(name)).rand_bytes(RANDOM).tempdir_in(folder)?;
            match take(dir.path()) {
                Ok(lock) if dir.path().is_dir() => return Ok(Self { dir, _lock: Some(lock) }),
                // Somebody who tidies up was faster.
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {}
                Err(_) => return Ok(Self { dir, _lock: None }),
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves it there.
    pub(super) fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

/// Removes what pulls of `name` that were killed left in `folder`.
pub(super) fn tidy(folder: &Path, name: &str) {
    let prefix = prefix(name);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let called = entry.file_name();
        let random = called.to_str().and_then(|called| called.strip_prefix(&prefix));
        let one = random.is_some_and(|text| text.len() == RANDOM && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !one || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // Held until it is gone: a pull that has made it this moment sees that, and makes another.
        let Ok(_held) = take(&entry.path()) else { continue };
        // What cannot be removed, as another user's, stays and does no harm but for its size.
        fs::remove_dir_all(entry.path()).ok();
    }
}

fn prefix(name: &str) -> String {
    format!(".{name}.{MARK}")
}

/// Locks a folder until the file is closed; `WouldBlock` if somebody else has.
fn take(folder: &Path) -> io::Result<fs::File> {
    let file = fs::File::open(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let models = tempfile::tempdir().unwrap();
        let busy = Aside::new(models.path(), "m").unwrap();
        let left = Aside::new(models.path(), "m").unwrap().keep();
        fs::write(left.join("graph.onnx"), "gigabytes").unwrap();
        let others =
            ["m", ".m.backup", ".m.pulling-mine", ".m.pulling-abcdef.old", ".m.b.pulling-abcdef", "catalog.toml"];
        for other in others {
            fs::create_dir(models.path().join(other)).unwrap();
        }
        tidy(models.path(), "m");
        assert!(!left.exists() && busy.path().is_dir());
        for other in others {
            assert!(models.path().join(other).is_dir(), "{other}");
        }
        let path = busy.path().to_owned();
        drop(busy);
        assert!(!path.exists(), "it goes with whoever made it");
    }
}

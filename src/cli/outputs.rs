//! Files that commands write: those that options name, for commands that work for an hour before that, and their own.

use std::{fmt::Display, fs, path::Path};

use tempfile::TempDir;

use super::{Exit, Failure};

/// Whether the files that options name can be written: better known before an hour of work than after.
pub(super) fn check(files: &[(&str, Option<&Path>)]) -> Result<(), Failure> {
    for (option, path) in files.iter().filter_map(|(option, path)| Some((option, (*path)?))) {
        // Opened for appending, so that an older file is still whole if this run fails; a new one is not left behind.
        let new = !path.exists();
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        let emptied = opened.and_then(|_| if new { fs::remove_file(path) } else { Ok(()) });
        emptied.map_err(|e| unwritable(option, path, &e))?;
    }
    Ok(())
}

/// An option's file or folder cannot be written, and why.
pub(super) fn unwritable(option: &str, path: &Path, reason: &dyn Display) -> Failure {
    let path = path.display();
    Failure::new(Exit::Usage, format!("{option} {path}: cannot be written: {reason}; name a place that can"))
}

/// That a file cannot be written, and why.
pub(super) fn cannot_write(path: &Path, reason: &dyn Display) -> String {
    format!("cannot write {}: {reason}", path.display())
}

/// Writes a file without which a command cannot go on.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|e| Failure::new(Exit::Unavailable, cannot_write(path, &e)))
}

/// A folder that is removed when it is dropped.
pub(super) fn temporary(prefix: &str) -> Result<TempDir, Failure> {
    let cannot = |e| Failure::new(Exit::Unavailable, format!("cannot make a temporary folder: {e}"));
    tempfile::Builder::new().prefix(prefix).tempdir().map_err(cannot)
}

/// An error that names all that could not be written, if there is any.
pub(super) fn all_written(failed: &[String]) -> Result<(), Failure> {
    if failed.is_empty() {
        return Ok(());
    }
    let failed = failed.join("; ");
    Err(Failure::new(Exit::Unavailable, format!("{failed}; make room, or name another place. Stdout has the table")))
}

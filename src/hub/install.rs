//! From the cache to the folder of models. A model is made in a hidden folder beside its place and renamed, so that nobody
//! ever sees half of one, and one that is replaced is whole until the other is.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    HubError, Plan,
    cache::{Repository, make},
    catalog,
};

/// A model that is complete but for its name. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    dir: tempfile::TempDir,
    place: PathBuf,
}

pub(super) fn stage(repository: &Repository, plan: &Plan, folder: &Path, name: &str) -> Result<Staged, HubError> {
    catalog::check_name(name).map_err(|reason| HubError::Unfit { repository: plan.reference.to_string(), reason })?;
    make(folder)?;
    let dir = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(folder);
    let dir = dir.map_err(|e| HubError::file(folder, "written", e))?;
    for file in &plan.files {
        let place = dir.path().join(&file.path);
        make(place.parent().unwrap_or(folder))?;
        put(&repository.blob(&file.digest), &place).map_err(|e| HubError::file(&place, "linked", e))?;
    }
    // The daemon may run as another user than who fetches.
    open_up(dir.path()).map_err(|e| HubError::file(dir.path(), "opened to others", e))?;
    Ok(Staged { dir, place: folder.join(name) })
}

/// A second name for the content, which costs no space and needs no way into the cache; a copy on another disk, since who runs
/// the model may not be allowed into the cache of who fetched it.
fn put(blob: &Path, place: &Path) -> io::Result<()> {
    let blob = fs::canonicalize(blob)?;
    match fs::hard_link(&blob, place) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => drop(fs::copy(&blob, place)?),
        Err(error) => return Err(error),
    }
    fs::set_permissions(place, fs::Permissions::from_mode(0o644))
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

impl Staged {
    /// Where it lies until it is committed.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Gives it its name, in one step; what had that name before is removed. Returns where it is.
    pub fn commit(self) -> Result<PathBuf, HubError> {
        let (from, to) = (self.dir.path(), &self.place);
        let failed = |e: io::Error| HubError::file(to, "written", e);
        for file in walk(from).map_err(failed)? {
            fs::File::open(&file).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        loop {
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(failed(e.into())),
                Ok(()) => {
                    // Nothing is left under the old name.
                    let _gone = self.dir.keep();
                    return Ok(self.place);
                }
            }
            match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
                // Whoever had the name took it away in between.
                Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(failed(e.into())),
                // Dropping the folder removes what now lies there: the model that was replaced.
                Ok(()) => return Ok(self.place),
            }
        }
    }
}

/// The regular files below a folder, which are those made here; content is on the disk already.
fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(walk(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}

//! From the cache to the folder of models. A model is made in a hidden folder beside its place and renamed, so that nobody
//! ever sees half of one, and one that is replaced is whole until the other is.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::{
    HubError, Plan, Reference,
    aside::{self, Aside},
    cache::{Repository, check_room, make},
    catalog,
    origin::{self, walk},
};

/// Readable by all, which a pulled file is.
const OPEN: u32 = 0o644;

/// A model that is complete but for its name. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    aside: Aside,
    folder: PathBuf,
    name: String,
    reference: Reference,
    commit: String,
}

/// Before anything is fetched: whether `folder` can be written, and has room for the plan where its files must be copied.
/// `missing` is what the cache is going to grow by.
pub(super) fn prepare(
    repository: &Repository,
    plan: &Plan,
    folder: &Path,
    name: &str,
    missing: u64,
) -> Result<(), HubError> {
    let cache = repository.folder()?;
    let prepared = || -> Result<(), HubError> {
        make(folder)?;
        aside::tidy(folder, name);
        let trial = Aside::new(folder, name).map_err(|e| HubError::file(folder, "written", e))?;
        if links(repository, plan, cache, &trial.path().join("link")) {
            return Ok(());
        }
        let device = |folder: &Path| fs::metadata(folder).map(|about| about.dev()).ok();
        let besides = if device(folder) == device(cache) { missing } else { 0 };
        check_room(folder, plan.bytes().saturating_add(besides))
    };
    prepared().map_err(HubError::among_models)
}

/// Whether content of the cache can have a second name at `place`, as far as can be told beforehand: by a file of the plan if
/// one is there, else by one made for this.
fn links(repository: &Repository, plan: &Plan, cache: &Path, place: &Path) -> bool {
    let linked = match plan.files.iter().map(|file| repository.blob(&file.digest)).find(|blob| blob.is_file()) {
        Some(blob) => fs::canonicalize(blob).and_then(|blob| fs::hard_link(blob, place)),
        None => tempfile::NamedTempFile::new_in(cache).and_then(|own| fs::hard_link(own.path(), place)),
    };
    linked.is_ok()
}

pub(super) fn stage(repository: &Repository, plan: &Plan, folder: &Path, name: &str) -> Result<Staged, HubError> {
    catalog::check_name(name).map_err(|reason| HubError::Unfit { repository: plan.reference.to_string(), reason })?;
    let staged = || -> Result<Staged, HubError> {
        make(folder)?;
        let aside = Aside::new(folder, name).map_err(|e| HubError::file(folder, "written", e))?;
        for file in &plan.files {
            let place = aside.path().join(&file.path);
            make(place.parent().unwrap_or(folder))?;
            put(&repository.blob(&file.digest), &place).map_err(|e| HubError::file(&place, "linked", e))?;
        }
        // The daemon may run as another user than who fetches.
        open_up(aside.path()).map_err(|e| HubError::file(aside.path(), "opened to others", e))?;
        let (reference, commit) = (plan.reference.clone(), plan.commit.clone());
        Ok(Staged { aside, folder: folder.to_owned(), name: name.to_owned(), reference, commit })
    };
    staged().map_err(HubError::among_models)
}

/// A second name for the content, which costs no space and needs no way into the cache; a copy where that cannot be: on another
/// disk, of another user's content, on a file system without links. Who runs the model may not be allowed into the cache of
/// who fetched it.
fn put(blob: &Path, place: &Path) -> io::Result<()> {
    let blob = fs::canonicalize(blob)?;
    let open = || fs::set_permissions(place, fs::Permissions::from_mode(OPEN));
    if fs::hard_link(&blob, place).is_ok() {
        if open().is_ok() {
            return Ok(());
        }
        fs::remove_file(place)?;
    }
    // Into a new file only: one that is there could be a second name of something in the cache.
    io::copy(&mut fs::File::open(&blob)?, &mut fs::File::create_new(place)?)?;
    open()
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
        self.aside.path()
    }

    /// Gives it its name, in one step where the file system can; what a pull of the same repository put there before is
    /// removed, and anything else refused. Returns where it is.
    pub fn commit(self) -> Result<PathBuf, HubError> {
        let to = self.folder.join(&self.name);
        self.settle(&to).map_err(HubError::among_models)?;
        Ok(to)
    }

    fn settle(self, to: &Path) -> Result<(), HubError> {
        let from = self.aside.path();
        let failed = |e: io::Error| HubError::file(to, "written", e);
        // Hours may have gone since somebody looked.
        origin::occupant(to, &self.reference)?;
        origin::note(from, &self.reference, &self.commit).map_err(failed)?;
        for file in walk(from).map_err(failed)? {
            seal(&file).map_err(failed)?;
        }
        match exchange(from, to) {
            // As on NFS, some of FUSE, and ZFS before 2.2.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let old = Aside::new(&self.folder, &self.name).map_err(failed)?;
                in_two_steps(from, to, old).map_err(failed)
            }
            // Dropping the folder removes what now lies under its name: the model that was replaced, if there was one.
            done => done.map_err(|e| failed(e.into())),
        }
    }
}

/// Makes sure that a file is on the disk, and that others can read it whatever the umask was.
fn seal(file: &Path) -> io::Result<()> {
    let file = fs::File::open(file)?;
    if file.metadata()?.mode() & OPEN != OPEN {
        file.set_permissions(fs::Permissions::from_mode(OPEN))?;
    }
    file.sync_all()
}

/// Renames `from` to `to`; what was at `to` is at `from` then. At no moment is there nothing at `to`.
fn exchange(from: &Path, to: &Path) -> rustix::io::Result<()> {
    loop {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
        match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
            // Whoever had the name took it away in between.
            Err(Errno::NOENT) => {}
            done => return done,
        }
    }
}

/// The same where the file system knows no such renaming: for a moment there is nothing at `to`. What was there goes with `old`.
fn in_two_steps(from: &Path, to: &Path, old: Aside) -> io::Result<()> {
    let replaced = old.path().join("replaced");
    match fs::rename(to, &replaced) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        moved => moved?,
    }
    let Err(error) = fs::rename(from, to) else { return Ok(()) };
    if replaced.exists() && fs::rename(&replaced, to).is_err() {
        let kept = old.keep();
        return Err(io::Error::new(error.kind(), format!("{error}; what was there is kept in {}", kept.display())));
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(path: &Path, text: &str) {
        fs::create_dir(path).unwrap();
        fs::write(path.join("model.toml"), text).unwrap();
    }

    #[test]
    fn both_ways_of_renaming_give_the_name_to_the_new_and_remove_the_old() {
        let models = tempfile::tempdir().unwrap();
        let (from, to) = (models.path().join("from"), models.path().join("to"));
        let read = || fs::read_to_string(to.join("model.toml")).unwrap();
        let aside = || Aside::new(models.path(), "to").unwrap();
        let names = || fs::read_dir(models.path()).unwrap().count();
        for text in ["onto nothing", "onto another"] {
            folder_with(&from, text);
            in_two_steps(&from, &to, aside()).unwrap();
            assert_eq!((read(), names()), (text.to_owned(), 1));
        }
        // One that fails leaves all as it was.
        assert_eq!(in_two_steps(&from, &to, aside()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((read(), names()), ("onto another".to_owned(), 1));
        folder_with(&from, "in one");
        match exchange(&from, &to) {
            Ok(()) => assert_eq!((read(), from.exists()), ("in one".to_owned(), true)),
            // Wherever this is run need not know it.
            Err(error) => assert!([Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].contains(&error), "{error}"),
        }
    }

    #[test]
    fn content_that_cannot_be_linked_is_copied_and_nothing_is_written_over() {
        // Of a file of another file system there is no second name here.
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("version");
        put(Path::new("/proc/version"), &place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), fs::read("/proc/version").unwrap());
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, OPEN);
        let blob = folder.path().join("blob");
        fs::write(&blob, "content").unwrap();
        assert_eq!(put(&blob, &place).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&place).unwrap();
        put(&blob, &place).unwrap();
        assert_eq!(fs::metadata(&blob).unwrap().ino(), fs::metadata(&place).unwrap().ino());
        assert_eq!(put(&blob, &place).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&blob).unwrap(), "content");
    }
}

//! Where a model's folder came from. A pull leaves a note of that in it, and of how its files were; the next one replaces what is
//! still so, asks before it throws away what somebody has changed, and leaves alone what came from elsewhere.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{HubError, Reference, choose::MANIFEST};

/// The note's name in a model's folder.
pub const FILE_NAME: &str = ".pulled.toml";
const HEADING: &str = "# By `groundd models pull`: from where this folder came, and how it was then. What was changed since is not\n\
                       # replaced without a word.\n";

/// What has the name that a model is going to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing, or an empty folder.
    Nobody,
    /// What was pulled from the same repository, as it was then, as far as names, lengths and times tell.
    Pulled,
    /// What was pulled from the same repository and may have been changed since: how one knows.
    Changed(String),
}

/// Who is in a model's place. Whatever did not come from the repository of `reference` is an error: it is not ours to remove.
pub fn occupant(place: &Path, reference: &Reference) -> Result<Occupant, HubError> {
    let unreadable = |e: io::Error| HubError::file(place, "looked at", e);
    let taken = |reason: String| {
        let (place, repository) = (place.to_owned(), reference.repository.clone());
        HubError::Taken { place, reason, repository }
    };
    match fs::symlink_metadata(place) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nobody),
        Err(e) => return Err(unreadable(e)),
    }
    if !place.is_dir() {
        return Err(taken("it is no folder".to_owned()));
    }
    if fs::read_dir(place).map_err(unreadable)?.next().is_none() {
        return Ok(Occupant::Nobody);
    }
    if let Some(note) = Note::read(place) {
        if note.repository != reference.repository {
            return Err(taken(format!("it came from {}", note.repository)));
        }
        let now = match State::of(place) {
            Ok(now) => now,
            Err(e) => return Ok(Occupant::Changed(format!("not all of it can be looked at: {e}"))),
        };
        let changed = |path: &str| Occupant::Changed(format!("{path} is not as it was pulled"));
        return Ok(note.state.difference(&now).map_or(Occupant::Pulled, changed));
    }
    match provenance(place) {
        Some(text) if text.starts_with(&format!("{}@", reference.repository)) => {
            Ok(Occupant::Changed("nothing in it says how it was when it was pulled".to_owned()))
        }
        Some(text) => Err(taken(format!("it says of itself: {}", text.escape_debug()))),
        None => Err(taken("nothing in it says where it came from".to_owned())),
    }
}

/// Leaves the note in a folder that is complete but for it.
pub(super) fn note(folder: &Path, reference: &Reference, commit: &str) -> io::Result<()> {
    let state = State::of(folder)?;
    let note = Note { repository: reference.repository.clone(), commit: commit.to_owned(), state };
    let text = toml::to_string(&note).map_err(io::Error::other)?;
    // Never into a file that is there: it could be a second name of something in the cache.
    let mut file = fs::File::create_new(folder.join(FILE_NAME))?;
    file.write_all(format!("{HEADING}{text}").as_bytes())
}

/// The note.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// `owner/name`.
    repository: String,
    commit: String,
    state: State,
}

impl Note {
    /// The note in a folder; one that cannot be read is none.
    fn read(folder: &Path) -> Option<Self> {
        toml::from_str(&fs::read_to_string(folder.join(FILE_NAME)).ok()?).ok()
    }
}

/// How a folder is, as far as that can be told without reading gigabytes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    /// The manifest's SHA-256: it is small, and what people edit. Empty if there is none.
    manifest: String,
    /// The other files.
    files: Vec<Noted>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Noted {
    path: String,
    bytes: u64,
    /// When it was written, in whole seconds: file systems keep more or less of the rest.
    modified: i64,
}

impl State {
    fn of(folder: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for path in walk(folder)? {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            if ![FILE_NAME, MANIFEST].contains(&name.as_str()) {
                let about = fs::symlink_metadata(&path)?;
                files.push(Noted { path: name, bytes: about.len(), modified: about.mtime() });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest =
            fs::read(folder.join(MANIFEST)).map(|text| data_encoding::HEXLOWER.encode(&Sha256::digest(text)));
        Ok(Self { manifest: manifest.unwrap_or_default(), files })
    }

    /// The first file that is not the same in `now`, or is in only one of them.
    fn difference<'a>(&'a self, now: &'a Self) -> Option<&'a str> {
        let gone = self.files.iter().find(|file| !now.files.contains(file));
        let come = || now.files.iter().find(|file| !self.files.contains(file));
        let file = gone.or_else(come).map(|file| file.path.as_str());
        file.or_else(|| (self.manifest != now.manifest).then_some(MANIFEST))
    }
}

/// Where a manifest says that its weights come from.
fn provenance(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        provenance: String,
    }
    let said: Said = toml::from_str(&fs::read_to_string(folder.join(MANIFEST)).ok()?).ok()?;
    Some(said.provenance)
}

/// Everything below a folder that is not one itself.
pub(super) fn walk(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(walk(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pulled_is_told_from_what_was_changed_and_what_is_somebody_s() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        let reference = Reference::parse("owner/name").unwrap();
        let look = || occupant(&place, &reference);
        let refused = |word: &str| match look() {
            Err(error @ HubError::Taken { .. }) => assert!(error.to_string().contains(word), "{error}"),
            other => panic!("{word}: {other:?}"),
        };
        assert_eq!(look().unwrap(), Occupant::Nobody);
        fs::create_dir_all(place.join("onnx")).unwrap();
        fs::write(place.with_extension("txt"), "").unwrap();
        assert!(matches!(occupant(&place.with_extension("txt"), &reference), Err(HubError::Taken { .. })));
        fs::write(place.join("onnx/graph.onnx"), "weights").unwrap();
        refused("nothing in it says where it came from");
        let manifest = |provenance: &str| format!("name = \"m\"\nprovenance = \"{provenance}\"\n");
        fs::write(place.join(MANIFEST), manifest("tuned at home")).unwrap();
        refused("tuned at home");
        // A pull's own words, and no note.
        fs::write(place.join(MANIFEST), manifest("owner/name@main, commit 0123")).unwrap();
        assert!(matches!(look().unwrap(), Occupant::Changed(_)));
        fs::write(place.join(MANIFEST), manifest("owner/name2@main, commit 0123")).unwrap();
        refused("owner/name2");
        // With a note the manifest may say what it likes.
        note(&place, &reference, "0123").unwrap();
        assert_eq!(look().unwrap(), Occupant::Pulled);
        assert!(note(&place, &reference, "0123").is_err(), "a note is never written over");
        // Another revision of the same repository is another commit of it.
        assert_eq!(occupant(&place, &Reference::parse("owner/name@other").unwrap()).unwrap(), Occupant::Pulled);
        let other = Reference::parse("owner/other").unwrap();
        let error = occupant(&place, &other).unwrap_err().to_string();
        assert!(error.contains("it came from owner/name") && error.contains("--into"), "{error}");

        let changed = |what: &str| match look().unwrap() {
            Occupant::Changed(reason) => assert!(reason.contains(what), "{reason}"),
            other => panic!("{what}: {other:?}"),
        };
        // An edit that leaves the length as it is.
        fs::write(place.join(MANIFEST), manifest("owner/name3@main, commit 0123")).unwrap();
        changed(MANIFEST);
        fs::write(place.join(MANIFEST), manifest("owner/name2@main, commit 0123")).unwrap();
        fs::write(place.join("onnx/mine.onnx"), "more").unwrap();
        changed("onnx/mine.onnx");
        fs::remove_file(place.join("onnx/mine.onnx")).unwrap();
        // Other weights are as long as the first more often than not, but not as old.
        let graph = fs::File::options().write(true).open(place.join("onnx/graph.onnx")).unwrap();
        graph.set_modified(std::time::UNIX_EPOCH).unwrap();
        changed("onnx/graph.onnx");
        fs::remove_file(place.join("onnx/graph.onnx")).unwrap();
        changed("onnx/graph.onnx");
    }

    #[test]
    fn an_empty_folder_is_nobody_s() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(occupant(folder.path(), &Reference::parse("a/b").unwrap()).unwrap(), Occupant::Nobody);
    }
}

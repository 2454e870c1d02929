//! The hub's cache on this machine, laid out as the hub's own tools do, and shared with them:
//!
//! ```text
//! models--OWNER--NAME/blobs/HASH                 content, by hash; HASH.incomplete while it comes
//! models--OWNER--NAME/snapshots/COMMIT/PATH      links to blobs
//! models--OWNER--NAME/refs/REVISION              the commit a branch stood at
//! .locks/models--OWNER--NAME/HASH.lock           held by who writes the blob
//! ```

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use hf_hub::{Repo, RepoType};

use super::{Digest, HubError, Plan, Reference, Remote, variable};

/// Space that must stay free beside what is fetched: a full disk hurts more than one program.
const SPARE: u64 = 64 << 20;

/// The cache of all repositories.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    /// Where the hub's tools keep what is not content.
    home: PathBuf,
}

impl Cache {
    /// `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`, else in the user's cache folder.
    pub fn from_env() -> Result<Self, HubError> {
        let user = || {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))).map(|dir| dir.join("huggingface"))
        };
        let home = variable("HF_HOME").map(PathBuf::from).or_else(user);
        let root = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let reason = || "unset, and there is no home directory; set it to a folder for what is fetched".to_owned();
        let home = home.or_else(|| root.clone());
        let home = home.ok_or_else(|| HubError::Environment { variable: "HF_HOME", reason: reason() })?;
        Ok(Self { root: root.unwrap_or_else(|| home.join("hub")), home })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Where the hub's tools keep the token that `login` left.
    pub(super) fn token_file(&self) -> PathBuf {
        variable("HF_TOKEN_PATH").map_or_else(|| self.home.join("token"), PathBuf::from)
    }

    /// The part of one repository.
    pub(super) fn repository(&self, reference: &Reference) -> Repository {
        let repo = Repo::new(reference.repository.clone(), RepoType::Model);
        let folder = repo.folder_name();
        Repository { root: self.root.join(&folder), locks: self.root.join(".locks").join(&folder) }
    }
}

/// The cache of one repository.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    root: PathBuf,
    locks: PathBuf,
}

impl Repository {
    /// Where a file's content lies.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// Where it lies while it comes.
    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(format!("{digest}.incomplete"))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// How much of a file is here.
    pub(super) fn held(&self, file: &Remote) -> u64 {
        let length = |path: PathBuf| fs::metadata(path).map(|m| m.len()).ok();
        length(self.blob(&file.digest)).or_else(|| length(self.partial(&file.digest))).unwrap_or(0)
    }

    /// Whether the content is here and is what its name says.
    pub(super) fn holds(&self, file: &Remote) -> Result<bool, HubError> {
        let blob = self.blob(&file.digest);
        if fs::metadata(&blob).map(|m| m.len()).ok() != Some(file.bytes) {
            return Ok(false);
        }
        let mut hasher = file.digest.hasher(file.bytes);
        hasher.read(&blob)?;
        Ok(hasher.finish() == file.digest.hex())
    }

    /// Compares content with what the catalog asks for, where only the content itself can tell. `host` is who offers it.
    pub(super) fn check(&self, file: &Remote, host: &str) -> Result<(), HubError> {
        let (Some(expected), Digest::Git(_)) = (&file.pinned, &file.digest) else { return Ok(()) };
        let mut hasher = Digest::Sha256(expected.clone()).hasher(file.bytes);
        hasher.read(&self.blob(&file.digest))?;
        match hasher.finish() {
            found if found == *expected => Ok(()),
            found => Err(HubError::Pinned {
                file: file.path.clone(),
                what: "SHA-256",
                expected: expected.clone(),
                found,
                host: host.to_owned(),
            }),
        }
    }

    /// The lock of a file's content, not taken yet; whoever holds it writes. It is let go when the file is closed.
    pub(super) fn lock(&self, digest: &Digest) -> Result<(PathBuf, fs::File), HubError> {
        let path = self.locks.join(format!("{digest}.lock"));
        make(&self.locks)?;
        make(&self.root.join("blobs"))?;
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        file.map(|file| (path.clone(), file)).map_err(|e| HubError::file(path, "opened", e))
    }

    /// Links a file's content into the snapshot of `commit`.
    pub(super) fn link(&self, commit: &str, file: &Remote) -> Result<(), HubError> {
        let link = self.snapshot(commit).join(&file.path);
        let above = "../".repeat(Path::new(&file.path).components().count() + 1);
        let target = PathBuf::from(format!("{above}blobs/{}", file.digest));
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            return Ok(());
        }
        let folder = link.parent().unwrap_or(&self.root);
        make(folder)?;
        // Made aside and renamed: a reader never sees it missing.
        let aside = folder.join(format!(".{}.{}", file.digest, std::process::id()));
        let made = symlink(target, &aside).and_then(|()| fs::rename(&aside, &link));
        made.map_err(|e| HubError::file(link, "linked", e))
    }

    /// Notes the commit that the plan's revision stands at.
    pub(super) fn note(&self, plan: &Plan) -> Result<(), HubError> {
        if plan.reference.revision == plan.commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(&plan.reference.revision);
        let folder = path.parent().unwrap_or(&self.root);
        make(folder)?;
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(plan.commit.as_bytes())?;
            file.persist(&path)?;
            Ok(())
        });
        written.map_err(|e| HubError::file(path, "written", e))
    }

    /// The commit that a revision stood at when it was last fetched.
    pub(super) fn commit(&self, reference: &Reference) -> Option<String> {
        let named = fs::read_to_string(self.root.join("refs").join(&reference.revision)).ok();
        let commit = named.map_or_else(|| reference.revision.clone(), |text| text.trim().to_owned());
        is_commit(&commit).then_some(commit).filter(|commit| self.snapshot(commit).is_dir())
    }

    /// The paths of all files in a snapshot.
    pub(super) fn snapshot_files(&self, commit: &str) -> Vec<String> {
        let root = self.snapshot(commit);
        let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if let Some(name) = path.strip_prefix(&root).ok().and_then(Path::to_str) {
                    found.push(name.to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Length and hash of a file in a snapshot: its content's name is the hash.
    pub(super) fn snapshot_file(&self, commit: &str, path: &str) -> Option<(u64, Digest)> {
        let link = self.snapshot(commit).join(path);
        let target = fs::read_link(&link).ok()?;
        let digest = Digest::from_etag(target.file_name()?.to_str()?)?;
        Some((fs::metadata(&link).ok()?.len(), digest))
    }

    /// Refuses what would not fit on the disk.
    pub(super) fn check_space(&self, bytes: u64) -> Result<(), HubError> {
        if bytes == 0 {
            return Ok(());
        }
        check_room(self.folder()?, bytes)
    }

    /// Its folder, made if it was not there.
    pub(super) fn folder(&self) -> Result<&Path, HubError> {
        make(&self.root)?;
        Ok(&self.root)
    }
}

/// Refuses what would not fit on the disk that `folder` is on.
pub(super) fn check_room(folder: &Path, bytes: u64) -> Result<(), HubError> {
    let disk = rustix::fs::statvfs(folder).map_err(|e| HubError::file(folder, "looked at", e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = bytes.saturating_add(SPARE);
    if free < needed {
        let reason = format!("{} more are needed, {} are free", megabytes(needed), megabytes(free));
        return Err(HubError::full(folder.to_owned(), reason));
    }
    Ok(())
}

/// Whether a text is a commit's full hash.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(Digest::from_etag(text), Some(Digest::Git(hex)) if hex == text)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Makes a folder and those above it.
pub(super) fn make(folder: &Path) -> Result<(), HubError> {
    fs::create_dir_all(folder).map_err(|e| HubError::file(folder, "made", e))
}

//! From what is wanted to a commit and its files, each with the length and hash that the server vouches for.

use super::{
    Digest, HubError, OFFLINE_HOST, Progress, Reference, Wanted,
    cache::Cache,
    catalog::{Pin, check_path},
    choose,
    client::{Client, Head},
};

/// How a repository is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As `tools/export` leaves it: a `model.toml` says everything.
    Exported,
    /// As published for transformers.js.
    Published,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash, as the server says.
    pub digest: Digest,
    /// The SHA-256 that the catalog asks for.
    pub pinned: Option<String>,
}

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where from.
    pub reference: Reference,
    /// The revision's commit, 40 hex digits: all files are of this one, whatever happens to the branch meanwhile.
    pub commit: String,
    /// How the repository is laid out.
    pub kind: Kind,
    /// Licence of the weights, as the catalog says, else as the repository's card says.
    pub licence: Option<String>,
    /// The files.
    pub files: Vec<Remote>,
}

impl Plan {
    /// Length of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

pub(super) async fn online(
    client: &Client,
    wanted: &Wanted,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<Plan, HubError> {
    let reference = &wanted.reference;
    let listing = client.listing(reference, tell).await?;
    let unfit = |reason| HubError::Unfit { repository: reference.to_string(), reason };
    let (kind, paths) = choose::files(&listing.files, wanted).map_err(unfit)?;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        check_path(&path).map_err(unfit)?;
        let Head { bytes, digest, commit } = client.head(reference, &listing.commit, &path, tell).await?;
        if commit.is_some_and(|commit| commit != listing.commit) {
            let reason = format!("it answers for another commit than {}", listing.commit);
            return Err(client.trouble(&format!("{reference}: {path}"), reason));
        }
        files.push(checked(wanted, path, bytes, digest, client.host())?);
    }
    let licence = wanted.licence.clone().or(listing.licence);
    Ok(Plan { reference: reference.clone(), commit: listing.commit, kind, licence, files })
}

fn pin<'a>(wanted: &'a Wanted, path: &str) -> Option<&'a Pin> {
    wanted.pins.iter().find(|pin| pin.path == path)
}

/// A file of the plan. One that the catalog knows otherwise is refused, before anything is fetched, whoever offers it: `host`.
/// Small files go by another hash than the catalog's; those are compared when they are here.
fn checked(wanted: &Wanted, path: String, bytes: u64, digest: Digest, host: &str) -> Result<Remote, HubError> {
    let pin = pin(wanted, &path);
    let refused = |what, expected: String, found: String| {
        Err(HubError::Pinned { file: path.clone(), what, expected, found, host: host.to_owned() })
    };
    if let Some(length) = pin.and_then(|pin| pin.bytes)
        && length != bytes
    {
        return refused("length", length.to_string(), bytes.to_string());
    }
    let pinned = pin.and_then(|pin| pin.sha256.clone());
    if let (Some(sha256), Digest::Sha256(found)) = (&pinned, &digest)
        && sha256 != found
    {
        return refused("SHA-256", sha256.clone(), found.clone());
    }
    Ok(Remote { path, bytes, digest, pinned })
}

pub(super) fn offline(cache: &Cache, wanted: &Wanted) -> Result<Plan, HubError> {
    let reference = &wanted.reference;
    let repository = cache.repository(reference);
    let missing = |what: String| HubError::Offline { what, cache: cache.path().to_owned() };
    let commit = repository.commit(reference).ok_or_else(|| missing(reference.to_string()))?;
    let held = repository.snapshot_files(&commit);
    let unfit = |reason| missing(format!("{reference} as a whole ({reason})"));
    let (kind, paths) = choose::files(&held, wanted).map_err(unfit)?;
    let file = |path: String| match repository.snapshot_file(&commit, &path) {
        Some((bytes, digest)) => checked(wanted, path, bytes, digest, OFFLINE_HOST),
        None => Err(missing(format!("{reference}: {path}"))),
    };
    let files = paths.into_iter().map(file).collect::<Result<_, _>>()?;
    Ok(Plan { reference: reference.clone(), commit, kind, licence: wanted.licence.clone(), files })
}

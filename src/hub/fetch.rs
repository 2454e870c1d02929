//! One file from the hub into the cache: resumed, verified, by one process at a time.

use std::{fs, fs::File, time::Duration};

use super::{
    HubError, Plan, Progress, Remote,
    cache::Repository,
    client::{self, Client},
    write::Partial,
};

/// Transfers in a row that may break without a byte having come.
const BARREN: u32 = 3;
/// How often a lock that another process holds is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Makes sure that the cache holds `file`, whole and verified.
pub(super) async fn file(
    client: &Client,
    repository: &Repository,
    plan: &Plan,
    file: &Remote,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<(), HubError> {
    let _lock = lock(repository, file, tell).await?;
    if repository.holds(file)? {
        tell(Progress::File(file, file.bytes));
        return repository.link(&plan.commit, file);
    }
    let mut partial = Partial::open(repository, file)?;
    tell(Progress::File(file, partial.length));
    let mut resumed = partial.length > 0;
    loop {
        transfer(client, plan, file, &mut partial, tell).await?;
        let Some((what, expected, found)) = partial.fault() else { break };
        if !resumed {
            partial.discard();
            return Err(HubError::Corrupt {
                file: file.path.clone(),
                what,
                expected,
                found,
                host: client.host().to_owned(),
            });
        }
        // What an earlier attempt left may have been the bad part.
        resumed = false;
        tell(Progress::Lost(partial.length));
        partial.restart()?;
    }
    partial.keep(repository)?;
    repository.link(&plan.commit, file)
}

/// Takes the file's lock, however long another process holds it.
async fn lock(repository: &Repository, file: &Remote, tell: &mut dyn FnMut(Progress<'_>)) -> Result<File, HubError> {
    let (path, lock) = repository.lock(&file.digest)?;
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    tell(Progress::Waiting(file));
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(fs::TryLockError::Error(e)) => return Err(HubError::file(path, "locked", e)),
        }
    }
}

/// Fills `partial` up to its full length; a transfer that breaks is taken up where it broke.
async fn transfer(
    client: &Client,
    plan: &Plan,
    file: &Remote,
    partial: &mut Partial<'_>,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<(), HubError> {
    let what = format!("{}: {}", plan.reference, file.path);
    let mut barren = 0;
    while !partial.is_full() {
        let before = partial.length;
        let (mut response, from) = client.content(&plan.reference, &plan.commit, &file.path, before, tell).await?;
        if from != before {
            tell(Progress::Lost(before));
            partial.restart()?;
        }
        let reason = loop {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    partial.write(&piece)?;
                    tell(Progress::Bytes(piece.len() as u64));
                    if partial.length > file.bytes {
                        // Too long is wrong whatever comes next.
                        return Ok(());
                    }
                }
                Ok(None) if partial.is_full() => break None,
                Ok(None) => break Some("the transfer ended early".to_owned()),
                Err(e) => break Some(client::words(e)),
            }
        };
        if let Some(reason) = reason {
            barren = if partial.length > before { 0 } else { barren + 1 };
            if barren >= BARREN {
                return Err(client.trouble(&what, reason));
            }
            tell(Progress::Retry(&reason, 1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

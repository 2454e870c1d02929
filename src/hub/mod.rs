//! Models from a hub: what may be fetched, fetching it, and putting it where the daemon finds it.
//!
//! A model goes through four states, and only the last is visible to the rest of groundd:
//!
//! 1. [`Wanted`]: a name of the [`catalog`], or `owner/name[@revision]`;
//! 2. [`Plan`]: the revision's commit, and every file with the length and hash that the server vouches for;
//! 3. whole and verified files in the hub's own cache, which other programs share ([`cache`]);
//! 4. a folder among the models, made aside and renamed into place ([`install`]), which notes where it came from ([`origin`]).
//!
//! # Why not all of it by the `hf-hub` crate
//!
//! Read: 0.5.0 and 1.0.0. Neither compares a hash, waits as `Retry-After` says, knows `HF_HUB_OFFLINE`, has timeouts, or looks
//! at the free space; both give up on a lock after seconds, though a large file takes another process hours. 1.0.0 starts
//! every file anew and brings in `rustls`, which `.config/deny.toml` bans; 0.5.0 goes on only from files of its own kind. So it
//! says where the hub is and how its cache is laid out, and the bytes are fetched here, on the HTTP client it uses too.

mod aside;
pub mod cache;
pub mod catalog;
mod choose;
mod client;
mod digest;
pub mod error;
mod fetch;
pub mod install;
pub mod origin;
mod plan;
mod write;

pub use catalog::{Catalog, Reference, Wanted};
pub use digest::Digest;
pub use error::HubError;
pub use origin::Occupant;
pub use plan::{Kind, Plan, Remote};

use std::path::Path;

use cache::Cache;
use client::Client;

/// Who offers the files where the network must not be used, for messages.
const OFFLINE_HOST: &str = "the cache";

/// What a fetch tells while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A file begins; that many bytes of it are here already.
    File(&'a Remote, u64),
    /// So many bytes more.
    Bytes(u64),
    /// What came so far of the file was of no use: so many bytes less.
    Lost(u64),
    /// Another process fetches this file; it is waited for.
    Waiting(&'a Remote),
    /// The server, or the way to it, has trouble; it is tried again after so many seconds.
    Retry(&'a str, u64),
}

/// A hub, and the cache of what came from it.
#[derive(Debug)]
pub struct Hub {
    cache: Cache,
    /// None where the network must not be used.
    client: Option<Client>,
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, and what the HTTP
    /// client knows of proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    pub fn from_env() -> Result<Self, HubError> {
        let cache = Cache::from_env()?;
        let client = if is_set("HF_HUB_OFFLINE") { None } else { Some(Client::from_env(&cache)?) };
        Ok(Self { cache, client })
    }

    /// What has to be fetched for `wanted`, by what the server says; without a network, by what the cache holds.
    pub async fn plan(&self, wanted: &Wanted, tell: &mut dyn FnMut(Progress<'_>)) -> Result<Plan, HubError> {
        match &self.client {
            Some(client) => plan::online(client, wanted, tell).await,
            None => plan::offline(&self.cache, wanted),
        }
    }

    /// Bytes of the plan that are not in the cache yet.
    pub fn missing(&self, plan: &Plan) -> u64 {
        let repository = self.cache.repository(&plan.reference);
        plan.files.iter().map(|file| file.bytes - repository.held(file).min(file.bytes)).sum()
    }

    /// Gets the folder of models ready for `name`: removes what killed attempts left, and makes sure that it can be written
    /// and has room where files cannot be linked into it.
    pub fn prepare(&self, plan: &Plan, folder: &Path, name: &str) -> Result<(), HubError> {
        install::prepare(&self.cache.repository(&plan.reference), plan, folder, name, self.missing(plan))
    }

    /// Fetches what is missing, verifies everything, and notes the revision in the cache. What was fetched stays when
    /// something fails, and the next attempt goes on from there.
    pub async fn fetch(&self, plan: &Plan, tell: &mut dyn FnMut(Progress<'_>)) -> Result<(), HubError> {
        let repository = self.cache.repository(&plan.reference);
        match &self.client {
            Some(client) => {
                repository.check_space(self.missing(plan))?;
                for file in &plan.files {
                    fetch::file(client, &repository, plan, file, tell).await?;
                }
            }
            None => {
                for file in &plan.files {
                    if !repository.holds(file)? {
                        let place = repository.blob(&file.digest);
                        return Err(HubError::Spoiled { file: file.path.clone(), place });
                    }
                    tell(Progress::File(file, file.bytes));
                }
            }
        }
        let host = self.client.as_ref().map_or(OFFLINE_HOST, Client::host);
        for file in &plan.files {
            repository.check(file, host)?;
        }
        repository.note(plan)
    }

    /// Puts the fetched files into a folder beside `folder/name`, from where [`install::Staged::commit`] moves them.
    pub fn stage(&self, plan: &Plan, folder: &Path, name: &str) -> Result<install::Staged, HubError> {
        install::stage(&self.cache.repository(&plan.reference), plan, folder, name)
    }
}

/// Whether a variable is set to something that means yes, as the hub's own tools read it.
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()))
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

//! Metrics, health, API and the live view, over plain HTTP.
//!
//! The daemon feeds a [`Hub`]; [`serve`] shows what is in it. Nothing here may slow the daemon: a [`Hub`] call stores
//! and returns, pictures are compressed only while somebody watches, and every viewer gets the newest frame or none.
//!
//! There is no login. The default address is loopback; whoever opens it further puts a proxy with a login in front.
//! On loopback only local host names are answered, so that no web site can reach the pictures by renaming itself
//! (DNS rebinding).
//!
//! This stage knows the shared types and nothing of the other stages.

mod collect;
mod health;
mod hub;
mod live;
mod metrics;
mod picture;
pub mod process;
mod rate;
mod routes;
mod server;

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, de};

pub use hub::Hub;
pub use metrics::{Broker, Metrics};
pub use server::{Options, bind, serve};

/// The `[http]` table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on, as in `127.0.0.1:8787`; unset is off. There is no login: keep it on loopback or behind
    /// a proxy that has one.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// Names besides `localhost` under which a loopback address is asked for: those a proxy in front passes on.
    pub hosts: Vec<String>,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| {
        let problem = format!("`{text}` is not a numeric address with a port; write it as in \"127.0.0.1:8787\"");
        de::Error::custom(problem)
    })
}

/// Why the HTTP server could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on http://{0}: the port is in use, perhaps by another groundd; stop it or choose another port \
         in [http] listen"
    )]
    InUse(SocketAddr),
    /// The port needs privileges.
    #[error("cannot listen on http://{0}: not permitted; choose a port from 1024 up in [http] listen")]
    Denied(SocketAddr),
    /// The address is not this machine's.
    #[error(
        "cannot listen on http://{0}: this machine has no such address; use 127.0.0.1, or 0.0.0.0 for all, in \
         [http] listen"
    )]
    NoSuchAddress(SocketAddr),
    /// Anything else the system said.
    #[error("cannot listen on http://{addr}, see [http] listen")]
    Other {
        /// The address as configured.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

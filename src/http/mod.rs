//! Metrics, health, API and the live view.

use std::net::SocketAddr;

use serde::Deserialize;

/// The `[http]` table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on, as in `127.0.0.1:8787`; unset is off. There is no login: keep it on loopback or behind
    /// a proxy that has one.
    pub listen: Option<SocketAddr>,
}

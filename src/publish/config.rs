//! The `[mqtt]` table as it is written. Knows not whether it can work: `settings` checks it.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{ControlConfig, PublishError, Topics};

/// The `[mqtt]` table: the broker and how to reach it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// `mqtt://host:1883` or `mqtts://host:8883`.
    pub url: String,
    /// First level of every topic.
    pub base_topic: String,
    /// MQTT client id: unique on the broker; unset is `groundd-<host name>`.
    pub client_id: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The password itself, where there is no configuration file that could name another.
    #[serde(skip)]
    pub password: Option<Password>,
    /// CA certificate (PEM) that must have signed the broker's; unset is the system's store.
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM) and its key, for brokers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// Key (PEM, PKCS#8) of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Where events wait while the broker is away; unset keeps them in memory only.
    pub spool_dir: Option<PathBuf>,
    /// Most events that wait; the oldest are dropped, counted and their gap published.
    pub spool_events: usize,
    /// Subscribers never see a detections message older than this, in seconds.
    pub detections_expiry_seconds: u32,
    /// Seconds between keep-alive packets; at least 5.
    pub keep_alive_seconds: u16,
    /// Publish Home Assistant discovery under this prefix; unset is off.
    pub discovery_prefix: Option<String>,
    /// Publish the best crop of a query as JPEG at most this often; 0 is off.
    pub snapshot_seconds: f32,
    /// Who may change queries and cameras by messages.
    pub control: ControlConfig,
}

impl MqttConfig {
    /// The topics below the configured base.
    pub(super) fn topics(&self) -> Result<Topics, PublishError> {
        Topics::new(&self.base_topic).map_err(|source| PublishError::Topic { key: "base_topic", source })
    }

    /// How often a query's snapshot may change; `None` is never.
    pub fn snapshot_every(&self) -> Option<Duration> {
        (self.snapshot_seconds > 0.0).then(|| Duration::from_secs_f32(self.snapshot_seconds))
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            url: "mqtt://localhost:1883".into(),
            base_topic: "groundd".into(),
            client_id: None,
            username: None,
            password_file: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            spool_dir: None,
            spool_events: 10_000,
            detections_expiry_seconds: 10,
            keep_alive_seconds: 15,
            discovery_prefix: None,
            snapshot_seconds: 5.0,
            control: ControlConfig::default(),
        }
    }
}

/// A password; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(withheld)")
    }
}

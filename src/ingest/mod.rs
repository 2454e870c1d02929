//! Camera -> [`Frame`](crate::types::Frame). The only user of GStreamer.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::types::CameraId;

/// One camera, as configured: a `[[camera]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Its name in topics.
    pub id: CameraId,
    /// `rtsp(s)://`, `http(s)://`, `file://` or a path, `/dev/videoN`, `test://`.
    pub uri: String,
    /// Analyse at most this many frames a second; unset is every frame the model has time for.
    #[serde(default)]
    pub fps: Option<f32>,
    /// How RTSP media travels.
    #[serde(default)]
    pub transport: Transport,
    /// RTSP/HTTP user name; kept out of every message and log.
    #[serde(default)]
    pub username: Option<String>,
    /// File whose first line is the password (systemd `LoadCredential=` fits).
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// CA certificate (PEM) that must have signed a `rtsps://` or `https://` camera's certificate.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long RTSP packets may be reordered, in milliseconds.
    #[serde(default = "latency_ms")]
    pub latency_ms: u32,
    /// No data for this long means the camera has stalled and is connected anew.
    #[serde(default = "stall_seconds")]
    pub stall_seconds: f32,
    /// Pipeline template to use instead of the one chosen from the URI (name without `.launch`).
    #[serde(default)]
    pub pipeline: Option<String>,
}

fn latency_ms() -> u32 {
    100
}

fn stall_seconds() -> f32 {
    5.0
}

/// How RTSP media travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Inside the RTSP connection: passes firewalls, loses nothing.
    #[default]
    Tcp,
    /// RTP over UDP: lower latency on a clean network.
    Udp,
}

/// `uri` without user name, password and query string: what may be logged and published.
pub fn public_uri(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(mut url) if url.has_host() => {
            let bare = url.set_username("").and_then(|()| url.set_password(None));
            url.set_query(None);
            // A URL that cannot lose its credentials is not shown at all.
            bare.map_or_else(|()| "<url withheld>".to_owned(), |()| url.to_string())
        }
        _ => uri.to_owned(),
    }
}

//! Camera -> [`Frame`](crate::types::Frame). The only user of GStreamer.
//!
//! ```text
//! camera -> decoder -> appsink callback -> Outlet -> Slot -> whoever schedules
//!              ^ supervisor: opens, watches, tears down, retries
//! ```
//!
//! A [`Source`] runs one connection and says why it ended; the [`supervisor`] owns all retrying; the [`Slot`] owns the
//! overflow policy. Nothing here knows models, queries or brokers.

mod address;
pub mod bare;
mod canvas;
mod check;
mod clock;
mod diagnose;
mod gate;
mod launched;
pub mod mark;
mod outlet;
mod pace;
mod patience;
mod pipeline;
mod planes;
mod rtsp_clip;
pub mod rtsp_server;
mod secrets;
pub mod slot;
mod source;
mod status;
mod still;
pub mod supervisor;
mod tap;
mod template;
pub mod timeline;
mod upright;

use std::{
    future,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What methods of traits that are used as `dyn` return where they are async.
pub use futures_util::future::BoxFuture;
use gstreamer as gst;
use serde::Deserialize;

use self::address::Kind;
pub use self::{
    address::{anchored, is_remote, may_be_address, public_uri},
    check::{check, probe},
    outlet::{Outlet, Picture},
    rtsp_server::{RtspServer, RtspServerOptions},
    slot::{Flow, Policy, Slot},
    source::{GstOpener, is_finite},
    status::{CameraStatus, End, RestartReason, Restarts, State},
    still::Stills,
    supervisor::{Camera, Options, Restart, start},
};
use crate::types::CameraId;

/// Opens cameras. The supervisor calls it once per connection.
pub trait Opener: Send + Sync + 'static {
    /// Starts bringing `config` up; its pictures go to `outlet`. Must not wait for the first picture.
    fn open<'a>(
        &'a self,
        config: &'a CameraConfig,
        pipelines: Option<&'a Path>,
        outlet: Outlet,
    ) -> BoxFuture<'a, Result<Box<dyn Source>, End>>;
}

/// One connection to a camera. Dropping it tears it down in the background.
pub trait Source: Send {
    /// Resolves with why the connection ended, as soon as that is known, and says the same to whoever asks again. What it
    /// returns may be dropped at any time, and is, over and over: nothing may be lost by that.
    fn ended(&mut self) -> BoxFuture<'_, End>;
    /// Finds out more about an `end` of this connection, which may take seconds. It is over by then: no timer runs.
    fn explain(&mut self, end: End) -> BoxFuture<'_, End> {
        Box::pin(future::ready(end))
    }
    /// Codec, size and decoder, for people; complete once the first picture came.
    fn describe(&self) -> String;
    /// Tears it down; resolves when done or when the source gives up waiting.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What is wrong with a camera or with this machine, for the person who must put it right.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// GStreamer itself cannot be used.
    #[error("GStreamer cannot start: {0}; install libgstreamer1.0-0 and gstreamer1.0-plugins-base 1.22 or later")]
    GStreamer(String),
    /// GStreamer is older than the 1.22 this program is written for.
    #[error("GStreamer {0} is too old; install 1.22 or later")]
    TooOld(String),
    /// A GStreamer element that a camera needs is not installed.
    #[error("camera `{camera}`: GStreamer has no element `{element}`; install the Debian package {package}")]
    Element {
        /// The camera.
        camera: CameraId,
        /// The element that is missing.
        element: String,
        /// Where Debian keeps it.
        package: &'static str,
    },
    /// The URI cannot be a camera.
    #[error("camera `{camera}`: {uri}: {reason}")]
    Uri {
        /// The camera.
        camera: CameraId,
        /// The URI without secrets.
        uri: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A setting is missing or out of its range.
    #[error("camera `{camera}`: `{key}` {problem}")]
    Setting {
        /// The camera.
        camera: CameraId,
        /// The setting.
        key: &'static str,
        /// What is wrong with it and what to do; continues a sentence that the key begins.
        problem: &'static str,
    },
    /// A file that the camera's configuration names cannot be used.
    #[error("camera `{camera}`: {what} `{}`: {reason}", path.display())]
    File {
        /// The camera.
        camera: CameraId,
        /// What the file is for, and what was tried with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The pipeline template is missing or does not parse.
    #[error("camera `{camera}`: pipeline template `{name}`: {reason}")]
    Template {
        /// The camera.
        camera: CameraId,
        /// The template's name.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The camera was tried and gave no picture.
    #[error("camera `{camera}`: {reason}")]
    NoPicture {
        /// The camera.
        camera: CameraId,
        /// What happened and what to do.
        reason: String,
    },
    /// The built-in RTSP server cannot serve.
    #[error("the built-in RTSP server cannot {0}")]
    Server(String),
}

impl IngestError {
    /// The camera's setting that is wrong, if it is one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Uri { .. } => Some("uri"),
            Self::Setting { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whether something outside the configuration is missing: the camera, a file, a plug-in.
    pub fn is_unavailable(&self) -> bool {
        !matches!(self, Self::Uri { .. } | Self::Setting { .. } | Self::Template { .. })
    }
}

/// Starts GStreamer, once per process; later calls repeat the first answer.
pub fn init() -> Result<(), IngestError> {
    static DONE: OnceLock<Result<(), IngestError>> = OnceLock::new();
    DONE.get_or_init(|| {
        gst::init().map_err(|e| IngestError::GStreamer(e.to_string()))?;
        match gst::version() {
            (major, minor, ..) if (major, minor) >= (1, 22) => Ok(()),
            (major, minor, micro, _) => Err(IngestError::TooOld(format!("{major}.{minor}.{micro}"))),
        }
    })
    .clone()
}

/// One camera, as configured: a `[[camera]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    /// Its name in topics.
    pub id: CameraId,
    /// `rtsp(s)://`, `http(s)://`, `file://` or a path, `/dev/videoN` or a name below `/dev/v4l/`, `test://`. A login in it
    /// is percent-encoded.
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

impl CameraConfig {
    /// A camera with every setting at its default.
    pub fn new(id: CameraId, uri: &str) -> Self {
        Self {
            id,
            uri: uri.to_owned(),
            fps: None,
            transport: Transport::default(),
            username: None,
            password_file: None,
            ca_file: None,
            latency_ms: latency_ms(),
            stall_seconds: stall_seconds(),
            pipeline: None,
        }
    }

    /// Whether its settings can be meant, whatever the machine. Nothing is looked up.
    pub fn check(&self) -> Result<(), IngestError> {
        let wrong = |key, problem| Err(IngestError::Setting { camera: self.id.clone(), key, problem });
        if self.uri.trim().is_empty() {
            return wrong("uri", "is empty; say where the camera is");
        }
        if self.fps.is_some_and(|fps| !(fps > 0.0 && fps <= 1000.0)) {
            return wrong("fps", "must be above 0 and at most 1000; leave it out for no limit");
        }
        if !(0.5..=3600.0).contains(&self.stall_seconds) {
            return wrong("stall_seconds", "must be from 0.5 to 3600");
        }
        if self.latency_ms > 10_000 {
            return wrong("latency_ms", "must be at most 10000");
        }
        Kind::of(self).map(drop)
    }

    /// Makes the relative paths among its settings start at `folder`.
    pub fn anchor(&mut self, folder: &Path) {
        for path in [&mut self.password_file, &mut self.ca_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self.uri = anchored(&self.uri, folder);
    }
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

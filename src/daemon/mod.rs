//! The stages, wired: who feeds whom, in which order they start and stop, and what a running service does about
//! signals, reloads and systemd. Stages know nothing of each other; all of that knowledge is here.

mod board;
mod cameras;
mod deliver;
mod pipeline;
mod queries;
mod service;
mod signals;
mod snapshot;
mod systemd;
mod view;
mod wishes;

pub use deliver::{LineSink, Sinks};
pub use pipeline::{Pipeline, PipelineError, Plan, new_epoch};
pub use queries::Revisions;
pub use service::{ServiceError, serve};
pub use signals::{farewell, first_of, is_ignored};

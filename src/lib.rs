//! groundd: cameras in, words in, boxes out.
//!
//! # The flow
//!
//! ```text
//! camera xN -> [slot 1, overwrite] -> schedule -> [1, reserve then cut] -> ground worker
//!           -> [K, block] -> track -> publish -> [outbox, bounded, on disk] -> broker
//! ```
//!
//! Data flows one way. Every boundary states what happens when it is full and counts what it drops. Every frame ends as
//! *published* or *dropped(reason)*; [`types::Ledger`] counts both, and the counts add up.
//!
//! # Layout and import rules
//!
//! One folder per stage. Imports point one way: `types` <- stages <- `daemon` <- `cli` <- `main`. Stages never import one
//! another: each declares small traits for what it needs, and `daemon` connects them. `eval` (data sets and scores) and `hub`
//! (downloading models) stand beside the flow; `cli` connects them.
//! Only `ingest` knows GStreamer, only `ground::engine` knows ONNX Runtime, only `publish` knows the MQTT client, only `hub`
//! knows where models are fetched from.
//! `tests/architecture.rs` enforces all of this.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod eval;
pub mod ground;
pub mod http;
pub mod hub;
pub mod ingest;
pub mod login;
pub mod publish;
pub mod schedule;
pub mod track;
pub mod types;

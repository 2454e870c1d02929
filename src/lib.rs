//! groundd: cameras in, words in, boxes out.
//!
//! # The flow
//!
//! ```text
//! camera xN -> [slot 1, overwrite] -> schedule -> [1, reserve then cut] -> ground worker
//!           -> [K, block] -> track -> publish -> [outbox, bounded, on disk] -> broker
//! ```
//!
//! Data flows one way. Every boundary names its overflow policy and counts its drops; every frame ends as
//! *published* or *dropped(reason)* ([`types::Ledger`] holds the sum).
//!
//! # Layout and import rules
//!
//! One folder a stage. Imports point one way: `types` <- stages <- `daemon` <- `cli` <- `main`, and stages never
//! import one another: `daemon` connects them through the small traits each stage declares for its needs.
//! `eval` is a stage beside the flow: data sets and figures, which the command line connects with `ingest` and `ground`.
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
pub mod publish;
pub mod schedule;
pub mod track;
pub mod types;

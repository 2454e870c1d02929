//! One integration binary: real peers, real video, loopback only.

#![allow(unreachable_pub, missing_docs, reason = "nobody imports a test binary")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod architecture;
mod ask;
mod bench;
mod cli;
mod eval;
mod ground;
mod heads;
mod http;
mod ingest;
mod nano;
mod overload;
mod parity;
mod publish;
mod pull;
mod service;
mod side_by_side;
mod streams;
mod support;
mod systemd;
mod vlm;
mod watch;
mod zoom;

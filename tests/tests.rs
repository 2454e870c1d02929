//! One integration binary: real peers, real video, loopback only.

mod ingest;

//! One integration binary: real peers, real video, loopback only.

mod ground;

mod support {
    pub(crate) mod ground;
}

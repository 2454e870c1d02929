//! The daemon's pure modules, compiled without the rest of it: the codecs and tensors know nothing but `types`.

#[path = "../../src/types/mod.rs"]
pub mod types;

/// The part of `ground` that needs no engine.
#[path = "../../src/ground"]
pub mod ground {
    pub mod codec;
    pub mod vision;
}

//! Frames x queries -> batches.

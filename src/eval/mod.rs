//! How good answers are and what they cost, against data sets whose truth is known.
//!
//! [`dataset`] reads the data sets, [`picture`] their images; [`score`] takes answers in and gives figures, by [`phrase`]
//! (the boxes as they are reported) and [`precision`] (the whole ranking, as COCO counts it), both over [`matching`];
//! [`cost`] sums up what it took. Nothing here knows a model: the answers come from whoever asks.

pub mod cost;
pub mod dataset;
pub mod matching;
pub mod phrase;
pub mod picture;
pub mod precision;
pub mod score;

pub use cost::{Bill, Cost, Sample, Spread};
pub use dataset::{Dataset, DatasetError, Entry, Options, Phrase, Style};
pub use matching::{Rect, Scored, Truth};
pub use phrase::Answer;
pub use picture::{Picture, PictureError};
pub use score::{Figures, Scorer};

//! Groundings -> tracks and events. Pure: knows no clock, no task and no other stage.

mod assign;
mod link;
mod motion;
#[cfg(test)]
mod tests;
mod tracker;

use serde::Deserialize;

pub use self::tracker::Tracker;

/// The `[track]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackConfig {
    /// A track ends when its object was not seen for this long, in seconds.
    pub lost_seconds: f32,
    /// A new match is announced once it was seen on this many analysed frames.
    pub confirm_frames: u32,
    /// An event of a lasting track is updated at most this often, in seconds.
    pub update_seconds: f32,
}

impl Default for TrackConfig {
    fn default() -> Self {
        Self { lost_seconds: 2.0, confirm_frames: 2, update_seconds: 5.0 }
    }
}

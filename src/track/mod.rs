//! Groundings -> tracks and events. Pure: knows no clock, no task and no other stage.

mod asleep;
mod assign;
mod link;
mod motion;
mod objects;
#[cfg(test)]
mod tests;
mod tracker;

use serde::Deserialize;

pub use self::tracker::Tracker;
use crate::types::WrongSetting;

/// The `[track]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackConfig {
    /// A track ends when its object was not seen for this long, in seconds.
    pub lost_seconds: f32,
    /// A new match is announced once it was told on this many frames; an answer that still holds is told again.
    pub confirm_frames: u32,
    /// An event of a lasting track is updated at most this often, in seconds.
    pub update_seconds: f32,
}

impl TrackConfig {
    /// Says what cannot be meant; the text names the key.
    pub fn check(&self) -> Result<(), WrongSetting> {
        let spans = [("lost_seconds", self.lost_seconds, 0.1), ("update_seconds", self.update_seconds, 0.0)];
        if let Some((key, value, least)) = spans.iter().find(|(_, value, least)| !(*least..=86_400.0).contains(value)) {
            return Err(WrongSetting::new(key, format!("is {value}; use seconds from {least} to 86400")));
        }
        if self.confirm_frames == 0 {
            return Err(WrongSetting::new(
                "confirm_frames",
                "is 0; at least 1: what was never seen cannot be announced",
            ));
        }
        Ok(())
    }
}

impl Default for TrackConfig {
    fn default() -> Self {
        Self { lost_seconds: 2.0, confirm_frames: 2, update_seconds: 5.0 }
    }
}

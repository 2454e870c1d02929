//! When queries are asked: once, as a rule, and again only for a reason.
//!
//! What need not be looked at, or asked, again is decided here, and what is left undone when the device is busy. All of it
//! is pure state; every call says what time it is.
//!
//! - [`gate`]: a picture that looks like the one analysed last is not analysed again;
//! - [`regions`]: of regions that were there before, and look as they did, the answers still hold;
//! - [`expect`]: of the queries that might be asked about a new region, those go first that regions like it matched before;
//! - [`held`]: the same for methods that know no regions, picture by picture;
//! - [`scene`]: one camera's share of all these, and which queries are due on it;
//! - [`costs`]: how long each will take;
//! - [`budget`]: which of those the device has time for, the most valuable first.
//!
//! `desk` does what they decide, camera by camera (`place`), by models as `look` knows them.

pub mod budget;
pub mod costs;
pub(super) mod desk;
pub mod expect;
pub mod gate;
pub mod held;
pub(super) mod look;
mod place;
pub mod regions;
pub mod scene;

use serde::Deserialize;

use crate::types::WrongSetting;

/// The `[ask]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AskConfig {
    /// Whether answers are reused; `false` asks every query on every analysed frame.
    pub once: bool,
    /// How much a part of the picture must change to be looked at again, in levels of 0 to 255; 0 looks always.
    pub change: f32,
    /// A picture that does not change is looked at again after this long, in seconds.
    pub look_seconds: f32,
    /// A clear match is asked again after this long, in seconds; one near the threshold sooner.
    pub match_seconds: f32,
    /// A clear miss is asked again after this long, in seconds; one near the threshold sooner.
    pub miss_seconds: f32,
    /// Most questions about a camera's regions, as a part of asking every query on every frame; but each query may be
    /// asked once a second.
    pub rate: f32,
    /// When the device has more to do than it can, most of its time that goes to questions rather than to looking.
    pub share: f32,
}

impl Default for AskConfig {
    fn default() -> Self {
        Self {
            once: true,
            change: 5.0,
            look_seconds: 1.0,
            match_seconds: 3.0,
            miss_seconds: 2.0,
            rate: 0.08,
            share: 0.5,
        }
    }
}

impl AskConfig {
    /// Says what cannot be meant; the text names the key.
    pub fn check(&self) -> Result<(), WrongSetting> {
        let spans = [
            ("look_seconds", self.look_seconds),
            ("match_seconds", self.match_seconds),
            ("miss_seconds", self.miss_seconds),
        ];
        if let Some((key, value)) = spans.iter().find(|(_, value)| !(0.0..=3600.0).contains(value)) {
            return Err(WrongSetting::new(key, format!("is {value}; use seconds from 0 to 3600")));
        }
        if !(0.0..=255.0).contains(&self.change) {
            return Err(WrongSetting::new("change", format!("is {}; use levels from 0 to 255", self.change)));
        }
        let parts = [("rate", self.rate), ("share", self.share)];
        match parts.iter().find(|(_, value)| !(*value > 0.0 && *value <= 1.0)) {
            Some((key, value)) => Err(WrongSetting::new(key, format!("is {value}; use a part above 0 and at most 1"))),
            None => Ok(()),
        }
    }
}

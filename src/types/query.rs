//! What a user asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{CameraId, QueryId};

/// Longest query text accepted, in characters. Longer texts are mistakes, and prompts are not free.
pub const MAX_TEXT: usize = 500;

/// How boxes are to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The best the loaded model can do: `retrieve` where it can.
    #[default]
    Auto,
    /// Select among proposed regions.
    Retrieve,
    /// Search a tree of crops, locate inside.
    Zoom,
    /// Write coordinates as text.
    Coords,
    /// Write location tokens.
    Bins,
    /// Read a detection head.
    Detector,
}

impl Method {
    /// Every method a user can name, `auto` first.
    pub const ALL: [Self; 6] = [Self::Auto, Self::Retrieve, Self::Zoom, Self::Coords, Self::Bins, Self::Detector];

    /// The method's name in configuration, messages and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Retrieve => "retrieve",
            Self::Zoom => "zoom",
            Self::Coords => "coords",
            Self::Bins => "bins",
            Self::Detector => "detector",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a query is worth when not everything can be asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Worth {
    /// Queries of higher priority are asked first; 0 is as good as any.
    pub priority: i32,
    /// An answer about pixels older than this is worthless to the user; `None` takes any that is published.
    pub deadline: Option<Duration>,
    /// Most of the device's time, 0 to 1, that goes to this query; `None` is no limit.
    pub budget: Option<f32>,
}

/// One query, as checked configuration. A change of anything makes a new one with a higher `rev`.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Its name in topics and messages.
    pub id: QueryId,
    /// Counts changes from 1; caches and subscribers tell versions apart by it.
    pub rev: u32,
    /// What to look for, in plain words: 1 to [`MAX_TEXT`] characters, no control characters.
    pub text: String,
    /// The cameras it runs on; `None` is all of them.
    pub cameras: Option<Vec<CameraId>>,
    /// How to look.
    pub method: Method,
    /// Matches below this score are not reported; `None` is the model's own threshold.
    pub threshold: Option<f32>,
    /// What it is worth when the device is busy.
    pub worth: Worth,
}

impl Query {
    /// Whether the query runs on `camera`.
    pub fn covers(&self, camera: &CameraId) -> bool {
        self.cameras.as_ref().is_none_or(|list| list.contains(camera))
    }
}

/// Checks a query's text where it enters: configuration, command line or MQTT.
pub fn check_text(text: &str) -> Result<&str, String> {
    let text = text.trim();
    let length = text.chars().count();
    if length == 0 {
        return Err("the query text is empty; say what to look for, as in \"person in a red jacket\"".to_owned());
    }
    if length > MAX_TEXT {
        return Err(format!("the query text has {length} characters; at most {MAX_TEXT} are allowed"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("the query text contains the control character {c:?}; remove it")),
        None => Ok(text),
    }
}

/// All queries in force, in a fixed order. Swapped whole on a change, never edited.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuerySet(BTreeMap<QueryId, Arc<Query>>);

impl QuerySet {
    /// A set of queries; of two with the same id the later stays.
    pub fn new(queries: impl IntoIterator<Item = Query>) -> Self {
        Self(queries.into_iter().map(|q| (q.id.clone(), Arc::new(q))).collect())
    }

    /// The same without the queries named by `ids`.
    #[must_use]
    pub fn without(&self, ids: &BTreeSet<QueryId>) -> Self {
        Self(self.0.iter().filter(|(id, _)| !ids.contains(*id)).map(|(id, q)| (id.clone(), Arc::clone(q))).collect())
    }

    /// All queries, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Query>> {
        self.0.values()
    }

    /// The query named `id`, if it runs on `camera`.
    pub fn of(&self, id: &QueryId, camera: &CameraId) -> Option<&Arc<Query>> {
        self.get(id).filter(|query| query.covers(camera))
    }

    /// The query named `id`.
    pub fn get(&self, id: &QueryId) -> Option<&Arc<Query>> {
        self.0.get(id)
    }

    /// The queries that run on `camera`, ordered by id.
    pub fn for_camera(&self, camera: &CameraId) -> Vec<Arc<Query>> {
        self.iter().filter(|q| q.covers(camera)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_nobody_meant_are_refused_with_a_remedy() {
        assert!(check_text("  ").unwrap_err().contains("empty"));
        assert!(check_text(&"x".repeat(10_000)).unwrap_err().contains("10000"));
        assert!(check_text("red\u{0}car").unwrap_err().contains("control"));
        assert_eq!(check_text(" red car "), Ok("red car"));
        assert_eq!(check_text(&"é".repeat(MAX_TEXT)).map(|t| t.chars().count()), Ok(MAX_TEXT));
    }
}

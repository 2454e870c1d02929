//! A `[[query]]` table.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::types::{CameraId, Method, Query, QueryId, Worth, query};

/// One query, as configured: a `[[query]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryConfig {
    /// Its name in topics.
    pub id: QueryId,
    /// What to look for, in plain words.
    #[serde(deserialize_with = "text")]
    pub text: String,
    /// Cameras it runs on; unset is all.
    #[serde(default, deserialize_with = "some_cameras")]
    pub cameras: Option<Vec<CameraId>>,
    /// How to look.
    #[serde(default)]
    pub method: Method,
    /// Matches below this score, 0 to 1, are not reported; unset is the model's own threshold.
    #[serde(default, deserialize_with = "fraction")]
    pub threshold: Option<f32>,
    /// Under load queries of higher priority are asked first.
    #[serde(default)]
    pub priority: i32,
    /// An answer about pixels older than this, in milliseconds, is not worth the work; unset takes any that is published.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Most of the device's time, 0 to 1, that goes to this query; unset is no limit.
    #[serde(default, deserialize_with = "fraction")]
    pub budget: Option<f32>,
    /// Keeps the query without asking it.
    #[serde(default)]
    pub paused: bool,
}

impl QueryConfig {
    /// A query with every setting at its default.
    pub fn new(id: QueryId, text: &str) -> Self {
        Self {
            id,
            text: text.to_owned(),
            cameras: None,
            method: Method::Auto,
            threshold: None,
            priority: 0,
            deadline_ms: None,
            budget: None,
            paused: false,
        }
    }

    /// The query in revision `rev`.
    pub fn query(&self, rev: u32) -> Query {
        Query {
            id: self.id.clone(),
            rev,
            text: self.text.clone(),
            cameras: self.cameras.clone(),
            method: self.method,
            threshold: self.threshold,
            worth: Worth {
                priority: self.priority,
                deadline: self.deadline_ms.map(Duration::from_millis),
                budget: self.budget,
            },
        }
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let raw = String::deserialize(deserializer)?;
    query::check_text(&raw).map(str::to_owned).map_err(de::Error::custom)
}

fn some_cameras<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<CameraId>>, D::Error> {
    match Option::<Vec<CameraId>>::deserialize(deserializer)? {
        Some(none) if none.is_empty() => Err(de::Error::custom(
            "no camera is named, so that it would never be asked; name some, or leave it out for all",
        )),
        cameras => Ok(cameras),
    }
}

fn fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    let value = f32::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&value) {
        Ok(Some(value))
    } else {
        Err(de::Error::custom(format!("{value} is out of range; use a number from 0 to 1")))
    }
}

//! Every topic groundd publishes on or listens to, in one place. Knows nothing of payloads or the broker.

use super::control::Target;
use crate::types::{CameraId, QueryId};

/// Longest base topic accepted, so that no topic made from it can pass MQTT's 65 535 bytes.
const MAX_BASE: usize = 256;

/// Why a text cannot be a base topic or a discovery prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It is empty.
    #[error("the topic is empty; give at least one level, as in `groundd`")]
    Empty,
    /// It is too long.
    #[error("the topic has {0} bytes; at most {MAX_BASE} are allowed")]
    TooLong(usize),
    /// It contains a character that MQTT reserves or that no tool displays.
    #[error("the topic `{topic}` contains {found:?}; wildcards and control characters cannot be published to")]
    BadCharacter {
        /// The topic as given, unless it may be an address.
        topic: String,
        /// The offending character.
        found: char,
    },
    /// It has an empty level: a slash at either end, or two in a row.
    #[error("the topic `{0}` has an empty level; remove leading, trailing and doubled slashes")]
    EmptyLevel(String),
    /// It begins with `$`, which belongs to the broker.
    #[error("the topic `{0}` begins with `$`, which brokers keep for themselves; choose another")]
    Reserved(String),
}

/// All topics under one base topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// Topics under `base`, which may have several levels.
    pub fn new(base: &str) -> Result<Self, TopicError> {
        check(base)?;
        Ok(Self { base: base.to_owned() })
    }

    /// `online` or `offline`, retained: the daemon's own, and its last will.
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// A camera's connection, retained.
    pub fn camera_status(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/status", self.base)
    }

    /// One message an analysed frame.
    pub fn detections(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/detections", self.base)
    }

    /// Objects that came, stayed and went.
    pub fn events(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/events", self.base)
    }

    /// `ON` while something on the camera answers the query, retained.
    pub fn present(&self, camera: &CameraId, query: &QueryId) -> String {
        format!("{}/{camera}/{query}/present", self.base)
    }

    /// How many objects on the camera answer the query, retained.
    pub fn count(&self, camera: &CameraId, query: &QueryId) -> String {
        format!("{}/{camera}/{query}/count", self.base)
    }

    /// Whether what stands under a topic is true only as long as somebody goes on looking: a camera's connection, who is there, how many.
    pub fn is_of_now(&self, topic: &str) -> bool {
        let rest = topic.strip_prefix(&self.base).and_then(|rest| rest.strip_prefix('/'));
        matches!(
            rest.unwrap_or_default().split('/').collect::<Vec<_>>()[..],
            [_, "status"] | [_, _, "present" | "count"]
        )
    }

    /// JPEG of the best crop, retained.
    pub fn snapshot(&self, camera: &CameraId, query: &QueryId) -> String {
        format!("{}/{camera}/{query}/snapshot", self.base)
    }

    /// Where a query is written.
    pub fn query_set(&self, query: &QueryId) -> String {
        format!("{}/query/{query}/set", self.base)
    }

    /// Every [`Topics::query_set`], as a filter.
    pub fn any_query_set(&self) -> String {
        format!("{}/query/+/set", self.base)
    }

    /// Every [`Topics::camera_set`], as a filter.
    pub fn any_camera_set(&self) -> String {
        format!("{}/camera/+/set", self.base)
    }

    /// What a set topic is about; `None` for any other topic, and for one whose id could not be a topic's level.
    pub fn set_target(&self, topic: &str) -> Option<Target> {
        let rest = topic.strip_prefix(&self.base)?.strip_prefix('/')?.strip_suffix("/set")?;
        match rest.split_once('/')? {
            ("query", id) => QueryId::new(id).ok().map(Target::Query),
            ("camera", id) => CameraId::new(id).ok().map(Target::Camera),
            _ => None,
        }
    }

    /// What became of a query, retained.
    pub fn query_state(&self, query: &QueryId) -> String {
        format!("{}/query/{query}/state", self.base)
    }

    /// Where a camera is written.
    pub fn camera_set(&self, camera: &CameraId) -> String {
        format!("{}/camera/{camera}/set", self.base)
    }

    /// What became of a camera, retained.
    pub fn camera_state(&self, camera: &CameraId) -> String {
        format!("{}/camera/{camera}/state", self.base)
    }

    /// Counters.
    pub fn stats(&self) -> String {
        format!("{}/stats", self.base)
    }

    /// Home Assistant's discovery topic of one entity: `component` is its kind (`binary_sensor`, `sensor`, `image`).
    pub fn discovery(&self, prefix: &str, component: &str, object: &str) -> String {
        format!("{prefix}/{component}/{}/{object}/config", self.node())
    }

    /// The base topic in Home Assistant's alphabet: keeps two daemons on one broker apart.
    pub fn node(&self) -> String {
        self.base.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
    }
}

/// Checks a base topic or a discovery prefix.
pub fn check(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > MAX_BASE {
        return Err(TopicError::TooLong(topic.len()));
    }
    if let Some(found) = topic.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
        return Err(TopicError::BadCharacter { topic: shown(topic), found });
    }
    if topic.split('/').any(str::is_empty) {
        return Err(TopicError::EmptyLevel(shown(topic)));
    }
    if topic.starts_with('$') {
        return Err(TopicError::Reserved(shown(topic)));
    }
    Ok(())
}

/// A topic for people. One that may be an address, written to the wrong place, may have a password in it.
fn shown(topic: &str) -> String {
    if topic.contains('@') || topic.contains("://") { "(withheld)".to_owned() } else { topic.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_follow_the_contract() {
        let topics = Topics::new("site/groundd").unwrap();
        let (camera, query) = (CameraId::new("gate").unwrap(), QueryId::new("red-jacket").unwrap());
        assert_eq!(topics.status(), "site/groundd/status");
        assert_eq!(topics.camera_status(&camera), "site/groundd/gate/status");
        assert_eq!(topics.detections(&camera), "site/groundd/gate/detections");
        assert_eq!(topics.events(&camera), "site/groundd/gate/events");
        assert_eq!(topics.present(&camera, &query), "site/groundd/gate/red-jacket/present");
        assert_eq!(topics.count(&camera, &query), "site/groundd/gate/red-jacket/count");
        assert_eq!(topics.snapshot(&camera, &query), "site/groundd/gate/red-jacket/snapshot");
        assert_eq!(topics.query_set(&query), "site/groundd/query/red-jacket/set");
        assert_eq!(topics.query_state(&query), "site/groundd/query/red-jacket/state");
        assert_eq!(topics.camera_set(&camera), "site/groundd/camera/gate/set");
        assert_eq!(topics.camera_state(&camera), "site/groundd/camera/gate/state");
        assert_eq!(topics.stats(), "site/groundd/stats");
        for of_now in [topics.camera_status(&camera), topics.present(&camera, &query), topics.count(&camera, &query)] {
            assert!(topics.is_of_now(&of_now), "{of_now}");
        }
        for other in
            [topics.status(), topics.query_state(&query), topics.snapshot(&camera, &query), "gate/status".to_owned()]
        {
            assert!(!topics.is_of_now(&other), "{other}");
        }
        let config = topics.discovery("homeassistant", "sensor", "gate_count");
        assert_eq!(config, "homeassistant/sensor/site_groundd/gate_count/config");
    }

    #[test]
    fn bases_nobody_can_publish_under_are_refused() {
        for bad in ["", "/", "a/", "/a", "a//b", "a/+", "#", "a\u{0}b", "a\nb", "$SYS/x", &"x".repeat(257)] {
            assert!(Topics::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["groundd", "a/b/c", "größe", "with space"] {
            assert!(Topics::new(good).is_ok(), "{good:?} was refused");
        }
    }
}

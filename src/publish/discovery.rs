//! Home Assistant's MQTT discovery: what makes a camera appear there as a device and each query on it as entities.
//! The messages are retained; an empty payload on the same topic takes an entity away.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Topics, payload};
use crate::types::{CameraId, Query, QueryId};

/// A retained message: topic and payload, for [`Publisher::state`](super::Publisher::state).
pub type Retained = (String, Bytes);

/// The entities a query on a camera has: something is there, how many, and (with `snapshots`) what it looks like.
pub fn announce(topics: &Topics, prefix: &str, camera: &CameraId, query: &Query, snapshots: bool) -> Vec<Retained> {
    entities(topics, camera, &query.id)
        .into_iter()
        .map(|entity| {
            let offered = snapshots || entity.component != "image";
            let body = if offered { entity.config(topics, camera, query) } else { Bytes::new() };
            (topics.discovery(prefix, entity.component, &entity.object), body)
        })
        .collect()
}

/// Takes back all that [`announce`] said about a query on a camera, when either is gone.
pub fn withdraw(topics: &Topics, prefix: &str, camera: &CameraId, query: &QueryId) -> Vec<Retained> {
    entities(topics, camera, query)
        .into_iter()
        .map(|entity| (topics.discovery(prefix, entity.component, &entity.object), Bytes::new()))
        .collect()
}

/// An empty payload says that nobody knows. Home Assistant ignores it, and takes this word for it.
const UNKNOWN_IF_EMPTY: &str = "{{ value or 'None' }}";

/// Whether `key` has the `value` with which there is something to know. A topic that was taken back is empty, and no JSON.
fn online_if(key: &str, value: &str) -> String {
    format!("{{{{ 'online' if value_json is defined and value_json.{key} == '{value}' else 'offline' }}}}")
}

struct Entity {
    component: &'static str,
    /// Unique among this daemon's entities of one component.
    object: String,
    /// What Home Assistant calls it, unless its user calls it otherwise. Made from the name, it would be invalid for some long ones.
    default_id: String,
    /// What is special about it.
    special: Value,
    label: &'static str,
}

fn entities(topics: &Topics, camera: &CameraId, query: &QueryId) -> [Entity; 3] {
    let entity = |component, suffix: &str, label, special| Entity {
        component,
        // The length keeps the cameras and queries (a-b, c) and (a, b-c) apart.
        object: format!("{camera}-{query}-{}-{suffix}", camera.as_str().len()),
        default_id: format!("{camera}_{query}_{suffix}"),
        special,
        label,
    };
    [
        entity(
            "binary_sensor",
            "present",
            "",
            json!({
                "state_topic": topics.present(camera, query),
                "payload_on": "ON",
                "payload_off": "OFF",
                "value_template": UNKNOWN_IF_EMPTY,
                "device_class": "occupancy",
            }),
        ),
        entity(
            "sensor",
            "count",
            " count",
            json!({
                "state_topic": topics.count(camera, query),
                "value_template": UNKNOWN_IF_EMPTY,
                "state_class": "measurement",
                "icon": "mdi:counter",
            }),
        ),
        entity(
            "image",
            "snapshot",
            " snapshot",
            json!({
                "image_topic": topics.snapshot(camera, query),
                "content_type": "image/jpeg",
            }),
        ),
    ]
}

impl Entity {
    fn config(&self, topics: &Topics, camera: &CameraId, query: &Query) -> Bytes {
        let node = topics.node();
        let mut config = json!({
            "name": format!("{}{}", query.text, self.label),
            "unique_id": format!("{node}_{}", self.object),
            "default_entity_id": format!("{}.{}", self.component, self.default_id),
            // The same, as Home Assistant called it before 2025.10.
            "object_id": self.default_id,
            "availability": [
                { "topic": topics.status() },
                { "topic": topics.camera_status(camera), "value_template": online_if("state", "live") },
                // Of what is paused or cannot be answered there is nothing to be seen, least of all its last picture.
                { "topic": topics.query_state(&query.id), "value_template": online_if("status", "active") },
            ],
            "availability_mode": "all",
            "device": {
                "identifiers": [format!("{node}_{camera}")],
                "name": camera,
                "manufacturer": "groundd",
                "model": "camera",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": { "name": "groundd", "sw_version": env!("CARGO_PKG_VERSION") },
        });
        if let (Value::Object(config), Value::Object(special)) = (&mut config, &self.special) {
            config.extend(special.clone());
        }
        payload::json(&config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::Method;

    fn query(id: &str) -> Query {
        Query {
            id: QueryId::new(id).unwrap(),
            rev: 1,
            text: "person in a red jacket".into(),
            cameras: None,
            method: Method::Auto,
            threshold: None,
            worth: crate::types::Worth::default(),
        }
    }

    #[test]
    fn a_query_becomes_three_entities_of_one_device() {
        let topics = Topics::new("groundd").unwrap();
        let all = announce(&topics, "homeassistant", &CameraId::new("gate").unwrap(), &query("red-jacket"), true);
        let text = all
            .iter()
            .map(|(topic, body)| {
                let body: Value = serde_json::from_slice(body).unwrap();
                format!("{topic}\n{}", serde_json::to_string_pretty(&body).unwrap())
            })
            .collect::<Vec<_>>()
            .join("\n");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_is_announced_can_be_withdrawn() {
        let topics = Topics::new("a/b").unwrap();
        let camera = CameraId::new("gate").unwrap();
        let topics_of = |all: Vec<Retained>| all.into_iter().map(|(topic, _)| topic).collect::<Vec<_>>();
        let gone = withdraw(&topics, "ha", &camera, &query("q").id);
        assert!(gone.iter().all(|(_, body)| body.is_empty()));
        assert_eq!(topics_of(announce(&topics, "ha", &camera, &query("q"), true)), topics_of(gone));
    }

    #[test]
    fn without_snapshots_the_image_is_withdrawn() {
        let topics = Topics::new("groundd").unwrap();
        let all = announce(&topics, "ha", &CameraId::new("gate").unwrap(), &query("q"), false);
        assert_eq!(all.iter().filter(|(_, body)| body.is_empty()).count(), 1);
    }

    #[test]
    fn ids_that_look_alike_stay_apart() {
        let topics = Topics::new("groundd").unwrap();
        let pairs = [("a-b", "c"), ("a", "b-c"), ("a", "b"), ("a-b-c", "d"), ("a_b", "c"), ("a", "b_c")];
        let all: BTreeSet<_> = pairs
            .iter()
            .flat_map(|(camera, id)| announce(&topics, "ha", &CameraId::new(camera).unwrap(), &query(id), true))
            .map(|(topic, _)| topic)
            .collect();
        assert_eq!(all.len(), pairs.len() * 3);
    }
}

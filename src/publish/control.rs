//! Who may change queries and cameras over MQTT, and what they ask for. Pure: what came in goes in, an [`Order`] comes out.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{PublishError, Topics};
use crate::types::{CameraId, QueryId};

/// Largest order read, in bytes.
pub(super) const MAX_ORDER: u32 = 64 * 1024;
/// Stands for everybody whom the broker lets write.
const ANYBODY: &str = "*";

/// The `[mqtt.control]` table: who may write to the set topics. MQTT does not tell who wrote a message, so either the broker
/// alone decides (`"*"`), or it puts the sender's name into each message (`stamp`) and the names are told apart here. A broker
/// that stamps must also remove what senders put there themselves; mosquitto by itself does neither.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Who may write to `<base>/query/<id>/set`; nobody unless named.
    pub query: Vec<String>,
    /// Who may write to `<base>/camera/<id>/set`; nobody unless named.
    pub camera: Vec<String>,
    /// MQTT 5 user property in which the broker says who sent a message.
    pub stamp: Option<String>,
}

/// What an order is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A query.
    Query(QueryId),
    /// A camera.
    Camera(CameraId),
}

/// One message on a set topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// What it is about.
    pub target: Target,
    /// The settings it should have, `None` to remove it; or why the message is not obeyed.
    pub wish: Result<Option<Map<String, Value>>, String>,
}

impl ControlConfig {
    /// Refuses what cannot be enforced.
    pub(super) fn check(&self) -> Result<(), PublishError> {
        let problem = |key, problem: &str| Err(PublishError::Config { key, problem: problem.to_owned() });
        for (key, names) in [("control.query", &self.query), ("control.camera", &self.camera)] {
            if names.iter().any(String::is_empty) {
                return problem(key, "a name is empty");
            }
            if self.stamp.is_none() && names.iter().any(|name| name != ANYBODY) {
                return problem(
                    key,
                    "names need `stamp`, the user property in which the broker says who sent a message; without one only \
                     \"*\" can be meant: everybody whom the broker lets write",
                );
            }
        }
        if self.stamp.as_deref() == Some("") {
            return problem("control.stamp", "the name of the user property is empty");
        }
        Ok(())
    }

    /// The filters to subscribe to; none if nobody may do anything.
    pub(super) fn filters(&self, topics: &Topics) -> Vec<String> {
        let kinds = [(&self.query, topics.any_query_set()), (&self.camera, topics.any_camera_set())];
        kinds.into_iter().filter(|(names, _)| !names.is_empty()).map(|(_, filter)| filter).collect()
    }

    /// Reads a message; `None` if the topic is none to be obeyed. `properties` are its user properties.
    pub(super) fn read(
        &self,
        topics: &Topics,
        topic: &str,
        payload: &[u8],
        properties: &[(String, String)],
    ) -> Option<Order> {
        let target = topics.set_target(topic)?;
        let names = match target {
            Target::Query(_) => &self.query,
            Target::Camera(_) => &self.camera,
        };
        let wish = self.permit(names, properties).and_then(|()| settings(payload));
        Some(Order { target, wish })
    }

    fn permit(&self, names: &[String], properties: &[(String, String)]) -> Result<(), String> {
        if names.iter().any(|name| name == ANYBODY) {
            return Ok(());
        }
        let stamp = self.stamp.as_deref().unwrap_or_default();
        let mut stamps = properties.iter().filter(|(key, _)| key == stamp).map(|(_, name)| name);
        match (stamps.next(), stamps.next()) {
            (Some(name), None) if names.contains(name) => Ok(()),
            (Some(name), None) => Err(format!("`{name}` may not change this; name it in [mqtt.control]")),
            (Some(_), Some(_)) => Err(format!("the message has more than one `{stamp}`; the sender must not set it")),
            (None, _) => Err(format!("the broker does not say who sent this; it should set `{stamp}`")),
        }
    }
}

fn settings(payload: &[u8]) -> Result<Option<Map<String, Value>>, String> {
    if payload.is_empty() {
        return Ok(None);
    }
    if payload.len() > MAX_ORDER as usize {
        return Err(format!("the message has {} bytes; at most {MAX_ORDER} are read", payload.len()));
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(settings)) => Ok(Some(settings)),
        Ok(_) => Err("this is not a JSON object; write settings, as in {\"text\":\"red car\"}".to_owned()),
        Err(error) => Err(format!("this is not JSON: {error}; write settings, as in {{\"text\":\"red car\"}}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topics() -> Topics {
        Topics::new("site/groundd").unwrap()
    }

    fn named(names: &[&str]) -> ControlConfig {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        ControlConfig { query: names, camera: Vec::new(), stamp: Some("username".into()) }
    }

    fn ask(config: &ControlConfig, payload: &str, stamps: &[&str]) -> Result<Option<Map<String, Value>>, String> {
        let stamps: Vec<_> = stamps.iter().map(|name| ("username".to_owned(), (*name).to_owned())).collect();
        config.read(&topics(), "site/groundd/query/q/set", payload.as_bytes(), &stamps).unwrap().wish
    }

    #[test]
    fn only_who_is_named_is_obeyed() {
        let config = named(&["ops"]);
        config.check().unwrap();
        assert_eq!(ask(&config, "{\"text\":\"car\"}", &["ops"]).unwrap().unwrap()["text"], "car");
        assert_eq!(ask(&config, "", &["ops"]), Ok(None));
        for (stamps, why) in
            [(&["eve"][..], "`eve` may not"), (&[], "does not say"), (&["eve", "ops"], "more than one")]
        {
            let error = ask(&config, "{\"text\":\"car\"}", stamps).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(ask(&config, "", stamps).is_err());
        }
        let open = ControlConfig { query: vec!["*".into()], ..ControlConfig::default() };
        open.check().unwrap();
        assert!(ask(&open, "{}", &[]).is_ok());
    }

    #[test]
    fn nothing_is_subscribed_to_unless_somebody_is_named() {
        assert!(ControlConfig::default().filters(&topics()).is_empty());
        assert_eq!(named(&["ops"]).filters(&topics()), ["site/groundd/query/+/set"]);
        let both = ControlConfig { query: vec!["*".into()], camera: vec!["*".into()], stamp: None };
        assert_eq!(both.filters(&topics()), ["site/groundd/query/+/set", "site/groundd/camera/+/set"]);
    }

    #[test]
    fn names_that_nobody_vouches_for_are_refused() {
        let config = ControlConfig { stamp: None, ..named(&["ops"]) };
        assert!(config.check().unwrap_err().to_string().starts_with("mqtt.control.query"));
        assert!(ControlConfig { stamp: Some(String::new()), ..ControlConfig::default() }.check().is_err());
    }

    #[test]
    fn other_topics_are_not_orders() {
        let config = named(&["*"]);
        for topic in
            ["site/groundd/query/q/state", "site/groundd/query/a b/set", "site/groundd/query/set", "x/query/q/set"]
        {
            assert_eq!(config.read(&topics(), topic, b"{}", &[]), None, "{topic}");
        }
        assert!(ask(&config, "[1]", &[]).unwrap_err().contains("object"));
        assert!(ask(&config, "{\"text\":", &[]).unwrap_err().contains("JSON"));
        assert!(ask(&config, &format!("\"{}\"", "x".repeat(MAX_ORDER as usize)), &[]).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_message_of_nothing_but_depth_is_refused() {
        for deep in ["[".repeat(60_000), "{\"a\":".repeat(10_000)] {
            assert!(ask(&named(&["*"]), &deep, &[]).unwrap_err().contains("not JSON"));
        }
    }

    /// Settings as somebody may write them, with names and texts that JSON has to escape.
    fn written() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        proptest::collection::btree_map(".{0,8}", value, 0..5)
            .prop_map(|settings| settings.into_iter().collect::<Map<_, _>>())
    }

    proptest! {
        #[test]
        fn hostile_messages_are_refused_with_a_remedy_and_nothing_else_is(
            id in prop_oneof!["[A-Za-z0-9_-]{1,70}", ".{0,80}"],
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            nearly in r#"\{?("a":|"|[0-9.eE+-]{1,3}|\\u?|[{}\[\],:]|null|true){0,30}\}?"#,
        ) {
            let open = ControlConfig { query: vec![ANYBODY.into()], camera: vec![ANYBODY.into()], stamp: None };
            for payload in [&noise[..], nearly.as_bytes()] {
                prop_assert_eq!(open.read(&topics(), &id, payload, &[]), None);
                for (kind, is_one) in [("query", QueryId::new(&id).is_ok()), ("camera", CameraId::new(&id).is_ok())] {
                    let order = open.read(&topics(), &format!("site/groundd/{kind}/{id}/set"), payload, &[]);
                    prop_assert_eq!(order.is_some(), is_one);
                }
                let meant: Option<Map<String, Value>> = serde_json::from_slice(payload).ok();
                match open.read(&topics(), "site/groundd/query/q/set", payload, &[]).unwrap().wish {
                    Ok(None) => prop_assert!(payload.is_empty()),
                    Ok(wish) => prop_assert_eq!(wish, meant),
                    Err(why) => prop_assert!(meant.is_none() && why.contains("write settings"), "{why}"),
                }
            }
        }

        #[test]
        fn settings_are_read_whole_or_not_at_all(settings in written(), at in any::<prop::sample::Index>()) {
            let config = named(&["*"]);
            let text = Value::from(settings.clone()).to_string();
            prop_assert_eq!(ask(&config, &text, &[]), Ok(Some(settings)));
            // Cut to nothing it would be an order to remove the query.
            let cut = text.floor_char_boundary(1 + at.index(text.len() - 1));
            prop_assert!(ask(&config, &text[..cut], &[]).is_err(), "{}", &text[..cut]);
        }
    }
}

//! What is wanted: the file's cameras and queries, and what messages changed of them. Pure state.
//!
//! A message on a set topic takes the place of what the file says about that id, and an empty one gives it back. The broker
//! keeps these messages (they are retained), so nothing is stored here: after a start they come again. A message that
//! cannot be obeyed changes nothing, and its reason is told until a better one comes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    config::{Config, QueryConfig},
    ingest::{CameraConfig, is_remote, may_be_address},
    publish::{Order, Target},
    types::{CameraId, QueryId},
};

/// Most queries, and most cameras, that messages may add.
const MOST: usize = 256;

/// Settings of a camera that name files or programs of this machine: not for messages.
const LOCAL: [&str; 3] = ["password_file", "ca_file", "pipeline"];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    file: (BTreeMap<CameraId, CameraConfig>, BTreeMap<QueryId, QueryConfig>),
    cameras: BTreeMap<CameraId, CameraConfig>,
    queries: BTreeMap<QueryId, QueryConfig>,
    refused: BTreeMap<Target, String>,
}

impl Wishes {
    /// What the file says, for the first time or anew.
    pub(super) fn file(&mut self, config: &Config) {
        self.file = (config.cameras.clone(), config.queries.clone());
    }

    /// Takes note of a message; an error is why it is not obeyed. `check` says whether a camera can work on this machine.
    pub(super) fn take(
        &mut self,
        order: Order,
        check: impl FnOnce(&CameraConfig) -> Result<(), String>,
    ) -> Result<(), String> {
        let Order { target, wish } = order;
        let outcome = wish.and_then(|settings| match &target {
            Target::Query(id) => self.set_query(id, settings),
            Target::Camera(id) => self.set_camera(id, settings, check),
        });
        match &outcome {
            Ok(()) => drop(self.refused.remove(&target)),
            // One more reason is not kept when so many are: an id can be invented for each.
            Err(_) if self.refused.len() >= 2 * MOST && !self.refused.contains_key(&target) => {}
            Err(reason) => drop(self.refused.insert(target, reason.clone())),
        }
        outcome
    }

    fn set_query(&mut self, id: &QueryId, settings: Option<Map<String, Value>>) -> Result<(), String> {
        let Some(settings) = settings else {
            self.queries.remove(id);
            return Ok(());
        };
        let config: QueryConfig = read("query", id.as_str(), settings)?;
        room(&self.queries, id)?;
        self.queries.insert(id.clone(), config);
        Ok(())
    }

    fn set_camera(
        &mut self,
        id: &CameraId,
        settings: Option<Map<String, Value>>,
        check: impl FnOnce(&CameraConfig) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(settings) = settings else {
            self.cameras.remove(id);
            return Ok(());
        };
        if let Some(key) = LOCAL.iter().find(|key| settings.contains_key(**key)) {
            return Err(format!("`{key}` names something on this machine; only the configuration file may"));
        }
        let config: CameraConfig = read("camera", id.as_str(), settings)?;
        if !is_remote(&config.uri) {
            return Err("only rtsp(s):// and http(s):// cameras can be set by a message; use the file".to_owned());
        }
        check(&config)?;
        room(&self.cameras, id)?;
        self.cameras.insert(id.clone(), config);
        Ok(())
    }

    /// The cameras to run.
    pub(super) fn cameras(&self) -> BTreeMap<CameraId, CameraConfig> {
        merged(&self.file.0, &self.cameras)
    }

    /// The queries, paused ones among them.
    pub(super) fn queries(&self) -> BTreeMap<QueryId, QueryConfig> {
        merged(&self.file.1, &self.queries)
    }

    /// The queries that are kept but not asked.
    pub(super) fn paused(&self) -> BTreeSet<QueryId> {
        self.queries().into_values().filter(|query| query.paused).map(|query| query.id).collect()
    }

    /// Messages that were not obeyed, and why.
    pub(super) fn refused(&self) -> &BTreeMap<Target, String> {
        &self.refused
    }
}

fn merged<K: Ord + Clone, V: Clone>(file: &BTreeMap<K, V>, set: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let mut all = file.clone();
    all.extend(set.iter().map(|(id, config)| (id.clone(), config.clone())));
    all
}

fn room<K: Ord, V>(set: &BTreeMap<K, V>, id: &K) -> Result<(), String> {
    if set.len() >= MOST && !set.contains_key(id) {
        return Err(format!("{MOST} were set by messages already; remove one first"));
    }
    Ok(())
}

/// The settings of a table in the configuration file, out of a message on the topic of `id`.
fn read<T: serde::de::DeserializeOwned>(kind: &str, id: &str, mut settings: Map<String, Value>) -> Result<T, String> {
    let named = settings.insert("id".to_owned(), Value::from(id));
    if named.is_some_and(|named| named != id) {
        return Err(format!("`id` is not `{id}`, which the topic names; leave it out"));
    }
    // What stands in the wrong place may be an address with a password: a value, or the key itself.
    serde_path_to_error::deserialize(Value::Object(settings)).map_err(|error| {
        let (key, mut said) = (error.path().to_string(), error.inner().to_string());
        if may_be_address(&said) {
            "there is something that has no place here".clone_into(&mut said);
        }
        let has_key = key != "." && !may_be_address(&key);
        if has_key { format!("{kind} `{id}`: `{key}`: {said}") } else { format!("{kind} `{id}`: {said}") }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn wishes() -> Wishes {
        let text = "[[camera]]\nid = \"gate\"\nuri = \"test://\"\n[[query]]\nid = \"car\"\ntext = \"car\"\n";
        let mut wishes = Wishes::default();
        wishes.file(&Config::parse(text, Path::new("g.toml")).unwrap());
        wishes
    }

    fn query(id: &str, json: &str) -> Order {
        order(Target::Query(QueryId::new(id).unwrap()), json)
    }

    fn camera(id: &str, json: &str) -> Order {
        order(Target::Camera(CameraId::new(id).unwrap()), json)
    }

    fn order(target: Target, json: &str) -> Order {
        let wish = if json.is_empty() { None } else { Some(serde_json::from_str(json).unwrap()) };
        Order { target, wish: Ok(wish) }
    }

    fn texts(wishes: &Wishes) -> Vec<String> {
        wishes.queries().into_values().map(|query| query.text).collect()
    }

    fn take(wishes: &mut Wishes, order: Order) -> Option<String> {
        wishes.take(order, |_| Ok(())).err()
    }

    #[test]
    fn a_message_stands_before_the_file_and_an_empty_one_gives_it_back() {
        let mut wishes = wishes();
        assert_eq!(take(&mut wishes, query("car", "{\"text\":\"red car\"}")), None);
        assert_eq!(take(&mut wishes, query("dog", "{\"text\":\"dog\",\"cameras\":[\"gate\"],\"paused\":true}")), None);
        assert_eq!(texts(&wishes), ["red car", "dog"]);
        assert_eq!(wishes.paused().into_iter().map(String::from).collect::<Vec<_>>(), ["dog"]);
        assert_eq!(take(&mut wishes, query("car", "")), None);
        assert_eq!(take(&mut wishes, query("dog", "")), None);
        assert_eq!(texts(&wishes), ["car"]);
    }

    #[test]
    fn what_cannot_be_obeyed_changes_nothing_says_why_and_is_forgotten_with_the_next_message() {
        let mut wishes = wishes();
        for (json, why) in [
            ("{\"text\":5}", "`text`"),
            ("{\"text\":\" \"}", "empty"),
            ("{}", "missing field `text`"),
            ("{\"text\":\"dog\",\"methode\":\"zoom\"}", "methode"),
            ("{\"text\":\"dog\",\"id\":\"cat\"}", "topic"),
        ] {
            let reason = take(&mut wishes, query("car", json)).unwrap();
            assert!(reason.contains(why), "{json}: {reason}");
            assert_eq!(texts(&wishes), ["car"]);
            assert_eq!(wishes.refused().values().collect::<Vec<_>>(), [&reason]);
        }
        assert_eq!(take(&mut wishes, query("car", "{\"text\":\"dog\"}")), None);
        assert!(wishes.refused().is_empty());
    }

    #[test]
    fn messages_cannot_reach_into_this_machine() {
        let mut wishes = wishes();
        for json in [
            "{\"uri\":\"rtsp://h/s\",\"password_file\":\"/etc/shadow\"}",
            "{\"uri\":\"rtsp://h/s\",\"ca_file\":\"/etc/passwd\"}",
            "{\"uri\":\"rtsp://h/s\",\"pipeline\":\"x\"}",
            "{\"uri\":\"file:///etc/passwd\"}",
            "{\"uri\":\"/dev/video0\"}",
        ] {
            assert!(take(&mut wishes, camera("yard", json)).is_some(), "{json}");
        }
        let misplaced = take(&mut wishes, camera("yard", "{\"uri\":\"rtsp://h/s\",\"fps\":\"rtsp://me:secret@h/s\"}"));
        assert!(misplaced.is_some_and(|reason| reason.contains("`fps`") && !reason.contains("secret")));
        // Nor is a key told that is one.
        for key in ["rtsp://me:secret@h/s", "fps.rtsp://me:secret@h/s"] {
            let misplaced = take(&mut wishes, camera("yard", &format!("{{\"uri\":\"rtsp://h/s\",\"{key}\":1}}")));
            assert!(misplaced.as_ref().is_some_and(|reason| !reason.contains("secret")), "{misplaced:?}");
        }
        assert_eq!(wishes.cameras().len(), 1);
        assert_eq!(take(&mut wishes, camera("yard", "{\"uri\":\"rtsp://h/s\",\"fps\":2}")), None);
        assert_eq!(wishes.cameras().len(), 2);
        let refused = wishes.take(camera("yard", "{\"uri\":\"rtsp://other/s\"}"), |_| Err("no".to_owned()));
        assert_eq!(refused, Err("no".to_owned()));
        assert!(wishes.cameras().values().any(|camera| camera.uri == "rtsp://h/s"));
    }

    #[test]
    fn there_is_an_end_to_what_messages_may_add() {
        let mut wishes = wishes();
        let mut add = |i: usize| take(&mut wishes, query(&format!("q{i}"), "{\"text\":\"dog\"}"));
        assert!((0..MOST).all(|i| add(i).is_none()));
        assert!(add(MOST).unwrap().contains("remove"));
        assert_eq!(add(0), None);
        // Those of which no more is kept are refused all the same.
        assert!((0..10 * MOST).all(|i| add(MOST + i).is_some()));
        assert!(wishes.refused().len() <= 2 * MOST);
    }
}

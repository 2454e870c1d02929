//! What the shipped file says of itself: it has every key, with its default.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::types::{Method, Query, Worth};

const FILE: &str = include_str!("../../config/groundd.toml");

fn parsed(text: &str) -> Config {
    Config::parse(text, Path::new("groundd.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// A line that sets a key, whether or not it is commented out, without the comment's mark; and the key.
fn setting(line: &str) -> Option<(&str, &str)> {
    let set = line.strip_prefix("# ").unwrap_or(line);
    let (key, _) = set.split_once(" = ")?;
    key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then_some((set, key))
}

/// The name of a table in its header: `model.zoom` of `[model.zoom]  # …`, `camera` of `[[camera]]`.
fn header(line: &str) -> Option<&str> {
    Some(line.strip_prefix('[')?.split(']').next()?.trim_start_matches('['))
}

/// The tables of the shipped file, the whole of it among them under the name "", each with the keys that stand in it.
fn tables() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut tables: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut table = "";
    for line in FILE.lines() {
        if let Some(name) = header(line) {
            let (outer, inner) = name.rsplit_once('.').unwrap_or(("", name));
            tables.entry(outer).or_default().insert(inner);
            table = name;
        } else if let Some((_, key)) = setting(line) {
            tables.entry(table).or_default().insert(key);
        }
        tables.entry(table).or_default();
    }
    tables
}

/// The keys that a table may have, as the error about one that it may not have lists them.
fn known(table: &str) -> BTreeSet<String> {
    let header = match table {
        "" => String::new(),
        "camera" | "query" => format!("[[{table}]]\n"),
        _ => format!("[{table}]\n"),
    };
    let error = toml::from_str::<Raw>(&format!("{header}nobody_knows = 1\n")).err().unwrap();
    let (_, listed) = error.message().split_once("expected ").unwrap_or_else(|| panic!("[{table}]: {error}"));
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_table_has_every_key_and_no_other() {
    for (table, keys) in tables() {
        let keys: BTreeSet<String> = keys.into_iter().map(str::to_owned).collect();
        assert_eq!(keys, known(table), "[{table}]: what the file has, and what is known");
    }
}

#[test]
fn what_is_set_is_the_default() {
    let config = parsed(FILE);
    assert_eq!(config.model, ModelConfig::default());
    assert_eq!(config.mqtt, MqttConfig::default());
    assert_eq!(config.http, HttpConfig::default());
    assert_eq!(config.schedule, ScheduleConfig::default());
    assert_eq!(config.ask, AskConfig::default());
    assert_eq!(config.track, TrackConfig::default());
    assert_eq!(config.pipelines, None);
    let (camera, query) = (CameraId::new("gate").unwrap(), QueryId::new("person").unwrap());
    assert_eq!(config.cameras[&camera], CameraConfig::new(camera.clone(), "rtsp://192.0.2.10/stream1"));
    assert_eq!(config.queries[&query], QueryConfig::new(query.clone(), "person"));
}

#[test]
fn what_is_commented_out_can_be_meant() {
    let all: Vec<&str> = FILE.lines().map(|line| setting(line).map_or(line, |(set, _)| set)).collect();
    // Files for TLS need a broker that is spoken to so.
    let config = parsed(&all.join("\n").replace("\"mqtt://", "\"mqtts://"));
    let (mqtt, http) = (&config.mqtt, &config.http);
    assert!(config.model.library.is_some() && config.model.selection.is_some() && config.pipelines.is_some());
    assert!(mqtt.client_id.is_some() && mqtt.username.is_some() && mqtt.password_file.is_some());
    assert!(mqtt.ca_file.is_some() && mqtt.cert_file.is_some() && mqtt.key_file.is_some());
    assert!(mqtt.spool_dir.is_some() && mqtt.discovery_prefix.is_some() && mqtt.control.stamp.is_some());
    assert!(http.listen.is_some() && !http.hosts.is_empty());
    let camera = &config.cameras[&CameraId::new("gate").unwrap()];
    assert!(camera.fps.is_some() && camera.username.is_some() && camera.password_file.is_some());
    assert!(camera.ca_file.is_some() && camera.pipeline.is_some());
    let query = &config.queries[&QueryId::new("person").unwrap()];
    assert!(query.cameras.is_some() && query.threshold.is_some());
    assert!(query.deadline_ms.is_some() && query.budget.is_some());
}

#[test]
fn a_query_is_asked_as_its_table_says() {
    let config = parsed(
        "[[camera]]\nid = \"gate\"\nuri = \"test://\"\n[[query]]\nid = \"q\"\ntext = \"red car\"\ncameras = [\"gate\"]\n\
         method = \"zoom\"\nthreshold = 0.25\npriority = -3\ndeadline_ms = 1500\nbudget = 0.125\n",
    );
    let (gate, id) = (CameraId::new("gate").unwrap(), QueryId::new("q").unwrap());
    let Query { id: of, rev, text, cameras, method, threshold, worth } = config.queries[&id].query(7);
    assert_eq!((of, rev, text.as_str(), cameras), (id, 7, "red car", Some(vec![gate])));
    assert_eq!((method, threshold), (Method::Zoom, Some(0.25)));
    let (deadline, budget) = (Some(Duration::from_millis(1500)), Some(0.125));
    assert_eq!(worth, Worth { priority: -3, deadline, budget });
}

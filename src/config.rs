//! The configuration file: TOML -> checked [`Config`], a struct of the stages' own configurations.
//!
//! `toml` reports syntax, unknown keys and wrong types with line and column. What it cannot know (ids twice, a query
//! for a camera that is not there) is checked here and reported with the line as well.

mod place;
mod query;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use self::place::{Source, line_of};
pub use self::query::QueryConfig;
use crate::{
    ground::{AskConfig, ModelConfig},
    http::HttpConfig,
    ingest::CameraConfig,
    publish::MqttConfig,
    schedule::ScheduleConfig,
    track::TrackConfig,
    types::{CameraId, QueryId, WrongSetting},
};

/// A configuration that can run: ids are unique, references resolve, relative paths start at the file's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What runs, on what.
    pub model: ModelConfig,
    /// Where results go.
    pub mqtt: MqttConfig,
    /// Metrics and the live view.
    pub http: HttpConfig,
    /// Batches and deadlines.
    pub schedule: ScheduleConfig,
    /// When queries are asked.
    pub ask: AskConfig,
    /// Tracks and events.
    pub track: TrackConfig,
    /// Folder of pipeline templates that replace or add to the built-in ones.
    pub pipelines: Option<PathBuf>,
    /// The cameras, ordered by id; at least one, unless they can be set by messages.
    pub cameras: BTreeMap<CameraId, CameraConfig>,
    /// The queries, ordered by id; may be empty (they can arrive later).
    pub queries: BTreeMap<QueryId, QueryConfig>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}; check the path and that this user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not UTF-8.
    #[error("{}:{line}: the configuration is not UTF-8 text; save it as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte.
        line: usize,
    },
    /// Syntax, an unknown key, or a value of the wrong type; the text has line, column and key.
    #[error("{}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What `toml` says.
        message: String,
    },
    /// Values that are well-formed but cannot be meant.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    model: Option<Spanned<ModelConfig>>,
    mqtt: Option<Spanned<MqttConfig>>,
    #[serde(default)]
    http: HttpConfig,
    schedule: Option<Spanned<ScheduleConfig>>,
    ask: Option<Spanned<AskConfig>>,
    track: Option<Spanned<TrackConfig>>,
    #[serde(default)]
    ingest: RawIngest,
    #[serde(default, rename = "camera")]
    cameras: Vec<Spanned<CameraConfig>>,
    #[serde(default, rename = "query")]
    queries: Vec<Spanned<QueryConfig>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawIngest {
    pipelines: Option<Spanned<PathBuf>>,
}

/// A table and where it begins; one that is not there has its defaults, with which nothing is wrong.
fn located<T: Default>(table: Option<Spanned<T>>) -> (T, usize) {
    let at = table.as_ref().map_or(0, |table| table.span().start);
    (table.map(Spanned::into_inner).unwrap_or_default(), at)
}

/// The table called `name`, unless `check` refuses it.
fn checked<T: Default>(
    source: &Source<'_>,
    name: &str,
    table: Option<Spanned<T>>,
    check: impl Fn(&T) -> Result<(), WrongSetting>,
) -> Result<T, ConfigError> {
    let (table, at) = located(table);
    let refused = |wrong: WrongSetting| source.invalid(source.key(name, at, wrong.key), format!("[{name}] {wrong}"));
    check(&table).map_err(refused)?;
    Ok(table)
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| ConfigError::NotUtf8 { path: path.to_owned(), line: line_of(&bytes, e.valid_up_to()) })?;
        let source = Source { path, text };
        let (mut config, pipelines) = Self::read(&source)?;
        if let Some(folder) = config.pipelines.as_ref().filter(|folder| !folder.is_dir()) {
            let message =
                format!("[ingest] `pipelines`: there is no folder {}; make it or name another", folder.display());
            return Err(source.invalid(pipelines, message));
        }
        if config.mqtt.spool_dir.is_none() {
            // The folder that systemd keeps for a service, as in `StateDirectory=`; the first, if a drop-in adds others.
            let folders = std::env::var_os("STATE_DIRECTORY");
            let first = folders.and_then(|folders| std::env::split_paths(&folders).next());
            config.mqtt.spool_dir = first.filter(|folder| !folder.as_os_str().is_empty());
        }
        Ok(config)
    }

    /// Checks `text`, which came from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::read(&Source { path, text }).map(|(config, _)| config)
    }

    /// What `source` says, and where it names the folder of pipelines.
    fn read(source: &Source<'_>) -> Result<(Self, usize), ConfigError> {
        let raw: Raw = toml::from_str(source.text).map_err(|error| source.unreadable(&error))?;
        let (mqtt, at) = located(raw.mqtt);
        mqtt.check().map_err(|error| {
            let at = error.key().map_or(at, |key| source.key("mqtt", at, key));
            source.invalid(at, error.to_string())
        })?;
        let model = checked(source, "model", raw.model, ModelConfig::check)?;
        let ask = checked(source, "ask", raw.ask, AskConfig::check)?;
        let track = checked(source, "track", raw.track, TrackConfig::check)?;
        let schedule = checked(source, "schedule", raw.schedule, ScheduleConfig::check)?;
        let more_may_come = !mqtt.control.camera.is_empty();
        let cameras = read_cameras(source, raw.cameras, more_may_come)?;
        let queries = read_queries(source, raw.queries, &cameras, more_may_come)?;
        let at = raw.ingest.pipelines.as_ref().map_or(0, |folder| folder.span().start);
        let pipelines = raw.ingest.pipelines.map(Spanned::into_inner);
        let mut config = Self { model, mqtt, http: raw.http, schedule, ask, track, pipelines, cameras, queries };
        config.anchor_paths(source.folder());
        Ok((config, at))
    }

    /// Relative paths in a file mean: relative to that file. A bare model name is not a path.
    fn anchor_paths(&mut self, folder: &Path) {
        let mqtt = &mut self.mqtt;
        let files = [&mut mqtt.password_file, &mut mqtt.ca_file, &mut mqtt.cert_file, &mut mqtt.key_file];
        let others = [&mut mqtt.spool_dir, &mut self.pipelines, &mut self.model.library];
        for path in files.into_iter().chain(others).flatten() {
            *path = folder.join(&*path);
        }
        if self.model.path.components().count() > 1 {
            self.model.path = folder.join(&self.model.path);
        }
    }
}

/// The cameras. If `more_may_come` by messages, there need be none.
fn read_cameras(
    source: &Source<'_>,
    raw: Vec<Spanned<CameraConfig>>,
    more_may_come: bool,
) -> Result<BTreeMap<CameraId, CameraConfig>, ConfigError> {
    let mut cameras = BTreeMap::new();
    for camera in raw {
        let at = camera.span().start;
        let mut camera = camera.into_inner();
        camera.anchor(source.folder());
        camera.check().map_err(|error| {
            let at = error.key().map_or(at, |key| source.key("camera", at, key));
            source.invalid(at, error.to_string())
        })?;
        let id = camera.id.clone();
        if cameras.insert(id.clone(), camera).is_some() {
            return Err(source.invalid(at, format!("two cameras have the id `{id}`; give each its own")));
        }
    }
    if cameras.is_empty() && !more_may_come {
        return Err(source.invalid(0, "there is no camera; add a [[camera]] table with `id` and `uri`"));
    }
    Ok(cameras)
}

/// The queries. If `more_may_come`, a camera may be named that is not there yet.
fn read_queries(
    source: &Source<'_>,
    raw: Vec<Spanned<QueryConfig>>,
    cameras: &BTreeMap<CameraId, CameraConfig>,
    more_may_come: bool,
) -> Result<BTreeMap<QueryId, QueryConfig>, ConfigError> {
    let mut queries = BTreeMap::new();
    for query in raw {
        let at = query.span().start;
        let query = query.into_inner();
        let missing = query.cameras.iter().flatten().find(|id| !cameras.contains_key(id));
        if let Some(missing) = missing.filter(|_| !more_may_come) {
            let known = cameras.keys().map(CameraId::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("query `{}` names the camera `{missing}`, but there are: {known}", query.id);
            return Err(source.invalid(at, message));
        }
        let id = query.id.clone();
        if queries.insert(id.clone(), query).is_some() {
            return Err(source.invalid(at, format!("two queries have the id `{id}`; give each its own")));
        }
    }
    Ok(queries)
}

#[cfg(test)]
mod shipped;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("g.toml")).unwrap_err().to_string()
    }

    const CAMERA: &str = "[[camera]]\nid = \"gate\"\nuri = \"test://\"\n";

    #[test]
    fn the_shipped_files_are_valid() {
        for file in ["config/groundd.toml", "config/demo.toml"] {
            Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        }
    }

    #[test]
    fn errors_name_the_line_the_key_and_the_remedy() {
        assert!(error("[[camera]]\nid = \"a\"\nurl = \"x\"\n").contains("unknown field `url`"));
        assert!(error("[[camera]]\nid = \"a\"\nuri = 5\n").contains("line 3"));
        assert!(error("").contains("no camera"));
        let twice = error(&format!("{CAMERA}{CAMERA}"));
        assert!(twice.starts_with("g.toml:4:") && twice.contains("`gate`"), "{twice}");
        let lost = error(&format!("{CAMERA}[[query]]\nid = \"q\"\ntext = \"car\"\ncameras = [\"gat\"]\n"));
        assert!(lost.contains("`gat`") && lost.contains("there are: gate"), "{lost}");
        let empty = error(&format!("{CAMERA}[[query]]\nid = \"q\"\ntext = \" \"\n"));
        assert!(empty.contains("line 6") && empty.contains("query text is empty"), "{empty}");
        let high = error(&format!("{CAMERA}[[query]]\nid = \"q\"\ntext = \"car\"\nthreshold = 40\n"));
        assert!(high.contains("from 0 to 1"), "{high}");
        let nowhere = error(&format!("{CAMERA}[[query]]\nid = \"q\"\ntext = \"car\"\ncameras = []\n"));
        assert!(nowhere.contains("line 7") && nowhere.contains("never be asked"), "{nowhere}");
        assert!(error(&format!("{CAMERA}fps = 0\n")).contains("`fps`"));
        let rate = error(&format!("{CAMERA}[ask]\nrate = 0\n"));
        assert!(rate.starts_with("g.toml:5:") && rate.contains("`rate`"), "{rate}");
        let kind = error("[[camera]]\nid = \"a\"\nuri = \"gopher://h/x\"\n");
        assert!(kind.starts_with("g.toml:3:") && kind.contains("rtsp(s)://"), "{kind}");
        for (line, key) in [
            ("[model]\ndetail = 9", "`detail`"),
            ("[model]\nthreads = 5000", "`threads`"),
            ("[track]\nlost_seconds = inf", "`lost_seconds`"),
            ("[track]\nupdate_seconds = -1", "`update_seconds`"),
            ("[track]\nconfirm_frames = 0", "`confirm_frames`"),
            ("[schedule]\nstaleness_ms = 0", "`staleness_ms`"),
        ] {
            // A table that is only spoken of is not meant.
            let error = error(&format!("# [ask], [track], [schedule]\n{CAMERA}{line}\n"));
            assert!(error.starts_with("g.toml:6:") && error.contains(key), "{error}");
        }
        for (lines, place) in [
            ("[mqtt]\nbase_topic = \"a\"\nurl = \"http://h\"", "g.toml:6: mqtt.url: "),
            ("[mqtt]\npassword_file = \"secret\"", "g.toml:4: mqtt.username: "),
            ("[mqtt]\nca_file = \"ca.pem\"", "g.toml:5: mqtt.ca_file: "),
            ("[mqtt]\n[mqtt.control]\nquery = [\"ops\"]", "g.toml:6: mqtt.control.query: "),
        ] {
            let error = error(&format!("{CAMERA}{lines}\n"));
            assert!(error.starts_with(place), "{error}");
        }
        let host = error(&format!("{CAMERA}[http]\nlisten = \"localhost:8787\"\n"));
        assert!(host.contains("line 5") && host.contains("127.0.0.1:8787"), "{host}");
    }

    #[test]
    fn no_error_shows_what_was_written_as_a_value() {
        for line in ["ur = \"rtsp://me:hush@h/s\"", "fps = \"me:hush@h\"", "fps = rtsp://me:hush@h", "user = hush"] {
            let error = error(&format!("{CAMERA}{line}\n"));
            assert!(error.contains("line 4") && !error.contains("hush"), "{error}");
        }
        for key in ["url", "base_topic", "discovery_prefix"] {
            let error = error(&format!("{CAMERA}[mqtt]\n{key} = \"mqtt://me:hush@h\"\n"));
            assert!(error.starts_with(&format!("g.toml:5: mqtt.{key}: ")) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_query_may_name_a_camera_that_comes_by_message() {
        let query = "[[query]]\nid = \"q\"\ntext = \"car\"\ncameras = [\"yard\"]\n";
        let text = format!("{CAMERA}{query}[mqtt.control]\ncamera = [\"*\"]\n");
        let config = Config::parse(&text, Path::new("g.toml")).unwrap();
        assert_eq!((config.cameras.len(), config.queries.len()), (1, 1));
        assert!(error(&format!("{CAMERA}{query}")).contains("`yard`"));
    }

    #[test]
    fn a_folder_of_pipelines_that_is_not_there_is_said_where_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.toml");
        std::fs::write(&path, format!("# pipelines\n{CAMERA}[ingest]\npipelines = \"none\"\n")).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains("g.toml:6: ") && error.contains("none"), "{error}");
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let text = format!("{CAMERA}password_file = \"secret\"\n[model]\npath = \"nano\"\n");
        let config = Config::parse(&text, Path::new("/etc/groundd/groundd.toml")).unwrap();
        let camera = config.cameras.values().next().unwrap();
        assert_eq!(camera.password_file.as_deref(), Some(Path::new("/etc/groundd/secret")));
        assert_eq!(camera.uri, "test://");
        assert_eq!(config.model.path, Path::new("nano"));
        let text = CAMERA.replace("test://", "clip.mp4");
        let config = Config::parse(&text, Path::new("/etc/groundd/groundd.toml")).unwrap();
        assert_eq!(config.cameras.values().next().unwrap().uri, "/etc/groundd/clip.mp4");
    }
}

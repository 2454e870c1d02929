//! A model's folder without a manifest: exports as published for transformers.js load as they are.
//!
//! What `model.toml` would say follows from the files beside the graphs: `config.json`, `generation_config.json`,
//! `preprocessor_config.json` (or `processor_config.json`) and `tokenizer.json`, read as transformers 4.57 and transformers.js
//! read them. Nothing here looks into a graph: names, types and shapes of inputs and outputs, layers, heads and widths are read
//! from the opened files by the families' code, which is why the table `[decoder]` stays empty.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{FILE_NAME, File, Manifest, ManifestError, digest_of, json::Json};
use crate::types::published::{CONFIGURATION, ENCODER, GRAPHS, ROLES, VOCABULARY, Weights, is_data_of};

mod families;

/// Whether `dir` looks like a published export.
pub fn is_one(dir: &Path) -> bool {
    dir.join(CONFIGURATION[0]).is_file() && dir.join(GRAPHS).is_dir()
}

/// Who a model is, where its own files do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name in messages.
    pub name: String,
    /// Version, for people.
    pub version: String,
    /// Licence of the weights.
    pub licence: String,
    /// Where the weights come from.
    pub provenance: String,
}

/// The manifest that `dir` would have. Nothing vouches for its files: their hashes are missing until
/// [`Manifest::seal`] computes them.
pub fn derive(dir: &Path) -> Result<Manifest, ManifestError> {
    let source = Source::read(dir)?;
    let name: String = dir.file_name().unwrap_or_default().to_string_lossy().chars().take(64).map(plain).collect();
    let facts = Facts {
        name: if name.is_empty() { "model".to_owned() } else { name },
        version: "as published".to_owned(),
        licence: source.licence().unwrap_or_else(|| "unknown; ask where it was published".to_owned()),
        provenance: "a published export, used as it is".to_owned(),
    };
    let manifest = families::manifest(&source, facts, files(dir)?)?;
    manifest.checked(&source.config.file)
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }
}

/// Writes a `model.toml` into the published export `dir` that vouches for its files. `known` are hashes by path that were
/// compared with the files already; the others are computed.
pub fn adopt(dir: &Path, facts: Facts, known: &BTreeMap<String, String>) -> Result<Manifest, ManifestError> {
    let mut manifest = derive(dir)?;
    (manifest.name, manifest.version) = (facts.name, facts.version);
    (manifest.licence, manifest.provenance) = (facts.licence, facts.provenance);
    for file in &mut manifest.files {
        file.sha256 = match known.get(&*file.path.to_string_lossy()) {
            Some(hash) => hash.clone(),
            None => digest_of(&dir.join(&file.path), &mut |_| ())?,
        };
    }
    let place = dir.join(FILE_NAME);
    let text =
        toml::to_string(&manifest).map_err(|e| ManifestError::Syntax { file: place.clone(), reason: e.to_string() })?;
    fs::write(&place, text).map_err(|source| ManifestError::Write { file: place, source })?;
    Manifest::load(dir)
}

/// The files beside the graphs.
struct Source {
    config: Json,
    generation: Option<Json>,
    /// How pictures are prepared.
    picture: Json,
    /// Special tokens by their text.
    tokens: BTreeMap<String, u32>,
    dir: PathBuf,
}

impl Source {
    fn read(dir: &Path) -> Result<Self, ManifestError> {
        let there = |name: &str| dir.join(name).is_file();
        let [config, generation, picture, processor] = CONFIGURATION;
        let read = |name: &str| Json::read(dir.join(name));
        // First of all: a folder of another family lacks other files too, and to name one of those would mislead.
        let config = read(config)?;
        families::check(&config)?;
        let picture = if there(picture) || !there(processor) {
            read(picture)?
        } else {
            read(processor)?.part("image_processor")?
        };
        Ok(Self {
            config,
            generation: if there(generation) { Some(read(generation)?) } else { None },
            picture,
            tokens: Json::added_tokens(&dir.join(VOCABULARY))?,
            dir: dir.to_owned(),
        })
    }

    /// What the card's front matter says.
    fn licence(&self) -> Option<String> {
        let card = fs::read_to_string(self.dir.join("README.md")).ok()?;
        let front = card.strip_prefix("---")?.split("\n---").next()?;
        let value = |key: &str| front.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim));
        value("license").filter(|l| !l.is_empty() && *l != "other").or_else(|| value("license_name")).map(str::to_owned)
    }
}

/// The graphs, each in the most exact form there is, the weights beside them, the vocabulary, and what was read.
fn files(dir: &Path) -> Result<Vec<File>, ManifestError> {
    let unreadable = |file: PathBuf| move |source| ManifestError::Read { file, source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.join(GRAPHS)).map_err(unreadable(dir.join(GRAPHS)))?.flatten() {
        names.extend(entry.file_name().to_str().map(|name| format!("{GRAPHS}/{name}")));
    }
    names.sort();
    let mut found = Vec::new();
    for role in ROLES.into_iter().chain([ENCODER]) {
        let graph = Weights::ALL.into_iter().map(|form| form.graph(role)).find(|graph| names.contains(graph));
        let Some(graph) = graph else { continue };
        found.push((role.to_owned(), graph.clone()));
        let data = names.iter().filter(|name| is_data_of(name, &graph));
        found.extend(data.map(|name| (format!("{role}_data"), name.clone())));
    }
    found.push(("vocabulary".to_owned(), VOCABULARY.to_owned()));
    let told = CONFIGURATION.into_iter().filter(|name| dir.join(name).is_file());
    found.extend(told.map(|name| ("configuration".to_owned(), name.to_owned())));
    let entry = |(role, path): (String, String)| {
        let place = dir.join(&path);
        let bytes = fs::metadata(&place).map_err(unreadable(place))?.len();
        Ok(File { role, path: path.into(), bytes, sha256: String::new() })
    };
    found.into_iter().map(entry).collect()
}

//! What can be fetched by a short name, and how a repository is named otherwise.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::HubError;
use crate::types::{
    Method,
    published::{self, LONGEST_NAME, Weights, is_name, is_sha256},
};

/// The catalog's name in a folder of models.
pub const FILE_NAME: &str = "catalog.toml";
const BUILT_IN: &str = include_str!("../../models/catalog.toml");

/// Models that have names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// In the order they are listed.
    #[serde(default, rename = "model")]
    pub models: Vec<Entry>,
}

/// One `[[model]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name here, and its folder's.
    pub name: String,
    /// Which code runs it.
    pub family: String,
    /// The methods it can do, the best first.
    pub methods: Vec<Method>,
    /// `owner/name` on the hub.
    pub repository: String,
    /// Branch, tag or commit.
    #[serde(default = "main")]
    pub revision: String,
    /// Licence of the weights.
    pub licence: String,
    /// About how large it is, in 1 000 000 bytes; the exact size comes from the server.
    pub megabytes: u64,
    /// What it takes to run it, for people.
    pub needs: String,
    /// Which form of each graph's weights; the most exact there is where nothing is said.
    #[serde(default)]
    pub weights: BTreeMap<String, Weights>,
    /// The files, where they are known one by one. Without them they follow from the repository's layout and `weights`.
    #[serde(default)]
    pub files: Vec<Pin>,
}

/// A file that is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Its path in the repository.
    pub path: String,
    /// Its length, if known.
    pub bytes: Option<u64>,
    /// Its SHA-256, if known: then no other content is taken, whatever the server says.
    pub sha256: Option<String>,
}

fn main() -> String {
    "main".to_owned()
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `owner/name`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl Reference {
    /// Reads `owner/name` or `owner/name@revision`.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        Self::new(repository, revision)
    }

    /// A repository at a revision; both become parts of paths and addresses, so neither may climb.
    pub fn new(repository: &str, revision: &str) -> Result<Self, HubError> {
        let wrong = |reason| HubError::Reference { text: format!("{repository}@{revision}"), reason };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && part.chars().all(plain)
                && !part.starts_with('.')
                && !part.contains("..")
        };
        let (owner, name) = repository.split_once('/').ok_or_else(|| wrong("it has no `/`"))?;
        if !word(owner) || !word(name) || repository.contains("--") {
            return Err(wrong("owner and name are letters, digits, `-`, `_` and `.`"));
        }
        if !revision.split('/').all(word) {
            return Err(wrong("the revision is a branch, a tag or a commit"));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// The folder's name for a model that has no other.
    pub fn folder(&self) -> String {
        published::folder(&self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

/// What somebody wants to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The folder it should lie in.
    pub name: String,
    /// Where it comes from.
    pub reference: Reference,
    /// Which form of each graph's weights, by role.
    pub weights: BTreeMap<String, Weights>,
    /// Which form of the graphs that `weights` does not name.
    pub form: Option<Weights>,
    /// Files that are known beforehand; if there are any, they are all.
    pub pins: Vec<Pin>,
    /// How many files the catalog knows of another form than the one that is wanted; they vouch for nothing then.
    pub unpinned: usize,
    /// What the catalog says of its licence.
    pub licence: Option<String>,
    /// What the catalog says it takes.
    pub needs: Option<String>,
}

impl Catalog {
    /// The built-in catalog, after those that lie in `folders`: a name that comes up again is the earlier one's.
    pub fn load(folders: &[PathBuf]) -> Result<Self, HubError> {
        let mut catalog = Self::default();
        for file in folders.iter().map(|folder| folder.join(FILE_NAME)) {
            match fs::read_to_string(&file) {
                Ok(text) => catalog.extend(Self::parse(&text, &file.display().to_string())?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(HubError::file(file, "read", e)),
            }
        }
        catalog.extend(Self::parse(BUILT_IN, "the built-in catalog")?);
        Ok(catalog)
    }

    fn parse(text: &str, place: &str) -> Result<Self, HubError> {
        let wrong = |reason: String| HubError::Catalog { place: place.to_owned(), reason };
        let catalog: Self = toml::from_str(text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        for entry in &catalog.models {
            entry.check().map_err(|reason| wrong(format!("{}: {reason}", entry.name)))?;
        }
        Ok(catalog)
    }

    fn extend(&mut self, later: Self) {
        let new: Vec<_> = later.models.into_iter().filter(|entry| self.find(&entry.name).is_none()).collect();
        self.models.extend(new);
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name)
    }

    /// What `name` means: an entry, or a repository. `form` goes before what the entry says of its graphs.
    pub fn resolve(&self, name: &str, form: Option<Weights>) -> Result<Wanted, HubError> {
        if let Some(entry) = self.find(name) {
            return Ok(Wanted {
                name: entry.name.clone(),
                reference: Reference::new(&entry.repository, &entry.revision)?,
                weights: if form.is_none() { entry.weights.clone() } else { BTreeMap::new() },
                form,
                pins: if form.is_none() { entry.files.clone() } else { Vec::new() },
                unpinned: if form.is_none() { 0 } else { entry.files.len() },
                licence: Some(entry.licence.clone()),
                needs: Some(entry.needs.clone()),
            });
        }
        if !name.contains(['/', '@']) {
            let known: Vec<_> = self.models.iter().map(|entry| entry.name.as_str()).collect();
            return Err(HubError::Unknown { name: name.to_owned(), known: known.join(", ") });
        }
        let reference = Reference::parse(name)?;
        Ok(Wanted {
            name: reference.folder(),
            reference,
            weights: BTreeMap::new(),
            form,
            pins: Vec::new(),
            unpinned: 0,
            licence: None,
            needs: None,
        })
    }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        Reference::new(&self.repository, &self.revision).map_err(|e| e.to_string())?;
        check_name(&self.name)?;
        for pin in &self.files {
            check_path(&pin.path)?;
            if !pin.sha256.iter().all(|text| is_sha256(text)) {
                return Err(format!("{}: sha256 should be 64 lower-case hex digits", pin.path));
            }
        }
        Ok(())
    }
}

/// Whether a model's folder may have this name.
pub fn check_name(name: &str) -> Result<(), String> {
    if !is_name(name) || name.starts_with('.') {
        return Err(format!(
            "the name `{name}` should be 1 to {LONGEST_NAME} ASCII letters, digits, `-`, `_` or `.`, no `.` first"
        ));
    }
    Ok(())
}

/// Whether a path stays inside the folder it is taken relative to.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let inside = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
    if path.is_empty() || path.contains(['\\', '\0']) || !Path::new(path).components().all(inside) {
        return Err(format!("the path `{path}` should lie inside the repository"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalog_is_whole() {
        let catalog = Catalog::load(&[]).unwrap();
        assert!(catalog.models.len() >= 4);
        for entry in &catalog.models {
            let wanted = catalog.resolve(&entry.name, None).unwrap();
            assert!(!entry.methods.is_empty() && !entry.needs.is_empty() && entry.megabytes > 0, "{}", entry.name);
            assert_eq!((wanted.name, wanted.licence), (entry.name.clone(), Some(entry.licence.clone())));
            // Its published exports leave out DeepStack, and are refused when they are loaded.
            assert_ne!(entry.family, "qwen3-vl");
        }
    }

    #[test]
    fn repositories_are_named_in_two_ways_and_never_climb() {
        let good = Reference::parse("some-Owner/model_1.5@refs/pr/3").unwrap();
        assert_eq!((good.repository.as_str(), good.revision.as_str()), ("some-Owner/model_1.5", "refs/pr/3"));
        assert_eq!(
            (Reference::parse("a/b").unwrap().revision, good.folder()),
            ("main".into(), "some-Owner--model_1.5".into())
        );
        for bad in
            ["a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b@", "a/b@../x", "a/b@x y", "a b/c", "a/b@c@d", "a/b%2e"]
        {
            assert!(matches!(Reference::parse(bad), Err(HubError::Reference { .. })), "{bad}");
        }
    }

    #[test]
    fn every_repository_has_a_folder_that_may_be_called_so() {
        let folder = |name: &str| Catalog::default().resolve(&format!("owner/{name}"), None).unwrap().name;
        let long = "n".repeat(90);
        for name in ["n", &long[..57], &long[..58], &long] {
            assert_eq!(check_name(&folder(name)), Ok(()), "{name}");
        }
        assert_eq!(folder(&long[..57]), format!("owner--{}", &long[..57]));
        // `printf 'owner--nnn…' | sha256sum` of the whole name.
        assert_eq!(folder(&long), format!("owner--{}-8a81b584", "n".repeat(48)));
        assert_ne!(folder(&long), folder(&long[..89]));
    }

    #[test]
    fn an_earlier_catalog_goes_before_a_later_one_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |more: &str| {
            format!(
                "[[model]]\nname = \"mine\"\nfamily = \"florence-2\"\nmethods = [\"bins\"]\nrepository = \"me/mine\"\n\
                 licence = \"MIT\"\nmegabytes = 1\nneeds = \"a CPU\"\n{more}"
            )
        };
        let write = |text: &str| fs::write(folder.path().join(FILE_NAME), text).unwrap();
        let load = || Catalog::load(&[folder.path().to_owned(), "/no/such/folder".into()]);
        write(&entry("weights = { vision_encoder = \"fp16\" }\nfiles = [{ path = \"a.onnx\", bytes = 3 }]"));
        let catalog = load().unwrap();
        let own = catalog.resolve("mine", None).unwrap();
        assert_eq!((own.weights["vision_encoder"], own.pins.len()), (Weights::Fp16, 1));
        // Another form is another set of files.
        let other = catalog.resolve("mine", Some(Weights::Q4)).unwrap();
        assert_eq!((other.form, other.weights.len(), other.pins.len()), (Some(Weights::Q4), 0, 0));
        assert_eq!((own.unpinned, other.unpinned), (0, 1));
        assert!(
            matches!(catalog.resolve("yours", None), Err(HubError::Unknown { known, .. }) if known.contains("mine"))
        );
        for (more, wrong) in [
            ("colour = 3", "colour"),
            ("files = [{ path = \"../a\" }]", "../a"),
            ("files = [{ path = \"/a\" }]", "/a"),
            ("files = [{ path = \"a\", sha256 = \"AB\" }]", "64 lower-case"),
            ("revision = \"..\"", "revision"),
        ] {
            write(&entry(more));
            let error = load().unwrap_err().to_string();
            assert!(error.contains(FILE_NAME) && error.contains(wrong), "{error}");
        }
    }
}

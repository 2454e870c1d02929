//! A model's folder: `model.toml` and the files it vouches for. Knows no runtime and no model family.

use std::{
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::types::{
    Canvases, Method, Size,
    published::{LONGEST_NAME, is_name, is_sha256},
};

mod heads;
mod json;
pub mod published;
mod tables;

pub use heads::{Activation, Aux, Contrast, Grounding, Head, Order, Proposer, Regions, Selection, TextInput};
pub use tables::{Channels, Coordinates, Decoder, File, Fit, Input, Positions, Resample, Scores, Sizes, Tokens};

/// The manifest's name in a model's folder.
pub const FILE_NAME: &str = "model.toml";

/// What a model's folder says of itself, checked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name in messages: ASCII letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Version, for people.
    pub version: String,
    /// Which code in `ground::models` runs it.
    pub family: String,
    /// The methods it can do, the best first.
    pub methods: Vec<Method>,
    /// Licence of the weights.
    pub licence: String,
    /// Where the weights come from.
    pub provenance: String,
    /// What frames must look like.
    pub input: Input,
    /// What its language model is shown, where that is another picture of the frame than its boxes lie in.
    pub look: Option<Input>,
    /// Its sizes.
    pub limits: Sizes,
    /// Its thresholds, where it has scores that were tuned.
    pub scores: Option<Scores>,
    /// Its language model, where it writes its answers.
    pub decoder: Option<Decoder>,
    /// Its classes, where it has some of its own.
    pub head: Option<Head>,
    /// How it reads a text, where it reads it as a whole.
    pub text: Option<TextInput>,
    /// What offers it regions, where it takes those of another model.
    pub proposer: Option<Proposer>,
    /// How likeness becomes a score, where it compares pictures with texts.
    pub contrast: Option<Contrast>,
    /// How it is shown the regions it chooses among, where it names them in words.
    pub regions: Option<Regions>,
    /// What its second vision tower sees, where it has one.
    pub aux: Option<Aux>,
    /// How phrases of an answer become boxes, where a head finds them.
    pub grounding: Option<Grounding>,
    /// How words become numbers, where they do.
    #[serde(default)]
    pub tokens: Tokens,
    /// Every file it needs; the order matters for [`Manifest::hash8`].
    pub files: Vec<File>,
    /// The folder it was read from.
    #[serde(skip)]
    pub dir: PathBuf,
    /// How many times the pixels of its canvases pictures get; the usual ones unless configured.
    #[serde(skip)]
    pub detail: Option<f32>,
}

/// Why a model's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("{}: cannot be read; check that this user may read it; a model that was pulled, `groundd models pull` fetches \
             anew", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest cannot be written.
    #[error("{}: cannot be written", .file.display())]
    Write {
        /// The manifest.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest is not what a manifest should be; the message has line and column.
    #[error("{}: {reason}", .file.display())]
    Syntax {
        /// The manifest.
        file: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// A value makes no sense.
    #[error("{}: {key}: {reason}", .file.display())]
    Value {
        /// The manifest.
        file: PathBuf,
        /// The key, as in `limits.regions`.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A file's content is not what the manifest vouches for.
    #[error(
        "{}: {what} should be {expected} and is {found}; the file is damaged or of another version: install groundd's package, or \
         check out its sources, anew for a model that comes with it; `groundd models pull` fetches others", .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// `its length` or `its SHA-256`.
        what: &'static str,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
}

impl Manifest {
    /// Whether `dir` is a model's folder: one with a manifest, or one whose manifest can be derived.
    pub fn is_in(dir: &Path) -> bool {
        // One that may not be looked into is told of when it is read, rather than missed.
        let hidden =
            |file: &Path| file.try_exists().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let manifest = dir.join(FILE_NAME);
        manifest.is_file() || hidden(&manifest) || published::is_one(dir)
    }

    /// Reads and checks the manifest in `dir`, without touching the files it lists. A folder without one that is laid out as
    /// published for transformers.js gets one derived.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let file = dir.join(FILE_NAME);
        if !file.is_file() && published::is_one(dir) {
            return published::derive(dir);
        }
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(source) => return Err(ManifestError::Read { file, source }),
        };
        let parsed: Result<Self, _> = toml::from_str(&text);
        match parsed {
            Ok(manifest) => Self { dir: dir.to_owned(), ..manifest }.checked(&file),
            Err(e) => Err(ManifestError::Syntax { file, reason: e.to_string().trim_end().to_owned() }),
        }
    }

    /// Itself, if it makes sense; otherwise an error that names the `file` it was read from.
    fn checked(self, file: &Path) -> Result<Self, ManifestError> {
        match self.check() {
            Ok(()) => Ok(self),
            Err((key, reason)) => Err(ManifestError::Value { file: file.to_owned(), key, reason }),
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        let complain = |key: &str, reason: &str| Err((key.to_owned(), reason.to_owned()));
        if !is_name(&self.name) {
            return complain("name", &format!("should be 1 to {LONGEST_NAME} ASCII letters, digits, `-`, `_` or `.`"));
        }
        if self.methods.is_empty() || self.methods.contains(&Method::Auto) {
            return complain("methods", "should name at least one of retrieve, zoom, coords, bins, detector");
        }
        for (key, value, most) in self.counts() {
            if !(1..=most).contains(&value) {
                return complain(key, &format!("is {value}; should be 1 to {most}"));
            }
        }
        let scores = self.scores.iter().flat_map(|s| {
            let own = [("objectness", s.objectness), ("match", s.matching), ("nms_iou", s.nms_iou)];
            let more = [("detector", s.detector), ("write", s.write), ("exist", s.exist)];
            own.into_iter().chain(more.into_iter().filter_map(|(key, value)| Some((key, value?))))
        });
        for (key, value) in scores {
            let key = &format!("scores.{key}");
            if !(0.0..=1.0).contains(&value) {
                return complain(key, &format!("is {value}; should be 0 to 1"));
            }
        }
        if !self.input.shapes.is_empty() && self.input.fit != Fit::Letterbox {
            return complain("input.shapes", "has a use with fit = \"letterbox\" only; take it out");
        }
        self.files.iter().enumerate().try_for_each(|(i, file)| self.check_file(i, file))?;
        let names = self.head.is_some() && self.tokens.vocabulary.as_os_str().is_empty();
        if !names && !self.files.iter().any(|f| f.path == self.tokens.vocabulary) {
            return complain("tokens.vocabulary", "should be the path of one of the [[files]]");
        }
        Ok(())
    }

    /// The numbers that must be given, or are, by key, and their largest values: what is as large as a file says is made
    /// that large. Models that write their answers have other sizes than those that choose among regions.
    fn counts(&self) -> Vec<(&'static str, usize, usize)> {
        let mut counts = vec![("limits.max_batch", self.limits.max_batch, 256)];
        if let Some(text) = &self.text {
            counts.push(("text.length", text.length, 4096));
        }
        if let Some(proposer) = &self.proposer {
            counts.push(("proposer.regions", proposer.regions, 4096));
        }
        if let Some(contrast) = &self.contrast {
            counts.push(("contrast.batch", contrast.batch, 1024));
        }
        if let Some(regions) = &self.regions {
            counts.push(("regions.prompt", regions.prompt, 100));
            counts.push(("regions.queries", regions.queries, 64));
        }
        if let Some(look) = &self.look {
            counts.push(("look.width", look.width as usize, 8192));
            counts.push(("look.height", look.height as usize, 8192));
        }
        if let Some(grounding) = &self.grounding {
            counts.push(("grounding.boxes", grounding.boxes, 4096));
        }
        if self.input.fit != Fit::Patches {
            counts.push(("input.width", self.input.width as usize, 8192));
            counts.push(("input.height", self.input.height as usize, 8192));
        }
        counts.extend(self.input.shapes.iter().flatten().map(|side| ("input.shapes", *side as usize, 8192)));
        if self.input.fit == Fit::Letterbox {
            counts.push(("limits.regions", self.limits.regions, 4096));
            counts.push(("limits.query_tokens", self.limits.query_tokens, 4096));
        }
        let Sizes { context, image_tokens, answer_tokens, boxes, rows, .. } = self.limits;
        let written = [("limits.context", context, 1 << 20), ("limits.image_tokens", image_tokens, 1 << 18)];
        counts.extend(written.into_iter().filter(|(_, value, _)| *value != 0 || self.decoder.is_some()));
        // These have a value unless they are given another: 0 was meant, and would leave no answer.
        counts.extend([
            ("limits.answer_tokens", answer_tokens, 1 << 16),
            ("limits.boxes", boxes, 4096),
            ("limits.rows", rows, 256),
        ]);
        let Tokens { location_count, segment_count, .. } = self.tokens;
        let ranges = [("tokens.location_count", location_count), ("tokens.segment_count", segment_count)];
        counts.extend(ranges.into_iter().filter_map(|(key, count)| Some((key, count? as usize, 1 << 16))));
        counts
    }

    fn check_file(&self, at: usize, file: &File) -> Result<(), (String, String)> {
        let complain = |key: &str, reason: String| Err((format!("files[{at}].{key}"), reason));
        let inside = |c: Component<'_>| matches!(c, Component::Normal(_));
        if file.path.as_os_str().is_empty() || !file.path.components().all(inside) {
            return complain("path", format!("`{}` should lie inside the model's folder", file.path.display()));
        }
        if self.files[..at].iter().any(|earlier| earlier.path == file.path) {
            return complain("path", format!("`{}` is listed twice", file.path.display()));
        }
        let derived = self.is_derived() && file.sha256.is_empty();
        if !derived && !is_sha256(&file.sha256) {
            return complain("sha256", "should be 64 lower-case hex digits".to_owned());
        }
        Ok(())
    }

    /// Where the manifest lies, or what it was derived from.
    pub fn path(&self) -> PathBuf {
        self.dir.join(if self.is_derived() { published_name() } else { FILE_NAME })
    }

    /// Whether there is no `model.toml`, so that nothing vouches for the files.
    pub fn is_derived(&self) -> bool {
        !self.dir.join(FILE_NAME).is_file()
    }

    /// Computes the hashes of a derived manifest. `progress` is told the bytes of each piece as it was read.
    pub fn seal(&mut self, mut progress: impl FnMut(u64)) -> Result<(), ManifestError> {
        for file in &mut self.files {
            file.sha256 = digest_of(&self.dir.join(&file.path), &mut progress)?;
        }
        Ok(())
    }

    /// The usual canvas, without more or less detail. A model that takes pictures of any size gets the full one; its canvas, of
    /// the shape most cameras have, is what the daemon itself looks at.
    pub fn canvas(&self) -> Size {
        if self.input.fit != Fit::Patches {
            return Size::new(self.input.width, self.input.height);
        }
        let most = self.input.max_pixels.unwrap_or(u64::MAX).min(960 * 540);
        let step = (most / (16 * 9)).isqrt().max(2) & !1;
        let side = |n: u64| u32::try_from(step * n).unwrap_or(u32::MAX);
        Size::new(side(16), side(9))
    }

    /// The canvases frames may be scaled to.
    pub fn canvases(&self) -> Canvases {
        let shapes = self.input.shapes.iter().map(|[width, height]| Size::new(*width, *height));
        let canvases = Canvases::new(self.canvas(), shapes);
        match self.detail {
            Some(detail) => canvases.with_detail(detail),
            None => canvases,
        }
    }

    /// Where the only file with `role` lies; `None` if there is none or more than one.
    pub fn file(&self, role: &str) -> Option<PathBuf> {
        let mut with_role = self.files.iter().filter(|f| f.role == role);
        let only = with_role.next()?;
        with_role.next().is_none().then(|| self.dir.join(&only.path))
    }

    /// Length of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Reads every file and compares length and hash. `progress` is told the bytes of each piece as it was read.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), ManifestError> {
        self.files.iter().try_for_each(|file| verify_file(&self.dir.join(&file.path), file, &mut progress))
    }

    /// First 8 hex digits of the SHA-256 over the files' `sha256` texts, one after the other in the manifest's order.
    pub fn hash8(&self) -> String {
        Self::hash8_of(&[self])
    }

    /// The same over several folders' files, for a model that another one works for.
    pub fn hash8_of(manifests: &[&Self]) -> String {
        let mut hasher = Sha256::new();
        manifests.iter().flat_map(|m| &m.files).for_each(|f| hasher.update(&f.sha256));
        HEXLOWER.encode(&hasher.finalize()[..4])
    }
}

fn verify_file(path: &Path, file: &File, progress: &mut impl FnMut(u64)) -> Result<(), ManifestError> {
    let unreadable = |source| ManifestError::Read { file: path.to_owned(), source };
    let damaged =
        |what, expected: String, found| ManifestError::Damaged { file: path.to_owned(), what, expected, found };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length != file.bytes {
        return Err(damaged("its length", format!("{} bytes", file.bytes), format!("{length} bytes")));
    }
    match digest_of(path, progress)? {
        found if found == file.sha256 => Ok(()),
        found => Err(damaged("its SHA-256", file.sha256.clone(), found)),
    }
}

/// The SHA-256 of a file, in hex. `progress` is told the bytes of each piece as it was read.
pub(super) fn digest_of(path: &Path, progress: &mut impl FnMut(u64)) -> Result<String, ManifestError> {
    let unreadable = |source| ManifestError::Read { file: path.to_owned(), source };
    let mut reader = fs::File::open(path).map_err(unreadable)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match reader.read(&mut piece).map_err(unreadable)? {
            0 => return Ok(HEXLOWER.encode(&hasher.finalize())),
            n => {
                hasher.update(&piece[..n]);
                progress(n as u64);
            }
        }
    }
}

/// What stands for the manifest of a folder without one.
fn published_name() -> &'static str {
    crate::types::published::CONFIGURATION[0]
}

/// Every model's folder directly inside `folders`, sorted within each. A hidden one is a model in the making.
pub fn list(folders: &[PathBuf]) -> Vec<(PathBuf, Result<Manifest, ManifestError>)> {
    let mut found = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let hidden = |dir: &Path| dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let mut dirs: Vec<_> = entries.filter(|dir| !hidden(dir) && Manifest::is_in(dir)).collect();
        dirs.sort();
        found.extend(dirs);
    }
    found.into_iter().map(|dir| (dir.clone(), Manifest::load(&dir))).collect()
}

#[cfg(test)]
mod tests;

//! The tiny model, and pictures that say what it should answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use groundd::{
    ground::{self, GroundError, Grounder, ModelConfig},
    types::{
        Answer, Batch, CameraId, Canvas, Capture, Clock, Frame, FullFrame, Job, Ledger, Letterbox, Method, Query,
        QueryId, Rgb, Size, Worth,
    },
};

/// The tiny model's canvas: a source of twice that size, so that boxes show whether they were mapped.
pub(crate) const CANVAS: Size = Size { width: 16, height: 8 };

/// The folder with the tiny model.
pub(crate) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny")
}

/// A copy of the tiny model that a test may spoil.
pub(crate) fn copy_of_tiny() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Replaces `from`, which must be there, in the model's manifest.
pub(crate) fn edit_manifest(dir: &Path, from: &str, to: &str) {
    let file = dir.join("model.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from:?} is not in the manifest");
    fs::write(&file, text.replace(from, to)).unwrap();
}

/// Puts `content` in the place of `name` and makes the manifest vouch for it.
pub(crate) fn replace_file(dir: &Path, name: &str, content: &[u8]) {
    use sha2::{Digest, Sha256};
    let entry = |content: &[u8]| {
        let hash = Sha256::digest(content).iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        format!("path = \"{name}\"\nbytes = {}\nsha256 = \"{hash}\"", content.len())
    };
    let file = dir.join(name);
    edit_manifest(dir, &entry(&fs::read(&file).unwrap()), &entry(content));
    fs::write(&file, content).unwrap();
}

/// A configuration for the model in `dir`, on one thread.
pub(crate) fn config(dir: &Path) -> ModelConfig {
    ModelConfig { path: dir.to_owned(), threads: 1, ..ModelConfig::default() }
}

/// Loads the model in `dir`; a failure shows the message a user would see.
pub(crate) fn load(dir: &Path) -> Box<dyn Grounder> {
    ground::load(&config(dir), &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// The error that loading the model in `dir` ends with.
pub(crate) fn load_error(dir: &Path) -> GroundError {
    ground::load(&config(dir), &[]).map(|g| g.describe()).expect_err("the model was loaded")
}

/// One region as the tiny model reads it from the picture: each value is a byte, a 255th.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Region {
    pub(crate) corners: [u8; 4],
    pub(crate) objectness: u8,
    pub(crate) brightness: u8,
}

/// The picture that holds up to four regions.
pub(crate) fn picture(regions: &[Region]) -> Rgb {
    let mut pixels = vec![0; CANVAS.area() * 3];
    for (k, region) in regions.iter().enumerate() {
        let [x1, y1, x2, y2] = region.corners;
        let row = k * CANVAS.width as usize * 3;
        pixels[row..row + 6].copy_from_slice(&[x1, y1, x2, y2, region.objectness, region.brightness]);
    }
    Rgb::new(CANVAS, pixels).unwrap()
}

/// A frame of `ledger` with that picture, from a source of 32x16 pixels.
pub(crate) fn frame(ledger: &Arc<Ledger>, canvas: Rgb) -> Arc<Frame> {
    let view = Letterbox::fit(Size::new(32, 16), 1.0, canvas.size);
    frame_of("cam0", ledger, (view, canvas), None)
}

/// A frame of a camera, with the picture on its canvas and perhaps the full one.
pub(crate) fn frame_of(
    camera: &str,
    ledger: &Arc<Ledger>,
    (view, canvas): (Letterbox, impl Into<Canvas>),
    full: Option<Arc<dyn FullFrame>>,
) -> Arc<Frame> {
    Arc::new(Frame {
        camera: CameraId::new(camera).unwrap(),
        origin: 0,
        seq: 0,
        capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
        pts: Duration::ZERO,
        decoded_at: Instant::now(),
        decode_time: Duration::ZERO,
        view,
        canvas: canvas.into(),
        full,
        ticket: ledger.open(),
    })
}

/// A query for `text`.
pub(crate) fn query(text: &str) -> Arc<Query> {
    let id = QueryId::new("q").unwrap();
    Arc::new(Query {
        id,
        rev: 1,
        text: text.to_owned(),
        cameras: None,
        method: Method::Auto,
        threshold: None,
        worth: Worth::default(),
    })
}

/// A job with a query for each text.
pub(crate) fn job(ledger: &Arc<Ledger>, regions: &[Region], texts: &[&str]) -> Job {
    Job { frame: frame(ledger, picture(regions)), queries: texts.iter().map(|t| query(t)).collect() }
}

/// A batch, cut now.
pub(crate) fn batch(jobs: Vec<Job>) -> Batch {
    Batch { jobs }
}

/// The boxes and scores of an answer that must be `Ok`.
pub(crate) fn found(answer: &Answer) -> Vec<([f32; 4], f32)> {
    assert_eq!(answer.status, groundd::types::Status::Ok);
    answer.matches.iter().map(|m| (m.bbox.corners(), m.score)).collect()
}

//! What can be wrong with a model's folder.

use std::{fs, process::Command};

use groundd::ground::{
    self, GroundError,
    manifest::{self, Manifest, ManifestError},
};

use crate::support::ground::*;

#[test]
fn a_missing_model_names_every_place() {
    let mut config = config(&tiny());
    config.path = "nosuch".into();
    let error = ground::load(&config, &["/one".into(), "/two".into()]).map(|g| g.describe()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`/one/nosuch`, `/two/nosuch` and `nosuch`"), "{text}");
}

#[test]
fn a_manifest_with_a_mistake_says_where() {
    for (from, to, expected) in [
        ("width = 16", "width = \"16\"", "line 9"),
        ("width = 16", "widht = 16", "widht"),
        ("fit = \"letterbox\"", "fit = \"squash\"", "squash"),
        ("width = 16", "width = 0", "input.width: is 0; should be 1 to 8192"),
        ("match = 0.50", "match = 1.50", "scores.match: is 1.5; should be 0 to 1"),
        ("match = 0.50", "match = nan", "scores.match: is NaN"),
        ("methods = [\"retrieve\"]", "methods = []", "methods: should name"),
        ("methods = [\"retrieve\"]", "methods = [\"auto\"]", "methods: should name"),
        (
            "methods = [\"retrieve\"]",
            "methods = [\"retrieve\", \"detector\"]",
            "exactly one file with role = \"detect\"",
        ),
        ("nms_iou = 0.60", "nms_iou = 0.60\nexist = 1.2", "scores.exist: is 1.2"),
        ("name = \"tiny\"", "name = \"a/b\"", "name: should be"),
        ("path = \"text.onnx\"", "path = \"../text.onnx\"", "files[1].path: `../text.onnx` should lie inside"),
        ("path = \"text.onnx\"", "path = \"/text.onnx\"", "inside the model's folder"),
        ("path = \"text.onnx\"", "path = \"vision.onnx\"", "files[1].path: `vision.onnx` is listed twice"),
        ("vocabulary = \"vocab.json\"", "vocabulary = \"other.json\"", "tokens.vocabulary"),
        // What a file says is so large would be made so large.
        (
            "[tokens]",
            "[tokens]\nlocation_first = 5\nlocation_count = 4294967290",
            "tokens.location_count: is 4294967290",
        ),
        ("[tokens]", "[tokens]\nsegment_first = 5\nsegment_count = 65537", "tokens.segment_count: is 65537"),
        ("max_batch = 8", "max_batch = 8\ncontext = 9223372036854775807", "limits.context: is 9223372036854775807"),
        ("max_batch = 8", "max_batch = 8\nimage_tokens = 262145", "limits.image_tokens: is 262145"),
        ("role = \"select\"", "role = \"selcet\"", "exactly one file with role = \"select\""),
        ("family = \"nano\"", "family = \"nona\"", "family `nona` is unknown; this build runs: nano"),
    ] {
        let dir = copy_of_tiny();
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected) && text.contains("model.toml"), "{to}: {text}");
    }
}

#[test]
fn damaged_and_missing_files_are_found_before_they_are_used() {
    let dir = copy_of_tiny();
    let vision = dir.path().join("vision.onnx");
    let mut bytes = fs::read(&vision).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&vision, &bytes).unwrap();
    let text = load_error(dir.path()).to_string();
    assert!(text.contains("vision.onnx: its SHA-256 should be") && text.contains("models pull"), "{text}");
    fs::write(&vision, &bytes[..middle]).unwrap();
    let text = load_error(dir.path()).to_string();
    assert!(text.contains(&format!("its length should be {} bytes and is {middle} bytes", bytes.len())), "{text}");
    fs::remove_file(&vision).unwrap();
    let error = load_error(dir.path());
    assert!(matches!(&error, GroundError::Manifest(ManifestError::Read { file, .. }) if *file == vision), "{error}");
}

#[test]
fn verification_reads_every_byte_and_the_hash_stands_for_all_files() {
    let manifest = Manifest::load(&tiny()).unwrap();
    let mut read = 0;
    manifest.verify(|bytes| read += bytes).unwrap();
    assert_eq!(read, manifest.bytes());
    // As a shell would: grep sha256 model.toml | cut -d'"' -f2 | tr -d '\n' | sha256sum
    let listed: String = manifest.files.iter().map(|f| f.sha256.clone()).collect();
    let hash = Command::new("sh").args(["-c", &format!("printf %s {listed} | sha256sum")]).output().unwrap();
    assert!(String::from_utf8(hash.stdout).unwrap().starts_with(&manifest.hash8()));
}

#[test]
fn models_are_listed_with_their_faults() {
    let parent = tempfile::tempdir().unwrap();
    for name in ["b", "a", "nothing"] {
        fs::create_dir(parent.path().join(name)).unwrap();
    }
    fs::copy(tiny().join("model.toml"), parent.path().join("b/model.toml")).unwrap();
    fs::write(parent.path().join("a/model.toml"), "name =").unwrap();
    let listed = manifest::list(&[parent.path().to_owned(), "/nowhere".into()]);
    let dirs: Vec<_> = listed.iter().map(|(dir, _)| dir.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(dirs, ["a", "b"]);
    assert!(matches!(&listed[0].1, Err(ManifestError::Syntax { .. })));
    assert_eq!(listed[1].1.as_ref().unwrap().name, "tiny");
}

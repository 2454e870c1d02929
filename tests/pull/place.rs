//! The model's place: what is already there, what a killed pull left beside it, and what is said of what is in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CONFIG, Scene, UNAVAILABLE, USAGE, catalog, fails, said};
use crate::support::{
    ground::tiny,
    hub::{COMMITS, REPOSITORY},
    process::finish,
};

/// The content of one of the repository's files, in the cache.
fn blob(scene: &Scene, path: &str) -> PathBuf {
    fs::canonicalize(scene.cache().join("snapshots").join(COMMITS[0]).join(path)).unwrap()
}

#[test]
fn a_folder_of_somebody_s_own_is_never_replaced() {
    let scene = Scene::small();
    let place = scene.place();
    fs::create_dir_all(&place).unwrap();
    fs::copy(tiny().join("model.toml"), place.join("model.toml")).unwrap();
    fs::write(place.join("notes.txt"), "a winter's work").unwrap();
    let words = [place.to_str().unwrap(), "made by make.py", "Move it away", "--into"];
    fails(scene.pull(&[REPOSITORY, "--yes"]), USAGE, &words);
    fs::remove_file(place.join("model.toml")).unwrap();
    fails(scene.pull(&[REPOSITORY, "--yes"]), USAGE, &["nothing in it says where it came from"]);
    assert!(scene.hub.asked().is_empty(), "that is said before anything is asked");
    assert_eq!(fs::read_to_string(place.join("notes.txt")).unwrap(), "a winter's work");
    // Elsewhere it goes, and into an empty folder.
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("somebody--model")).unwrap();
    let pulled = finish(&mut scene.pull(&[REPOSITORY, "--yes", "--into", elsewhere.to_str().unwrap()]));
    assert!(pulled.status.success() && elsewhere.join("somebody--model/model.toml").is_file());
}

#[test]
fn a_model_of_another_repository_is_not_replaced() {
    let scene = Scene::small();
    catalog(&scene, "");
    assert!(finish(&mut scene.pull(&["mine", "--yes"])).status.success());
    let path = scene.models().join("catalog.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(REPOSITORY, "somebody/else")).unwrap();
    fails(scene.pull(&["mine", "--yes"]), USAGE, &["models/mine", "it came from somebody/model", "somebody/else"]);
    assert!(scene.models().join("mine/model.toml").is_file());
}

#[test]
fn what_was_changed_since_it_was_pulled_is_not_lost_without_a_word() {
    let scene = Scene::small();
    scene.pull_all();
    let manifest = scene.place().join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    // As an editor does it; written in place it would change what the cache has, too.
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, text.replace("version = \"1\"", "version = \"my own\"")).unwrap();
    let sent = scene.hub.sent();
    fails(scene.pull(&[REPOSITORY]), USAGE, &["replaces", "model.toml is not as it was pulled", "--yes"]);
    assert!(fs::read_to_string(&manifest).unwrap().contains("my own"));
    let output = scene.pull_all();
    assert!(said(&output).contains("replaces"), "{}", said(&output));
    assert_eq!(fs::read_to_string(&manifest).unwrap(), text);
    assert_eq!(scene.hub.sent(), sent);
    // What is as it was pulled is replaced as a matter of course.
    let output = finish(&mut scene.pull(&[REPOSITORY]));
    assert!(output.status.success() && !said(&output).contains("replaces"), "{}", said(&output));
}

#[test]
fn what_a_killed_pull_left_is_removed_by_the_next() {
    let scene = Scene::small();
    let left = |name: &str| {
        let folder = scene.models().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vision.onnx"), "gigabytes").unwrap();
        folder
    };
    let dead = left(".somebody--model.pulling-aB3dE6");
    let kept =
        [left(".somebody--model.pulling-aB3dE7"), left(".somebody--model.backup"), left(".other.pulling-aB3dE6")];
    // As one that is alive holds its own.
    let alive = fs::File::open(&kept[0]).unwrap();
    alive.lock().unwrap();
    scene.pull_all();
    assert!(!dead.exists());
    for folder in &kept {
        assert!(folder.join("vision.onnx").is_file(), "{}", folder.display());
    }
    drop(alive);
    scene.pull_all();
    assert!(!kept[0].exists() && kept[1].exists() && kept[2].exists());
}

#[test]
fn without_a_network_content_and_pins_are_compared_all_the_same() {
    let scene = Scene::small();
    scene.pull_all();
    fs::remove_dir_all(scene.place()).unwrap();
    let offline = |name: &str| {
        let mut command = scene.pull(&[name, "--yes"]);
        command.env("HF_HUB_OFFLINE", "1");
        command
    };
    // What goes by its SHA-256, what goes by git's hash, and a length.
    let other = "0".repeat(64);
    for (pin, words) in [
        (format!("{{ path = \"vision.onnx\", sha256 = \"{other}\" }}"), ["vision.onnx", "SHA-256"]),
        (format!("{{ path = \"vocab.json\", sha256 = \"{other}\" }}"), ["vocab.json", "SHA-256"]),
        ("{ path = \"vocab.json\", bytes = 5 }".to_owned(), ["vocab.json", "length"]),
    ] {
        catalog(&scene, &pin);
        fails(offline("mine"), CONFIG, &[&words[..], &["the cache offers", "not the file that was reviewed"]].concat());
    }
    assert!(!scene.models().join("mine").exists());
    // A byte that is wrong, in either kind of file.
    for path in ["vision.onnx", "vocab.json"] {
        let blob = blob(&scene, path);
        let bytes = fs::read(&blob).unwrap();
        let mut bent = bytes.clone();
        bent[7] ^= 1;
        fs::write(&blob, bent).unwrap();
        let hash = blob.file_name().unwrap().to_str().unwrap();
        fails(offline(REPOSITORY), UNAVAILABLE, &[path, hash, "HF_HUB_OFFLINE", "pull once"]);
        assert!(!scene.place().exists());
        fs::write(&blob, bytes).unwrap();
    }
    assert!(finish(&mut offline(REPOSITORY)).status.success());
}

#[test]
fn other_weights_than_the_catalog_s_are_not_vouched_for_and_that_is_said() {
    let scene = Scene::small();
    catalog(&scene, &format!("{{ path = \"vision.onnx\", sha256 = \"{}\" }}", "0".repeat(64)));
    let output = finish(&mut scene.pull(&["mine", "--yes", "--weights", "fp16"]));
    assert!(output.status.success() && said(&output).contains("hashes of 1 files"), "{}", said(&output));
}

fn list(scene: &Scene, models: &Path) -> String {
    said(&finish(scene.groundd().args(["models", "list"]).env("GROUNDD_MODELS", models)))
}

#[test]
fn why_a_model_is_unusable_is_said_to_the_end() {
    let scene = Scene::small();
    let broken = scene.models().join("broken");
    fs::create_dir_all(broken.join("onnx")).unwrap();
    fs::write(broken.join("config.json"), "{\"model_type\":\"qwen2_vl\"}").unwrap();
    let text = list(&scene, &scene.models());
    assert!(text.contains("unusable") && text.contains("No such file"), "{text}");
}

#[test]
fn a_mistyped_folder_of_models_is_named() {
    let scene = Scene::small();
    let text = list(&scene, Path::new("/no/such/modles"));
    assert!(text.contains("/no/such/modles") && text.contains("GROUNDD_MODELS"), "{text}");
}

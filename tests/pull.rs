//! `groundd models pull` against a hub on this machine: every way a fetch can go wrong ends with its exit code, a word of what
//! to do, and no half of a model.

mod consent;
mod place;
mod transfer;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use sha2::{Digest, Sha256};

use crate::support::{
    ground::tiny,
    h264,
    hub::{COMMITS, Hub, REPOSITORY, etag, hex},
    process::{fails, finish, groundd},
    vlm::{model_dir, published},
};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;
const LARGE: &str = "decoder_model_merged.onnx";

/// A hub, and a place of one's own for cache and models.
struct Scene {
    hub: Hub,
    folder: tempfile::TempDir,
}

impl Scene {
    /// The hub has the tiny model, a few kB in six files.
    fn small() -> Self {
        Self::of(&tiny())
    }

    /// The hub has a model with a file of some hundred kB.
    fn large() -> Self {
        Self::of(&model_dir("florence-2"))
    }

    fn of(folder: &Path) -> Self {
        Self { hub: Hub::of(folder), folder: tempfile::tempdir().unwrap() }
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("home/hub/models--somebody--model")
    }

    /// groundd with an environment of its own.
    fn groundd(&self) -> Command {
        let mut command = groundd();
        for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(name);
        }
        command
            .env("HF_ENDPOINT", &self.hub.endpoint)
            .env("HF_HOME", self.folder.path().join("home"))
            .env("GROUNDD_MODELS", self.models())
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(self.folder.path());
        command
    }

    fn pull(&self, arguments: &[&str]) -> Command {
        let mut command = self.groundd();
        command.args(["models", "pull"]).args(arguments);
        command
    }

    fn pull_all(&self) -> Output {
        let output = finish(&mut self.pull(&[REPOSITORY, "--yes"]));
        assert!(output.status.success(), "{}", said(&output));
        output
    }

    fn place(&self) -> PathBuf {
        self.models().join("somebody--model")
    }

    /// Nothing is in the folder of models, not even hidden, and nothing is listed.
    #[track_caller]
    fn assert_no_model(&self) {
        let left: Vec<_> = fs::read_dir(self.models()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn partial(&self, path: &str) -> PathBuf {
        let content = fs::read(model_dir("florence-2").join(path)).unwrap();
        self.cache().join(format!("blobs/{}.incomplete", etag(path, &content)))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[test]
fn a_model_is_fetched_once_and_found_by_every_command() {
    let scene = Scene::small();
    let output = scene.pull_all();
    assert!(said(&output).contains("cc-by-4.0") && said(&output).contains(&COMMITS[0][..8]), "{}", said(&output));
    let run = |arguments: &[&str]| {
        let output = finish(scene.groundd().args(arguments));
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    };
    assert!(run(&["models", "list"]).contains("models/somebody--model"));
    assert!(run(&["models", "info", "somebody--model"]).contains("tiny"));
    assert!(run(&["models", "verify", REPOSITORY]).contains("all as their SHA-256 says"));
    // Others read it too, and the cache is laid out as others expect.
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&scene.place()), mode(&scene.place().join("vision.onnx"))), (0o755, 0o644));
    let snapshot = scene.cache().join("snapshots").join(COMMITS[0]).join("vision.onnx");
    assert_eq!(fs::read(&snapshot).unwrap(), fs::read(tiny().join("vision.onnx")).unwrap());
    assert!(fs::read_link(&snapshot).unwrap().starts_with("../../blobs"));
    assert_eq!(fs::read_to_string(scene.cache().join("refs/main")).unwrap(), COMMITS[0]);
    // Again: nothing is transferred, nobody has to agree.
    let sent = scene.hub.sent();
    assert!(finish(&mut scene.pull(&[REPOSITORY])).status.success());
    assert_eq!(scene.hub.sent(), sent);
}

#[test]
fn an_export_published_for_transformers_js_runs_as_pulled() {
    let scene = Scene::of(published("florence-2").path());
    scene.pull_all();
    assert!(fs::read_to_string(scene.place().join("model.toml")).unwrap().contains(COMMITS[0]));
    let verified = finish(scene.groundd().args(["models", "verify", REPOSITORY]));
    assert!(verified.status.success(), "{}", said(&verified));
    let film = scene.folder.path().join("film.mp4");
    h264(&film, "160x90", 5, 2);
    let mut command = scene.groundd();
    command.arg("watch").arg(&film).args(["--query", "person", "--every-frame", "--model", "somebody--model"]);
    let output = finish(&mut command);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"status\":\"ok\""), "{}", said(&output));
}

fn catalog(scene: &Scene, files: &str) {
    fs::create_dir_all(scene.models()).unwrap();
    let text = format!(
        "[[model]]\nname = \"mine\"\nfamily = \"nano\"\nmethods = [\"retrieve\"]\nrepository = \"{REPOSITORY}\"\n\
         licence = \"house rules\"\nmegabytes = 1\nneeds = \"a CPU\"\nfiles = [{files}]\n"
    );
    fs::write(scene.models().join("catalog.toml"), text).unwrap();
}

#[test]
fn the_catalog_s_hashes_are_the_last_word() {
    let scene = Scene::small();
    let pin = |name: &str, spoiled: bool| {
        let mut hash = hex(&Sha256::digest(fs::read(tiny().join(name)).unwrap()));
        if spoiled {
            hash.replace_range(..1, if hash.starts_with('0') { "1" } else { "0" });
        }
        format!("{{ path = \"{name}\", sha256 = \"{hash}\" }}")
    };
    let names = ["model.toml", "vision.onnx", "text.onnx", "select.onnx", "vocab.json"];
    // One that the server names by the same hash, and one that it names by another.
    for spoiled in ["vision.onnx", "vocab.json"] {
        let files: Vec<_> = names.iter().map(|name| pin(name, *name == spoiled)).collect();
        catalog(&scene, &files.join(", "));
        fails(scene.pull(&["mine", "--yes"]), CONFIG, &[spoiled, "SHA-256", "not the file that was reviewed"]);
        assert!(!scene.models().join("mine").exists());
    }
    catalog(&scene, "{ path = \"vision.onnx\", bytes = 5 }");
    fails(scene.pull(&["mine", "--yes"]), CONFIG, &["vision.onnx", "length"]);
    let files: Vec<_> = names.iter().map(|name| pin(name, false)).collect();
    catalog(&scene, &files.join(", "));
    let pulled = finish(&mut scene.pull(&["mine", "--yes"]));
    assert!(pulled.status.success() && said(&pulled).contains("house rules"), "{}", said(&pulled));
    let listed = finish(&mut scene.pull(&[]));
    assert!(said(&listed).contains("house rules") && said(&listed).contains("florence-2-base"));
}

#[test]
fn what_is_not_there_is_named() {
    let scene = Scene::small();
    fails(scene.pull(&["somebody/else", "--yes"]), CONFIG, &["somebody/else@main", "404", "spelling"]);
    fails(scene.pull(&["somebody/model@old", "--yes"]), CONFIG, &["somebody/model@old", "404"]);
    scene.hub.faults(|faults| faults.also = vec!["gone.onnx".into()]);
    fails(scene.pull(&[REPOSITORY, "--yes"]), CONFIG, &["gone.onnx", "404"]);
    scene.hub.faults(|faults| faults.also = vec!["../../evil".into()]);
    fails(scene.pull(&[REPOSITORY, "--yes"]), CONFIG, &["../../evil", "inside"]);
    scene.hub.faults(|faults| faults.also.clear());
    scene.hub.remove("model.toml");
    fails(scene.pull(&[REPOSITORY, "--yes"]), CONFIG, &["config.json", "transformers.js"]);
    scene.assert_no_model();
}

/// Sets the flag when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_new_revision_replaces_the_old_one_at_once() {
    let scene = Scene::small();
    scene.pull_all();
    let old = fs::read_to_string(scene.place().join("model.toml")).unwrap();
    scene.hub.push("model.toml", old.replace("version = \"1\"", "version = \"2\"").into_bytes());
    // Whoever looks meanwhile sees the one or the other.
    let place = scene.place().join("model.toml");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whatever comes of the fetch: the scope waits for the watcher.
        let ends = Ends(&done);
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Relaxed) {
                let text = fs::read_to_string(&place).expect("the model is never gone");
                assert!(text.contains("version = \"1\"") || text.contains("version = \"2\""));
                looks += 1;
            }
            looks
        });
        scene.pull_all();
        drop(ends);
        assert!(watcher.join().unwrap() > 100);
    });
    assert!(fs::read_to_string(&place).unwrap().contains("version = \"2\""));
    assert_eq!(fs::read_dir(scene.models()).unwrap().count(), 1, "the old one is removed");
}

#[test]
fn without_a_network_the_cache_serves_or_says_what_it_lacks() {
    let scene = Scene::small();
    let mut offline = scene.pull(&[REPOSITORY, "--yes"]);
    offline.env("HF_HUB_OFFLINE", "1");
    fails(offline, UNAVAILABLE, &["somebody/model@main", "HF_HUB_OFFLINE"]);
    assert!(scene.hub.asked().is_empty());
    scene.pull_all();
    fs::remove_dir_all(scene.models()).unwrap();
    let asked = scene.hub.asked().len();
    assert!(finish(scene.pull(&[REPOSITORY]).env("HF_HUB_OFFLINE", "yes")).status.success());
    assert_eq!(scene.hub.asked().len(), asked);
    assert!(finish(scene.groundd().args(["models", "verify", REPOSITORY])).status.success());
    // A blob that somebody removed is noticed.
    let snapshot = scene.cache().join("snapshots").join(COMMITS[0]).join("vision.onnx");
    fs::remove_file(fs::canonicalize(snapshot).unwrap()).unwrap();
    let mut offline = scene.pull(&[REPOSITORY]);
    offline.env("HF_HUB_OFFLINE", "1");
    fails(offline, UNAVAILABLE, &["vision.onnx", "HF_HUB_OFFLINE"]);
}

#[test]
fn the_environment_says_where_from_and_which_way() {
    let scene = Scene::small();
    // A mirror that is not there.
    let mut command = scene.pull(&[REPOSITORY, "--yes"]);
    command.env("HF_ENDPOINT", format!("http://127.0.0.1:{}", crate::support::free_port()));
    fails(command, UNAVAILABLE, &["127.0.0.1", "refused"]);
    let mut command = scene.pull(&[REPOSITORY, "--yes"]);
    command.env("HF_ENDPOINT", "mirror.example");
    fails(command, CONFIG, &["HF_ENDPOINT", "mirror.example"]);
    // One that can only be reached by a proxy, which here is the hub itself: it takes absolute addresses.
    let mut command = scene.pull(&[REPOSITORY, "--yes"]);
    command.env("HF_ENDPOINT", "http://hub.invalid/").env("HTTP_PROXY", &scene.hub.endpoint);
    command.env("HF_HUB_CACHE", scene.folder.path().join("elsewhere"));
    let output = finish(&mut command);
    assert!(output.status.success(), "{}", said(&output));
    assert!(scene.folder.path().join("elsewhere/models--somebody--model/refs/main").is_file());
}

#[test]
fn a_server_that_names_no_hash_is_not_trusted() {
    let scene = Scene::small();
    scene.hub.faults(|faults| faults.nameless = true);
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &["etag", ".onnx"]);
    scene.assert_no_model();
}

#[test]
fn a_model_that_is_none_is_not_installed() {
    let scene = Scene::small();
    let manifest = fs::read_to_string(tiny().join("model.toml")).unwrap();
    scene.hub.push("model.toml", manifest.replacen("sha256 = \"", "sha256 = \"0", 1).into_bytes());
    fails(scene.pull(&[REPOSITORY, "--yes"]), CONFIG, &[REPOSITORY, "model.toml", "sha256"]);
    scene.assert_no_model();
}

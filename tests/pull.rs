//! `groundd models pull` against a hub on this machine: every way a fetch can go wrong ends with its exit code, a word of what
//! to do, and no half of a model.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::support::{
    ground::tiny,
    h264,
    hub::{COMMITS, Hub, REPOSITORY, etag, hex},
    process::{Process, groundd},
    vlm::{model_dir, published},
    wait_for,
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
        let output = self.pull(&[REPOSITORY, "--yes"]).output().unwrap();
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

#[track_caller]
fn fails(mut command: Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing from:\n{said}");
    }
    assert!(output.stdout.is_empty() && !said.contains("panicked"), "{said}");
}

#[test]
fn a_model_is_fetched_once_and_found_by_every_command() {
    let scene = Scene::small();
    let output = scene.pull_all();
    assert!(said(&output).contains("cc-by-4.0") && said(&output).contains(&COMMITS[0][..8]), "{}", said(&output));
    let run = |arguments: &[&str]| {
        let output = scene.groundd().args(arguments).output().unwrap();
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
    assert!(scene.pull(&[REPOSITORY]).status().unwrap().success());
    assert_eq!(scene.hub.sent(), sent);
}

#[test]
fn an_export_published_for_transformers_js_runs_as_pulled() {
    let scene = Scene::of(published("florence-2").path());
    scene.pull_all();
    assert!(fs::read_to_string(scene.place().join("model.toml")).unwrap().contains(COMMITS[0]));
    let verified = scene.groundd().args(["models", "verify", REPOSITORY]).output().unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
    let film = scene.folder.path().join("film.mp4");
    h264(&film, "160x90", 5, 2);
    let mut command = scene.groundd();
    command.arg("watch").arg(&film).args(["--query", "person", "--every-frame", "--model", "somebody--model"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"status\":\"ok\""), "{}", said(&output));
}

#[test]
fn a_cut_transfer_goes_on_where_it_broke() {
    let scene = Scene::large();
    scene.hub.faults(|faults| faults.cuts = vec![9000]);
    scene.pull_all();
    let ranges: Vec<_> =
        scene.hub.asked().into_iter().filter(|asked| asked.content).filter_map(|asked| asked.range).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert!(scene.hub.sent() <= scene.hub.bytes() + 4096, "{} of {}", scene.hub.sent(), scene.hub.bytes());
}

#[test]
fn an_attempt_that_was_given_up_is_taken_up_by_the_next() {
    let scene = Scene::large();
    // The first file breaks, and after that nothing comes any more.
    scene.hub.faults(|faults| faults.cuts = [vec![9000], vec![0; 40]].concat());
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &[LARGE, "127.0.0.1", "run the command again"]);
    scene.assert_no_model();
    let held = fs::metadata(scene.partial(LARGE)).unwrap().len();
    assert!((1..=9000).contains(&held), "{held}");
    scene.hub.faults(|faults| faults.cuts.clear());
    let before = scene.hub.asked().len();
    scene.pull_all();
    let range = scene.hub.asked()[before..].iter().find_map(|asked| asked.range.clone());
    assert_eq!(range, Some(format!("bytes={held}-")));
    assert!(scene.groundd().args(["models", "verify", REPOSITORY]).status().unwrap().success());
}

#[test]
fn a_server_that_sends_no_parts_sends_all_again() {
    let scene = Scene::large();
    scene.hub.faults(|faults| (faults.cuts, faults.whole_only) = (vec![9000], true));
    scene.pull_all();
    assert!(scene.groundd().args(["models", "verify", REPOSITORY]).status().unwrap().success());
}

#[test]
fn bytes_that_change_on_the_way_are_not_taken() {
    let scene = Scene::large();
    scene.hub.faults(|faults| faults.bent = Some(100));
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &[LARGE, "SHA-256", "thrown away"]);
    scene.assert_no_model();
    assert!(!scene.partial(LARGE).exists());
    // Half a file of rubbish, left by whomever, is found out and fetched anew.
    scene.hub.faults(|faults| faults.bent = None);
    fs::write(scene.partial(LARGE), vec![7; 5000]).unwrap();
    scene.pull_all();
    // So is a whole one.
    let blob = scene.partial(LARGE).with_extension("");
    let mut bytes = fs::read(&blob).unwrap();
    bytes[50] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    scene.pull_all();
    assert!(scene.groundd().args(["models", "verify", REPOSITORY]).status().unwrap().success());
}

#[test]
fn what_an_earlier_attempt_left_whole_or_too_long_is_looked_at() {
    let scene = Scene::large();
    let content = fs::read(model_dir("florence-2").join(LARGE)).unwrap();
    let before = |left: &[u8]| {
        fs::create_dir_all(scene.cache().join("blobs")).unwrap();
        _ = fs::remove_file(scene.partial(LARGE).with_extension(""));
        _ = fs::remove_dir_all(scene.place());
        fs::write(scene.partial(LARGE), left).unwrap();
        let sent = scene.hub.sent();
        scene.pull_all();
        assert!(scene.groundd().args(["models", "verify", REPOSITORY]).status().unwrap().success());
        scene.hub.sent() - sent
    };
    // All of it: what is left to fetch are the other files.
    assert_eq!(before(&content), scene.hub.bytes() - content.len());
    // All of it and more, and all of it but for one byte that is wrong: fetched anew.
    assert!(before(&[&content[..], &[0; 9]].concat()) >= content.len());
    let mut bent = content.clone();
    bent[7] ^= 1;
    assert!(before(&bent) >= content.len());
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
    let output = scene.pull(&["mine", "--yes"]).output().unwrap();
    assert!(output.status.success() && said(&output).contains("house rules"), "{}", said(&output));
    let listed = scene.pull(&[]).output().unwrap();
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

#[test]
fn names_that_are_none_are_usage_errors() {
    let scene = Scene::small();
    fails(scene.pull(&["no-such-model", "--yes"]), USAGE, &["no-such-model", "florence-2-base", "owner/name"]);
    fails(scene.pull(&["a/b/c", "--yes"]), USAGE, &["a/b/c"]);
    fails(scene.pull(&["../b", "--yes"]), USAGE, &["../b"]);
    fails(scene.pull(&[REPOSITORY, "--weights", "fp7"]), USAGE, &["fp7", "fp16"]);
    assert!(scene.hub.asked().is_empty());
}

#[test]
fn without_a_terminal_somebody_must_have_agreed() {
    let scene = Scene::small();
    fails(scene.pull(&[REPOSITORY]), USAGE, &["cc-by-4.0", "--yes", "MB in 6 files"]);
    assert_eq!(scene.hub.sent(), 0);
    scene.assert_no_model();
}

/// With a terminal, which `script` provides, somebody is asked.
#[test]
fn at_a_terminal_somebody_is_asked_once_they_know_what_it_is() {
    let scene = Scene::small();
    let asked = |answer: &str| {
        let words = format!("{} models pull {REPOSITORY}", groundd().get_program().to_string_lossy());
        let mut command = Command::new("script");
        for (name, value) in scene.groundd().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["--quiet", "--return", "--command", &words, "/dev/null"]).current_dir(scene.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), said(&output))
    };
    for no in ["n\n", "\n", "nonsense\n"] {
        let (code, said) = asked(no);
        assert!(code != Some(0) && said.contains("cc-by-4.0") && said.contains("Fetch it? [y/N]"), "{said}");
        assert_eq!(scene.hub.sent(), 0);
        scene.assert_no_model();
    }
    let (code, said) = asked("y\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(scene.place().join("model.toml").is_file());
}

#[test]
fn who_has_not_agreed_to_a_licence_is_told_so() {
    let scene = Scene::small();
    scene.hub.faults(|faults| faults.refuses = Some(403));
    fails(scene.pull(&[REPOSITORY, "--yes"]), CONFIG, &["403", "HF_TOKEN"]);
    scene.assert_no_model();
}

#[test]
fn a_token_opens_the_hub_and_goes_nowhere_else() {
    let scene = Scene::small();
    scene.hub.faults(|faults| faults.token = Some("open-sesame".into()));
    fails(scene.pull(&[REPOSITORY, "--yes"]), CONFIG, &["401", "HF_TOKEN"]);
    let mut wrong = scene.pull(&[REPOSITORY, "--yes", "--log", "trace"]);
    wrong.env("HF_TOKEN", "hunter2");
    let output = wrong.output().unwrap();
    assert_eq!(output.status.code(), Some(CONFIG));
    assert!(!said(&output).contains("hunter2"), "{}", said(&output));
    let status = scene.pull(&[REPOSITORY, "--yes"]).env("HF_TOKEN", "open-sesame").status().unwrap();
    assert!(status.success());
    let asked = scene.hub.asked();
    let (content, hub): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| asked.content);
    assert!(!content.is_empty() && content.iter().all(|asked| asked.token.is_none()), "{content:?}");
    assert!(hub.iter().any(|asked| asked.method == "GET" && asked.token.is_some()));
    // The token that the hub's own tools left counts as well.
    fs::remove_dir_all(scene.place()).unwrap();
    fs::write(scene.folder.path().join("home/token"), "open-sesame\n").unwrap();
    scene.pull_all();
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let scene = Scene::small();
    scene.hub.faults(|faults| faults.answers = vec![(429, Some("2".into())), (503, None)]);
    let started = Instant::now();
    scene.pull_all();
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());

    // The server that has the content can be busy too.
    let scene = Scene::large();
    scene.hub.faults(|faults| faults.busy = vec![(429, Some("1".into())), (502, None)]);
    let started = Instant::now();
    scene.pull_all();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());

    let scene = Scene::small();
    scene.hub.faults(|faults| faults.answers = vec![(429, Some("3600".into()))]);
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &["429", "3600 s"]);
    scene.hub.faults(|faults| faults.answers = vec![(503, Some("0".into())); 50]);
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &["503", "tried 4 times"]);
    assert!(scene.hub.asked().len() < 10);
    scene.assert_no_model();
}

#[test]
fn a_full_disk_is_said_and_leaves_no_model() {
    let scene = Scene::large();
    // More than any disk has: refused before the first byte.
    scene.hub.faults(|faults| _ = faults.lengths.insert(LARGE.into(), 1 << 60));
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &["no space left", "are free", "HF_HUB_CACHE"]);
    assert_eq!(scene.hub.sent(), 0);
    // A disk that fills up meanwhile: the kernel's own ENOSPC.
    scene.hub.faults(|faults| faults.lengths.clear());
    fs::create_dir_all(scene.cache().join("blobs")).unwrap();
    symlink("/dev/full", scene.partial(LARGE)).unwrap();
    fails(scene.pull(&[REPOSITORY, "--yes"]), UNAVAILABLE, &["no space left", "incomplete", "make room"]);
    scene.assert_no_model();
    fs::remove_file(scene.partial(LARGE)).unwrap();
    scene.pull_all();
}

#[test]
fn two_at_once_fetch_each_file_once() {
    let scene = Scene::large();
    scene.hub.faults(|faults| faults.pause = Duration::from_millis(5));
    let start = |name: &str| Process::start(scene.pull(&[REPOSITORY, "--yes"]), scene.folder.path(), name);
    let mut both = [start("first"), start("second")];
    // Nothing is to be seen while it goes on.
    wait_for("a transfer", Duration::from_secs(20), || (scene.hub.sent() > 0).then_some(()));
    assert!(!scene.place().exists());
    for process in &mut both {
        assert!(process.wait(Duration::from_mins(1)).success(), "{}", process.log());
    }
    assert_eq!(scene.hub.sent(), scene.hub.bytes());
    assert!(scene.groundd().args(["models", "verify", REPOSITORY]).status().unwrap().success());
    let left: Vec<_> = fs::read_dir(scene.models()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["somebody--model"]);
}

#[test]
fn a_fetch_that_is_killed_leaves_nothing_that_looks_like_a_model() {
    let scene = Scene::large();
    scene.hub.faults(|faults| faults.pause = Duration::from_millis(20));
    let mut process = Process::start(scene.pull(&[REPOSITORY, "--yes"]), scene.folder.path(), "killed");
    wait_for("a transfer", Duration::from_secs(20), || (scene.hub.sent() > 20_000).then_some(()));
    process.kill();
    scene.assert_no_model();
    assert!(fs::metadata(scene.partial(LARGE)).unwrap().len() > 0);
    scene.hub.faults(|faults| faults.pause = Duration::ZERO);
    scene.pull_all();
    assert!(scene.hub.asked().iter().any(|asked| asked.range.is_some()));
}

#[test]
fn a_new_revision_replaces_the_old_one_at_once() {
    let scene = Scene::small();
    scene.pull_all();
    let old = fs::read_to_string(scene.place().join("model.toml")).unwrap();
    scene.hub.push("model.toml", old.replace("version = \"1\"", "version = \"2\"").into_bytes());
    // Whoever looks meanwhile sees the one or the other.
    let place = scene.place().join("model.toml");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let text = fs::read_to_string(&place).expect("the model is never gone");
                assert!(text.contains("version = \"1\"") || text.contains("version = \"2\""));
                looks += 1;
            }
            looks
        });
        scene.pull_all();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
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
    let status = scene.pull(&[REPOSITORY]).env("HF_HUB_OFFLINE", "yes").status().unwrap();
    assert!(status.success());
    assert_eq!(scene.hub.asked().len(), asked);
    assert!(scene.groundd().args(["models", "verify", REPOSITORY]).status().unwrap().success());
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
    let output = command.output().unwrap();
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

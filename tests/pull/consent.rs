//! What somebody asks for, agrees to and may fetch.

use std::{fs, process::Command};

use super::{CONFIG, Scene, USAGE, fails, said};
use crate::support::{
    hub::REPOSITORY,
    process::{finish, finish_given, groundd},
};

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
        let output = finish_given(&mut command, answer);
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
    let output = finish(&mut wrong);
    assert_eq!(output.status.code(), Some(CONFIG));
    assert!(!said(&output).contains("hunter2"), "{}", said(&output));
    assert!(finish(scene.pull(&[REPOSITORY, "--yes"]).env("HF_TOKEN", "open-sesame")).status.success());
    let asked = scene.hub.asked();
    let (content, hub): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| asked.content);
    assert!(!content.is_empty() && content.iter().all(|asked| asked.token.is_none()), "{content:?}");
    assert!(hub.iter().any(|asked| asked.method == "GET" && asked.token.is_some()));
    // The token that the hub's own tools left counts as well.
    fs::remove_dir_all(scene.place()).unwrap();
    fs::write(scene.folder.path().join("home/token"), "open-sesame\n").unwrap();
    scene.pull_all();
}

//! Transfers that break, stall, lie, meet one another or a full disk.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use super::{LARGE, Scene, UNAVAILABLE, fails};
use crate::support::{
    hub::REPOSITORY,
    process::{Process, finish},
    vlm::model_dir,
    wait_for,
};

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
    assert!(finish(scene.groundd().args(["models", "verify", REPOSITORY])).status.success());
}

#[test]
fn a_server_that_sends_no_parts_sends_all_again() {
    let scene = Scene::large();
    scene.hub.faults(|faults| (faults.cuts, faults.whole_only) = (vec![9000], true));
    scene.pull_all();
    assert!(finish(scene.groundd().args(["models", "verify", REPOSITORY])).status.success());
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
    assert!(finish(scene.groundd().args(["models", "verify", REPOSITORY])).status.success());
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
        assert!(finish(scene.groundd().args(["models", "verify", REPOSITORY])).status.success());
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
    assert!(finish(scene.groundd().args(["models", "verify", REPOSITORY])).status.success());
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

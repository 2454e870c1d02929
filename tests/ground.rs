//! The ground stage with the real ONNX Runtime and a tiny real model.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

mod folders;
mod graphs;

use groundd::{
    ground::{self, GroundError, Grounder, Limits, ModelInfo, QueryCheck, manifest::Manifest, worker},
    types::{Answer, Batch, Ledger, Method, Pulse, Query, ScoreKind, Size, Status},
};
use proptest::prelude::*;

use crate::support::ground::*;

fn region(corners: [u8; 4], objectness: u8, brightness: u8) -> Region {
    Region { corners, objectness, brightness }
}

/// A bright thing on the left, a dark one on the right, and one too faint to be offered.
fn two_things() -> [Region; 3] {
    [region([0, 0, 51, 51], 204, 255), region([102, 102, 204, 255], 255, 51), region([0, 102, 51, 204], 51, 255)]
}

fn near(found: &[([f32; 4], f32)], expected: &[([f32; 4], f32)]) {
    let close = |a: &([f32; 4], f32), b: &([f32; 4], f32)| {
        a.0.iter().zip(b.0).all(|(x, y)| (x - y).abs() < 1e-3) && (a.1 - b.1).abs() < 1e-5
    };
    let same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| close(a, b));
    assert!(same, "found {found:?}, expected {expected:?}");
}

#[test]
fn words_select_regions_in_source_pixels() {
    let ledger = Arc::new(Ledger::default());
    let mut model = load(&tiny());
    let texts = ["the bright", "dark", "left", "Bright, left!"];
    let answers = model.ground(&batch(vec![job(&ledger, &two_things(), &texts)])).unwrap().remove(0);
    // The canvas is 16x8, the source 32x16: 51/255 of the picture is 6.4 by 3.2 pixels.
    let (bright, dark) = ([0.0, 0.0, 6.4, 3.2], [12.8, 6.4, 25.6, 16.0]);
    near(&found(&answers[0]), &[(bright, 1.0)]);
    near(&found(&answers[1]), &[(dark, 0.8)]);
    near(&found(&answers[2]), &[(bright, 1.0), (dark, 0.6)]);
    near(&found(&answers[3]), &[(bright, 1.0)]);
    let one = &answers[1].matches[0];
    assert_eq!((one.score_kind, one.track, one.via.method), (ScoreKind::TokenProb, None, Method::Retrieve));
    let id = format!("tiny@{}", Manifest::load(&tiny()).unwrap().hash8());
    assert_eq!((&*one.via.model, one.via.crop, one.via.fresh), (id.as_str(), None, true));
}

#[test]
fn a_querys_own_threshold_wins_and_a_miss_is_declared() {
    let ledger = Arc::new(Ledger::default());
    let mut job = job(&ledger, &two_things(), &["dark", "dark", "dark"]);
    for (query, threshold) in job.queries.iter_mut().zip([None, Some(0.81), Some(0.0)]) {
        *query = Arc::new(Query { threshold, ..(**query).clone() });
    }
    let answers = load(&tiny()).ground(&batch(vec![job])).unwrap().remove(0);
    assert_eq!(answers.iter().map(|a| found(a).len()).collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn what_cannot_be_answered_says_why_and_leaves_the_rest_alone() {
    let ledger = Arc::new(Ledger::default());
    let mut model = load(&tiny());
    let mut mixed = job(&ledger, &two_things(), &["zebra", "bright", "a a a a a bright", "bright"]);
    mixed.queries[3] = Arc::new(Query { method: Method::Zoom, ..(*mixed.queries[3]).clone() });
    let queries = mixed.queries.clone();
    let none = job(&ledger, &two_things(), &[]);
    let mut odd = job(&ledger, &[], &["bright"]);
    let small = groundd::types::Rgb::new(Size::new(2, 2), vec![0; 12]).unwrap();
    odd.frame = frame(&ledger, small);
    let answers = model.ground(&batch(vec![mixed, none, odd])).unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [4, 0, 1]);
    assert_eq!(found(&answers[0][1]).len(), 1);
    let reason = |answer: &Answer| match &answer.status {
        Status::Error(reason) => reason.clone(),
        other => panic!("{other:?}"),
    };
    for (answer, words) in [
        (&answers[0][0], ["tiny does not know the word", "`zebra`"]),
        (&answers[0][2], ["6 words", "at most 5"]),
        (&answers[0][3], ["cannot do `zoom`", "can do: retrieve"]),
        (&answers[2][0], ["16x8", "2x2"]),
    ] {
        let reason = reason(answer);
        assert!(words.iter().all(|w| reason.contains(w)) && answer.matches.is_empty(), "{reason}");
    }
    // The check beforehand says the very same.
    let checker = model.checker();
    for (query, answer) in queries.iter().zip(&answers[0]) {
        assert_eq!(checker(query).err().map_or(Status::Ok, Status::Error), answer.status);
    }
}

#[test]
fn the_model_describes_itself() {
    let folders = [tiny().parent().unwrap().to_owned()];
    let mut config = config(&tiny());
    config.path = "tiny".into();
    let line = ground::load(&config, &folders).unwrap_or_else(|e| panic!("{e}")).describe().to_string();
    let hash8 = Manifest::load(&tiny()).unwrap().hash8();
    for part in ["tiny 1", &format!("tiny@{hash8}"), "retrieve", "on cpu", "with ONNX Runtime", "libonnxruntime.so"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let build = line.split_once("build ").expect("the runtime's build").1;
    assert!(build.chars().take(7).all(|c| c.is_ascii_hexdigit()), "{line}");
    let model = load(&tiny());
    assert_eq!(model.limits(), Limits { max_batch: 8, canvases: CANVAS.into() });
    assert_eq!(model.describe().methods, [Method::Retrieve]);
}

fn any_region() -> impl Strategy<Value = Region> {
    (any::<[u8; 4]>(), any::<u8>(), any::<u8>()).prop_map(|(corners, o, b)| region(corners, o, b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_batch_answers_as_its_frames_do_one_by_one(
        frames in proptest::collection::vec((
            proptest::collection::vec(any_region(), 0..=4),
            proptest::collection::vec(prop::sample::select(vec!["bright", "dark", "left", "sure left", "zebra"]), 0..=5),
        ), 1..=8),
    ) {
        let ledger = Arc::new(Ledger::default());
        let mut model = load(&tiny());
        let jobs: Vec<_> = frames.iter().map(|(regions, texts)| job(&ledger, regions, texts)).collect();
        let show = |answers: &[Vec<Answer>]| format!("{answers:?}");
        let together = model.ground(&batch(jobs.clone())).unwrap();
        prop_assert_eq!(show(&together), show(&model.ground(&batch(jobs.clone())).unwrap()));
        let apart: Vec<_> = jobs.iter().map(|job| model.ground(&batch(vec![job.clone()])).unwrap().remove(0)).collect();
        prop_assert_eq!(show(&together), show(&apart));
    }
}

#[test]
fn more_frames_than_the_model_takes_are_refused() {
    let ledger = Arc::new(Ledger::default());
    let jobs = (0..9).map(|_| job(&ledger, &[], &["bright"])).collect();
    let error = load(&tiny()).ground(&batch(jobs)).unwrap_err();
    assert!(matches!(error, GroundError::Batch { frames: 9, most: 8 }), "{error}");
}

// --- the worker ---

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

#[tokio::test]
async fn the_worker_answers_in_order_and_ends_when_its_input_does() {
    let ledger = Arc::new(Ledger::default());
    let pulse = Pulse::new("ground");
    let mut worker = worker::spawn(vec![(load(&tiny()), pulse.clone())]);
    let jobs = vec![job(&ledger, &two_things(), &["bright"]), job(&ledger, &[], &["dark"])];
    let frames: Vec<_> = jobs.iter().map(|job| Arc::clone(&job.frame)).collect();
    within(worker.batches.send(batch(jobs))).await.unwrap();
    for (frame, boxes) in frames.iter().zip([1, 0]) {
        let grounding = within(worker.groundings.recv()).await.unwrap();
        assert!(Arc::ptr_eq(&grounding.frame, frame));
        assert_eq!(found(&grounding.answers[0]).len(), boxes);
        assert!(grounding.timings.inferred > Duration::ZERO && grounding.timings.queued < Duration::from_secs(30));
        grounding.frame.ticket.publish();
    }
    assert_eq!(pulse.busy_for(), None);
    drop(worker.batches);
    within(worker.handle.join()).await.unwrap();
    assert!(within(worker.groundings.recv()).await.is_none());
    assert_eq!((ledger.published(), ledger.in_flight(), worker.handle.failed_batches()), (2, 0, 0));
}

#[tokio::test]
async fn a_team_shares_what_it_knows_of_cameras_and_ends_with_the_first_that_panics() {
    let mut grounder = ground::load_team(&ground::ModelConfig { threads: 2, ..config(&tiny()) }, &[], 9).unwrap();
    grounder.ask(&ground::AskConfig { change: 0.0, ..Default::default() }, false);
    let work = grounder.work();
    let mut team = ground::team(grounder);
    assert_eq!(team.len(), 2, "one a thread");
    let ledger = Arc::new(Ledger::default());
    // The second knows what the first was told a moment ago.
    for (model, asked, reused) in [(0, 1, 0), (1, 1, 1), (0, 1, 2)] {
        let batch = batch(vec![job(&ledger, &two_things(), &["bright"])]);
        let answers = team[model].ground(&batch).unwrap();
        assert_eq!((found(&answers[0][0]).len(), work.asked(), work.reused()), (1, asked, reused), "model {model}");
        batch.jobs[0].frame.ticket.publish();
    }
    assert!(team.iter_mut().all(|model| model.another().is_none()));
    // One that nobody wants a team of has none; nor has one of a single thread.
    assert_eq!(ground::team(load(&tiny())).len(), 1);
    let alone = ground::load_team(&ground::ModelConfig { threads: 1, ..config(&tiny()) }, &[], 9).unwrap();
    assert_eq!(ground::team(alone).len(), 1);
    let faulty: Box<dyn Grounder> = Box::new(Faulty(|_| panic!("the sky fell")));
    let mut worker = worker::spawn(vec![(faulty, Pulse::new("ground")), (load(&tiny()), Pulse::new("ground"))]);
    // Until the faulty one has got one: turns end then.
    while let Ok(turn) = within(worker.turns.acquire()).await {
        turn.forget();
        if within(worker.batches.send(batch(vec![job(&ledger, &[], &["bright"])]))).await.is_err() {
            break;
        }
        while let Ok(grounding) = worker.groundings.try_recv() {
            grounding.frame.ticket.publish();
        }
    }
    let error = within(worker.handle.join()).await.unwrap_err();
    assert!(error.to_string().contains("the sky fell"), "{error}");
    assert!(within(worker.turns.acquire()).await.is_err(), "no turns are given any more");
    drop(worker.batches);
    // What the other one was given is answered, if it had begun, or accounted for.
    while let Some(grounding) = within(worker.groundings.recv()).await {
        grounding.frame.ticket.publish();
    }
    assert_eq!(ledger.in_flight(), 0);
    assert_eq!(ledger.dropped(groundd::types::DropReason::ModelError), 1);
}

#[tokio::test]
async fn a_failed_batch_is_answered_with_errors_and_the_next_one_works() {
    // The graph itself fails: the vocabulary promises a word that the table does not have.
    let dir = copy_of_tiny();
    let vocabulary = br#"{"<pad>": 0, "<unk>": 1, "bright": 2, "gone": 99}"#;
    replace_file(dir.path(), "vocab.json", vocabulary);
    let ledger = Arc::new(Ledger::default());
    let mut worker = worker::spawn(vec![(load(dir.path()), Pulse::new("ground"))]);
    for (texts, failed) in [(vec!["bright", "gone"], 1), (vec!["gone"], 2), (vec!["bright"], 2)] {
        let fails = texts.contains(&"gone");
        within(worker.batches.send(batch(vec![job(&ledger, &two_things(), &texts)]))).await.unwrap();
        let grounding = within(worker.groundings.recv()).await.unwrap();
        assert_eq!(grounding.answers.len(), texts.len());
        for answer in &grounding.answers {
            match &answer.status {
                Status::Error(reason) => assert!(fails && reason.contains("text.onnx: the run failed"), "{reason}"),
                status => assert!(!fails, "{status:?}"),
            }
        }
        assert_eq!(worker.handle.failed_batches(), failed);
    }
}

/// A model of which nothing but one fault is real.
struct Faulty(fn(&Batch) -> Result<Vec<Vec<Answer>>, GroundError>);

impl Grounder for Faulty {
    fn limits(&self) -> Limits {
        Limits { max_batch: 8, canvases: CANVAS.into() }
    }

    fn describe(&self) -> ModelInfo {
        unreachable!("the worker does not ask")
    }

    fn checker(&self) -> QueryCheck {
        Arc::new(|_| Ok(()))
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        self.0(batch)
    }
}

#[tokio::test]
async fn a_panic_ends_the_worker_with_a_typed_error_and_no_frame_is_lost() {
    let ledger = Arc::new(Ledger::default());
    let mut worker = worker::spawn(vec![(Box::new(Faulty(|_| panic!("the sky fell"))), Pulse::new("ground"))]);
    within(worker.batches.send(batch(vec![job(&ledger, &[], &["bright"])]))).await.unwrap();
    let error = within(worker.handle.join()).await.unwrap_err();
    assert!(matches!(&error, GroundError::Panicked(text) if text == "the sky fell"), "{error}");
    assert!(within(worker.groundings.recv()).await.is_none());
    assert_eq!(ledger.dropped(groundd::types::DropReason::ModelError), 1);
}

#[tokio::test]
async fn a_model_that_miscounts_loses_no_frame() {
    let ledger = Arc::new(Ledger::default());
    let mut worker = worker::spawn(vec![(Box::new(Faulty(|_| Ok(vec![]))), Pulse::new("ground"))]);
    within(worker.batches.send(batch(vec![job(&ledger, &[], &["bright"])]))).await.unwrap();
    let grounding = within(worker.groundings.recv()).await.unwrap();
    assert!(
        matches!(&grounding.answers[0].status, Status::Error(reason) if reason.contains("0 answers to 1 questions"))
    );
}

#[tokio::test]
async fn frames_nobody_waits_for_are_accounted_as_shutdown() {
    let ledger = Arc::new(Ledger::default());
    let mut worker = worker::spawn(vec![(load(&tiny()), Pulse::new("ground"))]);
    drop(worker.groundings);
    within(worker.batches.send(batch(vec![job(&ledger, &[], &["bright"])]))).await.unwrap();
    within(worker.handle.join()).await.unwrap();
    assert_eq!((ledger.dropped(groundd::types::DropReason::Shutdown), ledger.in_flight()), (1, 0));
}

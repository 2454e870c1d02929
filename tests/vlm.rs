//! Models that write their answers, number by number as transformers has them, and through the daemon's own interface.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "measured values are worth seeing")]

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use groundd::{
    ground::{
        Limits,
        codec::{Codec, RawBox, florence, paligemma},
        manifest::{Input, Manifest},
        methods::{
            retrieve::Ask,
            written::{self, Writer},
            zoom::views::Judge,
        },
        models::answer::best,
        vision::{
            Filter, Resampler, mrope,
            windows::{self, Windows},
        },
        zoom::wording::Part,
    },
    types::{Answer, Batch, Job, Ledger, Method, Query, QueryId, ScoreKind, Size, Status, Worth},
};

use crate::support::{
    ground::{batch, edit_manifest, load, load_error},
    h264,
    process::groundd,
    vlm::*,
};

/// What a measured value may differ by.
const ALLOWED: f32 = 1e-3;

fn worst(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Largest differences of one family: pixels, features, logits of prompts, logits of steps.
#[derive(Debug, Default)]
struct Measured {
    pixels: f32,
    features: f32,
    prompt: f32,
    steps: f32,
}

/// As the daemon runs it: once it is known what its graphs can do, prompts are read in pieces.
fn follow(family: &str) {
    let dir = model_dir(family);
    let mut model = Model::warmed(&dir, |_, engine| Box::new(engine));
    follow_in(family, &dir, &mut model, &Reference::of(family), &folder());
}

/// The model in `dir`, against what its reference says of pictures in the folder `pictures` of `root`.
pub(crate) fn follow_in(family: &str, dir: &Path, model: &mut Model, reference: &Reference, root: &Path) {
    let input = Manifest::load(dir).unwrap().input;
    let mut measured = Measured::default();
    for case in &reference.cases {
        let at = format!("{family} {}", case.name);
        // The fixtures were resized by Pillow 13, which runs the vertical pass first where that is less work; the versions
        // these models were trained with never did. What follows starts from the reference's own bytes.
        let pictures: Vec<_> = (0..case.pictures.len()).map(|i| reference.resized(case, i)).collect();
        for (name, resized) in case.pictures.iter().zip(&pictures) {
            let picture = picture_in(root, name);
            let resize =
                |rgb: &[u8], from, to| Resampler::default().resize(rgb, from, to, Filter::Bicubic).unwrap().to_vec();
            let ours = resize(&picture.data, picture.size, resized.size);
            let between = Size::new(picture.size.width, resized.size.height);
            let vertical_first = resize(&resize(&picture.data, picture.size, between), between, resized.size);
            // Pillow 12 and before are ours to the byte.
            let as_ours = reference.pillow < 13 && ours[..] != resized.data[..];
            let either = [ours, vertical_first].iter().any(|bytes| bytes[..] == resized.data[..]);
            assert!(either && !as_ours, "{at}: {name} is resized otherwise");
            assert_eq!(model.image_size(&picture), resized.size, "{at}: {name}");
        }
        if let Some(expected) = reference.f32s(case, "pixel_values") {
            let got: Vec<f32> = pictures.iter().flat_map(|picture| model.pixels(picture)).collect();
            measured.pixels = measured.pixels.max(worst(&got, &expected));
        }
        let looked = model.look(&pictures);
        assert_eq!(model.prompt(&looked, &case.text), reference.i64s(case, "input_ids").unwrap(), "{at}: ids");
        let difference = match &looked {
            Looked::Square(seen) => worst(seen, &reference.f32s(case, "image_features").unwrap()),
            Looked::Qwen(seen) => {
                check_layout(reference, case, model, &looked, &input);
                let features: Vec<f32> = seen.iter().flat_map(|one| one.features.clone()).collect();
                let deep = reference.f32s(case, "deepstack_features").unwrap_or_default();
                let deep_difference = if seen.len() == 1 { worst(&seen[0].deepstack, &deep) } else { 0.0 };
                worst(&features, &reference.f32s(case, "image_features").unwrap()).max(deep_difference)
            }
        };
        measured.features = measured.features.max(difference);
        let expected = reference.f32s(case, "prompt_logits").unwrap();
        let steps = reference.f32s(case, "step_logits").unwrap();
        let width = steps.len() / reference.rows(case);
        let mut talk = model.begin(&looked, &case.text, expected.len() / width);
        measured.prompt = measured.prompt.max(worst(talk.logits(), &expected));
        let tokens = reference.tokens(case);
        let last_row = talk.logits().len() - width;
        assert_eq!(best(&talk.logits()[last_row..]).unwrap().0, tokens[0], "{at}: first token");
        let best_logits = reference.f32s(case, "step_best").unwrap();
        for (step, &token) in tokens.iter().enumerate() {
            model.say(&mut talk, token);
            let logits = talk.logits();
            let (next, _) = best(logits).unwrap();
            if let Some(expected) = steps.chunks(width).nth(step) {
                measured.steps = measured.steps.max(worst(logits, expected));
            }
            measured.steps = measured.steps.max((logits[next as usize] - best_logits[step]).abs());
            if let Some(expected) = tokens.get(step + 1) {
                assert_eq!(next, *expected, "{at}: token {}", step + 1);
            }
        }
    }
    println!("{family}: {measured:?}");
    let Measured { pixels, features, prompt, steps } = measured;
    for (what, value) in [("pixels", pixels), ("features", features), ("prompt", prompt), ("steps", steps)] {
        assert!(value < ALLOWED, "{family}: {what} differ by {value}");
    }
    assert!(reference.cases.iter().any(|case| case.steps >= 64));
}

#[test]
fn half_precision_is_kept_or_turned_at_the_graph_s_border() {
    let reference = Reference::of("qwen2.5-vl");
    let case = reference.case("ties");
    let dir = half();
    let mut model = Model::at(dir.path());
    let looked = model.look(&[reference.resized(case, 0)]);
    let mut talk = model.begin(&looked, &case.text, 1);
    let steps = reference.f32s(case, "step_logits").unwrap();
    let tokens = reference.tokens(case);
    let mut most: f32 = 0.0;
    for (token, expected) in tokens.iter().zip(steps.chunks(steps.len() / 10)) {
        model.say(&mut talk, *token);
        most = most.max(worst(talk.logits(), expected));
    }
    println!("half: {most}");
    // Rounded to half precision, which shows, and no more than that.
    assert!(most < 2e-2 && most > 1e-5, "logits differ by {most}");
}

/// Positions, their delta and the order of windows are the reference's own.
fn check_layout(reference: &Reference, case: &Case, model: &Model, looked: &Looked, input: &Input) {
    let (Model::Qwen(model), Looked::Qwen(seen)) = (model, looked) else { panic!("not of this family") };
    let prompt = model.prompt(&seen.iter().collect::<Vec<_>>(), &case.text).unwrap();
    let expected = mrope::Positions {
        ids: reference.i64s(case, "position_ids").unwrap(),
        delta: reference.i64s(case, "rope_delta").unwrap()[0],
    };
    assert_eq!(prompt.positions, expected, "{}", case.name);
    let grids: Vec<_> = seen.iter().map(|one| one.grid).collect();
    let flat: Vec<_> = grids.iter().flat_map(|(h, w)| [1, i64::from(*h), i64::from(*w)]).collect();
    assert_eq!(flat, reference.i64s(case, "image_grid_thw").unwrap(), "{}", case.name);
    if let Some(index) = reference.i64s(case, "window_index") {
        let side = input.window.map(|window| windows::units(window, input.patch.unwrap()));
        let windows = Windows::of(&grids, side.expect("the manifest says how large windows are"));
        assert_eq!(windows.index, index, "{}", case.name);
        assert_eq!(windows.bounds, reference.i64s(case, "cu_window_seqlens").unwrap(), "{}", case.name);
    }
}

#[test]
fn exports_published_for_transformers_js_need_no_manifest() {
    let ledger = Arc::new(Ledger::default());
    for family in FAMILIES {
        let dir = published(family);
        follow_in(family, dir.path(), &mut Model::at(dir.path()), &Reference::of(family), &folder());
        // Through the daemon's interface: the very answers of the folder that has a manifest.
        let (frame, _) = full_frame(&ledger, &picture("wide"));
        let asked = ask(&frame, &[query(text_of(family), Method::Auto)]);
        let (mut with, mut without) = (load(&model_dir(family)), load(dir.path()));
        assert_eq!(without.limits(), with.limits());
        let (with, without) = (with.ground(&asked).unwrap().remove(0), without.ground(&asked).unwrap().remove(0));
        assert_eq!(boxes(&without[0]), boxes(&with[0]), "{family}");
        assert!(without[0].status == Status::Ok && without[0].matches.len() == with[0].matches.len());
    }
}

#[test]
fn a_published_folder_says_what_is_wrong_with_it() {
    let edit = |family: &str, file: &str, from: &str, to: &str| {
        let dir = published(family);
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        load_error(dir.path()).to_string()
    };
    for (family, file, from, to, words) in [
        ("qwen2-vl", "config.json", "\"qwen2_vl\"", "\"qwen9_vl\"", ["config.json: model_type", "qwen9_vl"]),
        ("qwen2-vl", "config.json", "\"patch_size\": 14", "\"patch_size\": \"x\"", ["config.json", "patch_size"]),
        ("qwen2.5-vl", "config.json", "\"window_size\": 56", "\"window_size\": 20", ["input.window", "20 pixels"]),
        (
            "qwen3-vl",
            "preprocessor_config.json",
            "\"image_mean\"",
            "\"mean\"",
            ["preprocessor_config.json", "image_mean"],
        ),
        ("qwen2-vl", "generation_config.json", "{", "[", ["generation_config.json", "line"]),
        ("florence-2", "tokenizer.json", "<loc_7>", "<loc_x>", ["tokenizer.json", "<loc_7>"]),
        // Numbers that are as large as numbers get.
        (
            "qwen2-vl",
            "config.json",
            "\"patch_size\": 14",
            "\"patch_size\": 4000000000",
            ["input: patch 4000000000", ""],
        ),
        (
            "qwen2-vl",
            "config.json",
            "\"max_position_embeddings\": 4096",
            "\"max_position_embeddings\": 18446744073709551615",
            ["limits.context: is 18446744073709551615", "should be 1 to 1048576"],
        ),
        (
            "paligemma",
            "config.json",
            "\"num_image_tokens\": 9",
            "\"num_image_tokens\": 18446744073709551615",
            ["limits.image_tokens: is 18446744073709551615", "should be 1 to 262144"],
        ),
        (
            "florence-2",
            "tokenizer.json",
            "\"id\":324,\"content\":\"<loc_0>\"",
            "\"id\":4294967295,\"content\":\"<loc_0>\"",
            ["tokenizer.json", "`<loc_1>` should have the id 4294967296"],
        ),
        ("paligemma", "preprocessor_config.json", "\"height\": 42", "\"height\": 43", ["size", "42 by 43"]),
        ("paligemma", "config.json", "\"image_token_index\"", "\"image_token\"", ["config.json", "image_token_index"]),
    ] {
        let text = edit(family, file, from, to);
        assert!(words.iter().all(|word| text.contains(word)), "{family} {to}: {text}");
    }
    let dir = published("florence-2");
    std::fs::remove_file(dir.path().join("onnx/encoder_model.onnx")).unwrap();
    assert!(load_error(dir.path()).to_string().contains("encoder_model"));
}

#[test]
fn of_several_forms_the_most_exact_is_taken() {
    let dir = published("qwen2.5-vl");
    let half = half();
    for role in ["vision_encoder", "decoder_model_merged"] {
        let name = format!("onnx/{role}_fp16.onnx");
        std::fs::copy(half.path().join(&name), dir.path().join(&name)).unwrap();
    }
    std::fs::remove_file(dir.path().join("onnx/vision_encoder.onnx")).unwrap();
    let manifest = Manifest::load(dir.path()).unwrap();
    let file = |role: &str| manifest.file(role).unwrap().strip_prefix(dir.path()).unwrap().display().to_string();
    assert_eq!(file("vision_encoder"), "onnx/vision_encoder_fp16.onnx");
    assert_eq!(file("decoder_model_merged"), "onnx/decoder_model_merged.onnx");
    assert_eq!(load(dir.path()).describe().methods, [Method::Coords, Method::Zoom]);
}

#[test]
fn qwen2_vl_says_what_transformers_says() {
    follow("qwen2-vl");
}

#[test]
fn qwen2_5_vl_says_what_transformers_says() {
    follow("qwen2.5-vl");
}

#[test]
fn qwen3_vl_says_what_transformers_says() {
    follow("qwen3-vl");
}

#[test]
fn florence_2_says_what_transformers_says() {
    follow("florence-2");
}

#[test]
fn paligemma_says_what_transformers_says() {
    follow("paligemma");
}

// --- through the daemon's interface ---

fn query(text: &str, method: Method) -> Arc<Query> {
    let id = QueryId::new("q").unwrap();
    Arc::new(Query {
        id,
        rev: 1,
        text: text.to_owned(),
        cameras: None,
        method,
        threshold: None,
        worth: Worth::default(),
    })
}

fn ask(frame: &Arc<groundd::types::Frame>, queries: &[Arc<Query>]) -> Batch {
    batch(vec![Job { frame: Arc::clone(frame), queries: queries.to_vec() }])
}

fn method_of(family: &str) -> Method {
    if family.starts_with("qwen") { Method::Coords } else { Method::Bins }
}

/// The query that makes the fixtures' prompt.
fn text_of(family: &str) -> &'static str {
    match family {
        "florence-2" => "a man next to the van",
        "paligemma" => "person ; car",
        _ => "person",
    }
}

fn boxes(answer: &Answer) -> Vec<[f32; 4]> {
    assert_eq!(answer.status, Status::Ok);
    answer.matches.iter().map(|m| m.bbox.corners()).collect()
}

#[test]
fn a_folder_on_disk_answers_frames_in_source_pixels() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let dir = copy_of(family);
        // As many tokens as the reference has.
        edit_manifest(dir.path(), "[limits]", "[limits]\nanswer_tokens = 64");
        let mut grounder = load(dir.path());
        let mut methods = vec![method_of(family)];
        methods.extend(family.starts_with("qwen").then_some(Method::Zoom));
        assert_eq!(grounder.describe().methods, methods);
        // A fixed size is the canvas; else it is as wide as cameras' pictures, and no larger than the model looks.
        let canvas = match family {
            "florence-2" => Size::new(32, 32),
            "paligemma" => Size::new(42, 42),
            _ => Size::new(128, 72),
        };
        assert_eq!(grounder.limits(), Limits { max_batch: 4, canvas });
        let shown = reference.resized(reference.case("ties"), 0);
        let tokens = reference.tokens(reference.case("ties"));
        let expected = expected(family, dir.path(), &tokens, shown.size);
        let ledger = Arc::new(Ledger::default());
        let (full, whole) = full_frame(&ledger, &shown);
        let queries = [
            query(text_of(family), Method::Auto),
            query("dog", method_of(family)),
            query(text_of(family), method_of(family)),
        ];
        let answers = grounder.ground(&ask(&full, &queries)).unwrap().remove(0);
        let got = boxes(&answers[0]);
        println!("{family}: {got:?}");
        assert_eq!(got.len(), expected.len(), "{family}: {got:?} instead of {expected:?}");
        for corners in &expected {
            let same = |one: &[f32; 4]| one.iter().zip(corners).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(got.iter().any(same), "{family}: {corners:?} is not among {got:?}");
        }
        assert_eq!(boxes(&answers[2]), got, "{family}: the same question has the same answer");
        assert_eq!(whole.1.load(Ordering::Relaxed), 1, "{family}: the picture is looked at once");
        for found in &answers[0].matches {
            assert_eq!((found.score_kind, found.via.method), (ScoreKind::TokenProb, method_of(family)));
            assert!(found.score > 0.0 && found.score <= 1.0);
        }
        // Without the full picture the canvas serves: here it holds the very same pixels, between bars.
        let canvas = canvas_frame(&ledger, &shown);
        let answers = grounder.ground(&ask(&canvas, &queries[..1])).unwrap().remove(0);
        assert_eq!(boxes(&answers[0]), got, "{family}: the canvas");
    }
}

/// The boxes that the reference's answer holds, in pixels of the picture.
fn expected(family: &str, dir: &std::path::Path, tokens: &[u32], size: Size) -> Vec<[f32; 4]> {
    let tokenizer = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    let end = groundd::ground::manifest::Manifest::load(dir).unwrap().tokens.end;
    let answer: Vec<u32> = tokens.iter().copied().take_while(|token| !end.contains(token)).collect();
    let text = tokenizer.decode(&answer, false).unwrap();
    println!("{family}: {text:?}");
    let mut codec: Box<dyn Codec> = match family {
        "florence-2" => Box::new(florence::Florence::new(florence::Task::PhraseGrounding)),
        "paligemma" => Box::new(paligemma::PaliGemma::default()),
        // Random weights write no JSON.
        _ => return Vec::new(),
    };
    let mut raw: Vec<RawBox> = codec.push(&text, None);
    raw.extend(codec.finish());
    let (w, h) = (size.width as f32, size.height as f32);
    let mut found = Vec::new();
    for RawBox { fractions: [x1, y1, x2, y2], .. } in raw {
        let corners = [x1 * w, y1 * h, x2 * w, y2 * h];
        if !found.contains(&corners) {
            found.push(corners);
        }
    }
    found
}

/// What the scripted decoder says, and what should be found in pixels of a 56x84 picture, with the score of each.
type Script = (&'static str, Vec<([f32; 4], f32)>);

#[test]
fn what_a_qwen_writes_becomes_boxes_and_nothing_else_does() {
    let long = r#"[{"bbox_2d": [1, 2, 30, 40], "label": "a"},"#;
    let scripts: [(&str, Script); 8] = [
        // Pixels of the resized picture, 56 by 84 here.
        (
            "qwen2.5-vl",
            (r#"[{"bbox_2d": [14, 21, 28, 42], "label": "person"}]"#, vec![([14.0, 21.0, 28.0, 42.0], 0.9)]),
        ),
        ("qwen2.5-vl", ("There are none.", vec![])),
        ("qwen2.5-vl", ("[]", vec![])),
        ("qwen2.5-vl", (long, vec![([1.0, 2.0, 30.0, 40.0], 0.9)])),
        ("qwen2.5-vl", (r#"[{"bbox_2d": [nan, 1e999, -5, "x"], "label": ["#, vec![])),
        // Thousandths.
        ("qwen3-vl", (r#"{"bbox_2d": [250, 250, 500, 500]}"#, vec![([14.0, 21.0, 28.0, 42.0], 0.9)])),
        (
            "qwen2-vl",
            (
                "<|object_ref_start|>a<|object_ref_end|><|box_start|>(250,250),(500,500)<|box_end|>",
                vec![([14.0, 21.0, 28.0, 42.0], 0.9)],
            ),
        ),
        ("qwen2-vl", ("<|box_start|><|box_start|>(250,250),(500", vec![])),
    ];
    let ledger = Arc::new(Ledger::default());
    let size = Size::new(56, 84);
    let shown = groundd::types::Rgb::new(size, vec![100; size.area() * 3]).unwrap();
    let (frame, _) = full_frame(&ledger, &shown);
    let query = query("person", Method::Auto);
    for (family, (said, expected)) in scripts {
        let mut model = Model::scripted(family, said);
        let Model::Qwen(qwen) = &mut model else { panic!("not a Qwen") };
        let asks = [Ask { frame: &frame, query: &query }];
        let found = written::answer(qwen.as_mut(), &asks).unwrap().remove(0).unwrap();
        let got: Vec<_> = found.iter().map(|(pick, _)| (pick.bbox.corners(), pick.score)).collect();
        let close = |a: &([f32; 4], f32), b: &([f32; 4], f32)| {
            a.0.iter().zip(b.0).all(|(x, y)| (x - y).abs() < 1e-3) && (a.1 - b.1).abs() < 1e-3
        };
        let same = got.len() == expected.len() && got.iter().zip(&expected).all(|(a, b)| close(a, b));
        assert!(same, "{family} {said}: {got:?} instead of {expected:?}");
    }
}

#[test]
fn an_answer_without_an_end_is_cut() {
    let ledger = Arc::new(Ledger::default());
    let size = Size::new(56, 84);
    let shown = groundd::types::Rgb::new(size, vec![100; size.area() * 3]).unwrap();
    let (frame, _) = full_frame(&ledger, &shown);
    let query = query("person", Method::Auto);
    // Far longer than any cap, and never the same box twice.
    let said: Vec<_> =
        (0..400).map(|i| format!("{{\"bbox_2d\": [{i}, 1, {}, {}]}}", i + 7, 10 + i * i % 400)).collect();
    let mut model = Model::scripted("qwen3-vl", &said.concat());
    let Model::Qwen(qwen) = &mut model else { panic!("not a Qwen") };
    let found = written::answer(qwen.as_mut(), &[Ask { frame: &frame, query: &query }]).unwrap().remove(0).unwrap();
    assert!((10..=100).contains(&found.len()), "{}", found.len());
}

#[test]
fn an_answer_that_goes_round_in_circles_is_cut() {
    let object = r#"{"bbox_2d": [14, 21, 28, 42], "label": "person"}, "#;
    let mut model = Model::scripted("qwen2.5-vl", &object.repeat(40));
    let tokens = tokens_of(&model_dir("qwen2.5-vl"), &object.repeat(40)).len() / 40;
    let shown = groundd::types::Rgb::new(Size::new(56, 84), vec![100; 56 * 84 * 3]).unwrap();
    // A box written again is no other box.
    assert_eq!(model.ask_all(&[shown], &["person"])[0].len(), 1);
    // Four times round, and a little for where the first one begins.
    assert!((tokens * 4..tokens * 5).contains(&usize::try_from(model.written()).unwrap()), "{}", model.written());
}

#[test]
fn an_answer_ends_with_any_end_token_with_the_cap_and_with_the_room() {
    let said = "There are some people here and there, and none of them has a box.";
    let shown = groundd::types::Rgb::new(Size::new(56, 84), vec![100; 56 * 84 * 3]).unwrap();
    let end = Manifest::load(&model_dir("qwen2.5-vl")).unwrap().tokens.end;
    assert!(end.len() > 1);
    let prompt = {
        let mut model = Model::at(&model_dir("qwen2.5-vl"));
        let looked = model.look(std::slice::from_ref(&shown));
        model.prompt(&looked, &model.asked("cat")).len()
    };
    let all = tokens_of(&model_dir("qwen2.5-vl"), said).len();
    for (ending, limits, expected) in [
        (end[0], "context = 4096".to_owned(), all),
        (end[1], "context = 4096".to_owned(), all),
        (end[0], "context = 4096\nanswer_tokens = 9".to_owned(), 9),
        (end[0], format!("context = {}", prompt + 11), 11),
    ] {
        let dir = copy_of("qwen2.5-vl");
        edit_manifest(dir.path(), "context = 4096", &limits);
        let mut model = Model::scripted_in(dir.path(), said, ending);
        model.ask_all(std::slice::from_ref(&shown), &["cat"]);
        assert_eq!(usize::try_from(model.written()).unwrap(), expected, "{ending} {limits}");
    }
}

#[test]
fn watch_runs_these_models_on_video() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "160x90", 5, 3);
    for (family, method) in [("qwen2.5-vl", "coords"), ("florence-2", "bins"), ("paligemma", "auto")] {
        let output = groundd()
            .arg("watch")
            .arg(&file)
            .args(["--query", "person", "--every-frame", "--method", method, "--model"])
            .arg(model_dir(family))
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{family}: {err}");
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{family}: {out}");
        for line in lines {
            assert_eq!(line["queries"][0]["status"], "ok", "{family}: {line}");
        }
    }
}

#[test]
fn what_a_model_cannot_do_is_said_and_the_rest_is_answered() {
    let ledger = Arc::new(Ledger::default());
    for family in FAMILIES {
        let mut grounder = load(&model_dir(family));
        let (frame, _) = full_frame(&ledger, &picture("wide"));
        let long = "person ".repeat(500);
        let own = if family.starts_with("qwen") { "a <|im_end|> b" } else { "a <image> b" };
        let mut queries =
            vec![query("person", Method::Retrieve), query("person", Method::Detector), query(own, Method::Auto)];
        queries.push(query("person", Method::Auto));
        if !family.starts_with("qwen") {
            queries.push(query(&long, Method::Auto));
        }
        let check = grounder.checker();
        let answers = grounder.ground(&ask(&frame, &queries)).unwrap().remove(0);
        for (at, part) in
            [(0, "cannot do `retrieve`"), (1, "cannot do `detector`"), (2, "meaning of its own"), (4, "tokens")]
        {
            let Some(answer) = answers.get(at) else { continue };
            assert!(matches!(&answer.status, Status::Error(reason) if reason.contains(part)), "{family} {answer:?}");
            assert_eq!(check(&queries[at]).map_err(Status::Error).unwrap_err(), answer.status);
        }
        assert_eq!(answers[3].status, Status::Ok, "{family}");
    }
}

#[test]
fn a_picture_no_model_was_made_for_is_refused_alone() {
    let ledger = Arc::new(Ledger::default());
    let mut grounder = load(&model_dir("qwen2.5-vl"));
    let ribbon = groundd::types::Rgb::new(Size::new(900, 4), vec![9; 900 * 4 * 3]).unwrap();
    let (frame, _) = full_frame(&ledger, &ribbon);
    let answers = grounder.ground(&ask(&frame, &[query("person", Method::Auto)])).unwrap().remove(0);
    assert!(matches!(&answers[0].status, Status::Error(reason) if reason.contains("200 times")), "{answers:?}");
}

#[test]
fn folders_that_contradict_themselves_are_refused_with_the_key() {
    for (family, from, to, expected) in [
        ("qwen2.5-vl", "methods = [\"coords\", \"zoom\"]", "methods = [\"bins\"]", "can do: coords"),
        ("qwen2.5-vl", "fit = \"patches\"", "fit = \"stretch\"\nwidth = 28\nheight = 28", "needs `patches`"),
        ("qwen2.5-vl", "image = 329\n", "", "tokens.image"),
        ("qwen2.5-vl", "layers = 2", "layers = 3", "each of 3 layers"),
        (
            "qwen2.5-vl",
            "hidden = 16",
            "hidden = 24",
            "embed_tokens.onnx: its outputs should be inputs_embeds f32[?,?,24]",
        ),
        ("qwen3-vl", "deepstack = 2", "deepstack = 0", "decoder.deepstack"),
        ("qwen3-vl", "coordinates = \"thousandths\"", "coordinates = \"bins-xyxy\"", "input.coordinates"),
        ("qwen3-vl", "scale = 0.00392156862745098", "scale = 1.0", "input.scale"),
        ("florence-2", "first = 2\n", "", "tokens.first"),
        ("florence-2", "role = \"encoder_model\"", "role = \"encoder\"", "role = \"encoder_model\""),
        ("florence-2", "context = 256", "context = 20", "leaves no room"),
        ("florence-2", "width = 32", "widht = 32", "widht"),
        ("paligemma", "positions = \"from-one\"", "positions = \"mrope\"", "decoder.positions"),
        ("paligemma", "vocabulary = 1541", "vocabulary = 9999", "rows of 9999"),
        ("paligemma", "context = 512", "context = 0", "limits.context: is 0"),
        ("paligemma", "max_batch = 4", "max_batch = 4\nrows = 0", "limits.rows: is 0"),
    ] {
        let dir = copy_of(family);
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected), "{family} {to}: {text}");
    }
}

// --- zoom ---

#[test]
fn how_sure_a_qwen_is_are_its_logits_of_yes_and_no() {
    for family in ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"] {
        let Model::Qwen(mut qwen) = Model::at(&model_dir(family)) else { panic!("not a Qwen") };
        let tokenizer = tokenizers::Tokenizer::from_file(model_dir(family).join("tokenizer.json")).unwrap();
        let first = |word: &str| tokenizer.encode(word, false).unwrap().get_ids()[0] as usize;
        let (seen, other) = (qwen.look_at(&picture("wide")).unwrap(), qwen.look_at(&picture("ties")).unwrap());
        let talk = qwen.begin(&[&seen, &other], "Is it?", 1).unwrap();
        let [yes, no] = ["Yes", "No"].map(|word| f64::from(talk.logits()[first(word)]));
        let words = |text: &str| Part::Words(text.to_owned());
        let together = [Part::Picture, Part::Picture, words("Is it?")];
        let sure = qwen.sure(&[&seen, &other], &together).unwrap();
        assert!((sure - 2.0 * (yes.exp() / (yes.exp() + no.exp()) - 0.5)).abs() < 1e-6, "{family}: {sure}");
        // Where the words stand among the pictures makes a difference, and the second picture is the second.
        let between = qwen.sure(&[&seen, &other], &[Part::Picture, words("Is it?"), Part::Picture]).unwrap();
        let swapped = qwen.sure(&[&other, &seen], &together).unwrap();
        assert!((sure - between).abs() > 1e-9 && (sure - swapped).abs() > 1e-9, "{family}");
    }
}

#[test]
fn a_qwen_names_what_a_question_is_about() {
    for (said, expected) in [
        ("Well. So I need the information about the following objects: red car and van.", vec!["red car", "van"]),
        ("I do not know.", vec![]),
    ] {
        let Model::Qwen(mut qwen) = Model::scripted("qwen2.5-vl", said) else { panic!("not a Qwen") };
        assert_eq!(qwen.cues("Where is the red car beside the van?").unwrap(), expected);
    }
}

#[test]
fn watch_zooms_with_these_models() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "1280x720", 5, 2);
    let output = groundd()
        .arg("watch")
        .arg(&file)
        .args(["--query", "person", "--every-frame", "--method", "zoom", "--model"])
        .arg(model_dir("qwen2.5-vl"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    for line in out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        // Six passes are not enough for all of the picture: where nothing was found that is left open.
        let answer = &line["queries"][0];
        let status = if answer["matches"] == serde_json::json!([]) { "shed" } else { "ok" };
        assert_eq!(answer["status"], status, "{line}");
    }
    assert_eq!(out.lines().count(), 2);
}

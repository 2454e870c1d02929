//! Models that write their answers, number by number as transformers has them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "measured values are worth seeing")]

use std::{path::Path, sync::Arc};

use groundd::{
    ground::{
        codec::softmax::best,
        manifest::Manifest,
        vision::{Filter, Resampler, mrope},
    },
    types::{Answer, Batch, Job, Ledger, Method, Query, QueryId, Size, Status, Worth},
};

use crate::support::{
    ground::{batch, load, load_error},
    vlm::*,
    worst,
};

mod answers;

/// What a measured value may differ by.
const ALLOWED: f32 = 1e-3;

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
    let mut model = Model::warmed(&model_dir(family), |_, engine| Box::new(engine));
    follow_in(family, &mut model, &Reference::of(family), &folder());
}

/// A model, against what its reference says of pictures in the folder `pictures` of `root`.
pub(crate) fn follow_in(family: &str, model: &mut Model, reference: &Reference, root: &Path) {
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
                check_layout(reference, case, model, &looked);
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
        assert_eq!(best(&talk.logits()[last_row..]).unwrap().0, tokens[0] as usize, "{at}: first token");
        let best_logits = reference.f32s(case, "step_best").unwrap();
        for (step, &token) in tokens.iter().enumerate() {
            model.say(&mut talk, token);
            let logits = talk.logits();
            let (next, _) = best(logits).unwrap();
            if let Some(expected) = steps.chunks(width).nth(step) {
                measured.steps = measured.steps.max(worst(logits, expected));
            }
            measured.steps = measured.steps.max(worst(&[logits[next]], &[best_logits[step]]));
            if let Some(expected) = tokens.get(step + 1) {
                assert_eq!(next, *expected as usize, "{at}: token {}", step + 1);
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

/// Positions, their delta and the grids are the reference's own.
fn check_layout(reference: &Reference, case: &Case, model: &Model, looked: &Looked) {
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
}

#[test]
fn exports_published_for_transformers_js_need_no_manifest() {
    let ledger = Arc::new(Ledger::default());
    for family in FAMILIES {
        let dir = published(family);
        follow_in(family, &mut Model::at(dir.path()), &Reference::of(family), &folder());
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
        ("qwen2-vl", "config.json", "\"qwen2_vl\"", "\"owlv2\"", ["config.json: model_type", "tools/export/wrap.py"]),
        // Graphs without DeepStack.
        ("qwen2-vl", "config.json", "\"qwen2_vl\"", "\"qwen3_vl\"", ["leaves out DeepStack", "tools/export"]),
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
        (
            "paligemma",
            "config.json",
            "\"sliding_window\": 512",
            "\"sliding_window\": 9",
            ["config.json: text_config.sliding_window: is 9", "224 or 448"],
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
    // What a detector's folder has no need of is not missed.
    let dir = published("qwen2-vl");
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "rt_detr"}"#).unwrap();
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let text = load_error(dir.path()).to_string();
    assert!(text.contains("`rt_detr`, a family that needs a model.toml"), "{text}");
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

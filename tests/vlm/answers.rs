//! The same models through the daemon's own interface: answers in source pixels, what is refused, and zoom.

use std::sync::{Arc, atomic::Ordering};

use groundd::{
    ground::{
        Limits,
        codec::{Codec, RawBox, florence, paligemma},
        manifest::Manifest,
        methods::{
            retrieve::Ask,
            written::{self, Writer},
            zoom::views::Judge,
        },
        zoom::wording::Part,
    },
    types::{Ledger, Method, ScoreKind, Size, Status},
};

use super::{ask, boxes, method_of, query, text_of};
use crate::support::{
    ground::{edit_manifest, load, load_error},
    h264,
    process::{finish, groundd},
    vlm::*,
};

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
        assert_eq!(Manifest::load(dir.path()).unwrap().methods, methods, "{family} promises others");
        // A fixed size is the canvas; else it is as wide as cameras' pictures, and no larger than the model looks.
        let canvas = match family {
            "florence-2" => Size::new(32, 32),
            "paligemma" => Size::new(42, 42),
            _ => Size::new(128, 72),
        };
        assert_eq!(grounder.limits(), Limits { max_batch: 4, canvases: canvas.into() });
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
        "florence-2" => Box::new(florence::Florence::default()),
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
        let mut command = groundd();
        command.arg("watch").arg(&file).args(["--query", "person", "--every-frame", "--method", method, "--model"]);
        let output = finish(command.arg(model_dir(family)));
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
        ("qwen2.5-vl", "fit = \"patches\"", "fit = \"patches\"\nchannels = \"bgr\"", "input.channels"),
        ("qwen2.5-vl", "image = 329\n", "", "tokens.image"),
        ("qwen2.5-vl", "end = [322, 320]\n", "", "tokens.end"),
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
        ("paligemma", "width = 42", "width = 42\nchannels = \"bgr\"", "input.channels"),
        ("paligemma", "end = [1]", "end = []", "tokens.end"),
        ("paligemma", "context = 512", "context = 0", "limits.context: is 0"),
        ("paligemma", "max_batch = 4", "max_batch = 4\nrows = 0", "limits.rows: is 0"),
    ] {
        let dir = copy_of(family);
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected), "{family} {to}: {text}");
    }
}

#[test]
fn a_qwen3_vl_without_deepstack_is_one_if_its_manifest_says_so() {
    let dir = copy_of("qwen2-vl");
    edit_manifest(dir.path(), "family = \"qwen2-vl\"", "family = \"qwen3-vl\"");
    let manifest = Manifest::load(dir.path()).unwrap();
    assert_eq!(manifest.decoder.map(|facts| facts.deepstack), Some(0));
    assert!(load(dir.path()).describe().methods.contains(&Method::Coords));
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
        let tokens = tokens_of(&model_dir("qwen2.5-vl"), said).len();
        assert_eq!(usize::try_from(qwen.decoder().written()).unwrap(), tokens);
    }
}

#[test]
fn watch_zooms_with_these_models() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mp4");
    h264(&file, "1280x720", 5, 2);
    let mut command = groundd();
    command.arg("watch").arg(&file).args(["--query", "person", "--every-frame", "--method", "zoom", "--model"]);
    let output = finish(command.arg(model_dir("qwen2.5-vl")));
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

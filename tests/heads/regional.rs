//! Models that are shown regions and name those that are meant: what torch makes of tiny ones that were taught a few answers.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use groundd::{
    ground::{
        self, Grounder, ModelConfig, Provider,
        codec::regions::{Dialect, encode},
        engine::{
            Engine, EngineError,
            local::{Compute, Local, Runtime},
        },
        manifest::{Manifest, Selection},
        methods::{
            find::{Finder, Want},
            propose::Region,
        },
        models::regional::{Regional, Seen},
    },
    types::{Answer, BBox, Job, Ledger, Method, Rgb, ScoreKind, Size},
};
use serde::Deserialize;

use super::{differ, folder, picture, query};
use crate::support::{
    ground::{batch, config, edit_manifest, load, load_error},
    h264,
    process::{finish, groundd},
    vlm::{Scripted, full_frame},
    worst,
};

const MODELS: [&str; 2] = ["vlm-fo1", "vlx-seek"];
/// The families' own threshold, as the fixtures have it.
const MATCH: f32 = 0.1;

/// What torch makes of one share of a picture's regions.
#[derive(Deserialize)]
struct Shown {
    picture: String,
    share: usize,
    boxes: Vec<[f32; 4]>,
    grid: (u32, u32),
    picture_features: Vec<f32>,
    features: Vec<f32>,
    texts: Vec<Told>,
}

/// What it says of a text about them.
#[derive(Deserialize)]
struct Told {
    text: String,
    ids: Vec<i64>,
    /// The second row of the positions.
    rows: Vec<i64>,
    delta: i64,
    answer: String,
    /// Indexes in the answer and their probabilities.
    found: Vec<(usize, f32)>,
    begins: f32,
    first: Vec<f32>,
}

fn told(dir: &Path) -> Vec<Shown> {
    serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap()
}

/// A picture that lies beside the folder of a model.
fn shown(dir: &Path, name: &str) -> Rgb {
    let image = image::open(dir.with_file_name(format!("{name}.png"))).unwrap().to_rgb8();
    let size = Size::new(image.width(), image.height());
    Rgb::new(size, image.into_raw()).unwrap()
}

/// The model of a folder; `wrap` is given its files as they are opened.
fn opened(dir: &Path, wrap: impl Fn(&Path, Local) -> Box<dyn Engine>) -> Regional {
    let manifest = Manifest::load(dir).unwrap_or_else(|e| panic!("{e}"));
    let runtime = Runtime::load(&ground::library_path(&config(dir)).unwrap()).unwrap();
    let compute = Compute { provider: Provider::Cpu, device: 0, threads: 1 };
    let mut open =
        |file: &Path| -> Result<Box<dyn Engine>, EngineError> { Ok(wrap(file, Local::open(&runtime, file, compute)?)) };
    Regional::open(&manifest, &[folder("")], &mut open).unwrap_or_else(|e| panic!("{e}")).0
}

fn model(dir: &Path) -> Regional {
    opened(dir, |_, engine| Box::new(engine))
}

/// A model that says `said` whatever it is shown.
fn scripted(dir: &Path, said: &[&str]) -> Regional {
    let manifest = Manifest::load(dir).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    let mut script = VecDeque::new();
    for one in said {
        script.extend(tokenizer.encode(*one, false).unwrap().get_ids());
        script.push_back(manifest.tokens.end[0]);
    }
    opened(dir, |file, engine| {
        if file.ends_with("decoder_model_merged.onnx") {
            Box::new(Scripted::new(engine, script.clone()))
        } else {
            Box::new(engine)
        }
    })
}

/// Largest differences: of boxes in pixels, of features, of probabilities; and how many prompts were compared.
#[derive(Debug, Default)]
struct Off {
    pixels: f32,
    features: f32,
    chances: f32,
    prompts: usize,
    named: usize,
}

fn exactly([x1, y1, x2, y2]: [f32; 4], region: &Region) -> Region {
    Region { bbox: BBox::new(x1, y1, x2, y2).unwrap(), ..*region }
}

/// Every tensor of every prompt of a model, against its reference.
fn tensors(dir: &Path) -> Off {
    let (mut model, mut off) = (model(dir), Off::default());
    let cases = told(dir);
    let pictures: BTreeSet<_> = cases.iter().map(|case| &case.picture).collect();
    for name in pictures {
        let picture = shown(dir, name);
        let shares = model.shares(&picture).unwrap();
        let cases: Vec<_> = cases.iter().filter(|case| case.picture == *name).collect();
        assert_eq!(shares.len(), cases.len(), "{name}");
        let seen = model.look(&picture).unwrap();
        for (share, case) in shares.iter().zip(cases) {
            let at = format!("{} {name} {}", dir.display(), case.share);
            assert_eq!((share.len(), seen.grid), (case.boxes.len(), case.grid), "{at}");
            for (region, want) in share.iter().zip(&case.boxes) {
                off.pixels = off.pixels.max(worst(&region.bbox.corners(), want));
            }
            off.features = off.features.max(worst(&seen.features, &case.picture_features));
            // From the reference's own boxes on: what a proposer is off by is no matter of what is made of its regions.
            let share: Vec<_> = case.boxes.iter().zip(share).map(|(corners, own)| exactly(*corners, own)).collect();
            let features = model.features(&seen, &share).unwrap();
            off.features = off.features.max(worst(&features, &case.features));
            for one in &case.texts {
                let prompt = model.prompt(&seen, share.len(), &[&one.text], "").unwrap();
                assert_eq!(prompt.ids, one.ids, "{at} {}", one.text);
                let length = prompt.ids.len();
                let rows = &prompt.positions.ids[length..length * 2];
                assert_eq!((rows, prompt.positions.delta), (&one.rows[..], one.delta), "{at} {}", one.text);
                let choice = model.choose(&seen, &features, share.len(), &one.text).unwrap();
                off.chances = off.chances.max(worst(&[choice.begins], &[one.begins]));
                off.chances = off.chances.max(worst(&choice.first, &one.first));
                let found = model.decode(&seen, &features, share.len(), &[&one.text]).unwrap().remove(0);
                let indexes = |found: &[(usize, f32)]| found.iter().map(|(index, _)| *index).collect::<Vec<_>>();
                assert_eq!(indexes(&found), indexes(&one.found), "{at}: {}", one.answer);
                for ((_, got), (_, want)) in found.iter().zip(&one.found) {
                    off.chances = off.chances.max(worst(&[*got], &[*want]));
                }
                (off.prompts, off.named) = (off.prompts + 1, off.named + found.len());
            }
        }
    }
    off
}

/// The boxes and scores that a text's answers come to over all shares of a picture, in one pass or decoded.
fn wanted(cases: &[Shown], picture: &str, text: &str, once: bool) -> Vec<[f32; 5]> {
    let mut found = Vec::new();
    for case in cases.iter().filter(|case| case.picture == picture) {
        let one = case.texts.iter().find(|one| one.text == text).unwrap();
        let whole = one.begins * one.first.iter().sum::<f32>();
        let chances: Vec<_> = match once {
            true if whole < 0.5 => Vec::new(),
            true => one.first.iter().map(|chance| one.begins * chance).enumerate().collect(),
            false => one.found.clone(),
        };
        for (index, chance) in chances.into_iter().filter(|(_, chance)| *chance >= MATCH) {
            let [x1, y1, x2, y2] = case.boxes[index];
            found.push([x1, y1, x2, y2, chance]);
        }
    }
    found
}

/// The same through the daemon's own interface, all texts of a picture at once; how far off, and how many boxes and misses.
fn answers(dir: &Path, once: bool) -> (f32, f32, usize, usize) {
    let ledger = Arc::new(Ledger::default());
    let (mut grounder, cases) = (load_choosing(dir, once), told(dir));
    let info = grounder.describe();
    assert_eq!(info.methods, [Method::Retrieve], "{}", dir.display());
    let (mut far, mut off, mut boxes, mut missed) = (0.0f32, 0.0f32, 0, 0);
    let texts: Vec<_> = cases[0].texts.iter().map(|one| one.text.clone()).collect();
    for name in cases.iter().map(|case| &case.picture).collect::<BTreeSet<_>>() {
        let (frame, whole) = full_frame(&ledger, &shown(dir, name));
        let methods = [Method::Auto, Method::Retrieve].into_iter().cycle();
        let queries: Vec<_> = texts.iter().zip(methods).map(|(text, method)| query(text, method, None)).collect();
        let found: Vec<Answer> = grounder.ground(&batch(vec![Job { frame, queries }])).unwrap().remove(0);
        assert_eq!(whole.1.load(Ordering::Relaxed), 1, "one look for all queries");
        for (answer, text) in found.iter().zip(&texts) {
            let want = wanted(&cases, name, text, once);
            let at = format!("{} {name} {text}", dir.display());
            let (px, score) = differ(answer, &want).unwrap_or_else(|e| panic!("{at}: {e}"));
            (far, off, boxes) = (far.max(px), off.max(score), boxes + want.len());
            missed += usize::from(want.is_empty());
            for one in &answer.matches {
                assert_eq!((one.score_kind, one.via.method), (ScoreKind::TokenProb, Method::Retrieve), "{at}");
            }
            assert!(answer.matches.is_sorted_by(|a, b| a.score >= b.score), "{at}");
        }
    }
    let written = grounder.effort().tokens.unwrap();
    assert_eq!(written == 0, once, "{written} tokens were written");
    println!(
        "{} in one pass {once}: {boxes} boxes within {far} px, scores within {off}, {missed} misses",
        dir.display()
    );
    (far, off, boxes, missed)
}

/// Loads a model whose choice is read in one pass, or decoded, whatever its manifest says.
fn load_choosing(dir: &Path, once: bool) -> Box<dyn Grounder> {
    let selection = Some(if once { Selection::OnePass } else { Selection::Decode });
    ground::load(&ModelConfig { selection, ..config(dir) }, &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// A copy of a model that finds its proposer, which is named relative to it.
fn moved(dir: &Path) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for from in [dir.to_owned(), folder("yolox")] {
        let to = home.path().join(from.file_name().unwrap());
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    home
}

fn follow(dir: &Path) -> usize {
    let off = tensors(dir);
    println!("{}: {off:?}", dir.display());
    assert!(
        off.pixels < 0.5 && off.features < 1e-3 && off.chances < 1e-3 && off.named > 0,
        "{}: {off:?}",
        dir.display()
    );
    for once in [false, true] {
        let (far, score, boxes, missed) = answers(dir, once);
        assert!(far < 0.5 && score < 1e-3 && boxes > 1 && missed > 0, "{}: {far} px, {score}", dir.display());
    }
    off.prompts
}

#[test]
fn models_that_name_regions_say_what_torch_says() {
    let prompts: usize = MODELS.iter().map(|name| follow(&folder(name))).sum();
    assert!(prompts >= 24, "{prompts}");
}

/// Other builds and sizes than those that are kept: `make parity` writes them.
#[test]
#[ignore = "needs a folder that `python -m export region-fixtures --more` wrote; `make parity` runs it"]
fn models_of_other_builds_say_what_torch_says() {
    let root = PathBuf::from(std::env::var("GROUNDD_PARITY_HEADS").expect("GROUNDD_PARITY_HEADS names the folder"));
    let folders: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    let own = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vlm-fo1-"));
    let followed: Vec<_> = folders.iter().filter(own).map(|dir| follow(dir)).collect();
    assert!(followed.len() >= 3, "only {} models in {}", followed.len(), root.display());
}

/// The regions of the first prompt about the street.
fn street(model: &mut Regional) -> (Seen, Vec<Region>, Vec<f32>) {
    let picture = picture("street");
    let share = model.shares(&picture).unwrap().remove(0);
    let seen = model.look(&picture).unwrap();
    let features = model.features(&seen, &share).unwrap();
    (seen, share, features)
}

#[test]
fn an_answer_is_held_to_the_regions_that_were_shown_and_to_the_queries() {
    let dir = folder("vlm-fo1");
    let said = "<ground>traffic  Light</ground><objects><region3><region12><region99><region3></objects>\
                <ground>zebra</ground><objects><region1></objects><ground>car</ground><objects><region11><region0></objects>";
    let mut model = scripted(&dir, &[said, said, "None", "<ground>car</ground><objects>"]);
    let (seen, share, features) = street(&mut model);
    assert_eq!(share.len(), 12);
    let mut ask = |queries: &[&str]| {
        let found = model.decode(&seen, &features, share.len(), queries).unwrap();
        found.into_iter().map(|one| one.into_iter().map(|(index, _)| index).collect()).collect::<Vec<Vec<_>>>()
    };
    // Of several queries each gets its own label's, and a label that nobody asked for is dropped.
    assert_eq!(ask(&["car", "person", "traffic light"]), [vec![11, 0], vec![], vec![3]]);
    // Where one was asked, all that is named answers it.
    assert_eq!(ask(&["car"]), [vec![3, 1, 11, 0]]);
    assert_eq!(ask(&["car"]), [Vec::<usize>::new()]);
    assert_eq!(ask(&["car"]), [Vec::<usize>::new()]);
}

#[test]
fn a_long_row_of_regions_is_an_answer() {
    let home = moved(&folder("vlm-fo1"));
    let dir = home.path().join("vlm-fo1");
    edit_manifest(&dir, "prompt = 12", "prompt = 36");
    let answer = encode(Dialect::Fo1, "person", &(0..36).collect::<Vec<_>>());
    let mut model = scripted(&dir, &[&answer]);
    let (seen, share, features) = street(&mut model);
    let found = model.decode(&seen, &features, share.len(), &["person"]).unwrap().remove(0);
    assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..36).collect::<Vec<_>>());
    assert!(found.iter().all(|(_, score)| (score - 0.9).abs() < 1e-3));
}

#[test]
fn several_queries_share_a_question_where_the_manifest_says_so() {
    let home = moved(&folder("vlm-fo1"));
    let dir = home.path().join("vlm-fo1");
    edit_manifest(&dir, "selection = \"decode\"", "selection = \"decode\"\nqueries = 2");
    let said =
        ["<ground>car</ground><objects><region2></objects><ground>dog</ground><objects><region0></objects>", "None"];
    // Three shares of regions, and two questions about each.
    let mut model = scripted(&dir, &[said, said, said].concat());
    let wants = ["dog", "car", "person"].map(|text| Want { text, least: 0.5 });
    let picture = picture("street");
    let found = model.find(&picture, &wants).unwrap();
    let shares = model.shares(&picture).unwrap();
    for (found, index) in found.iter().zip([Some(0), Some(2), None]) {
        let got: Vec<_> = found.iter().map(|pick| pick.bbox).collect();
        let want: Vec<_> =
            index.map(|index| shares.iter().map(|share| share[index].bbox).collect()).unwrap_or_default();
        assert_eq!(got, want);
    }
}

#[test]
fn what_would_be_read_as_structure_cannot_be_asked() {
    let grounder = load(&folder("vlm-fo1"));
    let check = grounder.checker();
    for text in ["a <region3>", "<ground>x</ground>", "x</objects>", "<|im_end|>", "", "<|vision_start|>"] {
        let reason = check(&query(text, Method::Auto, None)).expect_err(text);
        assert!(reason.contains("leave it out") || reason.contains("say what to look for"), "{text}: {reason}");
    }
    for text in ["a red car", "<obj3>", "<region", "région"] {
        check(&query(text, Method::Auto, None)).unwrap();
    }
    let reason = check(&query("car", Method::Coords, None)).unwrap_err();
    assert!(reason.contains("cannot do `coords`; it can do: retrieve"), "{reason}");
}

#[test]
fn models_that_contradict_their_manifest_are_refused_with_the_key() {
    for (name, from, to, expected) in [
        ("vlx-seek", "prompt = 12", "prompt = 21", "has no token `<obj20>`"),
        ("vlm-fo1", "prompt = 12", "prompt = 101", "regions.prompt"),
        ("vlm-fo1", "prompt = 12", "prompt = 0", "regions.prompt"),
        ("vlm-fo1", "nms_iou = 0.8", "nms_iou = 1.5", "regions.nms_iou"),
        ("vlm-fo1", "prompt = 12", "prompt = 12\nquestion = \"Detect things.\"", "regions.question"),
        ("vlm-fo1", "selection = \"decode\"", "selection = \"guess\"", "selection"),
        ("vlm-fo1", "order = \"none\"", "order = \"spiral\"", "order"),
        ("vlm-fo1", "[aux]\n", "[aux]\nwidth = 64\n", "aux.width, aux.height"),
        ("vlx-seek", "width = 768\n", "width = 776\n", "aux_encoder.onnx"),
        ("vlm-fo1", "role = \"region_encoder\"", "role = \"regions\"", "role = \"region_encoder\""),
        ("vlm-fo1", "role = \"aux_encoder\"", "role = \"aux\"", "among vt_boxes, aux_boxes"),
        ("vlm-fo1", "methods = [\"retrieve\"]", "methods = [\"coords\"]", "can do: retrieve"),
        ("vlm-fo1", "model = \"../yolox\"", "model = \"../nowhere\"", "nowhere"),
        ("vlm-fo1", "positions = \"mrope\"", "positions = \"from-one\"", "decoder.positions"),
        ("vlm-fo1", "context = 4096", "context = 40", "limits.context"),
    ] {
        let home = moved(&folder(name));
        let dir = home.path().join(name);
        edit_manifest(&dir, from, to);
        let text = load_error(&dir).to_string();
        assert!(text.contains(expected), "{name} {to}: {text}");
    }
}

#[test]
fn the_choice_is_read_as_configured_where_there_is_one() {
    // The manifests say how; a configuration overrules them, of models that choose.
    let home = moved(&folder("vlm-fo1"));
    let dir = home.path().join("vlm-fo1");
    edit_manifest(&dir, "selection = \"decode\"", "selection = \"one-pass\"");
    for (selection, once) in [(None, true), (Some(Selection::Decode), false)] {
        let mut grounder = ground::load(&ModelConfig { selection, ..config(&dir) }, &[]).unwrap();
        let (frame, _) = full_frame(&Arc::new(Ledger::default()), &picture("street"));
        grounder.ground(&batch(vec![Job { frame, queries: vec![query("car", Method::Auto, None)] }])).unwrap();
        assert_eq!(grounder.effort().tokens == Some(0), once);
    }
    let clip = ModelConfig { selection: Some(Selection::Decode), ..config(&folder("clip")) };
    let error = ground::load(&clip, &[]).map(|grounder| grounder.describe()).unwrap_err().to_string();
    assert!(error.contains("clip is not shown regions") && error.contains("model.selection"), "{error}");
}

#[test]
fn watch_runs_a_model_that_names_regions() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("clip.mp4");
    h264(&file, "160x90", 5, 2);
    for (name, method) in [("vlm-fo1", "retrieve"), ("vlx-seek", "auto"), ("vlm-fo1", "detector")] {
        let mut command = groundd();
        command.arg("watch").arg(&file).args(["--every-frame", "--method", method, "--query", "car", "--model"]);
        let output = finish(command.arg(folder(name)));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let refused = method == "detector";
        assert!(!refused || err.contains("cannot do `detector`; it can do: retrieve"), "{err}");
        assert_eq!(out.lines().count(), 2, "{name}: {out}{err}");
        for line in out.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["queries"][0]["status"], if refused { "error" } else { "ok" }, "{line}");
        }
    }
}

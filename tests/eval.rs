//! `groundd eval` as a user runs it: the tiny model, whose answers are known beforehand, the bundled one, and one that writes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use image::RgbImage;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    ground::{CANVAS, Region, picture, tiny},
    process::{fails, finish, groundd},
};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

fn eval(dataset: &Path, arguments: &[&str]) -> Command {
    let mut command = groundd();
    command.arg("eval").arg(dataset).args(["--threads", "1", "--log", "warn"]).args(arguments);
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = finish(command);
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn near(value: &Value, expected: f64) {
    assert!(value.as_f64().is_some_and(|v| (v - expected).abs() < 1e-6), "{value} is not {expected}");
}

/// Two images as the tiny model reads them: one with a bright thing and a dark one, one with nothing.
fn tiny_images(folder: &Path) {
    let region = |corners, objectness, brightness| Region { corners, objectness, brightness };
    let two = [region([0, 0, 51, 51], 204, 255), region([102, 102, 204, 255], 255, 51)];
    for (name, regions) in [("two.png", &two[..]), ("none.png", &[])] {
        let pixels = picture(regions).data.to_vec();
        RgbImage::from_raw(CANVAS.width, CANVAS.height, pixels).unwrap().save(folder.join(name)).unwrap();
    }
}

const BRIGHT: [f64; 4] = [0.0, 0.0, 3.2, 1.6];
const DARK: [f64; 4] = [6.4, 3.2, 12.8, 8.0];

/// What the tiny model will get right, get wrong and refuse.
fn tiny_phrases() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    tiny_images(folder.path());
    let phrases = json!({ "phrases": [
        { "image": "two.png", "phrase": "bright", "boxes": [BRIGHT], "kind": "light" },
        { "image": "two.png", "phrase": "dark", "boxes": [[0.0, 4.0, 3.0, 8.0]], "kind": "light" },
        { "image": "two.png", "phrase": "left", "boxes": [BRIGHT, DARK], "kind": "place" },
        { "image": "two.png", "phrase": "the dark", "boxes": [], "kind": "nothing" },
        { "image": "two.png", "phrase": "zebra", "boxes": [DARK], "kind": "strange" },
        { "image": "none.png", "phrase": "bright", "boxes": [], "kind": "nothing" },
    ]});
    let file = folder.path().join("phrases.json");
    fs::write(&file, phrases.to_string()).unwrap();
    (folder, file)
}

#[test]
fn figures_are_those_that_can_be_worked_out_by_hand() {
    let (folder, file) = tiny_phrases();
    let json = folder.path().join("out.json");
    let output = succeeds(&mut eval(&file, &["--model", tiny().to_str().unwrap(), "--json", json.to_str().unwrap()]));
    let report = read(&json);
    assert_eq!(report["dataset"]["style"], "phrases");
    let method = &report["methods"][0];
    assert_eq!(method["method"], "retrieve");
    let figures = &method["figures"];
    let counts = ["phrases", "targets", "for_one", "for_several", "for_nothing", "refused"].map(|key| &figures[key]);
    assert_eq!(counts.map(|n| n.as_u64().unwrap()), [6, 5, 3, 1, 2, 1]);
    // `bright` is right, `dark` is somewhere else, `zebra` is not a word that the model knows.
    near(&figures["accuracy"], 1.0 / 3.0);
    near(&figures["mean_iou"], 1.0 / 3.0);
    near(&figures["f1_several"], 1.0);
    near(&figures["miss"], 0.5);
    // Found: bright, both of left. Wrong: dark, the dark. Missed: dark, zebra.
    near(&figures["f1"], 6.0 / 10.0);
    near(&figures["recall"], 3.0 / 5.0);
    // `light` reaches half of its recalls without a mistake above, `place` all, `strange` none.
    near(&figures["ap50"], (51.0 / 101.0 + 1.0) / 3.0);
    near(&method["kinds"]["light"]["accuracy"], 0.5);
    near(&method["kinds"]["strange"]["ap"], 0.0);
    assert_eq!(method["kinds"]["nothing"]["ap"], Value::Null);
    let refused = method["refused"].as_object().unwrap();
    assert!(refused.len() == 1 && refused.keys().all(|reason| reason.contains("zebra")), "{refused:?}");
    // Each image: one look, one selection. Texts were encoded in the warm-up.
    assert_eq!(method["cost"]["frames"], 2);
    near(&method["cost"]["passes"]["frame"]["p95"], 2.0);
    near(&method["cost"]["tokens"]["frame"]["p95"], 0.0);
    assert!(method["cost"]["ms"]["query"]["p50"].as_f64().unwrap() > 0.0);
    let table = String::from_utf8(output.stdout).unwrap();
    for word in ["retrieve", "0.333", "0.600", "1 of 6 phrases could not be asked", "zebra", "strange"] {
        assert!(table.contains(word), "`{word}` is missing from:\n{table}");
    }
}

#[test]
fn thresholds_limits_and_choices_count() {
    let (folder, file) = tiny_phrases();
    let json = folder.path().join("out.json");
    let (model, out) = (tiny(), json.to_str().unwrap().to_owned());
    let figures = |more: &[&str]| {
        succeeds(&mut eval(&file, &[&["--model", model.to_str().unwrap(), "--json", &out], more].concat()));
        read(&json)["methods"][0]["figures"].clone()
    };
    // Both phrases for `dark` are answered at 0.8 only.
    let strict = figures(&["--threshold", "0.9", "--query", "dark", "--query", "the dark"]);
    assert_eq!((strict["phrases"].as_u64(), strict["miss"].as_f64()), (Some(2), Some(1.0)));
    assert!(strict["ap"].is_number(), "the ranking is below the threshold, too");
    let quick = figures(&["--no-ap", "--limit", "1"]);
    assert_eq!((quick["phrases"].as_u64(), quick["for_nothing"].as_u64()), (Some(5), Some(1)));
    assert_eq!((&quick["ap"], &quick["recall"]), (&Value::Null, &Value::Null));
}

#[test]
fn plots_and_examples_are_pictures() {
    let (folder, file) = tiny_phrases();
    let (plot, examples) = (folder.path().join("plot.png"), folder.path().join("examples"));
    let arguments = ["--model", tiny().to_str().unwrap(), "--plot", plot.to_str().unwrap()].map(str::to_owned);
    let arguments = [&arguments[..], &["--examples".to_owned(), examples.to_str().unwrap().to_owned()]].concat();
    succeeds(&mut eval(&file, &arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    let plot = image::open(plot).unwrap().into_rgb8();
    let dark = |rows: std::ops::Range<u32>| {
        let at = |(x, y)| plot.get_pixel(x, y).0.iter().all(|v| *v < 60);
        rows.flat_map(|y| (0..plot.width()).map(move |x| (x, y))).filter(|at_| at(*at_)).count()
    };
    assert!(dark(0..30) > 300, "the title has letters");
    assert!(dark(plot.height() - 40..plot.height()) > 300, "the axes have names");
    let blue = plot.pixels().filter(|p| p.0 == [0, 114, 178]).count();
    assert!(blue > 200, "the method has a point in both panels, not {blue} pixels");
    let mut names: Vec<String> =
        fs::read_dir(examples).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    // An image is shown once among the good and once among the bad; nothing is wrong on the empty one.
    assert_eq!(names, ["retrieve-bad-01-dark-two.jpg", "retrieve-good-01-left-two.jpg"]);
}

#[test]
fn the_bundled_model_runs_on_generated_images_of_every_layout_and_says_the_same_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("images")).unwrap();
    fs::create_dir_all(at("labels")).unwrap();
    for (i, (width, height)) in [(640, 360), (301, 407), (64, 48)].into_iter().enumerate() {
        let image = RgbImage::from_fn(width, height, |x, y| {
            let inside = x > width / 3 && x < width / 2 && y > height / 4;
            image::Rgb(if inside { [200, 30, 30] } else { [(x % 250) as u8, 120, (y % 250) as u8] })
        });
        image.save(at(&format!("images/{i}.png"))).unwrap();
        fs::write(at(&format!("labels/{i}.txt")), "0 0.4167 0.625 0.1667 0.75\n").unwrap();
    }
    let coco = json!({
        "images": (0..3).map(|i| json!({ "id": i, "file_name": format!("{i}.png") })).collect::<Vec<_>>(),
        "annotations": (0..3).map(|i| json!({ "id": i, "image_id": i, "category_id": 1, "bbox": [20, 12, 12, 36] }))
            .collect::<Vec<_>>(),
        "categories": [{ "id": 1, "name": "person" }, { "id": 2, "name": "car" }],
    });
    fs::write(at("coco.json"), coco.to_string()).unwrap();
    for (dataset, style, phrases) in [(at(""), "yolo", 3), (at("coco.json"), "coco", 6)] {
        let run = |name: &str| {
            let json = at(name);
            succeeds(&mut eval(&dataset, &["--methods", "retrieve", "--json", json.to_str().unwrap()]));
            read(&json)
        };
        let (first, second) = (run("1.out"), run("2.out"));
        let method = &first["methods"][0];
        assert_eq!(
            (first["dataset"]["style"].as_str(), method["figures"]["phrases"].as_u64()),
            (Some(style), Some(phrases))
        );
        assert!(first["model"]["id"].as_str().unwrap().starts_with("nano@"));
        for key in ["accuracy", "mean_iou", "f1", "recall", "ap", "ap50"] {
            assert!(method["figures"][key].as_f64().is_some_and(|v| (0.0..=1.0).contains(&v)), "{key}: {method}");
        }
        assert_eq!(method["figures"], second["methods"][0]["figures"]);
        assert!(method["cost"]["passes"]["frame"]["p50"].as_f64().is_some_and(|n| n >= 1.0));
    }
}

#[test]
fn every_method_of_a_model_is_tried_and_owes_nothing_to_the_others() {
    let (folder, file) = tiny_phrases();
    let json = folder.path().join("out.json");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nano_tiny");
    let run = |more: &[&str]| {
        let arguments = ["--model", model.to_str().unwrap(), "--json", json.to_str().unwrap()];
        succeeds(&mut eval(&file, &[&arguments, more].concat()));
        read(&json)["methods"].as_array().unwrap().clone()
    };
    let all = run(&[]);
    let names: Vec<&str> = all.iter().map(|m| m["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["retrieve", "detector", "coords", "bins", "zoom"]);
    let cost = |m: &Value, what: &str| m["cost"][what]["frame"]["p95"].as_f64().unwrap();
    for (method, writes) in all.iter().zip([false, false, true, true, false]) {
        assert_eq!(cost(method, "tokens") > 0.0, writes, "{method}");
        assert_eq!(method["figures"]["phrases"], 6);
    }
    near(&all[0]["figures"]["f1"], 6.0 / 10.0);
    assert!(cost(&all[2], "passes") > cost(&all[0], "passes"), "writing takes a pass a token");
    // Asked alone, and in another order, each says and costs the same.
    for method in &all {
        let alone = &run(&["--methods", method["method"].as_str().unwrap()])[0];
        assert_eq!(alone["figures"], method["figures"]);
        assert_eq!(alone["cost"]["passes"], method["cost"]["passes"], "{}", method["method"]);
        assert_eq!(alone["cost"]["tokens"], method["cost"]["tokens"]);
    }
}

#[test]
fn tokens_are_counted_where_they_are_written() {
    let (folder, file) = tiny_phrases();
    let json = folder.path().join("out.json");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vlm/qwen2-vl/model");
    let arguments = ["--model", model.to_str().unwrap(), "--query", "bright", "--json", json.to_str().unwrap()];
    succeeds(&mut eval(&file, &arguments));
    let method = &read(&json)["methods"][0];
    assert_eq!(method["method"], "coords");
    let most = |what: &str| method["cost"][what]["frame"]["p95"].as_f64().unwrap();
    let (tokens, passes) = (most("tokens"), most("passes"));
    // Each token is embedded and decoded; the picture and the prompt come before.
    assert!(tokens >= 1.0 && passes >= 2.0 * tokens, "{tokens} tokens in {passes} passes");
    assert!(tokens < passes);
}

#[test]
fn a_search_that_ran_out_of_passes_counts_by_what_it_said_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // Twenty times the tiny model's canvas, so that there is much to look at from near, and nothing to be seen.
    RgbImage::new(320, 160).save(folder.path().join("night.png")).unwrap();
    let (file, out) = (folder.path().join("phrases.json"), folder.path().join("out.json"));
    fs::write(&file, json!([{ "image": "night.png", "phrase": "bright", "boxes": [] }]).to_string()).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nano_tiny");
    let run = |more: &[&str]| {
        let arguments = ["--model", model.to_str().unwrap(), "--methods", "zoom", "--json", out.to_str().unwrap()];
        let table = String::from_utf8(succeeds(&mut eval(&file, &[&arguments, more].concat())).stdout).unwrap();
        (read(&out), table)
    };
    let counts = |report: &Value| {
        let figures = &report["methods"][0]["figures"];
        (figures["unfinished"].as_u64(), figures["refused"].as_u64(), figures["miss"].as_f64())
    };
    let (hasty, table) = run(&["--zoom-passes", "1"]);
    assert_eq!(counts(&hasty), (Some(1), Some(0), Some(1.0)), "silence, and nothing is there");
    assert_eq!(hasty["zoom_passes"], 1);
    assert!(table.contains("zoom: ran out of passes for 1 of 1 phrases"), "{table}");
    let (patient, table) = run(&["--zoom-exhaustive"]);
    assert_eq!(counts(&patient), (Some(0), Some(0), Some(1.0)));
    assert_eq!(patient["zoom_passes"], Value::Null, "there was no limit");
    assert!(!table.contains("ran out"), "{table}");
}

#[test]
fn a_file_that_cannot_be_written_in_the_end_takes_no_figures_along() {
    let (folder, file) = tiny_phrases();
    let (model, plot) = (tiny(), folder.path().join("plot.png"));
    // It can be opened, but has no room.
    let arguments = ["--model", model.to_str().unwrap(), "--json", "/dev/full", "--plot", plot.to_str().unwrap()];
    let output = finish(&mut eval(&file, &arguments));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
    assert!(said.contains("/dev/full"), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("0.600"), "the table is there");
    assert!(image::open(plot).is_ok(), "and so is the plot");
}

#[test]
fn an_image_that_breaks_off_is_left_out_and_counted_and_long_names_are_cut() {
    let (folder, file) = tiny_phrases();
    let at = |name: &str| folder.path().join(name);
    let whole = fs::read(at("two.png")).unwrap();
    fs::write(at("half.png"), &whole[..whole.len() / 2]).unwrap();
    let long = format!("{}.png", "\u{e9}".repeat(125));
    fs::rename(at("two.png"), at(&long)).unwrap();
    let phrases = json!([
        { "image": "half.png", "phrase": "bright", "boxes": [BRIGHT] },
        { "image": long, "phrase": "bright", "boxes": [BRIGHT] },
    ]);
    fs::write(&file, phrases.to_string()).unwrap();
    let (model, out, drawn) = (tiny(), at("out.json"), at("drawn"));
    let arguments = ["--model", model.to_str().unwrap(), "--json", out.to_str().unwrap()];
    let output = succeeds(&mut eval(&file, &[&arguments[..], &["--examples", drawn.to_str().unwrap()]].concat()));
    let report = read(&out);
    let counts = ["images", "unreadable"].map(|key| report["dataset"][key].as_u64());
    assert_eq!(counts, [Some(1), Some(1)]);
    let method = &report["methods"][0];
    assert_eq!(method["figures"]["phrases"], 1);
    // The text was encoded in the warm-up, which was of the first image that could be read.
    near(&method["cost"]["passes"]["frame"]["p95"], 2.0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("half.png"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 images could not be read"));
    let names = fs::read_dir(drawn).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), [format!("retrieve-good-01-bright-{}.jpg", "\u{e9}".repeat(30))]);
}

#[test]
fn bad_command_lines_and_data_sets() {
    let (folder, file) = tiny_phrases();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fails(groundd().arg("eval"), USAGE, &["<DATASET>"]);
    fails(&mut eval(&file, &["--methods", "retrieve,magic"]), USAGE, &["magic", "zoom"]);
    fails(&mut eval(&file, &["--methods", "auto"]), USAGE, &["auto", "retrieve"]);
    fails(&mut eval(&file, &["--limit", "0"]), USAGE, &["--limit", "above 0"]);
    fails(&mut eval(&file, &["--threshold", "2"]), USAGE, &["--threshold", "0 to 1"]);
    fails(&mut eval(&file, &["--query", "unicorn"]), USAGE, &["--query", "unicorn", "\"bright\""]);
    fails(&mut eval(&file, &["--json", "/no/such/folder/x.json"]), USAGE, &["--json", "/no/such/folder"]);
    fails(&mut eval(&file, &["--plot", &out("plot.jpg")]), USAGE, &["--plot", ".png"]);
    fails(&mut eval(&file, &["--examples", file.to_str().unwrap()]), USAGE, &["--examples", "phrases.json"]);
    let model = tiny();
    let cannot = ["--model", model.to_str().unwrap(), "--methods", "retrieve,zoom"];
    fails(&mut eval(&file, &cannot), USAGE, &["tiny cannot do `zoom`", "it can do: retrieve"]);
    fails(&mut eval(&file, &["--model", "no-such-model"]), CONFIG, &["no-such-model"]);
    fails(&mut eval(Path::new("/no/such.json"), &[]), CONFIG, &["/no/such.json", "No such file"]);

    let bad = folder.path().join("bad.json");
    for (text, words) in [
        ("hello", &["bad.json", "not JSON"][..]),
        ("{}", &["bad.json", "annotations", "phrases"]),
        (r#"[{"image": "two.png", "phrase": "x"}]"#, &["bad.json", "line 1", "`boxes`"]),
        (r#"[{"image": "two.png", "phrase": "x", "boxes": [[1, 2, 3]]}]"#, &["bad.json", "phrases[0]", "x1"]),
        (r#"[{"image": "gone.png", "phrase": "x", "boxes": []}]"#, &["bad.json", "gone.png", "--images"]),
        (r#"[{"image": "bad.json", "phrase": "x", "boxes": []}]"#, &["bad.json", "JPEG and PNG"]),
    ] {
        fs::write(&bad, text).unwrap();
        fails(&mut eval(&bad, &[]), CONFIG, words);
    }
    // The header is whole, the rest is not: found out only when it is decoded.
    let whole = fs::read(folder.path().join("two.png")).unwrap();
    fs::write(folder.path().join("half.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(&bad, r#"[{"image": "half.png", "phrase": "bright", "boxes": []}]"#).unwrap();
    fails(&mut eval(&bad, &["--model", model.to_str().unwrap()]), CONFIG, &["half.png", "cannot be read as an image"]);
}

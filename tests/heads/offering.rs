//! Models that offer regions of whatever kind: a Deformable DETR with one class, as UPN is one, and its reference's answers.

use std::{path::Path, sync::Arc};

use groundd::{
    ground::{
        engine::{
            Data, Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor,
            local::{Compute, Local, Runtime},
        },
        manifest::Manifest,
        methods::propose::{BoxProposer, Region},
        models::{closed::Closed, proposer},
    },
    types::{Job, Ledger, Method, Rgb, Size, Status},
};

use super::{apart, copy_of, differ, expected, folder, picture, query, reading::shown};
use crate::support::{
    ground::{batch, config, edit_manifest, load, load_error},
    vlm::full_frame,
};

const NAME: &str = "deformable-detr";

fn opening(dir: &Path) -> impl FnMut(&Path) -> Result<Local, EngineError> + use<> {
    let runtime = Runtime::load(&groundd::ground::library_path(&config(dir)).unwrap()).unwrap();
    let compute = Compute { provider: groundd::ground::Provider::Cpu, device: 0, threads: 1 };
    move |file| Local::open(&runtime, file, compute)
}

fn numbers(regions: &[Region]) -> Vec<[f32; 5]> {
    let told = |r: &Region| {
        let [x1, y1, x2, y2] = r.bbox.corners();
        [x1, y1, x2, y2, r.objectness]
    };
    regions.iter().map(told).collect()
}

/// A copy of the model that ranks regions, with the one in `other` to offer them.
fn ranking(other: &Path) -> tempfile::TempDir {
    let dir = copy_of("clip");
    edit_manifest(dir.path(), "model = \"../yolox\"", &format!("model = {:?}", other.display().to_string()));
    edit_manifest(dir.path(), "regions = 50", "regions = 100");
    dir
}

#[test]
fn a_detr_of_one_class_offers_what_its_reference_offers() {
    let (ledger, dir) = (Arc::new(Ledger::default()), ranking(&folder(NAME)));
    let mut local = opening(dir.path());
    let mut open = |file: &Path| -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(local(file)?)) };
    let (mut offers, other) = proposer::open(&Manifest::load(dir.path()).unwrap(), &[], &mut open).unwrap();
    assert_eq!(other.name, "tiny-deformable-detr");
    let (mut grounder, mut ranks) = (load(&folder(NAME)), load(dir.path()));
    let (mut far, mut off, mut boxes, mut ranked) = (0.0f32, 0.0f32, 0, 0);
    for one in expected(NAME) {
        let shown = shown(&one.picture);
        let regions = numbers(&offers.regions(&shown).unwrap());
        assert!(regions.is_sorted_by(|a, b| a[4] >= b[4]) && regions.iter().all(|r| r[4] >= 0.3), "{regions:?}");
        let (frame, _) = full_frame(&ledger, &shown);
        let ask = |grounder: &mut dyn groundd::ground::Grounder, query| {
            let job = Job { frame: Arc::clone(&frame), queries: vec![query] };
            grounder.ground(&batch(vec![job])).unwrap().remove(0).remove(0)
        };
        let answer = ask(grounder.as_mut(), query(&one.text, Method::Detector, None));
        for found in [apart(&regions, &one.boxes), differ(&answer, &one.boxes)] {
            let (px, score) = found.unwrap_or_else(|e| panic!("{}: {e}", one.picture));
            (far, off) = (far.max(px), off.max(score));
        }
        boxes += one.boxes.len();
        // What ranks regions by words names some of these, and no others.
        let answer = ask(ranks.as_mut(), query("car", Method::Auto, Some(0.0)));
        assert_eq!(answer.status, Status::Ok);
        for found in &answer.matches {
            let near = |r: &[f32; 5]| r[..4].iter().zip(found.bbox.corners()).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(regions.iter().any(near), "{}: {found:?} was never offered", one.picture);
        }
        ranked += answer.matches.len();
    }
    println!("{NAME}: {boxes} regions within {far} px, scores within {off}; {ranked} ranked");
    assert!(
        boxes >= 40 && ranked >= 15 && far < 0.5 && off < 5e-3,
        "{boxes} regions, {ranked} ranked, {far} px, {off}"
    );
}

#[test]
fn of_many_regions_the_surest_are_offered() {
    let dir = copy_of(NAME);
    edit_manifest(dir.path(), "boxes = 100", "boxes = 5");
    let mut local = opening(dir.path());
    let mut open = |file: &Path| -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(local(file)?)) };
    let mut model = Closed::open(&Manifest::load(dir.path()).unwrap(), &mut open).unwrap();
    let one = expected(NAME).remove(0);
    let regions = numbers(&model.regions(&shown(&one.picture)).unwrap());
    let (px, _) = apart(&regions, &one.boxes[..5]).unwrap();
    assert!(px < 0.5, "{px} px");
}

/// What `tools/parity/detectors.py --regions` compares: the regions that a detector offers in every picture of a folder.
#[test]
#[ignore = "needs real pictures and a real detector; tools/parity/detectors.py runs it"]
fn real_pictures() {
    let given = |name: &str| std::env::var(format!("GROUNDD_PARITY_{name}")).unwrap_or_else(|_| panic!("set {name}"));
    let dir = ranking(Path::new(&given("MODEL")));
    let mut local = opening(dir.path());
    let mut open = |file: &Path| -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(local(file)?)) };
    let (mut offers, other) = proposer::open(&Manifest::load(dir.path()).unwrap(), &[], &mut open).unwrap();
    let least: f32 = given("LEAST").parse().unwrap();
    assert!((other.scores.unwrap().objectness - least).abs() < 1e-6, "the manifest's objectness should be {least}");
    let mut files: Vec<_> = std::fs::read_dir(given("PICTURES")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut found = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let image = image::open(file).unwrap().to_rgb8();
        let shown = Rgb::new(Size::new(image.width(), image.height()), image.into_raw()).unwrap();
        let regions = numbers(&offers.regions(&shown).unwrap());
        found.extend(regions.into_iter().map(|[x1, y1, x2, y2, score]| (number, 0, x1, y1, x2, y2, score)));
    }
    std::fs::write(given("FOUND"), serde_json::to_vec(&found).unwrap()).unwrap();
}

/// The same graph with the ports of the original's exports: no mask, and the outputs' own names.
struct Original {
    engine: Local,
    ports: [Vec<Port>; 2],
}

impl Original {
    fn of(engine: Local) -> Self {
        let inputs = engine.inputs().iter().filter(|port| port.name != "pixel_mask").cloned().collect();
        let mut outputs = engine.outputs().to_vec();
        outputs
            .iter_mut()
            .filter(|port| port.name == "logits")
            .for_each(|port| "pred_logits".clone_into(&mut port.name));
        Self { engine, ports: [inputs, outputs] }
    }
}

impl Engine for Original {
    fn inputs(&self) -> &[Port] {
        &self.ports[0]
    }

    fn outputs(&self) -> &[Port] {
        &self.ports[1]
    }

    fn file(&self) -> &Path {
        self.engine.file()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        let &[("pixel_values", pixels)] = inputs else { panic!("{} inputs", inputs.len()) };
        let (height, width) = (pixels.shape[2], pixels.shape[3]);
        let mask = Tensor { shape: vec![1, height, width], data: Data::I64(vec![1; height * width]) };
        let mut told = self.engine.run(&[("pixel_values", pixels), ("pixel_mask", &mask)])?;
        let [logits, boxes] = ["logits", "pred_boxes"].map(|name| told.take(name).unwrap());
        Ok(Outputs::new(vec![("pred_logits".into(), logits), ("pred_boxes".into(), boxes)]))
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        self.engine.run_keeping(inputs, keep)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.engine.blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.engine.arrange(parts)
    }
}

#[test]
fn a_graph_without_a_mask_and_with_the_originals_names_offers_the_same() {
    let (dir, street) = (folder(NAME), picture("street"));
    let manifest = Manifest::load(&dir).unwrap();
    let mut local = opening(&dir);
    // As large as the graph's image, so that a mask covers all of it.
    let rows = street.data.chunks_exact(3 * 128).take(64).flat_map(|row| &row[..3 * 96]).copied().collect::<Vec<_>>();
    let whole = Rgb::new(Size::new(96, 64), rows).unwrap();
    let mut regions = |original: bool| {
        let mut open = |file: &Path| -> Result<Box<dyn Engine>, EngineError> {
            let engine = local(file)?;
            Ok(if original { Box::new(Original::of(engine)) } else { Box::new(engine) })
        };
        numbers(&Closed::open(&manifest, &mut open).unwrap().regions(&whole).unwrap())
    };
    let (masked, bare) = (regions(false), regions(true));
    assert!(masked.len() >= 4);
    let (px, score) = apart(&bare, &masked).unwrap();
    assert!(px < 1e-2 && score < 1e-5, "{px} px, {score}");
}

#[test]
fn detrs_that_contradict_their_manifest_are_refused_with_the_key() {
    for (from, to, expected) in [
        ("width = 96", "width = 64", "pixel_mask i64[1, 64, 64]"),
        ("shortest = 64\n", "", "input.shortest"),
        ("longest = 96", "longest = 9", "input.longest"),
        ("longest = 96", "longest = 96\nmean = [0.5, 0.5, 0.5]", "input.mean"),
        ("longest = 96", "longest = 96\nresample = \"bicubic\"", "resample"),
        ("longest = 96", "longest = 96\nchannels = \"bgr\"", "input.channels"),
        ("family = \"deformable-detr\"", "family = \"rt-detr\"", "needs `stretch` or `corner`"),
        ("\"object\"", "\"object\", \"other\"", "f32[1, queries, 2]"),
    ] {
        let dir = copy_of(NAME);
        edit_manifest(dir.path(), from, to);
        let text = load_error(dir.path()).to_string();
        assert!(text.contains(expected), "{to}: {text}");
    }
}

//! The tiny models that write their answers, and what transformers says of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundd::{
    ground::{
        self, Provider,
        codec::RawBox,
        engine::{
            Data, Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor,
            local::{Compute, Local, Runtime},
        },
        manifest::Manifest,
        methods::written::Writer,
        models::{
            decoder::Decoder,
            florence::Florence,
            paligemma::PaliGemma,
            qwen::{Qwen, Seen},
            speech::Talk,
        },
    },
    types::{BBox, Frame, FullFrame, Ledger, Letterbox, Rgb, Size},
};
use serde::Deserialize;

use super::ground::{config, frame_of};

/// Every family with fixtures.
pub(crate) const FAMILIES: [&str; 5] = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "florence-2", "paligemma"];

/// The folder of the fixtures.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vlm")
}

/// The folder of a family's tiny model.
pub(crate) fn model_dir(family: &str) -> PathBuf {
    folder().join(family).join("model")
}

/// A copy of a family's tiny model that a test may change.
pub(crate) fn copy_of(family: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(model_dir(family)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// A family's tiny model laid out as exports published for transformers.js are: no manifest, graphs in `onnx/`.
pub(crate) fn published(family: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("onnx")).unwrap();
    let model = fs::read_dir(model_dir(family)).unwrap();
    for entry in model.chain(fs::read_dir(folder().join(family).join("published")).unwrap()) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        match path.extension().and_then(|e| e.to_str()) {
            Some("onnx") => _ = fs::copy(&path, dir.path().join("onnx").join(name)).unwrap(),
            Some("json") => _ = fs::copy(&path, dir.path().join(name)).unwrap(),
            _ => {}
        }
    }
    dir
}

/// The tiny Qwen2.5-VL as a published export in half precision, to the last port.
pub(crate) fn half() -> tempfile::TempDir {
    let dir = published("qwen2.5-vl");
    for role in ["vision_encoder", "embed_tokens", "decoder_model_merged"] {
        let graph = |form: &str| dir.path().join(format!("onnx/{role}{form}.onnx"));
        fs::remove_file(graph("")).unwrap();
        fs::copy(folder().join(format!("half/{role}.onnx")), graph("_fp16")).unwrap();
    }
    dir
}

/// A picture of the fixtures.
pub(crate) fn picture(name: &str) -> Rgb {
    picture_in(&folder(), name)
}

/// A picture of those in `folder`.
pub(crate) fn picture_in(folder: &Path, name: &str) -> Rgb {
    let image = image::open(folder.join("pictures").join(format!("{name}.png"))).unwrap().to_rgb8();
    let size = Size::new(image.width(), image.height());
    Rgb::new(size, image.into_raw()).unwrap()
}

/// One case of the fixtures.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) pictures: Vec<String>,
    pub(crate) text: String,
    pub(crate) steps: usize,
}

/// What transformers says of a family's tiny model.
pub(crate) struct Reference {
    pub(crate) cases: Vec<Case>,
    /// The version of Pillow that resized the pictures.
    pub(crate) pillow: u32,
    tensors: HashMap<String, (Vec<usize>, String, Vec<u8>)>,
}

#[derive(Deserialize)]
struct Listed {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

impl Reference {
    pub(crate) fn of(family: &str) -> Self {
        Self::at(&folder().join(family))
    }

    /// What lies in a folder: `cases.json` and `tensors.safetensors`.
    pub(crate) fn at(dir: &Path) -> Self {
        #[derive(Deserialize)]
        struct Cases {
            cases: Vec<Case>,
            #[serde(default = "thirteen")]
            pillow: u32,
        }
        fn thirteen() -> u32 {
            13
        }
        let Cases { cases, pillow } = serde_json::from_slice(&fs::read(dir.join("cases.json")).unwrap()).unwrap();
        // safetensors: the length of a JSON header, the header, the data.
        let bytes = fs::read(dir.join("tensors.safetensors")).unwrap();
        let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let (header, data) = bytes[8..].split_at(header);
        let listed: HashMap<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
        let tensors = listed.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, value)| {
            let Listed { dtype, shape, data_offsets: [from, to] } = serde_json::from_value(value).unwrap();
            (name, (shape, dtype, data[from..to].to_vec()))
        });
        Self { cases, pillow, tensors: tensors.collect() }
    }

    pub(crate) fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).expect("the case is there")
    }

    fn raw(&self, case: &Case, what: &str, dtype: &str) -> Option<(&[usize], &[u8])> {
        let (shape, is, data) = self.tensors.get(&format!("{}.{what}", case.name))?;
        assert_eq!(is, dtype, "{what}");
        Some((shape, data))
    }

    pub(crate) fn f32s(&self, case: &Case, what: &str) -> Option<Vec<f32>> {
        let (_, data) = self.raw(case, what, "F32")?;
        Some(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    pub(crate) fn i64s(&self, case: &Case, what: &str) -> Option<Vec<i64>> {
        let (_, data) = self.raw(case, what, "I64")?;
        Some(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    /// Of how many steps all logits are there.
    pub(crate) fn rows(&self, case: &Case) -> usize {
        self.tensors[&format!("{}.step_logits", case.name)].0[1]
    }

    /// A resized picture.
    pub(crate) fn resized(&self, case: &Case, at: usize) -> Rgb {
        let (shape, data) = self.raw(case, &format!("resized.{at}"), "U8").expect("the picture is there");
        let side = |axis: usize| u32::try_from(shape[axis]).unwrap();
        Rgb::new(Size::new(side(1), side(0)), data.to_vec()).unwrap()
    }

    /// The greedy answer.
    pub(crate) fn tokens(&self, case: &Case) -> Vec<u32> {
        let tokens = self.i64s(case, "tokens").unwrap();
        tokens.into_iter().map(|token| u32::try_from(token).unwrap()).collect()
    }
}

const COMPUTE: Compute = Compute { provider: Provider::Cpu, device: 0, threads: 1 };

/// An opened model of any family.
pub(crate) enum Model {
    Qwen(Box<Qwen>),
    Florence(Box<Florence>),
    PaliGemma(Box<PaliGemma>),
}

/// What a model made of some pictures.
pub(crate) enum Looked {
    Qwen(Vec<Seen>),
    Square(Vec<f32>),
}

impl Model {
    /// The model in a folder.
    pub(crate) fn at(dir: &Path) -> Self {
        Self::with(dir, |_, engine| Box::new(engine))
    }

    /// A model whose decoder runs, but says `said` whatever it is shown, each token with a probability of 0.9.
    pub(crate) fn scripted(family: &str, said: &str) -> Self {
        let manifest = Manifest::load(&model_dir(family)).unwrap();
        Self::scripted_in(&model_dir(family), said, manifest.tokens.end[0])
    }

    /// The same, of the model in a folder, which ends with `end`.
    pub(crate) fn scripted_in(dir: &Path, said: &str, end: u32) -> Self {
        let mut script = tokens_of(dir, said);
        script.push(end);
        Self::with(dir, |file, engine| {
            if file.ends_with("decoder_model_merged.onnx") {
                Box::new(Scripted::new(engine, script.clone().into()))
            } else {
                Box::new(engine)
            }
        })
    }

    /// The model in a folder, warmed up: it does at once what its graphs, each as `wrap` makes it, were found to do.
    pub(crate) fn warmed(dir: &Path, wrap: impl Fn(&Path, Local) -> Box<dyn Engine>) -> Self {
        let mut model = Self::with(dir, wrap);
        let pictures = ["wide", "ties"].map(picture);
        match &mut model {
            Self::Qwen(model) => model.warm_up(&pictures),
            Self::Florence(model) => model.warm_up(&pictures),
            Self::PaliGemma(model) => model.warm_up(&pictures),
        }
        .unwrap();
        model
    }

    fn with(dir: &Path, wrap: impl Fn(&Path, Local) -> Box<dyn Engine>) -> Self {
        let manifest = Manifest::load(dir).unwrap_or_else(|e| panic!("{e}"));
        let library = ground::library_path(&config(dir)).unwrap();
        let runtime = Runtime::load(&library).unwrap();
        let mut open = |file: &Path| -> Result<Box<dyn Engine>, EngineError> {
            Ok(wrap(file, Local::open(&runtime, file, COMPUTE)?))
        };
        match manifest.family.as_str() {
            "florence-2" => Self::Florence(Box::new(Florence::open(&manifest, &mut open).unwrap())),
            "paligemma" => Self::PaliGemma(Box::new(PaliGemma::open(&manifest, &mut open).unwrap())),
            _ => Self::Qwen(Box::new(Qwen::open(&manifest, &mut open).unwrap())),
        }
    }

    /// `pixel_values` of one picture.
    pub(crate) fn pixels(&mut self, picture: &Rgb) -> Vec<f32> {
        let tensor: Tensor = match self {
            Self::Qwen(model) => model.pixels(picture).unwrap().0,
            Self::Florence(model) => model.pixels(picture).unwrap(),
            Self::PaliGemma(model) => model.pixels(picture).unwrap(),
        };
        let Data::F32(data) = tensor.data else { panic!("not floats") };
        assert_eq!(data.len(), tensor.shape.iter().product::<usize>());
        data
    }

    /// The size a picture is resized to.
    pub(crate) fn image_size(&mut self, picture: &Rgb) -> Size {
        let side = |v: usize| u32::try_from(v).unwrap();
        let square = |tensor: &Tensor| Size::new(side(tensor.shape[3]), side(tensor.shape[2]));
        match self {
            Self::Qwen(model) => model.pixels(picture).unwrap().2,
            Self::Florence(model) => square(&model.pixels(picture).unwrap()),
            Self::PaliGemma(model) => square(&model.pixels(picture).unwrap()),
        }
    }

    pub(crate) fn look(&mut self, pictures: &[Rgb]) -> Looked {
        match self {
            Self::Qwen(model) => Looked::Qwen(pictures.iter().map(|one| model.look_at(one).unwrap()).collect()),
            Self::Florence(model) => Looked::Square(model.look_at(&pictures[0]).unwrap()),
            Self::PaliGemma(model) => Looked::Square(model.look_at(&pictures[0]).unwrap()),
        }
    }

    pub(crate) fn prompt(&self, looked: &Looked, asked: &str) -> Vec<i64> {
        match (self, looked) {
            (Self::Qwen(model), Looked::Qwen(seen)) => {
                model.prompt(&seen.iter().collect::<Vec<_>>(), asked).unwrap().ids
            }
            (Self::Florence(model), _) => model.prompt(asked).unwrap(),
            (Self::PaliGemma(model), _) => model.prompt(asked).unwrap(),
            _ => panic!("another model looked"),
        }
    }

    pub(crate) fn begin(&mut self, looked: &Looked, asked: &str, last: usize) -> Talk {
        match (self, looked) {
            (Self::Qwen(model), Looked::Qwen(seen)) => {
                model.begin(&seen.iter().collect::<Vec<_>>(), asked, last).unwrap()
            }
            (Self::Florence(model), Looked::Square(seen)) => model.begin(seen, asked).unwrap(),
            (Self::PaliGemma(model), Looked::Square(seen)) => model.begin(seen, asked, last).unwrap(),
            _ => panic!("another model looked"),
        }
    }

    /// Looks at all pictures and asks every text about each: boxes, one picture's after the other.
    pub(crate) fn ask_all(&mut self, pictures: &[Rgb], texts: &[&str]) -> Vec<Vec<RawBox>> {
        fn all<W: Writer>(model: &mut W, pictures: &[Rgb], texts: &[&str]) -> Vec<Vec<RawBox>> {
            let looked = model.look(&pictures.iter().collect::<Vec<_>>()).unwrap();
            let seen: Vec<_> = looked.into_iter().map(Result::unwrap).collect();
            let asks: Vec<_> = seen.iter().flat_map(|seen| texts.iter().map(move |text| (seen, *text))).collect();
            model.locate(&asks).unwrap()
        }
        match self {
            Self::Qwen(model) => all(model.as_mut(), pictures, texts),
            Self::Florence(model) => all(model.as_mut(), pictures, texts),
            Self::PaliGemma(model) => all(model.as_mut(), pictures, texts),
        }
    }

    /// What is asked for a text.
    pub(crate) fn asked(&self, text: &str) -> String {
        match self {
            Self::Qwen(model) => model.asked(text),
            Self::Florence(model) => model.asked(text),
            Self::PaliGemma(model) => model.asked(text),
        }
    }

    /// Talks side by side.
    pub(crate) fn join(&mut self, talks: Vec<Talk>) -> Talk {
        Talk::join(self.decoder(), talks).unwrap()
    }

    /// Goes on with these rows of a talk.
    pub(crate) fn pick(&mut self, talk: &mut Talk, rows: &[usize]) {
        talk.pick(self.decoder(), rows).unwrap();
    }

    /// Says a token in each row.
    pub(crate) fn say_all(&mut self, talk: &mut Talk, tokens: &[u32]) {
        talk.say(self.decoder(), tokens).unwrap();
    }

    fn decoder(&mut self) -> &mut Decoder {
        match self {
            Self::Qwen(model) => model.decoder(),
            Self::Florence(model) => model.decoder(),
            Self::PaliGemma(model) => model.decoder(),
        }
    }

    /// Tokens written so far.
    pub(crate) fn written(&self) -> u64 {
        match self {
            Self::Qwen(model) => model.tokens(),
            Self::Florence(model) => model.tokens(),
            Self::PaliGemma(model) => model.tokens(),
        }
        .unwrap()
    }

    pub(crate) fn say(&mut self, talk: &mut Talk, token: u32) {
        self.say_all(talk, &[token]);
    }
}

/// What the vocabulary in `dir` makes of a text.
pub(crate) fn tokens_of(dir: &Path, text: &str) -> Vec<u32> {
    let tokenizer = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

/// The full-size picture of a frame, as a decoder keeps it; it counts how often it is asked.
pub(crate) struct Whole(pub(crate) Rgb, pub(crate) std::sync::atomic::AtomicUsize);

impl FullFrame for Whole {
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let whole = BBox::new(0.0, 0.0, self.0.size.width as f32, self.0.size.height as f32);
        if size != self.0.size || Some(*area) != whole {
            return Err("only the whole picture is kept".to_owned());
        }
        Ok(self.0.clone())
    }
}

/// A frame whose canvas is black and whose full-size picture is `picture`.
pub(crate) fn full_frame(ledger: &Arc<Ledger>, picture: &Rgb) -> (Arc<Frame>, Arc<Whole>) {
    let whole = Arc::new(Whole(picture.clone(), 0.into()));
    let size = Size::new(32, 32);
    let black = Rgb::new(size, vec![0; size.area() * 3]).unwrap();
    let view = Letterbox::fit(picture.size, 1.0, size);
    (frame(ledger, black, view, Some(whole.clone())), whole)
}

/// A frame whose canvas is `picture` between black bars, and that has nothing else.
pub(crate) fn canvas_frame(ledger: &Arc<Ledger>, picture: &Rgb) -> Arc<Frame> {
    let Size { width, height } = picture.size;
    let size = Size::new(width + 20, height);
    let row = |line: &[u8]| [&[0; 30][..], line, &[0; 30]].concat();
    let data: Vec<u8> = picture.data.chunks(width as usize * 3).flat_map(row).collect();
    let view = Letterbox::fit(picture.size, 1.0, size);
    frame(ledger, Rgb::new(size, data).unwrap(), view, None)
}

fn frame(ledger: &Arc<Ledger>, canvas: Rgb, view: Letterbox, full: Option<Arc<Whole>>) -> Arc<Frame> {
    frame_of("cam0", ledger, (view, canvas), full.map(|whole| whole as Arc<dyn FullFrame>))
}

/// A real decoder whose words are put into its mouth.
pub(crate) struct Scripted {
    engine: Local,
    script: VecDeque<u32>,
}

impl Scripted {
    /// A decoder that says `script`, each token with a probability of 0.9.
    pub(crate) fn new(engine: Local, script: VecDeque<u32>) -> Self {
        Self { engine, script }
    }
}

impl Engine for Scripted {
    fn inputs(&self) -> &[Port] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.engine.outputs()
    }

    fn file(&self) -> &Path {
        self.engine.file()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        self.engine.run(inputs)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        let mut outputs = self.engine.run_keeping(inputs, keep)?;
        let mut logits = outputs.host.take("logits").unwrap();
        if let Data::F32(values) = &mut logits.data {
            // The softmax of one logit above all others that are equal.
            let others = (values.len() - 1) as f32;
            values.fill(0.0);
            values[self.script.pop_front().expect("more words than are needed") as usize] = (9.0 * others).ln();
        }
        outputs.host = Outputs::new(vec![("logits".into(), logits)]);
        Ok(outputs)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.engine.blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.engine.arrange(parts)
    }
}

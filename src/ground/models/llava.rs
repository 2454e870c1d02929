//! LLaVA-Grounding: a language model names things, and a head finds what it meant.
//!
//! The model is shown the picture and asked in words. To the question it was taught for one thing, which ends in `(referring).`,
//! it answers `<seg> .`; to others, which end in `(with grounding)`, whole sentences: `<g_s> a red car <g_e> <seg>`. The last
//! layer's state, normed, from which `<seg>` was predicted stands for the phrase (`auto_regressive_generate` in
//! `llava_llama_gd.py`; the state *before* the mark is fed back, not the mark's own), and the head of [`grounded`] gives
//! boxes for it. Every phrase of an answer counts, as it does in the reference.
//!
//! Nothing here is of one language model: any whose decoder also gives `hidden_states`, and whose positions are counted,
//! goes with any head that takes states so wide. The two see the picture differently: `[input]` is the head's, in a corner
//! of a square; `[look]` the language model's, of which CLIP's own preparation cuts off both ends (`fit = "centre"`;
//! `"stretch"` shows it all, as it was not trained).

use std::sync::Arc;

use super::{
    Open,
    answer::{Rules, told},
    decoder::Decoder,
    grounded::{Head, Shown},
    need, open_role, picture,
    speech::{self, Manner, Talk},
    tokens::Vocabulary,
};
use crate::{
    ground::{
        GroundError,
        engine::{self, Engine, Tensor},
        manifest::{Manifest, Positions},
        methods::{
            find::{Finder, Want},
            regions::Pick,
            retrieve::TextCheck,
        },
        vision::{self, Resampler},
    },
    types::{Rgb, ScoreKind},
};

/// The family's name in manifests.
pub const FAMILY: &str = "llava-grounding";

/// An opened model.
pub struct Llava {
    vision: Box<dyn Engine>,
    decoder: Decoder,
    head: Head,
    asking: Arc<Asking>,
    look: vision::Fit,
    /// Whether the picture keeps its shape and loses its ends.
    centre: bool,
    resampler: Resampler,
    image_tokens: usize,
    counted: Positions,
    /// By what a phrase asks to be found.
    mark: u32,
    rules: Rules,
}

/// What surrounds a query.
struct Asking {
    vocabulary: Vocabulary,
    /// Tokens before the picture.
    before: Vec<i64>,
    /// What stands after the picture, before the query and after it.
    around: [String; 2],
    /// Most tokens after the picture.
    most: usize,
}

impl Asking {
    /// The tokens after the picture. The picture parts a text: its pieces become tokens each for itself.
    fn after(&self, text: &str) -> Result<Vec<i64>, GroundError> {
        let [before, after] = &self.around;
        self.vocabulary.encode(&format!("{before}{}{after}", text.trim()))
    }

    fn check(&self, text: &str) -> Result<(), String> {
        self.vocabulary.check(text)?;
        let count = self.after(text).map_err(|e| e.to_string())?.len();
        if count > self.most {
            return Err(format!("the question has {count} tokens; the model takes at most {}: shorten it", self.most));
        }
        Ok(())
    }
}

/// Parts a prompt at `<image>` and at `{}`.
fn parted(manifest: &Manifest, prompt: &str) -> Result<[String; 3], GroundError> {
    let reason = || {
        let keys = "should hold <image> once, and after it {} once";
        GroundError::unfit(manifest, format!("grounding.prompt: {prompt:?} {keys}"))
    };
    let (before, rest) = prompt.split_once("<image>").ok_or_else(reason)?;
    let (between, after) = rest.split_once("{}").ok_or_else(reason)?;
    if [before, between, after].iter().any(|part| part.contains("<image>") || part.contains("{}")) {
        return Err(reason());
    }
    Ok([before, between, after].map(str::to_owned))
}

impl Llava {
    /// Opens the files of a manifest whose family this is.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let rules = need(manifest, "grounding", manifest.grounding.as_ref())?;
        let counted = need(manifest, "decoder", manifest.decoder.as_ref())?.positions;
        if counted == Positions::Mrope {
            let reason = "decoder.positions: should be \"from-zero\", \"from-one\" or \"in-graph\"";
            return Err(GroundError::unfit(manifest, reason));
        }
        let [before, between, after] = parted(manifest, &rules.prompt)?;
        let mut vocabulary = Vocabulary::load(manifest)?;
        let mut token = |key: &str, text: &str| {
            let unknown = || GroundError::unfit(manifest, format!("{key}: the vocabulary has no token `{text}`"));
            vocabulary.reserve(text).ok_or_else(unknown)
        };
        let mark = token("grounding.mark", &rules.mark)?;
        rules.around.iter().try_for_each(|text| token("grounding.around", text).map(drop))?;
        let mut start: Vec<i64> = manifest.tokens.begin.iter().map(|id| i64::from(*id)).collect();
        if !before.is_empty() {
            start.extend(vocabulary.encode(&before)?);
        }
        let limits = &manifest.limits;
        let most = limits.context.saturating_sub(start.len() + limits.image_tokens + 1);
        let ends = Rules::of(manifest)?;
        let decoder = Decoder::open(manifest, open)?;
        if !decoder.gives_states() {
            let reason = "the file with role = \"decoder_model_merged\" gives no `hidden_states`, from which phrases are \
                          found; export it with them";
            return Err(GroundError::unfit(manifest, reason));
        }
        let (look, centre) = picture::look(manifest)?;
        Ok(Self {
            vision: open_role(manifest, "vision_encoder", open)?,
            head: Head::open(manifest, decoder.hidden(), open)?,
            decoder,
            asking: Arc::new(Asking { vocabulary, before: start, around: [between, after], most }),
            look,
            centre,
            resampler: Resampler::default(),
            image_tokens: limits.image_tokens,
            counted,
            mark,
            rules: ends,
        })
    }

    /// What the language model makes of a picture.
    fn look(&mut self, picture: &Rgb) -> Result<Vec<f32>, GroundError> {
        let pixels = if self.centre {
            let mut data = Vec::new();
            self.look.centre(&picture.data, picture.size, &mut self.resampler, &mut data)?;
            let image = self.look.image;
            Tensor::f32s(&[1, 3, image.height as usize, image.width as usize], data)
        } else {
            picture::stretched(&self.look, picture, &mut self.resampler)?
        };
        let shape = [1, self.image_tokens, self.decoder.hidden()];
        let [features] =
            engine::run_f32(self.vision.as_mut(), &[("pixel_values", &pixels)], [("image_features", &shape)])?;
        Ok(features)
    }

    /// Shows the picture, asks for `text`, and begins the answer; says how many tokens that took.
    fn begin(&mut self, seen: &[f32], text: &str) -> Result<(Talk, usize), GroundError> {
        let start = self.asking.before.len();
        let ids = [&self.asking.before[..], &vec![0; self.image_tokens], &self.asking.after(text)?].concat();
        let embeds = self.decoder.embed_with(&ids, start, seen)?;
        let (length, first) = (ids.len(), i64::from(self.counted == Positions::FromOne));
        let numbers = |data| Tensor::i64s(&[1, length], data);
        let (mask, places) = (numbers(vec![1; length]), numbers((first..).take(length).collect()));
        let feeds = [("inputs_embeds", &embeds), ("attention_mask", &mask), ("position_ids", &places)];
        let prompt = speech::Prompt { feeds: &feeds, length, delta: first, last: 1 };
        let cache = self.decoder.begin()?;
        Ok((Talk::begin(&mut self.decoder, cache, Manner::Counted, &prompt)?, length))
    }

    /// What stands for each phrase of the answer: a state of the language model.
    fn phrases(&mut self, seen: &[f32], text: &str) -> Result<Vec<Vec<f32>>, GroundError> {
        let (mut talk, length) = self.begin(seen, text)?;
        let mut guard = self.rules.guard(length, self.rules.caps.tokens);
        let mut phrases = Vec::new();
        loop {
            let (token, _) = told(&self.decoder, talk.logits())?;
            if self.rules.end.contains(&token) {
                return Ok(phrases);
            }
            self.decoder.wrote();
            if token == self.mark {
                phrases.push(self.decoder.state().to_vec());
            }
            if guard.token(token).is_some() || phrases.len() >= self.rules.caps.boxes {
                return Ok(phrases);
            }
            talk.say(&mut self.decoder, &[token])?;
        }
    }

    fn found(&mut self, shown: &Shown, seen: &[f32], want: &Want<'_>) -> Result<Vec<Pick>, GroundError> {
        let phrases = self.phrases(seen, want.text)?;
        self.head.find(shown, &phrases, want.least)
    }
}

impl Finder for Llava {
    fn checker(&self) -> TextCheck {
        let asking = Arc::clone(&self.asking);
        Arc::new(move |text| asking.check(text))
    }

    fn score_kind(&self) -> ScoreKind {
        ScoreKind::TokenProb
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.decoder.written())
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        let seen = self.look(picture)?;
        let (mut talk, _) = self.begin(&seen, "person")?;
        talk.say(&mut self.decoder, &[self.mark])?;
        let phrase = self.decoder.state().to_vec();
        let shown = self.head.look(picture)?;
        self.head.find(&shown, &[phrase.clone(), phrase], 0.0).map(drop)
    }

    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let shown = self.head.look(picture)?;
        let seen = self.look(picture)?;
        wants.iter().map(|want| self.found(&shown, &seen, want)).collect()
    }
}

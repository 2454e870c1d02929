//! VLM-FO1 and VLX-Seek: a language model that is shown regions and names those that are meant.
//!
//! A proposer offers regions of the picture. Two vision towers look at it once a frame, however many queries and regions
//! there are; a region encoder makes one embedding of every region; the prompt holds the picture, then each region as an
//! index token and its embedding, then the question. The model answers with indexes.
//!
//! The choice is read in one of two ways. *Decoded*, the answer is written out, and every region it names is a match,
//! with the probability of its index token. In *one pass* the answer is begun for the model, `<ground>QUERY</ground><objects>`,
//! and nothing is written: a region's score is the probability that it would be named first, times that of the answer's
//! beginning so. That costs one run of the language model and gives every region a score; but the regions share one
//! probability, so that of many equally good ones the first gets most of it: fit for queries that mean one thing.
//!
//! More regions than a prompt holds are shown in several, each with the regions of one part of the picture.

use std::{path::PathBuf, sync::Arc};

use super::{
    Open,
    answer::Pen,
    need, positions, proposer,
    speech::{self, Manner, Talk},
    tokens::Vocabulary,
};
use crate::{
    ground::{
        GroundError,
        codec::{
            RawBox,
            regions::{self, Dialect, Regions, answered},
            softmax::softmax,
        },
        engine::{Data, Tensor},
        manifest::{Manifest, Positions, Regions as Shown, Selection},
        methods::{
            find::{Finder, Want},
            propose::{BoxProposer, Candidate, Region, suppress},
            regions::Pick,
            retrieve::TextCheck,
            shares::{arrange, shares},
        },
    },
    types::{BBox, Rgb, ScoreKind},
};

mod prompt;
mod sight;

pub use prompt::Prompt;
pub use sight::Seen;

use prompt::Form;
use sight::Sight;

/// VLM-FO1's name in manifests.
pub const FO1: &str = "vlm-fo1";
/// VLX-Seek's name in manifests.
pub const VLX_SEEK: &str = "vlx-seek";
/// The families' names.
pub const FAMILIES: [&str; 2] = [FO1, VLX_SEEK];

/// An opened model.
pub struct Regional {
    proposer: Box<dyn BoxProposer>,
    sight: Sight,
    pen: Pen,
    form: Form,
    shown: Shown,
    /// The token of every index.
    indexes: Vec<usize>,
    objectness: f32,
    nms_iou: f32,
}

/// What one pass says of a prompt's regions.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// How likely the answer begins with a label at all: its first token's probability.
    pub begins: f32,
    /// How likely each region is the first that is named, once the label is written.
    pub first: Vec<f32>,
}

impl Choice {
    /// The score of every region; none if it is more likely than not that nothing is named.
    pub fn scores(&self) -> Option<Vec<f32>> {
        let named = self.begins * self.first.iter().sum::<f32>();
        (named >= 0.5).then(|| self.first.iter().map(|share| self.begins * share).collect())
    }
}

impl Regional {
    /// Opens the files of a manifest whose family is one of these, and the proposer it names.
    pub fn open(
        manifest: &Manifest,
        folders: &[PathBuf],
        open: &mut Open<'_>,
    ) -> Result<(Self, Manifest), GroundError> {
        let shown = need(manifest, "regions", manifest.regions.clone())?;
        let scores = need(manifest, "scores", manifest.scores.as_ref())?;
        let dialect = if manifest.family == FO1 { Dialect::Fo1 } else { Dialect::VlxSeek };
        let question = shown.question.clone().unwrap_or_else(|| dialect.question().to_owned());
        if question.matches("{}").count() != 1 {
            return Err(GroundError::unfit(manifest, format!("regions.question: `{question}` should hold {{}} once")));
        }
        if !(0.0..=1.0).contains(&shown.nms_iou) {
            return Err(GroundError::unfit(
                manifest,
                format!("regions.nms_iou: is {}; should be 0 to 1", shown.nms_iou),
            ));
        }
        positions(manifest, Positions::Mrope)?;
        let image = need(manifest, "tokens.image", manifest.tokens.image)?.into();
        // A region takes its tag and its place; a question may hold several queries.
        let vocabulary = Vocabulary::load_beside(manifest, shown.prompt * 2, shown.queries)?;
        let indexes = (0..shown.prompt).map(|index| token(manifest, &vocabulary, &dialect.tag(index)));
        let indexes = indexes.collect::<Result<_, _>>()?;
        let pen = Pen::open(manifest, vocabulary, open)?;
        if pen.decoder.deepstack() > 0 {
            let reason = "the decoder takes `deepstack_embeds`, which this family knows nothing of";
            return Err(GroundError::unfit(manifest, reason));
        }
        let sight = Sight::open(manifest, pen.decoder.hidden(), open)?;
        let (proposer, other) = proposer::open(manifest, folders, open)?;
        let model = Self {
            proposer,
            sight,
            pen,
            form: Form { dialect, question, image },
            indexes,
            objectness: scores.objectness,
            nms_iou: scores.nms_iou,
            shown,
        };
        Ok((model, other))
    }

    /// The regions of a picture that it is asked about, a share a prompt, each in the order it is shown.
    pub fn shares(&mut self, picture: &Rgb) -> Result<Vec<Vec<Region>>, GroundError> {
        let offered = self.proposer.regions(picture)?;
        let sure = offered.into_iter().filter(|region| region.objectness >= self.objectness);
        let all = sure.map(|region| Candidate { corners: region.bbox.corners(), class: 0, score: region.objectness });
        let best = suppress(all.collect(), self.shown.nms_iou, usize::MAX);
        let regions: Vec<_> = best.iter().filter_map(Candidate::region).collect();
        let mut shares = shares(&regions, self.shown.prompt.min(regions::MOST));
        for share in &mut shares {
            arrange(share, self.shown.order);
        }
        if shares.len() > 1 {
            tracing::debug!("{} regions are shown in {} prompts", regions.len(), shares.len());
        }
        Ok(shares)
    }

    /// Looks at a picture.
    pub fn look(&mut self, picture: &Rgb) -> Result<Seen, GroundError> {
        self.sight.look(picture)
    }

    /// `[regions, hidden]`: an embedding of each region of a picture that was looked at.
    pub fn features(&mut self, seen: &Seen, share: &[Region]) -> Result<Vec<f32>, GroundError> {
        let boxes: Vec<BBox> = share.iter().map(|region| region.bbox).collect();
        self.sight.regions(seen, &boxes)
    }

    /// The prompt that shows a picture and so many regions, asks for `queries`, and begins the answer with `begun`.
    pub fn prompt(&self, seen: &Seen, regions: usize, queries: &[&str], begun: &str) -> Result<Prompt, GroundError> {
        let asked = self.form.asked(queries);
        self.form.prompt(&self.pen.vocabulary, (seen.tokens(), seen.grid), regions, &asked, begun)
    }

    /// Reads a prompt, and keeps the logits of its last `last` tokens.
    pub fn begin(&mut self, seen: &Seen, features: &[f32], prompt: Prompt, last: usize) -> Result<Talk, GroundError> {
        let (length, hidden) = (prompt.ids.len(), self.pen.decoder.hidden());
        let mut embeds = self.pen.decoder.embed(&prompt.known())?;
        if let Data::F32(rows) = &mut embeds.data {
            rows[prompt.picture.start * hidden..prompt.picture.end * hidden].copy_from_slice(&seen.features);
            for (place, feature) in prompt.regions.iter().zip(features.chunks_exact(hidden)) {
                rows[place * hidden..(place + 1) * hidden].copy_from_slice(feature);
            }
        }
        let mask = Tensor::i64s(&[1, length], vec![1; length]);
        let places = Tensor::i64s(&[3, 1, length], prompt.positions.ids);
        let feeds = [("inputs_embeds", &embeds), ("attention_mask", &mask), ("position_ids", &places)];
        let read = speech::Prompt { feeds: &feeds, length, delta: prompt.positions.delta, last };
        let cache = self.pen.decoder.begin()?;
        Talk::begin(&mut self.pen.decoder, cache, Manner::Mrope { deepstack: 0 }, &read)
    }

    /// Reads the choice among some regions in one pass.
    pub fn choose(&mut self, seen: &Seen, features: &[f32], regions: usize, text: &str) -> Result<Choice, GroundError> {
        let prompt = self.prompt(seen, regions, &[text], &regions::opening(text.trim()))?;
        let said = prompt.said;
        let begun = prompt.ids.get(prompt.ids.len() - said).and_then(|id| usize::try_from(*id).ok()).unwrap_or(0);
        let talk = self.begin(seen, features, prompt, said + 1)?;
        let width = talk.logits().len() / (said + 1);
        let mut rows = talk.logits().chunks_exact(width.max(1));
        // After the prompt, and after what was put into the model's mouth.
        let (before, after) = (rows.next().unwrap_or_default(), rows.next_back().unwrap_or_default());
        let bad =
            || self.pen.decoder.failed("its `logits` are not numbers, or lack the tokens of the indexes".to_owned());
        let begins = probabilities(before, &[begun]).ok_or_else(bad)?[0];
        let first = probabilities(after, &self.indexes[..regions.min(self.indexes.len())]).ok_or_else(bad)?;
        Ok(Choice { begins, first })
    }

    /// Lets the model write which of some regions answer the queries: for each, places in the share and scores.
    pub fn decode(
        &mut self,
        seen: &Seen,
        features: &[f32],
        regions: usize,
        queries: &[&str],
    ) -> Result<Vec<Vec<(usize, f32)>>, GroundError> {
        let prompt = self.prompt(seen, regions, queries, "")?;
        let talk = self.begin(seen, features, prompt, 1)?;
        // The codec hands back what it was given for an index: here, the index.
        let codec = Box::new(Regions::new(self.form.dialect, (0..regions).map(|index| [index as f32; 4]).collect()));
        let written = self.pen.all(vec![(talk, codec)])?;
        let written = written.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(by_query(written.into_iter().flatten(), queries))
    }

    /// What of a share answers each of some texts.
    fn chosen(&mut self, seen: &Seen, share: &[Region], texts: &[&str]) -> Result<Vec<Vec<(usize, f32)>>, GroundError> {
        let (features, count) = (self.features(seen, share)?, share.len());
        let mut found = Vec::with_capacity(texts.len());
        match self.shown.selection {
            Selection::Decode => {
                for some in texts.chunks(self.shown.queries) {
                    found.extend(self.decode(seen, &features, count, some)?);
                }
            }
            Selection::OnePass => {
                for text in texts {
                    let scores = self.choose(seen, &features, count, text)?.scores().unwrap_or_default();
                    found.push(scores.into_iter().enumerate().collect());
                }
            }
        }
        Ok(found)
    }
}

/// What was named for each of some queries: places in the share, as the boxes say, and scores. Where several labels answer a
/// query, a region that they all name counts once, by the surest of them.
fn by_query(named: impl Iterator<Item = RawBox>, queries: &[&str]) -> Vec<Vec<(usize, f32)>> {
    let mut found: Vec<Vec<(usize, f32)>> = vec![Vec::new(); queries.len()];
    for raw in named {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index, as it was put in")]
        let index = raw.fractions[0] as usize;
        let score = raw.score.unwrap_or(0.0);
        for query in answered(&raw.label, queries) {
            match found[query].iter_mut().find(|(known, _)| *known == index) {
                Some((_, best)) => *best = best.max(score),
                None => found[query].push((index, score)),
            }
        }
    }
    found
}

/// The one token of an index.
fn token(manifest: &Manifest, vocabulary: &Vocabulary, tag: &str) -> Result<usize, GroundError> {
    match vocabulary.encode(tag)?.as_slice() {
        &[id] => Ok(usize::try_from(id).unwrap_or(0)),
        ids => {
            let reason = format!(
                "regions.prompt: the vocabulary has no token `{tag}` (it takes {} tokens); lower it to the number of \
                 its index tokens",
                ids.len()
            );
            Err(GroundError::unfit(manifest, reason))
        }
    }
}

/// The softmax probabilities of some tokens; `None` if the logits are not numbers or do not reach so far.
fn probabilities(logits: &[f32], tokens: &[usize]) -> Option<Vec<f32>> {
    let all = softmax(logits)?;
    tokens.iter().map(|token| all.get(*token).copied()).collect()
}

impl Finder for Regional {
    fn checker(&self) -> TextCheck {
        let (vocabulary, dialect) = (Arc::clone(&self.pen.vocabulary), self.form.dialect);
        Arc::new(move |text| {
            if regions::has_tags(dialect, text) {
                return Err(format!("\"{text}\" holds a tag that answers are written in; leave it out"));
            }
            vocabulary.check(text)
        })
    }

    fn score_kind(&self) -> ScoreKind {
        ScoreKind::TokenProb
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.pen.decoder.written())
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        // The proposer may find nothing on it, and then nothing would be asked.
        let whole = BBox::new(0.0, 0.0, picture.size.width as f32, picture.size.height as f32);
        let whole: Vec<_> = whole.map(|bbox| Region { bbox, objectness: 1.0 }).into_iter().collect();
        self.shares(picture)?;
        let seen = self.look(picture)?;
        let features = self.features(&seen, &whole)?;
        self.choose(&seen, &features, whole.len(), "person")?;
        let prompt = self.prompt(&seen, whole.len(), &["person"], "")?;
        let mut talk = self.begin(&seen, &features, prompt, 1)?;
        talk.say(&mut self.pen.decoder, &[0])
    }

    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let mut found: Vec<Vec<Candidate>> = vec![Vec::new(); wants.len()];
        let shares = self.shares(picture)?;
        // Where nothing is offered there is nothing to ask about.
        if !shares.is_empty() && !wants.is_empty() {
            let seen = self.look(picture)?;
            let texts: Vec<_> = wants.iter().map(|want| want.text).collect();
            for share in &shares {
                let chosen = self.chosen(&seen, share, &texts)?;
                for ((found, chosen), want) in found.iter_mut().zip(chosen).zip(wants) {
                    let good = chosen.into_iter().filter(|(_, score)| *score >= want.least);
                    found.extend(good.filter_map(|(index, score)| {
                        Some(Candidate { corners: share.get(index)?.bbox.corners(), class: 0, score })
                    }));
                }
            }
        }
        let best = |found| suppress(found, self.nms_iou, usize::MAX).iter().filter_map(Candidate::pick).collect();
        Ok(found.into_iter().map(best).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_with_the_same_words_get_the_same_regions_once_each() {
        let named = |label: &str, index: f32, score| RawBox { label: label.into(), fractions: [index; 4], score };
        let said = [
            named("red car", 3.0, Some(0.5)),
            named("red car", 7.0, Some(0.4)),
            named("Red car", 3.0, Some(0.7)),
            named("dog", 1.0, None),
        ];
        let found = by_query(said.into_iter(), &["red car", "dog", "Red car"]);
        assert_eq!(found, [vec![(3, 0.7), (7, 0.4)], vec![(1, 0.0)], vec![(3, 0.7), (7, 0.4)]]);
    }

    #[test]
    fn nothing_is_named_where_that_is_the_likelier() {
        let choice = |begins, first: &[f32]| Choice { begins, first: first.to_vec() }.scores();
        assert_eq!(choice(1.0, &[0.25, 0.5]), Some(vec![0.25, 0.5]));
        assert_eq!(choice(0.5, &[0.75, 0.25]), Some(vec![0.375, 0.125]));
        assert_eq!(choice(1.0, &[0.25, 0.125]), None);
        assert_eq!(choice(0.25, &[1.0]), None);
        assert_eq!(choice(1.0, &[]), None);
    }

    #[test]
    fn probabilities_are_those_of_the_softmax() {
        let got = probabilities(&[0.0, 2.0_f32.ln(), 1.0_f32.ln()], &[1, 0]).unwrap();
        assert!((got[0] - 0.5).abs() < 1e-6 && (got[1] - 0.25).abs() < 1e-6, "{got:?}");
        for (logits, tokens) in [(&[f32::NAN, 1.0][..], &[1][..]), (&[1.0], &[1]), (&[f32::INFINITY, 0.0], &[0])] {
            assert_eq!(probabilities(logits, tokens), None, "{logits:?}");
        }
    }
}

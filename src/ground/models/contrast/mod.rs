//! CLIP, `SigLIP` and their kin: a picture tower and a text tower that meet in one space, over the regions of a proposer.
//!
//! Published exports have the towers apart (`vision_model`: `pixel_values` -> `image_embeds` or `pooler_output`;
//! `text_model`: `input_ids` -> `text_embeds` or `pooler_output`) or in one graph (`model`: both in, `image_embeds` and
//! `text_embeds` out). A query's text is embedded once, a region's pixels once as long as they stay the same to the
//! byte, which in a still part of a stream they often do.
//!
//! Likeness is `scale · cosine + bias`. `SigLIP` was trained to tell by its sigmoid alone whether the two belong together;
//! CLIP only to rank texts, so that the query's share is taken against other texts (`contrast.against`).

use std::{path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};

use super::{Open, need, picture, proposer, reader::Reader, recent::Recent, sigmoid};
use crate::{
    ground::{
        GroundError,
        manifest::{Activation, Contrast as Rules, Manifest},
        methods::{
            find::{Finder, Want},
            propose::{BoxProposer, Candidate, Region, suppress},
            regions::Pick,
            retrieve::TextCheck,
        },
        unit::dot,
        vision::{Fit, Resampler},
    },
    types::{BBox, Rgb, ScoreKind, Size},
};

mod towers;

use towers::Towers;

/// The families' names in manifests.
pub const FAMILIES: [&str; 2] = ["clip", "siglip"];

/// Embedded texts that are kept: queries are few and long-lived.
const MAX_TEXTS: usize = 256;
/// Embedded regions that are kept: some a camera, 3 kB each.
const MAX_REGIONS: usize = 1024;

/// An embedding of length 1.
type Embedding = Arc<[f32]>;

/// An opened model.
pub struct Contrast {
    towers: Towers,
    proposer: Box<dyn BoxProposer>,
    reader: Arc<Reader>,
    fit: Fit,
    resampler: Resampler,
    rules: Rules,
    nms_iou: f32,
    texts: Recent<String, Embedding>,
    regions: Recent<[u8; 32], Embedding>,
    against: Vec<Embedding>,
}

impl Contrast {
    /// Opens the files of a manifest whose family is one of these, and the proposer it names.
    pub fn open(
        manifest: &Manifest,
        folders: &[PathBuf],
        open: &mut Open<'_>,
    ) -> Result<(Self, Manifest), GroundError> {
        let rules = need(manifest, "contrast", manifest.contrast.clone())?;
        let scores = need(manifest, "scores", manifest.scores.as_ref())?;
        if !(rules.scale.is_finite() && rules.scale > 0.0 && rules.bias.is_finite()) {
            return Err(GroundError::unfit(manifest, "contrast.scale, bias: should be numbers, and scale above 0"));
        }
        if !(0.0..=2.0).contains(&rules.margin) {
            return Err(GroundError::unfit(
                manifest,
                format!("contrast.margin: is {}; should be 0 to 2", rules.margin),
            ));
        }
        match (rules.activation, rules.against.is_empty()) {
            (Activation::Sigmoid, true) | (Activation::Softmax, false) => {}
            _ => {
                let reason =
                    "contrast.activation: should be \"sigmoid\", or \"softmax\" with texts in contrast.against";
                return Err(GroundError::unfit(manifest, reason));
            }
        }
        let fit = picture::stretch(manifest)?;
        let towers = Towers::open(manifest, fit.image, open)?;
        let (proposer, other) = proposer::open(manifest, folders, open)?;
        let mut model = Self {
            towers,
            proposer,
            reader: Arc::new(Reader::load(manifest)?),
            fit,
            resampler: Resampler::default(),
            nms_iou: scores.nms_iou,
            texts: Recent::new(MAX_TEXTS),
            regions: Recent::new(MAX_REGIONS),
            against: Vec::new(),
            rules,
        };
        for text in model.rules.against.clone() {
            let ids = model
                .reader
                .whole(&text)
                .map_err(|e| GroundError::unfit(manifest, format!("contrast.against: {e}")))?;
            let embedding = model.towers.text(&ids)?;
            model.against.push(embedding);
        }
        Ok((model, other))
    }

    /// The embedding of a query; computed once as long as it is in use.
    pub fn text(&mut self, text: &str) -> Result<Embedding, GroundError> {
        if let Some(known) = self.texts.get(text) {
            return Ok(known);
        }
        let ids = self.reader.query(text).map_err(|reason| GroundError::Text { reason })?;
        let embedding = self.towers.text(&ids)?;
        self.texts.put(text.to_owned(), Arc::clone(&embedding));
        Ok(embedding)
    }

    /// The embeddings of some regions of a picture; those whose pixels are the same as before are not computed again.
    pub fn regions(&mut self, picture: &Rgb, regions: &[Region]) -> Result<Vec<Embedding>, GroundError> {
        let mut found: Vec<Option<Embedding>> = Vec::with_capacity(regions.len());
        let mut missing = Vec::new();
        for (at, region) in regions.iter().enumerate() {
            let (crop, size) = cut(picture, &region.bbox, self.rules.margin);
            let key = key(&crop, size);
            let known = self.regions.get(&key);
            if known.is_none() {
                missing.push((at, key, crop, size));
            }
            found.push(known);
        }
        let most = self.rules.batch.min(self.towers.most_pictures().unwrap_or(usize::MAX));
        for some in missing.chunks(most.max(1)) {
            let area = self.fit.image.area() * 3;
            let (mut pixels, mut one) = (Vec::with_capacity(area * some.len()), Vec::new());
            for (_, _, crop, size) in some {
                self.fit.prepare(crop, *size, &mut self.resampler, &mut one)?;
                pixels.extend_from_slice(&one);
            }
            for ((at, key, ..), embedding) in some.iter().zip(self.towers.pictures(pixels, some.len())?) {
                self.regions.put(*key, Arc::clone(&embedding));
                found[*at] = Some(embedding);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// How well a region fits a text, 0 to 1.
    pub fn score(&self, region: &[f32], text: &[f32]) -> f32 {
        let logit = |text: &[f32]| self.rules.scale * dot(region, text) + self.rules.bias;
        let own = logit(text);
        // Against nothing, a share of 1/(1 + e^-x) is what a text with a logit of 0 leaves: the sigmoid.
        match self.rules.activation {
            Activation::Softmax => {
                1.0 / (1.0 + self.against.iter().map(|other| (logit(other) - own).exp()).sum::<f32>())
            }
            _ => sigmoid(own),
        }
    }
}

/// Tells pixels apart, with their shape.
fn key(crop: &[u8], size: Size) -> [u8; 32] {
    Sha256::new().chain_update(size.width.to_le_bytes()).chain_update(crop).finalize().into()
}

/// The pixels of a region, widened by `margin` of its sides and cut at the picture's: whole pixels, at least one.
fn cut(picture: &Rgb, bbox: &BBox, margin: f32) -> (Vec<u8>, Size) {
    let [x1, y1, x2, y2] = bbox.corners();
    let side = |low: f32, high: f32, most: u32| {
        let more = (high - low) * margin;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture")]
        let first = (low - more).floor().clamp(0.0, most.saturating_sub(1) as f32) as u32;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture")]
        let end = (high + more).ceil().clamp(first as f32 + 1.0, most.max(1) as f32) as u32;
        (first, end)
    };
    let ((left, right), (top, bottom)) = (side(x1, x2, picture.size.width), side(y1, y2, picture.size.height));
    let row = picture.size.width as usize * 3;
    let rows = picture.data.chunks_exact(row).skip(top as usize).take((bottom - top) as usize);
    let crop = rows.flat_map(|line| &line[left as usize * 3..right as usize * 3]).copied().collect();
    (crop, Size::new(right - left, bottom - top))
}

impl Finder for Contrast {
    fn checker(&self) -> TextCheck {
        self.reader.checker()
    }

    fn score_kind(&self) -> ScoreKind {
        match self.rules.activation {
            Activation::Softmax => ScoreKind::TokenProb,
            _ => ScoreKind::Logit,
        }
    }

    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError> {
        // The proposer may find nothing on it, and then nothing would be embedded.
        let whole = BBox::new(0.0, 0.0, picture.size.width as f32, picture.size.height as f32);
        let whole: Vec<_> = whole.map(|bbox| Region { bbox, objectness: 1.0 }).into_iter().collect();
        self.regions(picture, &whole)?;
        self.find(picture, &[Want { text: "person", least: 0.0 }]).map(drop)
    }

    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
        let texts = wants.iter().map(|want| self.text(want.text)).collect::<Result<Vec<_>, _>>()?;
        let regions = self.proposer.regions(picture)?;
        let embeddings = self.regions(picture, &regions)?;
        let picks = texts.iter().zip(wants).map(|(text, want)| {
            let scored = regions.iter().zip(&embeddings).map(|(region, embedding)| Candidate {
                corners: region.bbox.corners(),
                class: 0,
                score: self.score(embedding, text),
            });
            let best = suppress(scored.filter(|c| c.score >= want.least).collect(), self.nms_iou, usize::MAX);
            best.iter().filter_map(Candidate::pick).collect()
        });
        Ok(picks.collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_crop_is_the_pixels_under_the_box_and_some_around() {
        let data: Vec<u8> = (0..20u8).flat_map(|i| [i; 3]).collect();
        let picture = Rgb::new(Size::new(5, 4), data).unwrap();
        let bbox = BBox::new(1.2, 1.0, 2.8, 3.0).unwrap();
        let (crop, size) = cut(&picture, &bbox, 0.0);
        assert_eq!((size, crop), (Size::new(2, 2), [[6; 3], [7; 3], [11; 3], [12; 3]].concat()));
        assert_eq!(cut(&picture, &bbox, 0.5).1, Size::new(4, 4));
    }

    proptest! {
        #[test]
        fn a_crop_lies_in_the_picture(
            (w, h) in (1u32..30, 1u32..30), corners in [-20f32..50.0, -20f32..50.0, -20f32..50.0, -20f32..50.0],
            margin in 0.0f32..2.0,
        ) {
            let picture = Rgb::new(Size::new(w, h), vec![1; Size::new(w, h).area() * 3]).unwrap();
            let [a, b, c, d] = corners;
            if let Some(bbox) = BBox::new(a.min(c), b.min(d), a.max(c), b.max(d)) {
                let (crop, size) = cut(&picture, &bbox, margin);
                prop_assert!(size.width >= 1 && size.height >= 1 && size.width <= w && size.height <= h);
                prop_assert_eq!(crop.len(), size.area() * 3);
            }
        }
    }
}

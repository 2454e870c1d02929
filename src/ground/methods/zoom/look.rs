//! What one look at the picture, or at a crop of it, told; and what several looks agree on.

use super::cover::shows_box;
use crate::{
    ground::{
        methods::{
            regions::{Bar, Pick},
            retrieve::{self, Proposals},
        },
        zoom::{crop::Placed, evidence::Evidence, memory::Seed},
    },
    types::{BBox, Size},
};

/// What is shorter than this share of the canvas' height, on its longer side, is small: it is not seen well.
pub(super) const SMALL: f32 = 0.15;

/// Regions that fit less than this leave no doubt.
const HINT: f32 = 0.05;

/// Boxes of two looks that overlap this much are one thing.
const SAME: f32 = 0.4;

/// A thing's boxes on two pictures, one after the other, overlap this much.
pub(super) const MOVED: f32 = 0.2;

/// Beyond this share it is too near to be known for what it is.
const TOO_NEAR: f32 = 0.75;

/// What a picture is looked at on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) canvas: Size,
    /// How many times the model's usual number of pixels it has.
    pub(super) detail: f32,
}

impl Sight {
    /// What lengths on it are measured by, in its pixels: the height of one of 16:9 that has as many as the model's usual one. A thing
    /// is as easily seen on a tall canvas as on a wide one, and of so many pixels on a large one as on a small one.
    pub(super) fn span(self) -> f32 {
        (self.canvas.area() as f32 / self.detail).sqrt() * 0.75
    }
}

/// What one look told.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) placed: Placed,
    /// How sure the model is that the thing is there, 0 to 1.
    pub(super) yes: f32,
    /// The matches, best first.
    pub(super) picks: Vec<Pick>,
    /// Whatever may be it.
    faint: Vec<Pick>,
    sight: Sight,
}

impl Look {
    /// What the proposals on one canvas say, given how well each fits and how sure it is that none does.
    pub(super) fn of<F>(
        placed: Placed,
        proposals: &Proposals<F>,
        at: usize,
        scores: &[f32],
        none: f32,
        (bar, sight): (Bar, Sight),
    ) -> Self {
        let to_source = |corners| placed.to_source(corners);
        let picks = retrieve::picks(proposals, at, scores, to_source, bar);
        let weak = Bar { objectness: bar.objectness.min(HINT), score: HINT, nms_iou: 1.0, soft: f32::INFINITY };
        let faint = retrieve::picks(proposals, at, scores, to_source, weak);
        let yes = if none.is_nan() { 0.0 } else { 1.0 - none.clamp(0.0, 1.0) };
        Self { placed, yes, picks, faint, sight }
    }

    /// Small regions that may be it.
    pub(super) fn hints(&self) -> impl Iterator<Item = &Pick> {
        self.faint.iter().filter(|pick| self.is_small(&pick.bbox))
    }

    /// Source pixels, on a side, that make one of the canvas.
    pub(super) fn coarseness(&self) -> f32 {
        self.placed.crop.width() / self.placed.inner().2.width as f32
    }

    /// Whether a box is small on the canvas.
    pub(super) fn is_small(&self, bbox: &BBox) -> bool {
        self.share(bbox) < SMALL
    }

    /// The longer side of a box, in shares of [`Sight::span`].
    fn share(&self, bbox: &BBox) -> f32 {
        let [x1, y1, x2, y2] = self.placed.to_canvas(bbox);
        let Size { width, height } = self.sight.canvas;
        ((x2 - x1) * width as f32).max((y2 - y1) * height as f32) / self.sight.span()
    }

    /// What it counts for when looks disagree about a box: the more, the better it shows a thing of that size.
    fn weight(&self, bbox: &BBox) -> f32 {
        let share = self.share(bbox);
        if share > TOO_NEAR { TOO_NEAR / share / 2.0 } else { (share / SMALL).min(1.0).powi(2) }
    }

    /// What may be reported, with what was said of it before: the matches, and fainter regions where seeds are.
    pub(super) fn candidates(&self, seeds: &[Seed]) -> Vec<(Pick, Evidence)> {
        let again = self.again(seeds);
        let same = |a: &Pick, b: &Pick| a.bbox.iou(&b.bbox) >= SAME;
        let before = |pick: &Pick| {
            again.iter().find(|(other, _)| same(other, pick)).map_or_else(Evidence::default, |(_, seed)| seed.evidence)
        };
        let picks = self.picks.iter().map(|pick| (*pick, before(pick)));
        let faint = again.iter().filter(|(pick, _)| !self.picks.iter().any(|other| same(other, pick)));
        picks.chain(faint.map(|(pick, seed)| (*pick, seed.evidence))).collect()
    }

    /// Where seeds of which something was said before are on it: the best regions that lie where they were, one for each.
    fn again<'a>(&self, seeds: &'a [Seed]) -> Vec<(Pick, &'a Seed)> {
        let mut found: Vec<(Pick, &Seed)> = Vec::new();
        let known = seeds.iter().filter(|seed| seed.evidence.mean().is_some());
        let mut left: Vec<_> = known.collect();
        for pick in &self.faint {
            if found.iter().any(|(other, _)| other.bbox.iou(&pick.bbox) >= SAME) {
                continue;
            }
            let overlaps = left.iter().map(|seed| seed.bbox.iou(&pick.bbox)).enumerate();
            let Some((at, overlap)) = overlaps.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
            if overlap >= MOVED {
                found.push((*pick, left.swap_remove(at)));
            }
        }
        found
    }

    /// How well the box fits, by this look: that of the best region there, 0 where there is none.
    fn score_of(&self, bbox: &BBox) -> f32 {
        let there = self.faint.iter().find(|pick| pick.bbox.iou(bbox) >= SAME);
        there.map_or(0.0, |pick| pick.score)
    }
}

/// What all looks that show a match of the look numbered `own` whole say of it, each weighed by how well it shows a thing of
/// that size. What one look takes for the thing, and the others do not, falls.
pub(super) fn agreed(looks: &[&Look], own: usize, pick: &Pick, picture: Size) -> Evidence {
    let mut said = Evidence::default();
    for (i, look) in looks.iter().enumerate() {
        let score = if i == own {
            pick.score
        } else if shows_box(&look.placed.crop, &pick.bbox, picture) {
            look.score_of(&pick.bbox)
        } else {
            continue;
        };
        said = said.with(Evidence::of(score, look.weight(&pick.bbox)));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::zoom::crop;

    const CANVAS: Size = Size { width: 200, height: 100 };
    const PICTURE: Size = Size { width: 800, height: 400 };

    /// A look at `area` that found things, each in source pixels with its score.
    fn look(area: [f32; 4], found: &[([f32; 4], f32)]) -> Look {
        let bbox = |[x1, y1, x2, y2]: [f32; 4]| BBox::new(x1, y1, x2, y2).unwrap();
        let placed = crop::placed(&bbox(area), CANVAS, CANVAS).unwrap();
        let proposals = Proposals {
            each: found.len(),
            boxes: found.iter().map(|(corners, _)| placed.to_canvas(&bbox(*corners))).collect(),
            objectness: vec![1.0; found.len()],
            features: (),
        };
        let scores: Vec<f32> = found.iter().map(|(_, score)| *score).collect();
        Look::of(
            placed,
            &proposals,
            0,
            &scores,
            0.0,
            (
                Bar { objectness: 0.5, score: 0.5, nms_iou: 0.5, soft: f32::INFINITY },
                Sight { canvas: CANVAS, detail: 1.0 },
            ),
        )
    }

    fn score(looks: &[&Look], own: usize) -> f32 {
        agreed(looks, own, &looks[own].picks[0], PICTURE).mean().unwrap()
    }

    const WHOLE: [f32; 4] = [0.0, 0.0, 800.0, 400.0];
    const NEAR: [f32; 4] = [0.0, 0.0, 400.0, 200.0];

    #[test]
    fn of_so_many_pixels_a_thing_is_as_well_seen_with_more_detail() {
        let sight = |width, height, detail| Sight { canvas: Size::new(width, height), detail };
        for (canvas, off) in
            [((512, 288, 1.0), 0.1), ((1024, 576, 4.0), 0.1), ((736, 416, 2.0), 10.0), ((384, 384, 1.0), 0.1)]
        {
            let (width, height, detail) = canvas;
            assert!((sight(width, height, detail).span() - 288.0).abs() < off, "{canvas:?}");
        }
    }

    #[test]
    fn what_only_one_of_two_good_looks_takes_for_it_falls() {
        // 25 and 50 of the canvas' 100 pixels: both see it well.
        let thing = [100.0, 50.0, 200.0, 150.0];
        let (far, near, blind) = (look(WHOLE, &[(thing, 0.9)]), look(NEAR, &[(thing, 0.7)]), look(NEAR, &[]));
        assert!((score(&[&far, &near], 0) - 0.8).abs() < 1e-4 && (score(&[&far, &near], 1) - 0.8).abs() < 1e-4);
        assert!((score(&[&far, &blind], 0) - 0.45).abs() < 1e-4);
        // A look that does not show it has no say.
        let elsewhere = look([400.0, 200.0, 800.0, 400.0], &[]);
        assert!((score(&[&far, &elsewhere], 0) - 0.9).abs() < 1e-4);
        let across = look([150.0, 0.0, 550.0, 200.0], &[]);
        assert!((score(&[&far, &across], 0) - 0.9).abs() < 1e-4, "it is cut there");
    }

    #[test]
    fn what_was_believed_before_is_found_where_it_is_faint_and_once_at_most() {
        let (thing, again, other) =
            ([100.0, 50.0, 200.0, 150.0], [110.0, 50.0, 210.0, 150.0], [500.0, 50.0, 600.0, 150.0]);
        let seen = look(WHOLE, &[(thing, 0.3), (again, 0.25), (other, 0.3)]);
        assert!(seen.candidates(&[]).is_empty(), "it is below the bar");
        let [x1, y1, x2, y2] = [130.0, 50.0, 230.0, 150.0];
        let seed = Seed { evidence: Evidence::of(0.9, 1.0), ..Seed::at(BBox::new(x1, y1, x2, y2).unwrap()) };
        let [(pick, before)] = seen.candidates(&[seed])[..] else { panic!("{:?}", seen.candidates(&[seed])) };
        assert_eq!((pick.bbox.corners(), before), (thing, seed.evidence));
        let said = agreed(&[&seen], 0, &pick, PICTURE).with(before).mean().unwrap();
        assert!((said - 0.6).abs() < 1e-3, "{said}");
        // Of a place where something should be, and nothing was said yet, nothing is believed.
        assert!(seen.candidates(&[Seed { evidence: Evidence::default(), ..seed }]).is_empty());
    }

    #[test]
    fn what_is_too_small_from_afar_is_believed_from_near() {
        // 5 of the canvas' 100 pixels from afar, 20 from near.
        let thing = [20.0, 20.0, 40.0, 40.0];
        let (far, near) = (look(WHOLE, &[]), look([0.0, 0.0, 200.0, 100.0], &[(thing, 0.9)]));
        assert!(far.is_small(&near.picks[0].bbox) && !near.is_small(&near.picks[0].bbox));
        let said = score(&[&far, &near], 1);
        assert!((0.8..0.9).contains(&said), "{said}");
    }
}

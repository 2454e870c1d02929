//! A model's looks at pictures, kept one by one, so that they can be asked about again later.

use super::{
    GroundError,
    ask::look::{Offered, Offering},
    methods::{
        Told,
        regions::Bar,
        retrieve::{Pair, Proposals},
        together::{self, AllRound, Asked},
    },
    router::Together,
    unit::normalise,
};
use crate::types::{Frame, Rgb};

/// What is known of regions, and can be taken apart and put together again, canvas by canvas.
pub trait Keep: Sized + Send + 'static {
    /// The features of one region, `of` regions being there in all: what tells whether two look alike.
    fn region(&self, index: usize, of: usize) -> &[f32];
    /// What belongs to the canvases that the regions `from..to` lie on.
    #[must_use]
    fn part(&self, from: usize, to: usize, of: usize) -> Self;
    /// Parts, one after another.
    fn join(parts: &[&Self]) -> Self;
}

impl<M: AllRound + Send> Offering for Together<M>
where
    M::Features: Keep,
{
    fn bar(&self) -> Bar {
        self.bars.retrieve
    }

    fn fits(&self, frame: &Frame) -> Result<(), String> {
        self.takes(frame)
    }

    fn offer(&mut self, canvases: &[&Rgb]) -> Result<Vec<Offered>, GroundError> {
        let proposals = self.model.propose(canvases)?;
        let (each, all) = (proposals.each, proposals.boxes.len());
        let one = |canvas: usize| {
            let (from, to) = (canvas * each, (canvas + 1) * each);
            let look = |region| {
                let mut look = proposals.features.region(region, all).to_vec();
                normalise(&mut look);
                look
            };
            Offered {
                boxes: proposals.boxes[from..to].to_vec(),
                objectness: proposals.objectness[from..to].to_vec(),
                looks: (from..to).map(look).collect(),
                kept: Box::new(proposals.features.part(from, to, all)),
            }
        };
        Ok((0..canvases.len()).map(one).collect())
    }

    fn select(&mut self, asks: &[(&Offered, &str)]) -> Result<Vec<Vec<f32>>, GroundError> {
        let offers: Vec<&Offered> = asks.iter().map(|(offered, _)| *offered).collect();
        let (proposals, canvases) = joined::<M::Features>(&offers);
        let pairs: Vec<Pair<'_>> = asks.iter().zip(canvases).map(|((_, text), canvas)| Pair { canvas, text }).collect();
        let scores = self.model.select(&proposals, &pairs)?.scores;
        Ok(scores.chunks(proposals.each.max(1)).map(<[f32]>::to_vec).collect())
    }

    fn tell(&mut self, asks: &[(&Offered, Asked<'_>)]) -> Result<Vec<Told>, GroundError> {
        let offers: Vec<&Offered> = asks.iter().map(|(offered, _)| *offered).collect();
        let (proposals, canvases) = joined::<M::Features>(&offers);
        let asked: Vec<Asked<'_>> = asks.iter().map(|(_, asked)| *asked).collect();
        together::answer_seen(&mut self.model, &proposals, &canvases, &asked, self.bars, &mut self.zoom)
    }
}

/// Looks side by side, each once, and for each of `offers` which of them it is.
fn joined<F: Keep>(offers: &[&Offered]) -> (Proposals<F>, Vec<usize>) {
    let mut each_once: Vec<&Offered> = Vec::new();
    let mut canvases = Vec::with_capacity(offers.len());
    for offered in offers {
        let known = each_once.iter().position(|known| std::ptr::eq(*known, *offered));
        canvases.push(known.unwrap_or_else(|| {
            each_once.push(offered);
            each_once.len() - 1
        }));
    }
    // One model serves a daemon, so what was kept is never another's.
    let features: Vec<&F> = each_once.iter().filter_map(|offered| offered.kept.downcast_ref()).collect();
    let proposals = Proposals {
        each: each_once.first().map_or(0, |offered| offered.boxes.len()),
        boxes: each_once.iter().flat_map(|offered| offered.boxes.iter().copied()).collect(),
        objectness: each_once.iter().flat_map(|offered| offered.objectness.iter().copied()).collect(),
        features: F::join(&features),
    };
    (proposals, canvases)
}

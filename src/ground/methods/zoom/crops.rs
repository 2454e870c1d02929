//! Zoom for models with a canvas of their own: a look at a crop says whether the thing is there, and where.
//!
//! The whole picture was looked at already. If the model finds the thing there, and all that it found or is known of is of
//! a size it sees well, that is the answer. Otherwise it looks closer: first where it found the thing on the last frame,
//! then down the tree of areas, those first where a coarser look left a doubt, several in one run. What a crop shows counts
//! only if the model says of the crop by itself that the thing is there, and boxes that the crop's edge cuts do not count.
//! A box's score is what all looks that show it agree on ([`look::agreed`]), those at the last pictures among them: twenty crops
//! are twenty chances to be wrong.

use std::{collections::HashMap, rc::Rc, time::Instant};

use super::{
    Stop, Zoom,
    cover::{coarseness, covering, holds, shows},
    look::{self, Look, Sight},
    merge::{self, Seen},
};
use crate::{
    ground::{
        GroundError,
        methods::{
            Finds, Told,
            regions::{Bar, Pick},
            retrieve::{Ask, Pair, Proposals, Selector},
            together::Bars,
        },
        zoom::{
            self, Confidence, Kind, Meter, Plan, Prompt, Question, Rules, Tree, View,
            crop::{self, Placed},
            memory::Seed,
        },
    },
    types::{BBox, Frame, Size},
};

/// How much more than an area is shown: what lies across the edge of two areas is whole in one of them.
const MARGIN: f32 = 1.2;

/// A thing that was found is shown with this much around it.
const ROUND: f32 = 3.0;

/// Where this many source pixels, or fewer, make a canvas pixel, looking closer shows little more.
const GAIN: f32 = 1.4;

/// The crop in which a thing was found will still show it if there is as much of the thing's size around it.
const STAYS: f32 = 1.0;

/// Boxes this near to an edge of the crop are cut by it, in shares of the crop's side.
const EDGE: f32 = 0.01;

/// The least score, of the best box, of a look that nothing nearer is asked to confirm.
const SURE: f32 = 0.6;

/// Where no more source pixels than this make a canvas pixel, what the parts would show has left a trace already.
const NEAR: f32 = 3.0;

/// Of this many known things each two may share a crop.
const PAIRED: usize = 24;

/// A region that fits less than this is no trace.
const TRACE: f32 = 0.2;

/// The whole picture's look: proposals that hold its canvas, and what was selected for the query.
#[derive(Debug)]
pub struct Root<'a, F> {
    /// The proposals.
    pub proposals: &'a Proposals<F>,
    /// Which of their canvases it is.
    pub canvas: usize,
    /// How well each region fits.
    pub scores: Vec<f32>,
    /// How sure the model is that nothing does.
    pub none: f32,
}

/// Crops of one frame that the model has looked at: those of one query serve the others.
#[derive(Debug)]
pub struct Crops<F> {
    known: HashMap<[u32; 4], Crop<F>>,
}

impl<F> Default for Crops<F> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

/// A crop, and where its proposals are.
#[derive(Debug)]
struct Crop<F> {
    placed: Placed,
    proposals: Rc<Proposals<F>>,
    canvas: usize,
}

impl<F> Clone for Crop<F> {
    fn clone(&self) -> Self {
        Self { proposals: Rc::clone(&self.proposals), ..*self }
    }
}

/// Answers one question about a frame whose whole picture was looked at.
pub fn answer<M: Selector>(
    zoom: &mut Zoom,
    model: &mut M,
    ask: &Ask<'_>,
    root: &Root<'_, M::Features>,
    bars: Bars,
    crops: &mut Crops<M::Features>,
) -> Result<Told, GroundError> {
    let Ask { frame, query } = *ask;
    let bar = Bar { score: query.threshold.unwrap_or(bars.retrieve.score), ..bars.retrieve };
    let Some(whole) = Placed::whole(&frame.view) else { return Ok(Ok(Finds { hits: Vec::new(), complete: true })) };
    let sight = Sight { canvas: frame.canvas.size, detail: zoom.detail };
    let first = Look::of(whole, root.proposals, root.canvas, &root.scores, root.none, (bar, sight));
    let (text, exist, batch, exhaustive) = (query.text.as_str(), bars.exist, zoom.batch, zoom.exhaustive);
    let (seeds, looks) = (zoom.seeds(ask, &first.picks), vec![(whole.crop, first)]);
    let mut eye = Eye { model, frame, sight, text, bar, exist, batch, exhaustive, seeds: &seeds, looks, crops };
    let (now, seen_at, mut meter) = (zoom.now, zoom.seen_at(frame), zoom.meter());
    let trail = zoom.trail(ask);
    if frame.full.is_none() || eye.is_settled(&eye.looks[0].1) {
        trail.give_up();
        trail.seed([], seen_at);
        return Ok(Ok(merge::hits(&eye.found()).into()));
    }
    let mut search = trail.take_up(seen_at, || eye.plan());
    // Where nothing is known all of it is for the search.
    let reserve = if seeds.is_empty() { 0 } else { trail.to_explore(meter.left()) };
    let searched = eye.search(&mut search.plan, &mut meter, reserve, now);
    zoom.remember(&meter);
    let trail = zoom.trail(ask);
    let over = trail.lay_down(search, matches!(searched, Ok((true, _))), seen_at);
    let unseen = match searched {
        Ok((_, unseen)) => unseen,
        Err(stop) => return stop.told(),
    };
    let found = eye.found();
    let again: Vec<_> = found.iter().filter_map(|one| one.seed(&seeds)).collect();
    // What there was no time for comes first the next time; where it is that this picture shows anyhow is known.
    let told = |seed: &Seed| again.iter().any(|again| again.bbox.iou(&seed.bbox) >= look::MOVED);
    let lost: Vec<_> = unseen.into_iter().filter(|seed| !told(seed)).collect();
    let complete = lost.is_empty();
    let vain = seeds.iter().filter(|seed| !told(seed) && !lost.contains(seed)).map(|seed| seed.bbox);
    trail.was_vain(vain, seen_at);
    trail.seed(lost.into_iter().filter_map(Seed::missed).chain(again), seen_at);
    if found.is_empty() && !over {
        Stop::Unfinished.told()
    } else {
        Ok(Ok(Finds { hits: merge::hits(&found), complete }))
    }
}

/// A model that looks at one frame for one query, and what it saw.
struct Eye<'a, M: Selector> {
    model: &'a mut M,
    frame: &'a Frame,
    sight: Sight,
    text: &'a str,
    bar: Bar,
    exist: f32,
    /// Most crops in one run.
    batch: usize,
    /// Every area is worth a look.
    exhaustive: bool,
    /// Where it was found last, and where what is tracked should be.
    seeds: &'a [Seed],
    /// By the crop that was looked at; the whole picture first.
    looks: Vec<(BBox, Look)>,
    crops: &'a mut Crops<M::Features>,
}

impl<M: Selector> Eye<'_, M> {
    /// A search over the frame's areas.
    fn plan(&self) -> Plan {
        let canvas = self.canvas();
        // Below the canvas' height an area is shown larger than life.
        let patch = canvas.height.min(canvas.width).max(2);
        let rules = Rules { existence: 2.0 * f64::from(self.exist) - 1.0, ..Rules::llava_local(patch) };
        Plan::all(Tree::of(self.frame.source(), patch, rules.split), rules, self.text)
    }

    /// Looks at seeds and at what the plan asks, as far as the meter allows; `reserve` passes are for the plan alone. Whether the
    /// plan is over, and the seeds that were left out.
    fn search(
        &mut self,
        plan: &mut Plan,
        meter: &mut Meter,
        reserve: usize,
        now: fn() -> Instant,
    ) -> Result<(bool, Vec<Seed>), Stop> {
        let most = meter.left() - reserve;
        let (seeds, picture) = (self.seeds, self.frame.source());
        let crops = self.promising(plan.tree());
        let mut shown = covering(seeds, &crops, most, self.sight, picture);
        while !shown.is_empty() {
            let began = now();
            let (count, cost) = meter.afford(shown.len(), |n| self.unknown(&shown[..n]), began);
            if count == 0 {
                break;
            }
            let some: Vec<_> = shown.drain(..count).collect();
            self.look(&some)?;
            meter.spend(cost, now().saturating_duration_since(began));
        }
        let over = zoom::pursue(plan, self, meter, &now)?;
        let [whole, near @ ..] = self.looks.as_slice() else { return Ok((over, Vec::new())) };
        // What is large enough was seen on the whole picture.
        let is_seen =
            |seed: &Seed| !whole.1.is_small(&seed.bbox) || near.iter().any(|(crop, _)| shows(crop, seed, picture));
        let unseen = seeds.iter().filter(|seed| !is_seen(seed)).copied().collect();
        Ok((over, unseen))
    }

    /// Crops that may show seeds well: around each, around each two of the first that are near to each other, and wide
    /// ones.
    fn promising(&self, tree: &Tree) -> Vec<BBox> {
        let alone = self.seeds.iter().filter_map(|seed| self.around(seed));
        let first = &self.seeds[..self.seeds.len().min(PAIRED)];
        let pairs = first.iter().enumerate().flat_map(|(at, a)| first[..at].iter().map(move |b| (a, b)));
        let together = pairs.filter_map(|(a, b)| self.framed(&a.bbox.hull(&b.bbox)));
        let near = together.filter(|crop| coarseness(crop, self.canvas()) <= NEAR);
        alone.chain(near).chain(self.wide(tree)).collect()
    }

    fn canvas(&self) -> Size {
        self.sight.canvas
    }

    /// The narrowest crop: narrower ones would only make pixels larger.
    fn least(&self) -> f32 {
        self.canvas().width as f32
    }

    /// The crop that shows a seed: the one it was found in, or one like it if it has moved to its edge.
    fn around(&self, seed: &Seed) -> Option<BBox> {
        let least = match seed.crop {
            Some(crop) if holds(&crop, &seed.bbox, STAYS, self.frame.source()) => return Some(crop),
            Some(crop) => crop.width(),
            None => self.least(),
        };
        crop::framed(&seed.bbox, self.frame.source(), self.canvas(), ROUND, least)
    }

    /// Crops that show much of the picture, and nearly as well as it can be seen.
    fn wide(&self, tree: &Tree) -> Vec<BBox> {
        let areas = (0..tree.count()).filter_map(|at| tree.node(at).area.bbox());
        let crops = areas.filter_map(|area| self.framed(&area));
        let coarse = crops.map(|crop| (coarseness(&crop, self.canvas()), crop));
        coarse.filter(|(coarse, _)| *coarse > GAIN && *coarse <= NEAR).map(|(_, crop)| crop).collect()
    }

    /// What is shown of an area of the tree.
    fn framed(&self, area: &BBox) -> Option<BBox> {
        crop::framed(area, self.frame.source(), self.canvas(), MARGIN, self.least())
    }

    /// What is shown of a view.
    fn crop_of(&self, view: &View) -> Option<BBox> {
        if view.is_whole() {
            return self.looks.first().map(|(whole, _)| *whole);
        }
        self.framed(&view.area.bbox()?)
    }

    fn seen(&self, crop: &BBox) -> Option<&Look> {
        self.looks.iter().find(|(known, _)| known == crop).map(|(_, look)| look)
    }

    /// Passes that looking at these crops costs.
    fn unknown(&self, crops: &[BBox]) -> usize {
        let new = |at: usize| {
            let crop = &crops[at];
            !crops[..at].contains(crop) && self.seen(crop).is_none() && !self.crops.known.contains_key(&key(crop))
        };
        (0..crops.len()).filter(|at| new(*at)).count()
    }

    /// Looks at crops, as many in one run as are new.
    fn look(&mut self, wanted: &[BBox]) -> Result<(), Stop> {
        let mut new: Vec<BBox> = Vec::new();
        for crop in wanted {
            if self.seen(crop).is_none() && !new.contains(crop) {
                new.push(*crop);
            }
        }
        let uncut: Vec<_> = new.iter().filter(|crop| !self.crops.known.contains_key(&key(crop))).copied().collect();
        self.cut(&uncut)?;
        // Crops whose proposals came from one run are asked about in one.
        let known: Vec<_> =
            new.iter().filter_map(|crop| Some((*crop, self.crops.known.get(&key(crop))?.clone()))).collect();
        for together in known.chunk_by(|(_, a), (_, b)| Rc::ptr_eq(&a.proposals, &b.proposals)) {
            let proposals = &together[0].1.proposals;
            let pairs: Vec<_> = together.iter().map(|(_, one)| Pair { canvas: one.canvas, text: self.text }).collect();
            let selection = self.model.select(proposals, &pairs)?;
            let rows = selection.scores.chunks(proposals.each.max(1)).zip(&selection.none);
            for ((crop, one), (scores, none)) in together.iter().zip(rows) {
                let on = (self.bar, self.sight);
                let look = Look::of(one.placed, proposals, one.canvas, scores, *none, on);
                self.looks.push((*crop, look));
            }
        }
        Ok(())
    }

    /// Cuts crops out of the full-size picture and proposes regions on them.
    fn cut(&mut self, crops: &[BBox]) -> Result<(), Stop> {
        let canvas = self.canvas();
        let Some(full) = &self.frame.full else { return Ok(()) };
        let mut shown = Vec::with_capacity(crops.len());
        for crop in crops {
            let picture = full.crop(crop, canvas).map_err(Stop::Picture)?;
            let placed = crop::placed(crop, picture.size, canvas);
            let placed = placed.ok_or_else(|| {
                let Size { width, height } = picture.size;
                Stop::Picture(format!("a crop came back as {width}x{height}, larger than it was asked for"))
            })?;
            shown.push((placed, placed.laid(&picture)));
        }
        for (shown, crops) in shown.chunks(self.batch).zip(crops.chunks(self.batch)) {
            let canvases: Vec<_> = shown.iter().map(|(_, picture)| picture).collect();
            let proposals = Rc::new(self.model.propose(&canvases)?);
            for (canvas, ((placed, _), crop)) in shown.iter().zip(crops).enumerate() {
                let known = Crop { placed: *placed, proposals: Rc::clone(&proposals), canvas };
                self.crops.known.insert(key(crop), known);
            }
        }
        Ok(())
    }

    /// Whether a look leaves nothing to be seen from nearer: the source has not much more to show, or the thing is surely
    /// there and all of it, known things included, is of a good size.
    fn is_settled(&self, look: &Look) -> bool {
        if self.exhaustive {
            return false;
        }
        if look.coarseness() <= GAIN {
            return true;
        }
        let best = look.picks.first().is_some_and(|pick| pick.score >= SURE);
        // One large thing says nothing of the small ones that are known: this look would not show them.
        let known = self.seeds.iter().filter(|seed| shows(&look.placed.crop, seed, self.frame.source()));
        let mut boxes = look.picks.iter().map(|pick| &pick.bbox).chain(known.map(|seed| &seed.bbox));
        look.yes >= self.exist && best && !boxes.any(|bbox| look.is_small(bbox))
    }

    /// What all looks found together, earlier ones at what was found before among them: what is faint just now may be what it
    /// was, and what shows itself for once may not.
    fn found(&self) -> Vec<Seen> {
        let looks: Vec<&Look> = self.looks.iter().map(|(_, look)| look).collect();
        let picture = self.frame.source();
        let mut seen = Vec::new();
        for (i, look) in looks.iter().enumerate() {
            if i > 0 && look.yes < self.exist {
                continue;
            }
            for (pick, before) in look.candidates(self.seeds) {
                if i > 0 && look.placed.cuts(&pick.bbox, picture, EDGE) {
                    continue;
                }
                let evidence = look::agreed(&looks, i, &pick, picture).with(before);
                let score = evidence.mean().unwrap_or(pick.score);
                if score >= self.bar.score {
                    seen.push(Seen {
                        pick: Pick { score, ..pick },
                        crop: (i > 0).then_some(look.placed.crop),
                        across: look.placed.crop.width(),
                        is_small: look.is_small(&pick.bbox),
                        evidence,
                    });
                }
            }
        }
        merge::merged(&seen, self.bar.nms_iou)
    }
}

impl<M: Selector> Confidence for Eye<'_, M> {
    type Error = Stop;

    /// What the crop's own look says; of "might it be found" what the coarser looks left open.
    fn confidence(&mut self, view: &View, prompt: Prompt<'_>) -> Result<f64, Stop> {
        let Some(look) = self.crop_of(view).and_then(|crop| self.seen(&crop)) else { return Ok(-1.0) };
        let yes = match prompt.kind {
            Kind::Existence => look.yes,
            Kind::Answering => look.yes.min(look.picks.first().map_or(0.0, |pick| pick.score)),
            Kind::Latent => look.hints().map(|hint| hint.score).fold(0.0, f32::max),
        };
        Ok(2.0 * f64::from(yes) - 1.0)
    }

    fn cost(&self, questions: &[Question]) -> usize {
        let crops: Vec<_> = questions.iter().filter_map(|question| self.crop_of(&question.view)).collect();
        self.unknown(&crops)
    }

    fn prepare(&mut self, questions: &[Question]) -> Result<(), Stop> {
        let crops: Vec<_> = questions.iter().filter_map(|question| self.crop_of(&question.view)).collect();
        self.look(&crops)
    }

    /// The best hint inside, of all the looks that were made.
    fn promise(&self, view: &View) -> f64 {
        let hints = self.looks.iter().flat_map(|(_, look)| look.hints());
        hints.filter(|hint| view.area.holds(hint.bbox.center())).map(|hint| f64::from(hint.score)).fold(0.0, f64::max)
    }

    fn worth_splitting(&self, view: &View) -> bool {
        if self.exhaustive {
            return true;
        }
        let traced = |look: &Look| look.hints().any(|hint| hint.score >= TRACE);
        let open = |look: &Look| !self.is_settled(look) && (look.coarseness() > NEAR || traced(look));
        self.crop_of(view).and_then(|crop| self.seen(&crop)).is_none_or(open)
    }
}

/// A crop's name among others.
fn key(crop: &BBox) -> [u32; 4] {
    crop.corners().map(f32::to_bits)
}

#[cfg(test)]
#[path = "crops_tests.rs"]
mod tests;

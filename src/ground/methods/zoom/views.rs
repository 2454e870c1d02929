//! Zoom for models that are asked in words: is it there, might it be found, can you tell from this view?
//!
//! The search is the original's, question by question ([`crate::ground::zoom`]). Boxes come from the model's own method,
//! asked about what the search found, and about the whole picture where it found nothing, or not yet.

use std::{cmp::Reverse, rc::Rc};

use super::{Stop, Zoom};
use crate::{
    ground::{
        GroundError,
        methods::{
            Finds, Hit, Told, by_frame,
            retrieve::Ask,
            written::{self, Writer},
        },
        zoom::{
            self, Confidence, Kind, Meter, Plan, Prompt, Question, Rules, Tree, View,
            crop::{self, Corners},
            cues,
            mark::{self, Colour},
            memory::Seed,
            rules::Views,
            tree::Area,
            wording::{self, Part},
        },
    },
    types::{BBox, Frame, FullFrame, Rgb, Size},
};

mod locate;

/// Words that a phrase about several things has at least: `car left of the van`.
const RELATES: usize = 4;

/// Of two boxes that overlap more than this, found in two places, one stays.
const SAME: f32 = 0.5;

/// Things that are searched for at most.
const MOST_CUES: usize = 4;

/// A model that can be asked yes or no.
pub trait Judge: Writer {
    /// How it is searched with.
    fn search_rules(&self) -> Rules;

    /// How sure it is that the answer is yes: `2·(P(yes) - 0.5)` by the softmax over the first tokens of the two words
    /// alone, -1 to 1. `pictures` stand where the parts say.
    fn sure(&mut self, pictures: &[&Self::Seen], parts: &[Part]) -> Result<f64, GroundError>;

    /// The things that a question is about, in the model's own words; none if it cannot tell.
    fn cues(&mut self, question: &str) -> Result<Vec<String>, GroundError>;
}

/// Answers all questions. Those about the same frame stand next to each other.
pub fn answer<W: Judge>(zoom: &mut Zoom, model: &mut W, asks: &[Ask<'_>]) -> Result<Vec<Told>, GroundError> {
    let mut told = Vec::with_capacity(asks.len());
    for asks in by_frame(asks, |ask| ask.frame) {
        // The whole picture is the same for every query.
        let mut whole = None;
        for ask in asks {
            told.push(match one(zoom, model, ask, &mut whole) {
                Ok(finds) => Ok(finds),
                Err(stop) => stop.told()?,
            });
        }
    }
    Ok(told)
}

fn one<W: Judge>(
    zoom: &mut Zoom,
    model: &mut W,
    ask: &Ask<'_>,
    whole: &mut Option<Rc<W::Seen>>,
) -> Result<Finds, Stop> {
    let Ask { frame, query } = *ask;
    let (rules, colour) = (model.search_rules(), Colour::of(&query.text));
    let mut eye = Eye { model, frame, rules, colour, whole, shown: Vec::new() };
    let Searched { mut hits, unseen, over } = match &frame.full {
        Some(full) => eye.search(zoom, ask, full.as_ref())?,
        None => Searched { hits: Vec::new(), unseen: Vec::new(), over: true },
    };
    if hits.is_empty() {
        hits = eye.locate_in_all(query)?;
    }
    hits.sort_by(|a, b| b.pick.score.total_cmp(&a.pick.score));
    let seen_at = zoom.seen_at(frame);
    let near = hits.iter().filter(|hit| hit.crop.is_some());
    let near = near.map(|hit| Seed { crop: hit.crop, ..Seed::at(hit.pick.bbox) });
    let complete = unseen.is_empty() && (over || !cues::is_all(&query.text));
    // What there was no time for comes first the next time.
    zoom.trail(ask).seed(unseen.into_iter().filter_map(Seed::missed).chain(near), seen_at);
    if hits.is_empty() && !over { Err(Stop::Unfinished) } else { Ok(Finds { hits, complete }) }
}

/// What came of a search on one frame.
struct Searched {
    /// What was located in the areas that show what is asked for.
    hits: Vec<Hit>,
    /// Seeds that there was no time for.
    unseen: Vec<Seed>,
    /// Whether what was not found is not there, or the search was not needed.
    over: bool,
}

/// Pictures of one view: the area, and what goes before it.
type Shown<S> = (View, Vec<Rc<S>>);

/// A model that looks at one frame.
struct Eye<'a, W: Judge> {
    model: &'a mut W,
    frame: &'a Frame,
    rules: Rules,
    colour: Colour,
    whole: &'a mut Option<Rc<W::Seen>>,
    /// The views asked about last: they are asked about in more than one way.
    shown: Vec<Shown<W::Seen>>,
}

impl<W: Judge> Eye<'_, W> {
    /// Looks as far as the budget goes, and locates in what it finds.
    fn search(&mut self, zoom: &mut Zoom, ask: &Ask<'_>, full: &dyn FullFrame) -> Result<Searched, Stop> {
        let mut meter = zoom.meter();
        let cues = self.cues(zoom, ask, &mut meter)?;
        let (renewed, unseen) = self.revisit(zoom, ask, full, &mut meter)?;
        // Things that are related have to be seen together.
        let related = cues.len() > 1;
        let mut hits = self.locate_near(&renewed, ask.query, related)?;
        let mut over = true;
        // A place that is said to show it, and in which nothing is located, is no find. Where all are wanted there may be more.
        if hits.is_empty() || cues::is_all(&ask.query.text) {
            let found;
            (found, over) = self.pursue(zoom, ask, full, &cues, &mut meter)?;
            for hit in self.locate_near(&found, ask.query, related)? {
                if hits.iter().all(|known| known.pick.bbox.iou(&hit.pick.bbox) < SAME) {
                    hits.push(hit);
                }
            }
        }
        zoom.remember(&meter);
        Ok(Searched { hits, unseen, over })
    }

    /// Asks first where it should be by now: the places that show it, and the seeds that there was no time for.
    fn revisit(
        &mut self,
        zoom: &mut Zoom,
        ask: &Ask<'_>,
        full: &dyn FullFrame,
        meter: &mut Meter,
    ) -> Result<(Vec<Area>, Vec<Seed>), Stop> {
        let (now, source) = (zoom.now, ask.frame.source());
        let question = cues::question_about(&ask.query.text);
        let mut seeds = zoom.seeds(ask, &[]);
        // Each has its turn.
        seeds.sort_by_key(|seed| Reverse(seed.missed));
        let mut asking = Asking { eye: self, full };
        // Where it was found last it may still be: one question, and the search is spared. Unless it is, a third of the
        // passes is for what is not where it was.
        let for_search = meter.left().div_ceil(3).min(meter.left().saturating_sub(1));
        let (mut renewed, mut unseen) = (Vec::new(), Vec::new());
        for seed in seeds {
            let Some(area) = around(&seed.bbox, source) else { continue };
            let (count, cost) = meter.afford(1, |n| n, now());
            if count == 0 || (renewed.is_empty() && meter.left() <= for_search) {
                unseen.push(seed);
                continue;
            }
            let began = now();
            let view = View { area, depth: 1, glance: false };
            let sure = asking.confidence(&view, Prompt { kind: Kind::Answering, about: &question })?;
            meter.spend(cost, now().saturating_duration_since(began));
            if sure >= asking.eye.rules.upper {
                renewed.push(area);
            }
        }
        Ok((renewed, unseen))
    }

    /// Goes on with the search as far as the meter allows: the areas that show it, and whether nothing else does.
    fn pursue(
        &mut self,
        zoom: &mut Zoom,
        ask: &Ask<'_>,
        full: &dyn FullFrame,
        cues: &[String],
        meter: &mut Meter,
    ) -> Result<(Vec<Area>, bool), Stop> {
        let (now, seen_at) = (zoom.now, zoom.seen_at(ask.frame));
        let (source, rules) = (ask.frame.source(), self.rules.clone());
        let begin = || {
            let tree = Tree::of(source, rules.patch, rules.split);
            Plan::new(tree, rules, &cues::question_about(&ask.query.text), cues)
        };
        let trail = zoom.trail(ask);
        let mut search = trail.take_up(seen_at, begin);
        let pursued = zoom::pursue(&mut search.plan, &mut Asking { eye: self, full }, meter, &now);
        let plan = &search.plan;
        let found = plan.found().into_iter().map(|at| plan.tree().node(at).area).collect();
        let over = trail.lay_down(search, matches!(pursued, Ok(true)), seen_at);
        pursued.map(|_| (found, over))
    }

    /// What the query is about. A phrase that relates things to one another is about several; the model is asked once.
    fn cues(&mut self, zoom: &mut Zoom, ask: &Ask<'_>, meter: &mut Meter) -> Result<Vec<String>, Stop> {
        let text = &ask.query.text;
        if cues::is_all(text) || text.split_whitespace().count() < RELATES {
            return Ok(vec![text.clone()]);
        }
        let now = zoom.now;
        let trail = zoom.trail(ask);
        if trail.cues.is_none() {
            let began = now();
            let mut named = self.model.cues(&cues::question_where(text))?;
            meter.spend(1, now().saturating_duration_since(began));
            named.truncate(MOST_CUES);
            trail.cues = Some(if named.is_empty() { vec![text.clone()] } else { named });
        }
        Ok(trail.cues.clone().unwrap_or_default())
    }

    /// What is shown of an area.
    fn shown(&self, area: &Area) -> Corners {
        crop::shown(area, self.frame.source(), &self.rules)
    }

    /// Looks at pictures, all of which must be fit to be looked at.
    fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<W::Seen>, Stop> {
        let looked = self.model.look(pictures)?.into_iter();
        looked.map(|seen| seen.map_err(|reason| Stop::Picture(reason.to_string()))).collect()
    }

    fn whole(&mut self) -> Result<Rc<W::Seen>, Stop> {
        if let Some(seen) = self.whole.as_ref() {
            return Ok(Rc::clone(seen));
        }
        let picture = written::picture(self.frame).map_err(Stop::Picture)?;
        let seen = Rc::new(self.model.look_at(&picture)?);
        *self.whole = Some(Rc::clone(&seen));
        Ok(seen)
    }
}

/// Asks about views of a picture that is there in full.
struct Asking<'a, 'b, W: Judge> {
    eye: &'a mut Eye<'b, W>,
    full: &'a dyn FullFrame,
}

impl<W: Judge> Asking<'_, '_, W> {
    /// Looks at the views that were not looked at before, all of them at once, and forgets the others.
    fn show(&mut self, views: &[View]) -> Result<(), Stop> {
        self.eye.shown.retain(|(view, _)| views.contains(view));
        let (mut fresh, mut pictures) = (Vec::new(), Vec::new());
        for view in views {
            let known = |shown: &[(View, _)]| shown.iter().any(|(known, _)| known == view);
            if self.eye.shown.iter().any(|(shown, _)| shown == view) || known(&fresh) {
                continue;
            }
            let from = pictures.len();
            if view.glance {
                pictures.push(small(self.full, self.eye.frame.source(), self.eye.rules.patch)?);
            } else if !view.is_whole() {
                let (main, focus) = self.framed(&view.area)?;
                pictures.extend((self.eye.rules.views != Views::Local).then_some(main));
                pictures.push(focus);
            }
            fresh.push((*view, from..pictures.len()));
        }
        let seen = self.eye.look(&pictures.iter().collect::<Vec<_>>())?;
        let seen: Vec<_> = seen.into_iter().map(Rc::new).collect();
        for (view, own) in fresh {
            let own = if own.is_empty() { vec![self.eye.whole()?] } else { seen[own].to_vec() };
            self.eye.shown.push((view, own));
        }
        Ok(())
    }

    /// The pictures of a view, as the model sees them.
    fn pictures(&mut self, view: &View) -> Result<Vec<Rc<W::Seen>>, Stop> {
        let known =
            |shown: &[Shown<W::Seen>]| shown.iter().find(|(known, _)| known == view).map(|(_, own)| own.clone());
        if let Some(pictures) = known(&self.eye.shown) {
            return Ok(pictures);
        }
        self.show(&[*view])?;
        Ok(known(&self.eye.shown).unwrap_or_default())
    }

    /// The whole picture with the area framed, and the area with its frame, as the original shows them. The frame of the
    /// whole is drawn after scaling, at the thickness it would have.
    fn framed(&self, area: &Area) -> Result<(Rgb, Rgb), Stop> {
        let (source, rules, colour) = (self.eye.frame.source(), &self.eye.rules, self.eye.colour);
        let corners = self.eye.shown(area);
        if rules.views == Views::Local {
            let picture = cut(self.full, corners)?;
            return Ok((picture.clone(), picture));
        }
        let main = small(self.full, source, rules.patch)?;
        let scaled = |v: u32, from: u32, to: u32| u32::try_from(u64::from(v) * u64::from(to) / u64::from(from.max(1)));
        let across = |v: u32| scaled(v, source.width, main.size.width).unwrap_or(u32::MAX);
        let down = |v: u32| scaled(v, source.height, main.size.height).unwrap_or(u32::MAX);
        let [left, top, right, bottom] = corners;
        let there = [across(left), down(top), across(right), down(bottom)];
        let main = mark::framed(&main, there, mark::thickness(main.size), colour);
        let t = mark::thickness(source);
        let outer = [
            left.saturating_sub(t),
            top.saturating_sub(t),
            right.saturating_add(t).min(source.width),
            bottom.saturating_add(t).min(source.height),
        ];
        let focus = cut(self.full, outer)?;
        // Where pixels are not square the crop is smaller than asked for, and its frame as thick as it was asked.
        let edge = [0, 0, focus.size.width, focus.size.height];
        Ok((main, mark::framed(&focus, edge, t, colour)))
    }
}

impl<W: Judge> Confidence for Asking<'_, '_, W> {
    type Error = Stop;

    fn confidence(&mut self, view: &View, prompt: Prompt<'_>) -> Result<f64, Stop> {
        let pictures = self.pictures(view)?;
        let eye = &mut *self.eye;
        let parts = wording::prompt(eye.rules.views, view, prompt, eye.colour);
        let pictures: Vec<&W::Seen> = pictures.iter().map(Rc::as_ref).collect();
        Ok(eye.model.sure(&pictures, &parts)?)
    }

    fn prepare(&mut self, questions: &[Question]) -> Result<(), Stop> {
        self.show(&questions.iter().map(|question| question.view).collect::<Vec<_>>())
    }
}

/// The whole picture with its longer side `side` pixels, or less where it has no more.
fn small(full: &dyn FullFrame, source: Size, side: u32) -> Result<Rgb, Stop> {
    let whole = bbox([0, 0, source.width, source.height]);
    let whole = whole.ok_or_else(|| Stop::Picture("the picture is empty".to_owned()))?;
    full.crop(&whole, Size::new(side, side)).map_err(Stop::Picture)
}

fn cut(full: &dyn FullFrame, corners: Corners) -> Result<Rgb, Stop> {
    let crop = bbox(corners).ok_or_else(|| Stop::Picture("the crop is empty".to_owned()))?;
    full.crop(&crop, size(corners)).map_err(Stop::Picture)
}

fn bbox([left, top, right, bottom]: Corners) -> Option<BBox> {
    BBox::new(left as f32, top as f32, right as f32, bottom as f32)
}

fn size([left, top, right, bottom]: Corners) -> Size {
    Size::new(right.saturating_sub(left), bottom.saturating_sub(top))
}

/// The whole pixels around a box.
fn around(bbox: &BBox, picture: Size) -> Option<Area> {
    let [x1, y1, x2, y2] = bbox.clipped(picture)?.corners();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to the picture")]
    let whole = |v: f32| v as u32;
    let (x, y) = (whole(x1.floor()), whole(y1.floor()));
    Some(Area { x, y, width: whole(x2.ceil()) - x, height: whole(y2.ceil()) - y })
}

#[cfg(test)]
mod tests;

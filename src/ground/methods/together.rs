//! Several methods of one model, asked together: each frame is looked at once, whatever is asked of it.
//!
//! `retrieve`, `coords`, `bins` and `zoom` begin with the same selection, which is made once for the same words on the
//! same frame; `detector` reads the cells of the same look. Boxes that were written are limited by the model's own
//! decisions, scored ones by a bar.

use super::{
    Hit, Told, by_frame,
    regions::{self, Bar, Offer, Pick},
    retrieve::{self, Ask, Pair, Proposals, Selection, Selector},
    zoom::{self, Zoom, crops::Root},
};
use crate::{
    ground::{
        GroundError,
        codec::{RawBox, nano::Form},
    },
    types::{Method, Rgb, ScoreKind},
};

/// Cells of some pairs' canvases, scored by the pairs' words: the best of each pair, pair after pair.
#[derive(Debug)]
pub struct Cells {
    /// Cells a pair.
    pub each: usize,
    /// Corners in fractions of the canvas.
    pub boxes: Vec<[f32; 4]>,
    /// How well they fit the words, 0 to 1.
    pub scores: Vec<f32>,
}

/// A model that can do all five.
pub trait AllRound: Selector {
    /// Answer tokens written so far.
    fn tokens(&self) -> u64;

    /// Scores the cells of each pair's canvas.
    fn detect(&mut self, proposals: &Proposals<Self::Features>, pairs: &[Pair<'_>]) -> Result<Cells, GroundError>;

    /// Writes boxes about the regions of a selection, for each pair of it that is named, in the form that is named:
    /// in fractions of the canvas, in the order written.
    fn write(
        &mut self,
        selection: &Selection<Self::States>,
        pairs: &[(usize, Form)],
    ) -> Result<Vec<Vec<RawBox>>, GroundError>;
}

/// What a box must reach, by method. A query's own threshold goes before all but `objectness`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bars {
    /// `retrieve`, and `zoom` on each of its views.
    pub retrieve: Bar,
    /// `detector`.
    pub detector: f32,
    /// `coords` and `bins`.
    pub write: f32,
    /// `zoom`: how sure a crop must be that it shows what is asked for.
    pub exist: f32,
}

/// A question, and how it is to be answered; not by `auto`.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// How.
    pub method: Method,
    /// What is asked.
    pub ask: Ask<'a>,
}

/// Answers all questions with one look at each frame. Questions about the same frame stand next to each other.
pub fn answer<M: AllRound>(
    model: &mut M,
    asks: &[Asked<'_>],
    bars: Bars,
    zoom: &mut Zoom,
) -> Result<Vec<Told>, GroundError> {
    if asks.is_empty() {
        return Ok(Vec::new());
    }
    let Sorted { canvases, places } = Sorted::of(asks);
    let proposals = model.propose(&canvases)?;
    answer_seen(model, &proposals, &places, asks, bars, zoom)
}

/// The same on frames that were looked at: `places` says for each question which canvas of `proposals` its frame has.
pub fn answer_seen<M: AllRound>(
    model: &mut M,
    proposals: &Proposals<M::Features>,
    places: &[usize],
    asks: &[Asked<'_>],
    bars: Bars,
    zoom: &mut Zoom,
) -> Result<Vec<Told>, GroundError> {
    let pairs: Vec<Pair<'_>> =
        asks.iter().zip(places).map(|(one, canvas)| Pair { canvas: *canvas, text: &one.ask.query.text }).collect();
    let of = |wanted: &[Method]| -> Vec<Pair<'_>> {
        let mut some: Vec<Pair<'_>> = Vec::new();
        for (asked, pair) in asks.iter().zip(&pairs) {
            if wanted.contains(&asked.method) && !some.contains(pair) {
                some.push(*pair);
            }
        }
        some
    };
    let selected = of(&[Method::Retrieve, Method::Coords, Method::Bins, Method::Zoom]);
    let selection = if selected.is_empty() { None } else { Some(model.select(proposals, &selected)?) };
    let filtered = of(&[Method::Detector]);
    let cells = if filtered.is_empty() { None } else { Some(model.detect(proposals, &filtered)?) };
    let at = |pairs: &[Pair<'_>], pair: &Pair<'_>| pairs.iter().position(|one| one == pair).unwrap_or_default();
    let mut written = Written::plan(asks, &pairs, |pair| at(&selected, pair));
    if let Some(selection) = &selection {
        written.write(model, selection)?;
    }
    let mut told = Vec::with_capacity(asks.len());
    let mut crops = zoom::crops::Crops::default();
    for (i, (Asked { method, ask }, pair)) in asks.iter().zip(&pairs).enumerate() {
        if i == 0 || places[i] != places[i - 1] {
            // Crops are of one frame.
            crops = zoom::crops::Crops::default();
        }
        let scores = |each: usize, at: usize, all: &[f32]| all[at * each..(at + 1) * each].to_vec();
        told.push(match (method, &selection, &cells) {
            (Method::Detector, _, Some(cells)) => Ok(cells.hits(at(&filtered, pair), ask, bars).into()),
            (Method::Coords | Method::Bins, ..) => Ok(written.hits(i, ask, bars).into()),
            (Method::Zoom, Some(selection), _) => {
                let at = at(&selected, pair);
                let root = Root {
                    proposals,
                    canvas: pair.canvas,
                    scores: scores(proposals.each, at, &selection.scores),
                    none: selection.none[at],
                };
                zoom::crops::answer(zoom, model, ask, &root, bars, &mut crops)?
            }
            (_, Some(selection), _) => {
                let scores = scores(proposals.each, at(&selected, pair), &selection.scores);
                let bar = Bar { score: ask.query.threshold.unwrap_or(bars.retrieve.score), ..bars.retrieve };
                let to_source = |corners| ask.frame.view.to_source(corners);
                let picks = retrieve::picks(proposals, pair.canvas, &scores, to_source, bar);
                // The selection's own probability: how sure the proposal network was decides what is offered, not
                // what fits.
                Ok(Hit::all(picks, ScoreKind::TokenProb).into())
            }
            _ => Ok(Vec::new().into()),
        });
    }
    Ok(told)
}

/// The frames among some questions, and which each is about.
struct Sorted<'a> {
    canvases: Vec<&'a Rgb>,
    /// The frame's number, for each question.
    places: Vec<usize>,
}

impl<'a> Sorted<'a> {
    fn of(asks: &[Asked<'a>]) -> Self {
        let mut sorted = Self { canvases: Vec::new(), places: Vec::new() };
        for (place, own) in by_frame(asks, |asked| asked.ask.frame).enumerate() {
            sorted.canvases.push(&own[0].ask.frame.canvas);
            sorted.places.extend(own.iter().map(|_| place));
        }
        sorted
    }
}

impl Cells {
    /// The matches of the pair numbered `at`, best first.
    fn hits(&self, at: usize, ask: &Ask<'_>, bars: Bars) -> Vec<Hit> {
        let cells = at * self.each..(at + 1) * self.each;
        // What is a thing at all was not asked: every cell is offered.
        let offer =
            Offer { boxes: &self.boxes[cells.clone()], objectness: &vec![1.0; self.each], scores: &self.scores[cells] };
        let bar = Bar { score: ask.query.threshold.unwrap_or(bars.detector), objectness: 0.0, ..bars.retrieve };
        Hit::all(regions::choose(&ask.frame.view, offer, bar), ScoreKind::Logit)
    }
}

/// What is to be written, each pair and form once, and what was.
struct Written {
    wanted: Vec<(usize, Form)>,
    /// For each question the place among `wanted`.
    places: Vec<Option<usize>>,
    found: Vec<Vec<RawBox>>,
}

impl Written {
    fn plan(asks: &[Asked<'_>], pairs: &[Pair<'_>], selected: impl Fn(&Pair<'_>) -> usize) -> Self {
        let mut wanted = Vec::new();
        let place = |(asked, pair): (&Asked<'_>, &Pair<'_>)| {
            let form = match asked.method {
                Method::Coords => Form::Coords,
                Method::Bins => Form::Bins,
                _ => return None,
            };
            let one = (selected(pair), form);
            Some(wanted.iter().position(|other| *other == one).unwrap_or_else(|| {
                wanted.push(one);
                wanted.len() - 1
            }))
        };
        let places = asks.iter().zip(pairs).map(place).collect();
        Self { wanted, places, found: Vec::new() }
    }

    fn write<M: AllRound>(&mut self, model: &mut M, selection: &Selection<M::States>) -> Result<(), GroundError> {
        if !self.wanted.is_empty() {
            self.found = model.write(selection, &self.wanted)?;
        }
        Ok(())
    }

    /// The matches of the question numbered `at`, best first; of equals the one written first.
    fn hits(&self, at: usize, ask: &Ask<'_>, bars: Bars) -> Vec<Hit> {
        let bar = ask.query.threshold.unwrap_or(bars.write);
        let found = self.places[at].and_then(|place| self.found.get(place));
        let pick = |raw: &RawBox| {
            let score = raw.score.filter(|score| *score >= bar)?;
            Some(Pick { bbox: ask.frame.view.to_source(raw.fractions)?, score })
        };
        let mut picks: Vec<_> = found.into_iter().flatten().filter_map(pick).collect();
        picks.sort_by(|a, b| b.score.total_cmp(&a.score));
        Hit::all(picks, ScoreKind::TokenProb)
    }
}

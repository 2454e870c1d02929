//! One camera at the desk: its scene, the look at the picture analysed last, and what is known by both.

use std::time::Instant;

use super::{
    AskConfig,
    gate::Look,
    look::Offered,
    scene::{Key, Scene},
};
use crate::{
    ground::methods::{
        Hit,
        regions::{self, Bar, Offer},
        together::Asked,
    },
    types::{Frame, Method, ScoreKind, Size},
};

/// One camera.
#[derive(Default)]
pub(super) struct Place {
    pub(super) scene: Scene,
    /// The look at the picture analysed last.
    pub(super) offered: Option<Offered>,
    /// Whether that is the picture of this frame; else it is one that looks the same.
    pub(super) looked: bool,
    pub(super) used_at: Option<Instant>,
    /// Where the camera's pictures come from, and their size: what hits are held in.
    source: Option<(u64, Size)>,
}

/// What is known about a question.
#[derive(Default)]
pub(super) struct Known {
    pub(super) hits: Vec<Hit>,
    /// Whether everything on the picture was asked about.
    pub(super) all: bool,
    /// Whether it is known of this very picture, not of one that looks the same.
    pub(super) looked: bool,
}

impl Place {
    /// A frame has come, with its queries: finds out whether it must be looked at.
    pub(super) fn meet(&mut self, frame: &Frame, queries: Vec<Key>, config: &AskConfig, now: Instant) {
        let source = (frame.origin, frame.source());
        if self.source.is_some_and(|(origin, _)| origin != frame.origin) {
            // It was pointed elsewhere.
            *self = Self::default();
        } else if self.source.is_some_and(|before| before != source) {
            // However alike the pictures are on the canvas: what is held is in pixels of another size.
            self.scene.overlook();
        }
        (self.source, self.used_at) = (Some(source), Some(Instant::now()));
        self.scene.set_queries(queries);
        self.looked = self.scene.look(&frame.canvas, config, now) != Look::Same;
    }

    /// What is known about a question by now. `bar` is that of a model that offers regions; `scores` are those of the
    /// picture looked at last, if they were asked just now.
    pub(super) fn known(
        &mut self,
        Asked { method, ask }: &Asked<'_>,
        bar: Option<Bar>,
        scores: Option<&Vec<f32>>,
    ) -> Option<Known> {
        let Self { scene, offered, looked, .. } = self;
        let place = scene.place(&ask.query.id)?;
        let Some(bar) = bar.filter(|_| *method == Method::Retrieve) else {
            let held = scene.held(place);
            // What was true of another picture is not told about this one.
            let finds = held.finds().filter(|_| !held.is_missing()).cloned().unwrap_or_default();
            return Some(Known { all: finds.complete, hits: finds.hits, looked: *looked });
        };
        let Offered { boxes, objectness, .. } = offered.as_ref()?;
        let all = scores.is_some() || !scene.is_open(place);
        let (boxes, scores) = match scores {
            Some(scores) => (boxes.clone(), scores.clone()),
            None => (scene.places(place), scene.remembered(place)),
        };
        let bar = Bar { score: ask.query.threshold.unwrap_or(bar.score), ..bar };
        let picks = regions::choose(&ask.frame.view, Offer { boxes: &boxes, objectness, scores: &scores }, bar);
        // The selection's own probability: how sure the proposal network was decides what is offered, not what fits.
        let hit = |pick| Hit { pick, kind: ScoreKind::TokenProb, crop: None };
        Some(Known { hits: picks.into_iter().map(hit).collect(), all, looked: *looked })
    }
}

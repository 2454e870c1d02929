//! The zoom search: where in a large picture to look closer, by the model's own yes or no.
//!
//! After `ZoomEye` (Shen et al., 2024; om-ai-lab/ZoomEye at 6762d79, files `tree`, `zoom_eye`, `zoom_model` and
//! `zoom_model_qwenvl`): the picture is a tree of ever smaller areas, a model is asked of some of them how sure it is,
//! and the search goes where it is sure. What it finds is an area, not a box: the caller locates inside and maps back.
//!
//! | file | owns |
//! |---|---|
//! | [`tree`] | how a picture is split, and when no more |
//! | [`rules`] | the constants of each family; ranking and thresholds |
//! | [`seek`] | one target: best first, until a view answers ("type 1") |
//! | [`collect`] | all of a kind: every view down to a depth ("type 2") |
//! | [`plan`] | several cues: which search for which, and when none is needed |
//! | [`cues`] | from a question to its cues |
//! | [`wording`] | what is asked, word by word |
//! | [`crop`] | what is shown of an area, and the way back to the source |
//! | [`mark`] | the coloured frame around the focus on the main picture |
//! | [`budget`] | passes and time that a search may take |
//! | [`memory`] | what is kept from one frame to the next |
//!
//! Everything here is pure: a search says which [`Question`]s it waits for and is told the answers, so that it can stop
//! between any two of them and go on later, with the next frame. [`pursue`] asks a [`Confidence`] within a budget. It
//! knows no picture, no model and no clock.

use std::{sync::Arc, time::Instant};

pub mod budget;
pub mod collect;
pub mod crop;
pub mod cues;
pub mod evidence;
pub mod mark;
pub mod memory;
pub mod plan;
pub mod rules;
pub mod seek;
pub mod tree;
pub mod wording;

#[cfg(test)]
mod original;
#[cfg(test)]
mod reference;

pub use budget::{Budget, Meter};
pub use plan::Plan;
pub use rules::Rules;
pub use tree::{Area, Split, Tree};

/// What is asked of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Is it there, in this view?
    Existence,
    /// Might it be found by looking closer?
    Latent,
    /// Can the question be answered from this view?
    Answering,
}

/// What is looked at: the whole picture, or an area of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// Which part of the picture, in source pixels.
    pub area: Area,
    /// How deep in the tree; 0 is the whole picture.
    pub depth: usize,
    /// The whole picture, but only a small copy of it: enough to see whether a search is needed at all.
    pub glance: bool,
}

impl View {
    /// Whether it is the whole picture.
    pub fn is_whole(&self) -> bool {
        self.depth == 0
    }
}

/// What a model is asked of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// In which sense.
    pub kind: Kind,
    /// The cue, as in `red car`; for [`Kind::Answering`] the question.
    pub about: &'a str,
}

/// A question that a search waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The node of the tree.
    pub node: usize,
    /// What it shows.
    pub view: View,
    /// In which sense it is asked.
    pub kind: Kind,
    /// The cue or the question.
    pub about: Arc<str>,
}

impl Question {
    /// What the model is asked.
    pub fn prompt(&self) -> Prompt<'_> {
        Prompt { kind: self.kind, about: &self.about }
    }
}

/// A model that says yes or no about a view, and how sure it is.
pub trait Confidence {
    /// Why it could not.
    type Error;

    /// From -1, surely no, to 1, surely yes. The original's is `2·(P(yes) - 0.5)`, with P the softmax over the two
    /// words alone.
    fn confidence(&mut self, view: &View, prompt: Prompt<'_>) -> Result<f64, Self::Error>;

    /// Passes of the model that these questions cost together; a model that answers several from one look says so.
    fn cost(&self, questions: &[Question]) -> usize {
        questions.len()
    }

    /// Says what is asked next, all of it: a model that can look at several views in one run does so here.
    fn prepare(&mut self, _questions: &[Question]) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A guess, for free, of how well a view will do: where a budget does not reach for all, the best come first.
    fn promise(&self, _view: &View) -> f64 {
        0.0
    }

    /// Whether looking closer at a view that was asked about may show more. What is not worth it is not split.
    fn worth_splitting(&self, _view: &View) -> bool {
        true
    }
}

/// Asks what `plan` waits for until it is over, which is `true`, or `meter` allows no more, which is `false`; it can
/// then be pursued again later. Clocks are read through `now`.
pub fn pursue<C: Confidence>(
    plan: &mut Plan,
    model: &mut C,
    meter: &mut Meter,
    now: &dyn Fn() -> Instant,
) -> Result<bool, C::Error> {
    loop {
        let mut questions = plan.pending();
        if questions.is_empty() {
            return Ok(true);
        }
        // What costs nothing first, whatever it promises: it must not wait for passes that are not left.
        let costs = |question: &Question| model.cost(std::slice::from_ref(question)) > 0;
        let promise = |question: &Question| model.promise(&question.view);
        questions.sort_by(|a, b| costs(a).cmp(&costs(b)).then_with(|| promise(b).total_cmp(&promise(a))));
        let began = now();
        let (count, cost) = meter.afford(questions.len(), |n| model.cost(&questions[..n]), began);
        let some = &questions[..count];
        if some.is_empty() {
            return Ok(false);
        }
        model.prepare(some)?;
        for question in some {
            let value = model.confidence(&question.view, question.prompt())?;
            plan.tell(question, value, model.worth_splitting(&question.view));
        }
        meter.spend(cost, now().saturating_duration_since(began));
    }
}

/// What a model said, fit to reckon with: within -1 and 1, and "no" where it said nothing that is a number.
fn sound(value: f64) -> f64 {
    if value.is_nan() { -1.0 } else { value.clamp(-1.0, 1.0) }
}

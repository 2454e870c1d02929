//! Looks at pictures that are kept, and what comes of asking about them: what `desk` knows of models.

use std::any::Any;

use crate::{
    ground::{
        GroundError,
        methods::{Finds, Hit, Told, Unanswered, regions::Bar, together::Asked},
    },
    types::{Frame, Rgb, ShedReason, Status},
};

/// One look at a picture.
pub(in crate::ground) struct Offered {
    /// Corners of its regions in fractions of the canvas.
    pub(in crate::ground) boxes: Vec<[f32; 4]>,
    /// How sure the proposal network is of each, 0 to 1.
    pub(in crate::ground) objectness: Vec<f32>,
    /// How each looks: unit vectors.
    pub(in crate::ground) looks: Vec<Vec<f32>>,
    /// What the model needs to be asked about it.
    pub(in crate::ground) kept: Box<dyn Any + Send>,
}

/// A model whose looks can be kept and asked about later.
pub(in crate::ground) trait Offering {
    /// What a region must reach to be reported by `retrieve`.
    fn bar(&self) -> Bar;
    /// Whether the model can take the frame; says why not, for people.
    fn fits(&self, frame: &Frame) -> Result<(), String>;
    /// Looks at each canvas; there is at least one.
    fn offer(&mut self, canvases: &[&Rgb]) -> Result<Vec<Offered>, GroundError>;
    /// `retrieve`: how well the regions fit the words, a score a region.
    fn select(&mut self, asks: &[(&Offered, &str)]) -> Result<Vec<Vec<f32>>, GroundError>;
    /// The other methods. Questions about the same frame stand next to each other.
    fn tell(&mut self, asks: &[(&Offered, Asked<'_>)]) -> Result<Vec<Told>, GroundError>;
}

/// What came of a question.
#[derive(Debug)]
pub(in crate::ground) struct Reply {
    pub(in crate::ground) status: Status,
    pub(in crate::ground) hits: Vec<Hit>,
    /// Whether nothing else matches.
    pub(in crate::ground) complete: bool,
    /// Whether this very picture was asked, not one that looked the same.
    pub(in crate::ground) fresh: bool,
}

impl Reply {
    /// An answer about this very picture.
    pub(in crate::ground) fn fresh(told: Told) -> Self {
        let Finds { hits, complete } = told.as_ref().cloned().unwrap_or_default();
        let status = match told {
            Ok(_) => Status::Ok,
            Err(Unanswered::Refused(reason)) => Status::Error(reason),
            Err(Unanswered::Unfinished) => Status::Shed(ShedReason::Budget.to_string()),
        };
        Self { status, hits, complete, fresh: true }
    }
}

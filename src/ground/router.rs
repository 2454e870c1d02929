//! Sends every query to the method that answers it, and puts the answers back in order. Knows the methods' traits, no
//! family and no runtime.

use std::sync::Arc;

use super::{
    GroundError, Grounder, Limits, ModelInfo,
    methods::{
        regions::{Bar, Pick},
        retrieve::{self, Ask, Selector},
    },
};
use crate::types::{Answer, Batch, Frame, Match, Method, Query, ScoreKind, Status, Via};

/// A model family behind the methods it can do.
pub(super) struct Router<M> {
    model: M,
    info: ModelInfo,
    limits: Limits,
    bar: Bar,
    /// `name@hash8`, shared by every match.
    id: Arc<str>,
}

impl<M: Selector> Router<M> {
    /// A model that answers `retrieve`.
    pub(super) fn new(model: M, info: ModelInfo, limits: Limits, bar: Bar) -> Self {
        let id = info.id().into();
        Self { model, info, limits, bar, id }
    }

    /// The method that answers the query, or why none does.
    fn route(&self, query: &Query) -> Result<Method, String> {
        let method = match query.method {
            Method::Auto => Method::Retrieve,
            named => named,
        };
        if method != Method::Retrieve || !self.info.methods.contains(&method) {
            let can: Vec<_> = self.info.methods.iter().map(|m| m.name()).collect();
            return Err(format!(
                "{} cannot do `{method}`; it can do: {}. Choose one of them, or auto",
                self.info.name,
                can.join(", ")
            ));
        }
        self.model.check(&query.text).map(|()| method)
    }

    fn fits(&self, frame: &Frame) -> Result<(), String> {
        let (got, want) = (frame.canvas.size, self.limits.canvas);
        if got == want {
            return Ok(());
        }
        let (name, w, h) = (&self.info.name, want.width, want.height);
        Err(format!("{name} takes pictures of {w}x{h}, this one is {}x{}", got.width, got.height))
    }

    fn report(&self, pick: &Pick) -> Match {
        let via = Via { method: Method::Retrieve, model: Arc::clone(&self.id), crop: None, fresh: true };
        // The selection's own probability: how sure the proposal network was decides what is offered, not what fits.
        Match { bbox: pick.bbox, score: pick.score, score_kind: ScoreKind::TokenProb, track: None, via }
    }
}

impl<M: Selector + Send> Grounder for Router<M> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> ModelInfo {
        self.info.clone()
    }

    fn check_query(&self, query: &Query) -> Result<(), String> {
        self.route(query).map(drop)
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        let (frames, most) = (batch.jobs.len(), self.limits.max_batch);
        if frames > most {
            return Err(GroundError::Batch { frames, most });
        }
        let mut answers = Vec::with_capacity(frames);
        let (mut asks, mut places) = (Vec::new(), Vec::new());
        for (j, job) in batch.jobs.iter().enumerate() {
            let mut row = Vec::with_capacity(job.queries.len());
            for (q, query) in job.queries.iter().enumerate() {
                let status = match self.route(query).and_then(|_| self.fits(&job.frame)) {
                    Ok(()) => {
                        asks.push(Ask { frame: &job.frame, query });
                        places.push((j, q));
                        Status::Ok
                    }
                    Err(reason) => Status::Error(reason),
                };
                row.push(Answer { query: Arc::clone(query), status, matches: Vec::new() });
            }
            answers.push(row);
        }
        let picks = retrieve::answer(&mut self.model, &asks, self.bar)?;
        for ((j, q), picks) in places.into_iter().zip(picks) {
            answers[j][q].matches = picks.iter().map(|pick| self.report(pick)).collect();
        }
        Ok(answers)
    }
}

//! Sends every query to the method that answers it, and puts the answers back in order. Knows the methods' traits, no
//! family and no runtime.

use std::sync::Arc;

use super::{
    GroundError, Grounder, Limits, ModelInfo, QueryCheck,
    methods::{
        regions::{Bar, Pick},
        retrieve::{self, Ask, Selector, TextCheck},
        written::{self, Found, Writer},
    },
};
use crate::types::{Answer, Batch, Frame, Match, Method, Query, ScoreKind, Size, Status, Via};

/// A model behind the methods it can do.
pub(super) trait Able: Send {
    /// Tells from any thread whether words can be asked.
    fn words(&self) -> TextCheck;
    /// Answers questions by one of its methods; those about the same frame stand next to each other.
    fn answer(&mut self, method: Method, asks: &[Ask<'_>]) -> Result<Vec<Found>, GroundError>;
}

/// A model that selects among regions: `retrieve`.
pub(super) struct Selecting<M> {
    pub(super) model: M,
    pub(super) bar: Bar,
    /// The only canvas the model takes.
    pub(super) canvas: Size,
}

impl<M: Selector + Send> Able for Selecting<M> {
    fn words(&self) -> TextCheck {
        self.model.checker()
    }

    fn answer(&mut self, _method: Method, asks: &[Ask<'_>]) -> Result<Vec<Found>, GroundError> {
        let want = self.canvas;
        let fits = |frame: &Frame| match frame.canvas.size {
            got if got == want => Ok(()),
            got => Err(format!(
                "the model takes pictures of {}x{}, this one is {}x{}",
                want.width, want.height, got.width, got.height
            )),
        };
        let fitting: Vec<_> = asks.iter().filter(|ask| fits(ask.frame).is_ok()).copied().collect();
        let mut picks = retrieve::answer(&mut self.model, &fitting, self.bar)?.into_iter();
        // The selection's own probability: how sure the proposal network was decides what is offered, not what fits.
        let scored = |picks: Vec<Pick>| picks.into_iter().map(|pick| (pick, ScoreKind::TokenProb)).collect();
        Ok(asks.iter().map(|ask| fits(ask.frame).map(|()| scored(picks.next().unwrap_or_default()))).collect())
    }
}

/// A model that writes its answers: `coords` or `bins`.
pub(super) struct Writing<M>(pub(super) M);

impl<M: Writer> Able for Writing<M> {
    fn words(&self) -> TextCheck {
        self.0.checker()
    }

    fn answer(&mut self, _method: Method, asks: &[Ask<'_>]) -> Result<Vec<Found>, GroundError> {
        written::answer(&mut self.0, asks)
    }
}

/// A model, and what is known of it.
pub(super) struct Router {
    model: Box<dyn Able>,
    info: ModelInfo,
    limits: Limits,
    /// `name@hash8`, shared by every match.
    id: Arc<str>,
    check: QueryCheck,
}

/// The method that answers a query: the one it names, if the model can do it; the model's best for `auto`.
fn route(info: &ModelInfo, wanted: Method) -> Result<Method, String> {
    let found = match wanted {
        Method::Auto => info.methods.first(),
        named => info.methods.iter().find(|method| **method == named),
    };
    found.copied().ok_or_else(|| {
        let can: Vec<_> = info.methods.iter().map(|m| m.name()).collect();
        let (name, can) = (&info.name, can.join(", "));
        format!("{name} cannot do `{wanted}`; it can do: {can}. Choose one of them, or auto")
    })
}

impl Router {
    /// `model` answers by the methods that `info` names, the best first.
    pub(super) fn new(model: impl Able + 'static, info: ModelInfo, limits: Limits) -> Self {
        let (id, known, words) = (info.id().into(), info.clone(), model.words());
        let check = Arc::new(move |query: &Query| route(&known, query.method).and_then(|_| words(&query.text)));
        Self { model: Box::new(model), info, limits, id, check }
    }

    fn report(&self, method: Method, (pick, score_kind): &(Pick, ScoreKind)) -> Match {
        let via = Via { method, model: Arc::clone(&self.id), crop: None, fresh: true };
        Match { bbox: pick.bbox, score: pick.score, score_kind: *score_kind, track: None, via }
    }
}

impl Grounder for Router {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> ModelInfo {
        self.info.clone()
    }

    fn checker(&self) -> QueryCheck {
        Arc::clone(&self.check)
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        let (frames, most) = (batch.jobs.len(), self.limits.max_batch);
        if frames > most {
            return Err(GroundError::Batch { frames, most });
        }
        let mut answers = Vec::with_capacity(frames);
        let mut routed = Vec::new();
        for (j, job) in batch.jobs.iter().enumerate() {
            let mut row = Vec::with_capacity(job.queries.len());
            for (q, query) in job.queries.iter().enumerate() {
                let method = (self.check)(query).and_then(|()| route(&self.info, query.method));
                let status = match method {
                    Ok(method) => {
                        routed.push((method, (j, q), Ask { frame: &job.frame, query }));
                        Status::Ok
                    }
                    Err(reason) => Status::Error(reason),
                };
                row.push(Answer { query: Arc::clone(query), status, matches: Vec::new() });
            }
            answers.push(row);
        }
        for method in self.info.methods.clone() {
            let (places, asks): (Vec<_>, Vec<_>) =
                routed.iter().filter(|(m, ..)| *m == method).map(|(_, place, ask)| (*place, *ask)).unzip();
            for ((j, q), reply) in places.into_iter().zip(self.model.answer(method, &asks)?) {
                match reply {
                    Ok(picks) => answers[j][q].matches = picks.iter().map(|pick| self.report(method, pick)).collect(),
                    Err(reason) => answers[j][q].status = Status::Error(reason),
                }
            }
        }
        Ok(answers)
    }
}

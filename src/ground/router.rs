//! Sends every query to the method that answers it, and puts the answers back in order. Knows the methods' traits, no
//! family and no runtime.

use std::{sync::Arc, time::Instant};

use super::{
    AskConfig, Effort, GroundError, Grounder, Keep, Limits, ModelInfo, QueryCheck,
    ask::{
        desk::Desk,
        look::{Offering, Reply},
    },
    effort::Meter,
    methods::{
        Hit, Told,
        find::{self, Finder},
        regions::Pick,
        retrieve::{Ask, TextCheck},
        together::{self, AllRound, Asked, Bars},
        written::{self, Writer},
        zoom::{
            Zoom,
            views::{self, Judge},
        },
    },
};
use crate::types::{
    Answer, Batch, CameraId, Canvases, Followed, Frame, Match, Method, Query, ScoreKind, Size, Status, Via, Work,
};

/// A model behind the methods it can do.
pub(super) trait Able: Send {
    /// Tells from any thread whether words can be asked.
    fn words(&self) -> TextCheck;
    /// Tokens written so far; `None` if it does not count them.
    fn tokens(&self) -> Option<u64> {
        None
    }
    /// Where tracked objects are, for methods that search.
    fn follow(&mut self, _followed: Arc<Followed>) {}
    /// What it remembers of these cameras is needed here, wherever it was.
    fn fetch(&mut self, _cameras: &[&CameraId]) {}
    /// What was fetched may be needed by another model.
    fn put_back(&mut self) {}
    /// Whether one pass over a picture answers everything that is asked about it: one question more costs nothing then,
    /// and leaving one out saves nothing.
    fn at_once(&self) -> bool {
        false
    }
    /// Whether words mean one thing: only the best match is reported then.
    fn means_one(&self, _text: &str) -> bool {
        false
    }
    /// Answers questions, each by one of its methods; those about the same frame stand next to each other.
    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError>;
    /// The same on looks that are kept between frames, if it can.
    fn offering(&mut self) -> Option<&mut dyn Offering> {
        None
    }
}

/// A model that can do several methods from one look at the picture.
pub(super) struct Together<M> {
    pub(super) model: M,
    pub(super) bars: Bars,
    /// The canvases the model takes.
    pub(super) canvases: Canvases,
    pub(super) zoom: Zoom,
}

impl<M> Together<M> {
    /// Whether the model can take a frame, or why not.
    pub(super) fn takes(&self, frame: &Frame) -> Result<(), String> {
        let got = frame.canvas.size;
        if self.canvases.iter().any(|canvas| canvas == got) {
            return Ok(());
        }
        let takes: Vec<_> = self.canvases.iter().map(|Size { width, height }| format!("{width}x{height}")).collect();
        Err(format!("the model takes pictures of {}, this one is {}x{}", takes.join(", "), got.width, got.height))
    }
}

impl<M: AllRound + Send> Able for Together<M>
where
    M::Features: Keep,
{
    fn words(&self) -> TextCheck {
        self.model.checker()
    }

    fn means_one(&self, text: &str) -> bool {
        self.model.means_one(text)
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.model.tokens())
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.zoom.follow(followed);
    }

    fn fetch(&mut self, cameras: &[&CameraId]) {
        self.zoom.fetch(cameras);
    }

    fn put_back(&mut self) {
        self.zoom.put_back();
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let fitting: Vec<_> = asks.iter().filter(|asked| self.takes(asked.ask.frame).is_ok()).copied().collect();
        let told = together::answer(&mut self.model, &fitting, self.bars, &mut self.zoom)?;
        let mut told = GroundError::unless_all(told, fitting.len())?.into_iter();
        let mut next = || told.next().unwrap_or_else(|| Ok(Vec::new().into()));
        Ok(asks
            .iter()
            .map(|asked| {
                self.takes(asked.ask.frame)?;
                next()
            })
            .collect())
    }

    fn offering(&mut self) -> Option<&mut dyn Offering> {
        Some(self)
    }
}

/// A model that writes its answers: `coords` or `bins`.
pub(super) struct Writing<M>(pub(super) M);

impl<M: Writer> Able for Writing<M> {
    fn words(&self) -> TextCheck {
        self.0.checker()
    }

    fn tokens(&self) -> Option<u64> {
        self.0.tokens()
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let asks: Vec<_> = asks.iter().map(|asked| asked.ask).collect();
        write(&mut self.0, &asks)
    }
}

/// A model that writes its answers and can be asked yes or no: `coords` or `bins`, and `zoom`.
pub(super) struct Searching<M> {
    pub(super) model: M,
    pub(super) zoom: Zoom,
}

impl<M: Judge> Able for Searching<M> {
    fn words(&self) -> TextCheck {
        self.model.checker()
    }

    fn tokens(&self) -> Option<u64> {
        self.model.tokens()
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.zoom.follow(followed);
    }

    fn fetch(&mut self, cameras: &[&CameraId]) {
        self.zoom.fetch(cameras);
    }

    fn put_back(&mut self) {
        self.zoom.put_back();
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let of = |zoom: bool| -> Vec<Ask<'_>> {
            asks.iter().filter(|asked| (asked.method == Method::Zoom) == zoom).map(|asked| asked.ask).collect()
        };
        let mut written = write(&mut self.model, &of(false))?.into_iter();
        let mut zoomed = views::answer(&mut self.zoom, &mut self.model, &of(true))?.into_iter();
        let next = |asked: &Asked<'_>| if asked.method == Method::Zoom { zoomed.next() } else { written.next() };
        Ok(asks.iter().filter_map(next).collect())
    }
}

/// Answers in the whole picture.
fn write<M: Writer>(model: &mut M, asks: &[Ask<'_>]) -> Result<Vec<Told>, GroundError> {
    let hit = |(pick, kind): (Pick, ScoreKind)| Hit { pick, kind, crop: None };
    let told = written::answer(model, asks)?.into_iter();
    Ok(told.map(|found| Ok(found?.into_iter().map(hit).collect::<Vec<_>>().into())).collect())
}

/// A model that scores boxes by words: `detector`, or `retrieve` on regions of the whole picture.
pub(super) struct Finding {
    pub(super) model: Box<dyn Finder>,
    /// Least score of a match, where a query has no threshold of its own.
    pub(super) least: f32,
}

impl Able for Finding {
    fn words(&self) -> TextCheck {
        self.model.checker()
    }

    fn tokens(&self) -> Option<u64> {
        self.model.tokens()
    }

    fn at_once(&self) -> bool {
        // What writes is asked query by query.
        self.model.tokens().is_none()
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let asks: Vec<_> = asks.iter().map(|asked| asked.ask).collect();
        find::answer(self.model.as_mut(), &asks, self.least)
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
    /// Decides what is asked; `None` asks everything.
    desk: Option<Desk>,
    work: Arc<Work>,
    followed: Arc<Followed>,
    /// Models that were opened to work beside it.
    spare: Vec<Built>,
}

/// A model, ready to be asked, and the meter of its engines.
pub(super) struct Built {
    pub(super) model: Box<dyn Able>,
    pub(super) meter: Meter,
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
    pub(super) fn new(model: Box<dyn Able>, info: ModelInfo, limits: Limits, spare: Vec<Built>) -> Self {
        let (id, known, words) = (info.id().into(), info.clone(), model.words());
        let check = Arc::new(move |query: &Query| route(&known, query.method).and_then(|_| words(&query.text)));
        Self { model, info, limits, id, check, desk: None, work: Arc::default(), followed: Arc::default(), spare }
    }

    /// What came of questions about so many frames, in their order.
    fn replies(&mut self, frames: usize, routed: &[Asked<'_>]) -> Result<Vec<Reply>, GroundError> {
        if let Some(desk) = &mut self.desk {
            return desk.answer(self.model.as_mut(), routed);
        }
        self.work.look_all(frames, routed.len());
        Ok(self.model.answer(routed)?.into_iter().map(Reply::fresh).collect())
    }

    fn report(&self, method: Method, hit: &Hit, fresh: bool) -> Match {
        let Hit { pick, kind, crop } = *hit;
        let via = Via { method, model: Arc::clone(&self.id), crop, fresh };
        Match { bbox: pick.bbox, score: pick.score, score_kind: kind, track: None, via }
    }
}

impl Grounder for Router {
    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn describe(&self) -> ModelInfo {
        self.info.clone()
    }

    fn checker(&self) -> QueryCheck {
        Arc::clone(&self.check)
    }

    fn effort(&self) -> Effort {
        Effort { passes: None, tokens: self.model.tokens() }
    }

    fn ask(&mut self, config: &AskConfig, stream_time: bool) {
        let start = stream_time.then(Instant::now);
        self.desk = Some(Desk::new(config.clone(), start, Arc::clone(&self.work)));
    }

    fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.followed = Arc::clone(&followed);
        self.model.follow(followed);
    }

    fn another(&mut self) -> Option<Box<dyn Grounder>> {
        let Built { mut model, meter } = self.spare.pop()?;
        model.follow(Arc::clone(&self.followed));
        Some(meter.grounder(Box::new(Self {
            model,
            info: self.info.clone(),
            limits: self.limits.clone(),
            id: Arc::clone(&self.id),
            check: Arc::clone(&self.check),
            desk: self.desk.as_ref().map(Desk::another),
            work: Arc::clone(&self.work),
            followed: Arc::clone(&self.followed),
            spare: Vec::new(),
        })))
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        let (frames, most) = (batch.jobs.len(), self.limits.max_batch);
        if frames > most {
            return Err(GroundError::Batch { frames, most });
        }
        let mut answers = Vec::with_capacity(frames);
        let (mut routed, mut places) = (Vec::new(), Vec::new());
        for (j, job) in batch.jobs.iter().enumerate() {
            let mut row = Vec::with_capacity(job.queries.len());
            for (q, query) in job.queries.iter().enumerate() {
                let method = (self.check)(query).and_then(|()| route(&self.info, query.method));
                let status = match method {
                    Ok(method) => {
                        routed.push(Asked { method, ask: Ask { frame: &job.frame, query } });
                        places.push((j, q));
                        Status::Ok
                    }
                    Err(reason) => Status::Error(reason),
                };
                row.push(Answer { query: Arc::clone(query), status, matches: Vec::new(), complete: true });
            }
            answers.push(row);
        }
        if routed.is_empty() {
            return Ok(answers);
        }
        let cameras: Vec<_> = batch.jobs.iter().map(|job| &job.frame.camera).collect();
        self.model.fetch(&cameras);
        let replies = self.replies(frames, &routed);
        self.model.put_back();
        let replies = GroundError::unless_all(replies?, routed.len())?;
        for (((j, q), Asked { method, ask }), reply) in places.into_iter().zip(&routed).zip(replies) {
            let Reply { status, hits, complete, fresh } = reply;
            let most = if self.model.means_one(&ask.query.text) { 1 } else { usize::MAX };
            let matches = hits.iter().take(most).map(|hit| self.report(*method, hit, fresh)).collect();
            let answer = &mut answers[j][q];
            (answer.matches, answer.status, answer.complete) = (matches, status, complete);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests;

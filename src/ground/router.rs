//! Sends every query to the method that answers it, and puts the answers back in order. Knows the methods' traits, no
//! family and no runtime.

use std::{sync::Arc, time::Instant};

use super::{
    AskConfig, Effort, GroundError, Grounder, Keep, Limits, ModelInfo, QueryCheck,
    ask::{
        desk::Desk,
        look::{Offering, Reply},
    },
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
use crate::types::{Answer, Batch, Followed, Frame, Match, Method, Query, ScoreKind, Size, Status, Via, Work};

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
    /// Whether one pass over a picture answers everything that is asked about it: one question more costs nothing then,
    /// and leaving one out saves nothing.
    fn at_once(&self) -> bool {
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
    /// The only canvas the model takes.
    pub(super) canvas: Size,
    pub(super) zoom: Zoom,
}

impl<M> Together<M> {
    /// Whether the model can take a frame, or why not.
    pub(super) fn takes(&self, frame: &Frame) -> Result<(), String> {
        match (self.canvas, frame.canvas.size) {
            (want, got) if got == want => Ok(()),
            (want, got) => Err(format!(
                "the model takes pictures of {}x{}, this one is {}x{}",
                want.width, want.height, got.width, got.height
            )),
        }
    }
}

impl<M: AllRound + Send> Able for Together<M>
where
    M::Features: Keep,
{
    fn words(&self) -> TextCheck {
        self.model.checker()
    }

    fn tokens(&self) -> Option<u64> {
        Some(self.model.tokens())
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.zoom.follow(followed);
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let fitting: Vec<_> = asks.iter().filter(|(_, ask)| self.takes(ask.frame).is_ok()).copied().collect();
        let told = together::answer(&mut self.model, &fitting, self.bars, &mut self.zoom)?;
        let mut told = GroundError::unless_all(told, fitting.len())?.into_iter();
        let mut next = || told.next().unwrap_or_else(|| Ok(Vec::new()));
        Ok(asks
            .iter()
            .map(|(_, ask)| {
                self.takes(ask.frame)?;
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
        let asks: Vec<_> = asks.iter().map(|(_, ask)| *ask).collect();
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

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let of = |zoom: bool| -> Vec<Ask<'_>> {
            asks.iter().filter(|(method, _)| (*method == Method::Zoom) == zoom).map(|(_, ask)| *ask).collect()
        };
        let mut written = write(&mut self.model, &of(false))?.into_iter();
        let mut zoomed = views::answer(&mut self.zoom, &mut self.model, &of(true))?.into_iter();
        let next = |(method, _): &Asked<'_>| if *method == Method::Zoom { zoomed.next() } else { written.next() };
        Ok(asks.iter().filter_map(next).collect())
    }
}

/// Answers in the whole picture.
fn write<M: Writer>(model: &mut M, asks: &[Ask<'_>]) -> Result<Vec<Told>, GroundError> {
    let hit = |(pick, kind): (Pick, ScoreKind)| Hit { pick, kind, crop: None };
    let told = written::answer(model, asks)?.into_iter();
    Ok(told.map(|found| Ok(found?.into_iter().map(hit).collect())).collect())
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
        let asks: Vec<_> = asks.iter().map(|(_, ask)| *ask).collect();
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
        Self { model: Box::new(model), info, limits, id, check, desk: None, work: Arc::default() }
    }

    fn report(&self, method: Method, hit: &Hit, fresh: bool) -> Match {
        let Hit { pick, kind, crop } = *hit;
        let via = Via { method, model: Arc::clone(&self.id), crop, fresh };
        Match { bbox: pick.bbox, score: pick.score, score_kind: kind, track: None, via }
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
        self.model.follow(followed);
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
                        routed.push((method, Ask { frame: &job.frame, query }));
                        places.push((j, q));
                        Status::Ok
                    }
                    Err(reason) => Status::Error(reason),
                };
                row.push(Answer { query: Arc::clone(query), status, matches: Vec::new() });
            }
            answers.push(row);
        }
        if routed.is_empty() {
            return Ok(answers);
        }
        let replies = if let Some(desk) = &mut self.desk {
            desk.answer(self.model.as_mut(), &routed)?
        } else {
            self.work.look_all(frames, routed.len());
            self.model.answer(&routed)?.into_iter().map(Reply::fresh).collect()
        };
        let replies = GroundError::unless_all(replies, routed.len())?;
        for (((j, q), (method, _)), Reply { status, hits, fresh }) in places.into_iter().zip(&routed).zip(replies) {
            answers[j][q].matches = hits.iter().map(|hit| self.report(*method, hit, fresh)).collect();
            answers[j][q].status = status;
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{
        ground::{Provider, methods::find::Want},
        types::{BBox, CameraId, Capture, Clock, Job, Ledger, Letterbox, QueryId, Rgb, Worth},
    };

    const SIZE: Size = Size { width: 64, height: 64 };

    /// Finds something for as many texts as it likes.
    struct Counts(usize);

    impl Finder for Counts {
        fn checker(&self) -> TextCheck {
            Arc::new(|_| Ok(()))
        }

        fn score_kind(&self) -> ScoreKind {
            ScoreKind::Logit
        }

        fn warm_up(&mut self, _: &Rgb) -> Result<(), GroundError> {
            Ok(())
        }

        fn find(&mut self, _: &Rgb, _: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError> {
            let pick = BBox::new(0.0, 0.0, 9.0, 9.0).map(|bbox| Pick { bbox, score: 0.9 });
            Ok(vec![pick.into_iter().collect(); self.0])
        }
    }

    /// Answers as many questions as it likes.
    struct Told(usize);

    impl Able for Told {
        fn words(&self) -> TextCheck {
            Arc::new(|_| Ok(()))
        }

        fn answer(&mut self, _: &[Asked<'_>]) -> Result<Vec<super::Told>, GroundError> {
            Ok((0..self.0).map(|_| Ok(Vec::new())).collect())
        }
    }

    fn batch() -> Batch {
        let frame = Frame {
            camera: CameraId::new("cam0").unwrap(),
            seq: 0,
            capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
            pts: Duration::ZERO,
            decoded_at: Instant::now(),
            decode_time: Duration::ZERO,
            view: Letterbox::fit(SIZE, 1.0, SIZE),
            canvas: Rgb { size: SIZE, data: vec![0; SIZE.area() * 3].into() },
            full: None,
            ticket: Arc::new(Ledger::default()).open(),
        };
        let query = |id: &str| {
            Arc::new(Query {
                id: QueryId::new(id).unwrap(),
                rev: 1,
                text: id.to_owned(),
                cameras: None,
                method: Method::Auto,
                threshold: None,
                worth: Worth::default(),
            })
        };
        Batch {
            jobs: vec![Job { frame: Arc::new(frame), queries: vec![query("a"), query("b")] }],
            cut_at: Instant::now(),
        }
    }

    fn router(model: impl Able + 'static) -> Router {
        let info = ModelInfo {
            name: "m".to_owned(),
            version: String::new(),
            hash8: String::new(),
            family: String::new(),
            methods: vec![Method::Detector],
            provider: Provider::Cpu,
            library: PathBuf::new(),
            runtime: String::new(),
        };
        Router::new(model, info, Limits { max_batch: 1, canvas: SIZE })
    }

    #[test]
    fn answers_that_are_not_one_a_question_are_none() {
        for asks_once in [false, true] {
            for count in 0..4 {
                let finding = Finding { model: Box::new(Counts(count)), least: 0.5 };
                for mut router in [router(finding), router(Told(count))] {
                    if asks_once {
                        router.ask(&AskConfig::default(), false);
                    }
                    match router.ground(&batch()) {
                        Ok(answers) => assert!(count == 2 && answers[0].len() == 2),
                        Err(GroundError::Answers { asked: 2, answered }) => assert!(answered == count && count != 2),
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }
}

//! Asks a model everything that a data set asks, and keeps what it answered and what that took.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    cli::{Exit, Failure},
    eval::{Entry, Rect, Sample, Scored},
    ground::Grounder,
    ingest::Stills,
    types::{
        Batch, CameraId, Canvas, Capture, Clock, Frame, FullFrame, Job, Ledger, Letterbox, Match, Method, Query,
        QueryId, Rgb, ScoreKind, Status, Worth,
    },
};

/// An image on its canvas. Decoded and scaled once, however often it is asked.
pub(super) struct Look {
    view: Letterbox,
    canvas: Canvas,
    full: Arc<dyn FullFrame>,
}

/// What was answered to all phrases of one image, and what it took.
pub(super) struct Reply {
    /// One a phrase; or why it could not be asked.
    pub(super) answers: Vec<Result<Said, String>>,
    /// What the scores mean.
    pub(super) kinds: Vec<ScoreKind>,
    pub(super) sample: Sample,
}

/// What was said to one phrase.
#[derive(Default)]
pub(super) struct Said {
    pub(super) boxes: Vec<Scored>,
    /// Whether all was looked at; a search may run out of passes before.
    pub(super) finished: bool,
}

/// A model under trial.
pub(super) struct Trial {
    grounder: Box<dyn Grounder>,
    stills: Stills,
    ledger: Arc<Ledger>,
    /// Queries are made once, so that a model can know them again.
    queries: HashMap<Question, Arc<Query>>,
}

/// What makes a query: words, method, threshold, and the how manieth time the words are asked of one image.
type Question = (Arc<str>, Method, Option<u32>, usize);

impl Trial {
    pub(super) fn new(grounder: Box<dyn Grounder>) -> Self {
        let stills = Stills::new(grounder.limits().canvases);
        Self { grounder, stills, ledger: Arc::default(), queries: HashMap::new() }
    }

    /// Puts the pixels of an image on the canvas.
    pub(super) fn look(&mut self, entry: &Entry, pixels: &Rgb) -> Result<Look, Failure> {
        let placed = self.stills.place(pixels);
        let (view, canvas, full) = placed
            .map_err(|reason| Failure::new(Exit::Internal, format!("{}: {reason}", entry.picture.path.display())))?;
        // What it takes to scale it is none of the model's cost.
        canvas.paint();
        Ok(Look { view, canvas, full })
    }

    /// Asks all phrases of an image at once. Without a `threshold` the model's own holds.
    pub(super) fn ask(
        &mut self,
        entry: &Entry,
        look: &Look,
        method: Method,
        threshold: Option<f32>,
    ) -> Result<Reply, Failure> {
        let mut times: HashMap<&Arc<str>, usize> = HashMap::new();
        let mut queries = Vec::with_capacity(entry.phrases.len());
        for phrase in &entry.phrases {
            let time = times.entry(&phrase.text).or_default();
            queries.push(self.query((Arc::clone(&phrase.text), method, threshold.map(f32::to_bits), *time))?);
            *time += 1;
        }
        let frame = self.frame(look)?;
        let batch = Batch { jobs: vec![Job { frame: Arc::clone(&frame), queries }] };
        let before = self.grounder.effort();
        let began = Instant::now();
        let answered = self.grounder.ground(&batch);
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let effort = self.grounder.effort().since(before);
        frame.ticket.publish();
        let answers = answered.map_err(|error| {
            let failure = Failure::from(error);
            Failure::new(failure.exit, format!("{}: {}", entry.picture.path.display(), failure.message))
        })?;
        let answers = answers.into_iter().next().unwrap_or_default();
        if answers.len() != entry.phrases.len() {
            let message = format!("{} phrases were asked and {} answered", entry.phrases.len(), answers.len());
            return Err(Failure::new(Exit::Internal, message));
        }
        let mut kinds: Vec<ScoreKind> = Vec::new();
        for one in answers.iter().flat_map(|answer| &answer.matches) {
            if !kinds.contains(&one.score_kind) {
                kinds.push(one.score_kind);
            }
        }
        let scored = |m: &Match| Scored { rect: Rect::from(&m.bbox), score: m.score.into() };
        let answers = answers.into_iter().map(|answer| {
            let boxes = answer.matches.iter().map(scored).collect();
            match answer.status {
                Status::Ok => Ok(Said { boxes, finished: true }),
                // Nothing is left out here to save work, so that this is a search that ran out of passes.
                Status::Shed(_) => Ok(Said { boxes, finished: false }),
                Status::Error(reason) => Err(reason),
            }
        });
        let sample = Sample { ms, queries: entry.phrases.len(), passes: effort.passes, tokens: effort.tokens };
        Ok(Reply { answers: answers.collect(), kinds, sample })
    }

    fn query(&mut self, question: Question) -> Result<Arc<Query>, Failure> {
        if let Some(known) = self.queries.get(&question) {
            return Ok(Arc::clone(known));
        }
        let id = format!("q{}", self.queries.len());
        let id = QueryId::new(&id).map_err(|e| Failure::of(Exit::Internal, &e))?;
        let (text, method, threshold, _) = &question;
        let (text, threshold) = (text.to_string(), threshold.map(f32::from_bits));
        let query =
            Arc::new(Query { id, rev: 1, text, cameras: None, method: *method, threshold, worth: Worth::default() });
        self.queries.insert(question, Arc::clone(&query));
        Ok(query)
    }

    /// The first frame of a camera of its own for every time something is asked, so that no method can live on what it or
    /// another has seen before.
    fn frame(&self, look: &Look) -> Result<Arc<Frame>, Failure> {
        let ticket = self.ledger.open();
        let camera = format!("eval-{}", self.ledger.decoded());
        Ok(Arc::new(Frame {
            camera: CameraId::new(&camera).map_err(|e| Failure::of(Exit::Internal, &e))?,
            origin: 0,
            seq: 0,
            capture: Capture { at: SystemTime::now(), clock: Clock::Arrival },
            pts: Duration::ZERO,
            decoded_at: Instant::now(),
            decode_time: Duration::ZERO,
            view: look.view,
            canvas: look.canvas.clone(),
            full: Some(Arc::clone(&look.full)),
            ticket,
        }))
    }
}

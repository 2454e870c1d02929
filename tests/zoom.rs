//! What a search costs on the pictures of one camera, one after the other, beside a search of each from nothing.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use groundd::{
    eval::{Dataset, Options, Rect, dataset},
    ground::{self, Grounder, ModelConfig, methods::zoom::ZoomConfig},
    ingest::{self, Stills},
    track::{TrackConfig, Tracker},
    types::{Answer, BBox, Followed, Frame, FullFrame, Job, Ledger, Method, Query, Rgb, Size, Status},
};

use crate::support::ground::*;

/// Shorter than this on nano's canvas, by the root of the area, is small.
const SMALL: f64 = 24.0;

/// Time from one picture of a clip to the next.
const APART: Duration = Duration::from_millis(200);

/// Pictures at the beginning that are not counted: a search has to get to know its camera.
const WARM: usize = 3;

/// A picture that counts the crops cut out of it: each is a pass.
struct Counted {
    full: Arc<dyn FullFrame>,
    cuts: Arc<AtomicU64>,
}

impl FullFrame for Counted {
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        self.cuts.fetch_add(1, Relaxed);
        self.full.crop(area, size)
    }
}

/// What came of asking the first phrase of every picture.
#[derive(Debug, Default)]
struct Tally {
    passes: Vec<u64>,
    small: usize,
    hit: usize,
    boxes: usize,
    right: usize,
    unfinished: usize,
}

impl Tally {
    fn median(&self) -> u64 {
        let mut passes = self.passes.clone();
        passes.sort_unstable();
        passes.get(passes.len() / 2).copied().unwrap_or(0)
    }

    fn rate(&self) -> f64 {
        self.hit as f64 / self.small.max(1) as f64
    }

    /// Of both, as if of one clip.
    fn and(mut self, other: Self) -> Self {
        self.passes.extend(other.passes);
        Self {
            passes: self.passes,
            small: self.small + other.small,
            hit: self.hit + other.hit,
            boxes: self.boxes + other.boxes,
            right: self.right + other.right,
            unfinished: self.unfinished + other.unfinished,
        }
    }
}

/// Asks with at most `passes` a picture; `on_the_move` takes all pictures for one camera's.
fn search(dataset: &Dataset, method: Method, passes: usize, on_the_move: bool) -> Tally {
    search_with(dataset, method, ZoomConfig { passes, milliseconds: u64::MAX, ..ZoomConfig::default() }, on_the_move)
}

fn search_with(dataset: &Dataset, method: Method, zoom: ZoomConfig, on_the_move: bool) -> Tally {
    let folders = [PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models")];
    let mut model = ground::load(&ModelConfig { zoom, ..ModelConfig::default() }, &folders).unwrap();
    let (mut stills, ledger, mut tally) = (Stills::new(model.limits().canvases), Arc::default(), Tally::default());
    let phrase = &dataset.entries[0].phrases[0].text;
    let query = Arc::new(Query { method, ..(*query(phrase)).clone() });
    // As in the daemon, objects are tracked, and looked for where they should be.
    let (mut tracker, followed, start) =
        (Tracker::new(TrackConfig::default()), Arc::new(Followed::default()), Instant::now());
    if on_the_move {
        model.follow(Arc::clone(&followed));
    }
    for (at, entry) in dataset.entries.iter().enumerate() {
        let camera = if on_the_move { "cam0".to_owned() } else { format!("cam{at}") };
        let cuts = Arc::default();
        let frame = later(still(&mut stills, &ledger, &entry.picture.read().unwrap(), &camera, &cuts), at);
        let answer = ask(model.as_mut(), &frame, &query);
        tracker.update(&mut [answer.clone()], start + frame.pts, frame.capture.at);
        followed.set(&frame.camera, tracker.predicted(start + frame.pts));
        if at < WARM {
            continue;
        }
        tally.passes.push(cuts.load(Relaxed));
        tally.unfinished += usize::from(answer.status != Status::Ok);
        let found: Vec<_> = answer.matches.iter().map(|m| Rect::from(&m.bbox)).collect();
        let truths = &entry.phrases[0].truths;
        let overlaps = |a: &Rect, b: &Rect| a.iou(b) >= 0.5;
        tally.boxes += found.len();
        tally.right += found.iter().filter(|f| truths.iter().any(|t| overlaps(&t.rect, f))).count();
        let scale = 512.0 / f64::from(entry.picture.size.width);
        for truth in truths.iter().filter(|truth| truth.area.sqrt() * scale < SMALL) {
            tally.small += 1;
            tally.hit += usize::from(found.iter().any(|f| overlaps(&truth.rect, f)));
        }
    }
    tally
}

fn ask(model: &mut dyn Grounder, frame: &Arc<Frame>, query: &Arc<Query>) -> Answer {
    let jobs = batch(vec![Job { frame: Arc::clone(frame), queries: vec![Arc::clone(query)] }]);
    let answer = model.ground(&jobs).unwrap().remove(0).remove(0);
    frame.ticket.publish();
    answer
}

fn still(stills: &mut Stills, ledger: &Arc<Ledger>, picture: &Rgb, camera: &str, cuts: &Arc<AtomicU64>) -> Arc<Frame> {
    let (view, canvas, full) = stills.place(picture).unwrap();
    frame_of(camera, ledger, (view, canvas), Some(Arc::new(Counted { full, cuts: Arc::clone(cuts) })))
}

/// The same frame, so many pictures after the first.
fn later(mut frame: Arc<Frame>, pictures: usize) -> Arc<Frame> {
    Arc::get_mut(&mut frame).unwrap().pts = APART * u32::try_from(pictures).unwrap();
    frame
}

/// Real footage: pictures of one camera in their order, with one phrase each, as `tools/train` writes them (`clips`):
/// `GROUNDD_CLIPS=DIR/street.json:DIR/highway.json cargo test -- --ignored --nocapture on_a_clip`.
#[test]
#[ignore = "needs labelled pictures of a camera, and minutes"]
fn on_a_clip_this_is_what_a_budget_finds_and_a_search_from_nothing() {
    ingest::init().unwrap();
    let clips = std::env::var("GROUNDD_CLIPS").expect("GROUNDD_CLIPS names phrase files, colons between them");
    let all = clips.split(':').map(budgets_on).reduce(|sums, more| {
        sums.into_iter().zip(more).map(|((name, sum), (_, tally))| (name, sum.and(tally))).collect()
    });
    report("all", &all.unwrap());
}

/// What each way of searching one clip comes to, by its name.
fn budgets_on(clip: &str) -> Vec<(String, Tally)> {
    let dataset = dataset::load(clip.as_ref(), &Options::default()).unwrap();
    let exhaustive = ZoomConfig { exhaustive: true, ..ZoomConfig::default() };
    let plain = search(&dataset, Method::Retrieve, 0, false);
    let mut ways = vec![
        ("each from nothing".to_owned(), search(&dataset, Method::Zoom, usize::MAX, false)),
        ("each exhaustively".to_owned(), search_with(&dataset, Method::Zoom, exhaustive, false)),
    ];
    for passes in [1, 2, 3, 4, 6] {
        let some = search(&dataset, Method::Zoom, passes, true);
        assert!(some.median() <= passes as u64);
        ways.push((format!("at most {passes}"), some));
    }
    for (name, tally) in &ways {
        assert!(tally.rate() >= plain.rate(), "{clip}: {name} loses what the whole picture shows");
    }
    ways.insert(0, ("retrieve".to_owned(), plain));
    report(clip, &ways);
    ways
}

#[allow(clippy::print_stdout, reason = "figures are what it is for")]
fn report(clip: &str, ways: &[(String, Tally)]) {
    for (name, t) in ways {
        let (passes, rate) = (t.median(), t.rate());
        println!(
            "{clip} {name}: {passes} passes a picture, {}/{} small things hit ({rate:.3}), {}/{} boxes right, {} unfinished",
            t.hit, t.small, t.right, t.boxes, t.unfinished
        );
    }
}

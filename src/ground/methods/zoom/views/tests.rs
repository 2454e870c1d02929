//! A model that knows by the pixels what it is shown, searched with on frames.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    ground::{
        codec::RawBox,
        methods::{Unanswered, retrieve::TextCheck, written::Located, zoom::ZoomConfig},
        vision::VisionError,
    },
    types::{CameraId, Followed, Method, Query, QueryId},
};

const SOURCE: Size = Size { width: 2000, height: 1000 };

/// A picture whose pixels say where they are: red counts across, green down, in 255ths of the whole.
#[derive(Default)]
struct Map {
    cuts: Mutex<Vec<BBox>>,
    fails: bool,
}

impl FullFrame for Map {
    fn crop(&self, area: &BBox, size: Size) -> Result<Rgb, String> {
        if self.fails {
            return Err("no longer there".to_owned());
        }
        self.cuts.lock().unwrap().push(*area);
        let scale = (size.width as f32 / area.width()).min(size.height as f32 / area.height());
        let side = |length: f32| crate::ground::codec::clamped((length * scale).round().into(), 4096).max(1);
        let out = Size::new(side(area.width()), side(area.height()));
        let [x1, y1, ..] = area.corners();
        let byte = |v: f32| u8::try_from(crate::ground::codec::clamped((v * 255.0).round().into(), 255)).unwrap();
        let pixel = |i: usize| {
            let (x, y) = ((i % out.width as usize) as f32 + 0.5, (i / out.width as usize) as f32 + 0.5);
            let (x, y) = (x1 + x / scale, y1 + y / scale);
            [byte(x / SOURCE.width as f32), byte(y / SOURCE.height as f32), 128]
        };
        Ok(Rgb { size: out, data: (0..out.area()).flat_map(pixel).collect::<Vec<_>>().into() })
    }
}

/// What the model makes of a picture: the part of the source it shows, as read from its pixels, and whether it has a
/// coloured frame somewhere.
#[derive(Debug, Clone)]
struct Shows {
    area: [f32; 4],
    size: Size,
    is_framed: bool,
}

/// Knows where a thing is, and sees it only in views narrower than this.
struct Oracle {
    thing: [f32; 4],
    within: f32,
    /// Says that the thing is there, and writes no box.
    is_mute: bool,
    asked: Vec<String>,
    /// The part that each question was about.
    shown: Vec<[f32; 4]>,
    located: usize,
    /// Pictures of each look.
    looks: Vec<usize>,
}

impl Oracle {
    fn new(thing: [f32; 4], within: f32) -> Self {
        Self { thing, within, is_mute: false, asked: Vec::new(), shown: Vec::new(), located: 0, looks: Vec::new() }
    }

    /// How much of the thing lies inside.
    fn share(&self, [x1, y1, x2, y2]: [f32; 4]) -> f32 {
        let [a, b, c, d] = self.thing;
        let across = (c.min(x2) - a.max(x1)).max(0.0) / (c - a);
        across * (d.min(y2) - b.max(y1)).max(0.0) / (d - b)
    }

    /// Searches that were begun: each asks first whether the whole picture answers.
    fn begun(&self) -> usize {
        self.asked.iter().filter(|words| words.starts_with("Question:")).count()
    }

    fn locate_in(&mut self, seen: &Shows) -> Vec<RawBox> {
        self.located += 1;
        let [x1, y1, x2, y2] = seen.area;
        if self.is_mute || self.share(seen.area) < 0.9 || x2 - x1 > self.within {
            return Vec::new();
        }
        let [left, top, right, bottom] = self.thing;
        let across = |v: f32| (v - x1) / (x2 - x1);
        let down = |v: f32| (v - y1) / (y2 - y1);
        let fractions = [across(left), down(top), across(right), down(bottom)];
        vec![RawBox { label: String::new(), fractions, score: Some(0.8) }]
    }
}

impl Writer for Oracle {
    type Seen = Shows;

    fn checker(&self) -> TextCheck {
        Arc::new(|_| Ok(()))
    }

    fn warm_up(&mut self, _: &[Rgb; 2]) -> Result<(), GroundError> {
        Ok(())
    }

    fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Shows, VisionError>>, GroundError> {
        self.looks.push(pictures.len());
        Ok(pictures.iter().map(|picture| Ok(shown(picture))).collect())
    }

    fn locate_each(&mut self, asks: &[(&Shows, &str)]) -> Result<Vec<Located>, GroundError> {
        Ok(asks.iter().map(|(seen, _)| Ok(self.locate_in(seen))).collect())
    }
}

/// What the pixels say.
fn shown(picture: &Rgb) -> Shows {
    let Size { width, height } = picture.size;
    let at = |x: u32, y: u32| {
        let at = (y * width + x) as usize * 3;
        [picture.data[at], picture.data[at + 1], picture.data[at + 2]]
    };
    // Between two pixels well inside any frame the scale can be read, and from it the rest.
    let across = |x| f32::from(at(x, height / 2)[0]) / 255.0;
    let down = |y| f32::from(at(width / 2, y)[1]) / 255.0;
    let span = |read: &dyn Fn(u32) -> f32, length: u32, whole: u32| {
        let (from, to) = (length / 4, length * 3 / 4);
        let each = (read(to) - read(from)) / (to - from) as f32;
        let start = read(from) - each * (from as f32 + 0.5);
        (start * whole as f32, (start + each * length as f32) * whole as f32)
    };
    let (x1, x2) = span(&across, width, SOURCE.width);
    let (y1, y2) = span(&down, height, SOURCE.height);
    let is_framed = picture.data.chunks(3).any(|pixel| pixel == [255, 0, 0]);
    Shows { area: [x1, y1, x2, y2], size: picture.size, is_framed }
}

impl Judge for Oracle {
    fn search_rules(&self) -> Rules {
        Rules::qwen()
    }

    fn cues(&mut self, question: &str) -> Result<Vec<String>, GroundError> {
        self.asked.push(question.to_owned());
        let named: &[&str] = if question.contains("beside") { &["kite", "tree"] } else { &[] };
        Ok(named.iter().map(|cue| (*cue).to_owned()).collect())
    }

    fn sure(&mut self, pictures: &[&Shows], parts: &[Part]) -> Result<f64, GroundError> {
        let words: String =
            parts.iter().filter_map(|p| if let Part::Words(w) = p { Some(w.as_str()) } else { None }).collect();
        assert_eq!(pictures.len(), parts.iter().filter(|part| **part == Part::Picture).count());
        if let [main, focus] = pictures {
            // The whole, small and with a frame; the area with its own.
            assert!(main.size.width == 448 && main.is_framed && focus.is_framed, "{pictures:?}");
            assert!(words.contains("enclosed by the red rectangle"), "{words}");
        }
        self.asked.push(words.clone());
        let shown = pictures.last().unwrap().area;
        self.shown.push(shown);
        let share = f64::from(self.share(shown));
        let near = shown[2] - shown[0] <= self.within;
        Ok(if words.contains("Could you answer") {
            if share > 0.9 && near { 0.98 } else { -0.5 }
        } else if words.contains("Is there a") {
            if near { 2.0 * share - 1.0 } else { -0.2 }
        } else {
            share - 0.5
        })
    }
}

fn frame(map: Arc<Map>) -> Arc<Frame> {
    Arc::new(Frame { full: Some(map), ..Frame::black("cam0", &Arc::default(), SOURCE, Size::new(64, 32)) })
}

fn query(text: &str) -> Query {
    let id = QueryId::new("q").unwrap();
    Query {
        id,
        rev: 1,
        text: text.to_owned(),
        cameras: None,
        method: Method::Zoom,
        threshold: None,
        worth: crate::types::Worth::default(),
    }
}

fn zoom(passes: usize) -> Zoom {
    Zoom::new(ZoomConfig { passes, milliseconds: 60_000, ..ZoomConfig::default() }, 1)
}

fn ask(zoom: &mut Zoom, model: &mut Oracle, text: &str) -> Told {
    ask_at(zoom, model, text, (Instant::now(), Duration::ZERO))
}

/// Asks about a picture that came at that time of the clock and of the stream.
fn ask_at(zoom: &mut Zoom, model: &mut Oracle, text: &str, (decoded_at, pts): (Instant, Duration)) -> Told {
    let (map, query) = (Arc::new(Map::default()), query(text));
    let frame = Frame { pts, decoded_at, ..Arc::into_inner(frame(Arc::clone(&map))).unwrap() };
    let told = answer(zoom, model, &[Ask { frame: &frame, query: &query }]).unwrap().remove(0);
    for cut in map.cuts.lock().unwrap().iter() {
        let [x1, y1, x2, y2] = cut.corners();
        assert!(x1 >= 0.0 && y1 >= 0.0 && x2 <= SOURCE.width as f32 && y2 <= SOURCE.height as f32);
    }
    told
}

const THING: [f32; 4] = [1620.0, 700.0, 1700.0, 780.0];

fn is_at_the_thing(told: &Told) {
    let Ok([hit]) = told.as_ref().map(|finds| finds.hits.as_slice()) else { panic!("{told:?}") };
    // The pixels tell where they are to some 8 of them.
    let near = hit.pick.bbox.corners().iter().zip(THING).all(|(a, b)| (a - b).abs() < 16.0);
    assert!(near && hit.crop.is_some_and(|crop| crop.width() < 900.0), "{hit:?}");
}

#[test]
fn a_thing_is_sought_located_in_its_crop_and_mapped_back() {
    let mut model = Oracle::new(THING, 1000.0);
    is_at_the_thing(&ask(&mut zoom(100), &mut model, "kite"));
    // The whole first, its parts by rank, and then the one that answers.
    assert!(model.asked[0].starts_with("Question: What is the appearance of the kite?"));
    assert!(model.asked[1].ends_with("Is there a kite in the zoomed-in view? Answer Yes or No."));
    assert!(model.asked.len() < 40 && model.located == 1, "{} questions", model.asked.len());
    // Views that are asked about together are looked at together: main and focus of four areas each.
    assert!(model.looks.contains(&8), "{:?}", model.looks);
    assert!(model.looks.len() < model.asked.len(), "{} looks", model.looks.len());
}

#[test]
fn what_the_whole_answers_needs_no_search() {
    let mut model = Oracle::new(THING, 5000.0);
    let hits = ask(&mut zoom(100), &mut model, "kite").unwrap().hits;
    assert!(hits.len() == 1 && hits[0].crop.is_none());
    assert_eq!((model.asked.len(), model.located), (1, 1));
}

#[test]
fn a_budget_is_kept_and_the_next_frames_go_on() {
    let (mut model, mut zoom) = (Oracle::new(THING, 1000.0), zoom(3));
    let mut rounds = 0;
    let found = loop {
        let before = model.asked.len();
        let told = ask(&mut zoom, &mut model, "kite");
        assert!(model.asked.len() - before <= 3);
        rounds += 1;
        // Until then nothing is said, least of all that there is nothing.
        if told != Err(Unanswered::Unfinished) || rounds > 40 {
            break told;
        }
    };
    is_at_the_thing(&found);
    assert!(rounds > 1);
    // From then on one question is enough.
    let before = model.asked.len();
    is_at_the_thing(&ask(&mut zoom, &mut model, "kite"));
    assert_eq!(model.asked.len() - before, 1);
    // It has gone: the search begins anew, nothing is made up, and that it is not there is said only once all was seen.
    model.thing = [-50.0, -50.0, -20.0, -20.0];
    assert_eq!(ask(&mut zoom, &mut model, "kite"), Err(Unanswered::Unfinished));
    assert_eq!(ask(&mut self::zoom(400), &mut model, "all kites"), Ok(Vec::new().into()));
}

#[test]
fn a_search_goes_on_however_seldom_it_is_asked() {
    let (mut model, mut zoom, start) = (Oracle::new(THING, 1000.0), zoom(3), Instant::now());
    let mut at = |i: u32| ask_at(&mut zoom, &mut model, "kite", (start + Duration::from_secs(45) * i, Duration::ZERO));
    let found = (0..40).map(&mut at).find(Result::is_ok);
    is_at_the_thing(&found.expect("the search begins anew all the time"));
    assert_eq!(model.begun(), 1);
}

#[test]
fn what_is_remembered_ages_by_the_clock_or_without_a_limit_of_time_by_the_stream() {
    let (soon, late) = (Duration::from_millis(100), Duration::from_hours(1));
    for (milliseconds, clock, stream, begun) in [
        (60_000, late, soon, 2),
        (60_000, soon, late, 1),
        (ZoomConfig::TIMELESS, late, soon, 1),
        (ZoomConfig::TIMELESS, soon, late, 2),
    ] {
        let config = ZoomConfig { passes: 3, milliseconds, ..ZoomConfig::default() };
        let (mut model, mut zoom, start) = (Oracle::new(THING, 1000.0), Zoom::new(config, 1), Instant::now());
        for at in [(start, Duration::ZERO), (start + clock, stream)] {
            assert_eq!(ask_at(&mut zoom, &mut model, "kite", at), Err(Unanswered::Unfinished));
        }
        assert_eq!(model.begun(), begun, "{milliseconds} {clock:?} {stream:?}");
    }
}

#[test]
fn a_place_that_is_said_to_show_it_and_holds_no_box_is_no_answer() {
    let (mut model, mut zoom) = (Oracle::new(THING, 1000.0), zoom(6));
    let found = (0..40).map(|_| ask(&mut zoom, &mut model, "kite")).find(Result::is_ok);
    is_at_the_thing(&found.expect("the search gets nowhere"));
    model.is_mute = true;
    let before = model.asked.len();
    assert_eq!(ask(&mut zoom, &mut model, "kite"), Err(Unanswered::Unfinished));
    // What is left of the passes goes to a search.
    assert_eq!((model.asked.len() - before, model.begun()), (6, 2));
}

#[test]
fn a_search_that_was_spared_is_gone_on_with_later() {
    let (mut model, mut zoom, followed) = (Oracle::new(THING, 1000.0), zoom(6), Arc::new(Followed::default()));
    let camera = CameraId::new("cam0").unwrap();
    zoom.follow(Arc::clone(&followed));
    assert_eq!(ask(&mut zoom, &mut model, "kite"), Err(Unanswered::Unfinished));
    let [x1, y1, x2, y2] = THING;
    followed.set(&camera, vec![(QueryId::new("q").unwrap(), BBox::new(x1, y1, x2, y2).unwrap())]);
    is_at_the_thing(&ask(&mut zoom, &mut model, "kite"));
    // It has gone.
    followed.set(&camera, Vec::new());
    model.thing = [-50.0, -50.0, -20.0, -20.0];
    assert_eq!(ask(&mut zoom, &mut model, "kite"), Err(Unanswered::Unfinished));
    assert_eq!(model.begun(), 1);
}

#[test]
fn where_things_were_takes_turns_and_leaves_the_search_its_share() {
    let (mut model, mut zoom) = (Oracle::new(THING, 1000.0), zoom(6));
    // Ten things have gone, but tracking still expects them; the eleventh was never seen.
    let gone: Vec<_> =
        (3..13u8).map(|i| f32::from(i) * 100.0).filter_map(|x| BBox::new(x, 300.0, x + 40.0, 340.0)).collect();
    let followed = Followed::default();
    followed.set(&CameraId::new("cam0").unwrap(), gone.iter().map(|b| (QueryId::new("q").unwrap(), *b)).collect());
    zoom.follow(Arc::new(followed));
    for _ in 0..3 {
        assert_eq!(ask(&mut zoom, &mut model, "kite"), Err(Unanswered::Unfinished));
    }
    assert_eq!(model.shown.len(), 18);
    for thing in &gone {
        let (x, y) = thing.center();
        let is_near = |[x1, y1, x2, y2]: &[f32; 4]| ((x1 + x2) / 2.0 - x).hypot((y1 + y2) / 2.0 - y) < 30.0;
        assert!(model.shown.iter().any(is_near), "{thing:?}: {:?}", model.shown);
    }
    let found = (0..40).map(|_| ask(&mut zoom, &mut model, "kite")).find(Result::is_ok);
    is_at_the_thing(&found.expect("the search gets nowhere"));
}

#[test]
fn all_of_a_kind_are_collected() {
    let mut model = Oracle::new(THING, 1000.0);
    is_at_the_thing(&ask(&mut zoom(100), &mut model, "all kites"));
    assert!(model.asked.iter().all(|words| words.contains("Is there a kite in")));
}

#[test]
fn where_all_are_wanted_one_that_is_where_it_was_does_not_end_the_search() {
    for (text, questions) in [("all kites", 2..=6), ("kite", 1..=1)] {
        let (mut model, mut zoom) = (Oracle::new(THING, 1000.0), zoom(100));
        is_at_the_thing(&ask(&mut zoom, &mut model, text));
        zoom.budget.passes = 6;
        model.asked.clear();
        is_at_the_thing(&ask(&mut zoom, &mut model, text));
        assert!(questions.contains(&model.asked.len()), "{text}: {} questions", model.asked.len());
    }
}

#[test]
fn a_picture_that_cannot_be_cut_is_its_own_querys_trouble() {
    let map = Arc::new(Map { fails: true, ..Map::default() });
    let (frame, query) = (frame(map), query("kite"));
    let told = answer(&mut zoom(9), &mut Oracle::new(THING, 1000.0), &[Ask { frame: &frame, query: &query }]).unwrap();
    assert_eq!(told, [Err(Unanswered::Refused("no longer there".to_owned()))]);
}

#[test]
fn a_phrase_about_several_things_is_taken_apart_once_and_they_are_shown_together() {
    let (mut model, mut zoom) = (Oracle::new(THING, 1000.0), zoom(200));
    let hits = ask(&mut zoom, &mut model, "kite beside the tree");
    is_at_the_thing(&hits);
    let about = |what: &str| model.asked.iter().filter(|words| words.contains(what)).count();
    assert_eq!(about("Where is the kite beside the tree?"), 1);
    // Whether the whole is enough is asked of each at a glance, before either is sought.
    assert!(model.asked[1].contains("appearance of the kite?") && model.asked[2].contains("appearance of the tree?"));
    assert!(about("Is there a kite") > 4 && about("Is there a tree") > 4);
    is_at_the_thing(&ask(&mut zoom, &mut model, "kite beside the tree"));
    assert_eq!(model.asked.iter().filter(|words| words.starts_with("Where is")).count(), 1);
    // What the model cannot take apart is looked for as it is.
    let mut model = Oracle::new(THING, 1000.0);
    is_at_the_thing(&ask(&mut self::zoom(200), &mut model, "kite of no colour"));
    assert!(model.asked.iter().any(|words| words.contains("Is there a kite of no colour in")));
}

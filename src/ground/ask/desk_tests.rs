use std::thread;

use super::*;
use crate::{
    ground::{
        ask::look::Offering,
        methods::{
            Finds, Hit, Told,
            regions::Pick,
            retrieve::{Ask, TextCheck},
        },
    },
    types::{Letterbox, Query, QueryId, ScoreKind, Size, Worth},
};

const CANVAS: Size = Size { width: 16, height: 16 };

/// Something on a picture, and how well it fits which words.
#[derive(Clone)]
struct Thing {
    corners: [f32; 4],
    objectness: f32,
    look: Vec<f32>,
    fits: Vec<(&'static str, f32)>,
}

/// A model that follows a script: what is on the picture with this number. Takes as long as it is told.
struct Scripted<S> {
    script: S,
    looks: usize,
    asked: usize,
    /// Searches end before anything is found, and before all was looked at.
    hasty: bool,
    /// They end before all was looked at, and something was found.
    partial: bool,
    /// What a look takes, and a question.
    pace: [Duration; 2],
}

impl<S: Fn(usize) -> Vec<Thing> + Send> Scripted<S> {
    fn new(script: S) -> Self {
        Self { script, looks: 0, asked: 0, hasty: false, partial: false, pace: [Duration::ZERO; 2] }
    }
}

impl<S: Fn(usize) -> Vec<Thing> + Send> Able for Scripted<S> {
    fn words(&self) -> TextCheck {
        Arc::new(|_| Ok(()))
    }

    fn answer(&mut self, _: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        unreachable!("looks are kept")
    }

    fn offering(&mut self) -> Option<&mut dyn Offering> {
        Some(self)
    }
}

impl<S: Fn(usize) -> Vec<Thing> + Send> Offering for Scripted<S> {
    fn bar(&self) -> Bar {
        Bar { objectness: 0.05, score: 0.5, nms_iou: 0.6, soft: f32::INFINITY }
    }

    fn fits(&self, _: &Frame) -> Result<(), String> {
        Ok(())
    }

    fn offer(&mut self, canvases: &[&Rgb]) -> Result<Vec<Offered>, GroundError> {
        self.looks += canvases.len();
        thread::sleep(self.pace[0]);
        let offered = |canvas: &&Rgb| {
            let things = (self.script)(usize::from(canvas.data[0]) * 256 + usize::from(canvas.data[1]));
            Offered {
                boxes: things.iter().map(|thing| thing.corners).collect(),
                objectness: things.iter().map(|thing| thing.objectness).collect(),
                looks: things.iter().map(|thing| thing.look.clone()).collect(),
                kept: Box::new(things),
            }
        };
        Ok(canvases.iter().map(offered).collect())
    }

    fn select(&mut self, asks: &[(&Offered, &str)]) -> Result<Vec<Vec<f32>>, GroundError> {
        self.work(asks.len());
        let fit = |thing: &Thing, text: &str| thing.fits.iter().find(|(words, _)| *words == text).map_or(0.0, |f| f.1);
        let scores =
            |(offered, text): &(&Offered, &str)| things(offered).iter().map(|thing| fit(thing, text)).collect();
        Ok(asks.iter().map(scores).collect())
    }

    /// Everything there is, sure or not.
    fn tell(&mut self, asks: &[(&Offered, Asked<'_>)]) -> Result<Vec<Told>, GroundError> {
        self.work(asks.len());
        let hit = |thing: &Thing, frame: &Frame| {
            let bbox = frame.view.to_source(thing.corners)?;
            Some(Hit { pick: Pick { bbox, score: 0.9 }, kind: ScoreKind::TokenProb, crop: None })
        };
        let told = |(offered, ask): &(&Offered, Asked<'_>)| -> Vec<Hit> {
            things(offered).iter().filter_map(|thing| hit(thing, ask.ask.frame)).collect()
        };
        let Self { hasty, partial, .. } = *self;
        let finds =
            |one| if hasty { Err(Unanswered::Unfinished) } else { Ok(Finds { hits: told(one), complete: !partial }) };
        Ok(asks.iter().map(finds).collect())
    }
}

impl<S> Scripted<S> {
    fn work(&mut self, questions: usize) {
        self.asked += questions;
        thread::sleep(self.pace[1] * u32::try_from(questions).unwrap());
    }
}

fn things(offered: &Offered) -> &Vec<Thing> {
    offered.kept.downcast_ref().unwrap()
}

fn thing(corners: [f32; 4], objectness: f32, fits: &[(&'static str, f32)]) -> Thing {
    Thing { corners, objectness, look: vec![1.0, 0.0], fits: fits.to_vec() }
}

fn query(text: &str, worth: Worth) -> Query {
    let id = QueryId::new(&text.replace(' ', "-")).unwrap();
    Query { id, rev: 1, text: text.to_owned(), cameras: None, method: Method::Auto, threshold: None, worth }
}

/// The picture with this number; to the gate all of one `shade` look the same.
fn frame(camera: &str, number: usize, shade: u8, pts: Duration) -> Frame {
    let mut pixels = vec![shade; CANVAS.area() * 3];
    (pixels[0], pixels[1]) = (u8::try_from(number / 256).unwrap(), u8::try_from(number % 256).unwrap());
    let canvas = Rgb::new(CANVAS, pixels).unwrap().into();
    Frame { pts, canvas, ..Frame::black(camera, &Arc::default(), Size::new(1600, 1600), CANVAS) }
}

/// A desk for one script, with the pictures' own time.
struct Office<S> {
    desk: Desk,
    model: Scripted<S>,
    work: Arc<Work>,
}

impl<S: Fn(usize) -> Vec<Thing> + Send> Office<S> {
    fn new(config: AskConfig, live: bool, script: S) -> Self {
        let work = Arc::<Work>::default();
        let desk = Desk::new(config, (!live).then(Instant::now), Arc::clone(&work));
        Self { desk, model: Scripted::new(script), work }
    }

    fn ask(&mut self, frame: &Frame, queries: &[(Method, &Query)]) -> Vec<Reply> {
        let asks: Vec<Asked<'_>> =
            queries.iter().map(|&(method, query)| Asked { method, ask: Ask { frame, query } }).collect();
        self.desk.answer(&mut self.model, &asks).unwrap()
    }

    fn shed(&self) -> u64 {
        ShedReason::ALL.iter().map(|reason| self.work.shed(*reason)).sum()
    }
}

fn shed(reason: ShedReason) -> Status {
    Status::Shed(reason.to_string())
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn nobody_says_nothing_is_there_before_all_that_is_there_was_asked_about() {
    // A thing that was asked about; then another beside it, too faint to be asked about at once.
    let script = |number| {
        let known = thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("car", 0.1), ("bus", 0.9)]);
        let faint = thing([0.6, 0.6, 0.8, 0.8], 0.1, &[("car", 0.1)]);
        if number == 0 { vec![known] } else { vec![known, faint] }
    };
    let mut office = Office::new(AskConfig { change: 0.0, ..AskConfig::default() }, false, script);
    let (car, bus) = (query("car", Worth::default()), query("bus", Worth::default()));
    let mut statuses = Vec::new();
    for step in 0..40u64 {
        let frame = frame("a", usize::from(step > 0), 90, ms(step * 66));
        let replies = office.ask(&frame, &[(Method::Retrieve, &car), (Method::Retrieve, &bus)]);
        assert!(replies[0].hits.is_empty() && replies[1].hits.len() == 1);
        // A match is a match, whatever else there is.
        assert_eq!(replies[1].status, Status::Ok);
        statuses.push(replies[0].status.clone());
    }
    assert_eq!(statuses[0], Status::Ok);
    assert_eq!(statuses[1], shed(ShedReason::Waiting));
    let asked_after = statuses.iter().rposition(|status| *status != Status::Ok).unwrap();
    assert!((20..=31).contains(&asked_after), "the faint one was asked about after {asked_after} pictures");
    assert!(statuses[1..=asked_after].iter().all(|status| *status == shed(ShedReason::Waiting)));
    assert_eq!(office.work.shed(ShedReason::Waiting), u64::try_from(asked_after).unwrap());
    assert_eq!(office.work.asked() + office.work.reused() + office.shed(), 80);
}

#[test]
fn fresh_is_what_this_pictures_own_pixels_were_asked() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("car", 0.9), ("bus", 0.9)])];
    let mut office = Office::new(AskConfig::default(), false, script);
    let (car, bus, all) = ["car", "bus", "all"].map(|text| query(text, Worth::default())).into();
    let (car, bus, all) = ((Method::Retrieve, &car), (Method::Retrieve, &bus), (Method::Coords, &all));
    let fresh = |replies: Vec<Reply>| replies.iter().map(|reply| reply.fresh).collect::<Vec<_>>();
    assert_eq!(fresh(office.ask(&frame("a", 0, 90, ms(0)), &[car])), [true]);
    // New queries on a picture that looks the same are asked about the one looked at before.
    let replies = office.ask(&frame("a", 1, 90, ms(66)), &[car, bus, all]);
    assert!(replies.iter().all(|reply| reply.hits.len() == 1 && reply.status == Status::Ok));
    assert_eq!(fresh(replies), [false; 3]);
    assert_eq!((office.model.looks, office.work.asked(), office.work.reused()), (1, 3, 1));
    // Another picture is another matter.
    assert_eq!(fresh(office.ask(&frame("a", 2, 200, ms(133)), &[all])), [true]);
    assert_eq!(fresh(office.ask(&frame("a", 3, 200, ms(140)), &[all])), [false]);
    // And so is one that looks the same, of a camera that was pointed elsewhere.
    let elsewhere = Frame { origin: 1, ..frame("a", 4, 200, ms(150)) };
    assert_eq!(fresh(office.ask(&elsewhere, &[all])), [true]);
    assert_eq!(office.model.looks, 3);
}

#[test]
fn a_look_that_is_kept_is_not_asked_the_same_again_and_a_search_gets_its_own_picture() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("car", 0.52)])];
    // Looked at again only after an hour; a match is old after a tenth of a second.
    let config = AskConfig { look_seconds: 3600.0, match_seconds: 0.1, ..AskConfig::default() };
    let mut office = Office::new(config, false, script);
    let (car, all) = (query("car", Worth::default()), query("all", Worth::default()));
    let (car, written, search) = ((Method::Retrieve, &car), (Method::Coords, &all), (Method::Zoom, &all));
    for step in 0..30 {
        office.ask(&frame("a", 0, 90, ms(step * 100)), &[car, written]);
    }
    assert_eq!((office.model.looks, office.model.asked), (1, 2));
    let replies = office.ask(&frame("b", 0, 90, ms(0)), &[car]);
    assert!(replies[0].fresh);
    let replies = office.ask(&frame("b", 0, 90, ms(66)), &[car, search]);
    assert_eq!(office.model.looks, 3, "regions and crops must be of one picture");
    assert!(replies[1].fresh && replies[1].hits.len() == 1);
}

#[test]
fn what_was_true_of_another_picture_is_not_told_of_this_one() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])];
    let mut office = Office::new(AskConfig::default(), true, script);
    let relaxed = query("all", Worth::default());
    let hurried = query("all", Worth { deadline: Some(Duration::ZERO), ..Worth::default() });
    assert_eq!(office.ask(&frame("a", 0, 90, ms(0)), &[(Method::Coords, &relaxed)])[0].hits.len(), 1);
    // The same picture: the answer holds, although there is no time to ask.
    let replies = office.ask(&frame("a", 0, 90, ms(66)), &[(Method::Coords, &hurried)]);
    assert_eq!((replies[0].hits.len(), replies[0].status.clone()), (1, Status::Ok));
    // Another one.
    let replies = office.ask(&frame("a", 1, 200, ms(133)), &[(Method::Coords, &hurried)]);
    assert_eq!((replies[0].hits.len(), replies[0].status.clone()), (0, shed(ShedReason::Deadline)));
}

#[test]
fn a_search_that_was_not_finished_is_shed_counted_and_goes_on_at_once() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])];
    let mut office = Office::new(AskConfig::default(), true, script);
    let all = query("all", Worth::default());
    office.model.hasty = true;
    for round in 1..=3u8 {
        let reply = office.ask(&frame("a", 0, 90, ms(0)), &[(Method::Zoom, &all)]).remove(0);
        assert_eq!((reply.status, reply.hits.len()), (shed(ShedReason::Budget), 0));
        assert_eq!((office.model.asked, office.work.shed(ShedReason::Budget)), (round.into(), round.into()));
    }
    office.model.hasty = false;
    let reply = office.ask(&frame("a", 0, 90, ms(0)), &[(Method::Zoom, &all)]).remove(0);
    assert_eq!((reply.status, reply.hits.len(), office.work.asked()), (Status::Ok, 1, 1));
}

#[test]
fn what_a_search_found_is_told_but_not_for_all_there_is_until_it_has_looked_everywhere() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])];
    let mut office = Office::new(AskConfig::default(), false, script);
    let all = query("all", Worth::default());
    let mut ask = |partial: bool, at: Duration| {
        office.model.partial = partial;
        let reply = office.ask(&frame("a", 0, 90, at), &[(Method::Zoom, &all)]).remove(0);
        (reply.status, reply.hits.len(), reply.complete, office.model.asked)
    };
    assert_eq!(ask(true, ms(0)), (Status::Ok, 1, false, 1));
    // The same picture need not be searched on with every frame, but with the next look at it.
    assert_eq!(ask(true, ms(66)), (Status::Ok, 1, false, 1));
    assert_eq!(ask(false, ms(1100)), (Status::Ok, 1, true, 2));
    assert_eq!(ask(false, ms(2200)), (Status::Ok, 1, true, 2), "now it is known");
}

#[test]
fn what_could_not_be_found_again_is_not_told_any_more() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])];
    let mut office = Office::new(AskConfig::default(), false, script);
    let all = query("all", Worth::default());
    let mut ask = |hasty: bool, at: Duration| {
        office.model.hasty = hasty;
        let reply = office.ask(&frame("a", 0, 90, at), &[(Method::Zoom, &all)]).remove(0);
        (reply.status, reply.hits.len())
    };
    assert_eq!(ask(false, ms(0)), (Status::Ok, 1));
    // Old enough to be asked again, and not found before the time was over.
    assert_eq!(ask(true, ms(4000)), (shed(ShedReason::Budget), 0));
    assert_eq!(ask(true, ms(4066)), (shed(ShedReason::Budget), 0));
    assert_eq!(ask(false, ms(4133)), (Status::Ok, 1));
}

#[test]
fn a_files_answers_do_not_depend_on_how_busy_the_device_is() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("car", 0.9)])];
    for live in [true, false] {
        let mut office = Office::new(AskConfig { once: false, ..AskConfig::default() }, live, script);
        let car = query("car", Worth { deadline: Some(ms(1)), ..Worth::default() });
        let now = Instant::now();
        office.desk.common().budget.worked(now.checked_sub(Duration::from_secs(5)).unwrap(), now);
        office.model.pace[1] = ms(5);
        for step in 0..4 {
            office.ask(&frame("a", 0, 90, ms(step * 66)), &[(Method::Retrieve, &car)]);
        }
        assert_eq!(office.shed() > 0, live, "{} shed", office.shed());
    }
}

#[test]
fn with_too_much_to_do_zoom_goes_first_then_low_priority_and_every_question_is_accounted_for() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("high", 0.9), ("low", 0.9)])];
    let mut office = Office::new(AskConfig { once: false, ..AskConfig::default() }, true, script);
    office.model.pace = [ms(2), ms(20)];
    let high = query("high", Worth { priority: 1, ..Worth::default() });
    let low = query("low", Worth::default());
    // Searched for with the highest priority of all.
    let search = query("search", Worth { priority: 9, ..Worth::default() });
    let queries = [(Method::Retrieve, &high), (Method::Retrieve, &low), (Method::Zoom, &search)];
    let (mut frames, mut answered) = (0u64, [0u64; 3]);
    let began = Instant::now();
    // Busy from the first frame on; many more questions than there is time for.
    office.desk.common().budget.worked(began.checked_sub(Duration::from_secs(5)).unwrap(), began);
    let mut ended = began;
    while began.elapsed() < ms(2500) {
        // Frames come as fast as they are taken: the device never rests.
        office.desk.common().budget.worked(ended, Instant::now());
        let camera = ["a", "b", "c", "d"][usize::try_from(frames % 4).unwrap()];
        let replies = office.ask(&frame(camera, 0, 90, ms(0)), &queries);
        ended = Instant::now();
        for (count, reply) in answered.iter_mut().zip(&replies) {
            assert!(matches!(&reply.status, Status::Ok | Status::Shed(_)));
            *count += u64::from(reply.status == Status::Ok);
        }
        frames += 1;
    }
    assert_eq!((office.work.looked(), office.work.still()), (frames, 0), "looking is never left undone");
    let asked = office.work.asked();
    assert_eq!(asked + office.work.reused() + office.shed(), frames * 3);
    assert_eq!(asked, answered.iter().sum::<u64>(), "each that was shed says so");
    assert!(office.work.shed(ShedReason::Busy) > frames, "{answered:?} of {frames}");
    let [high, low, search] = answered;
    assert!(high > 3 * low && low >= search && search * 10 <= frames, "{answered:?} of {frames}");
}

#[test]
fn a_camera_whose_pictures_get_another_size_is_asked_anew_however_alike_they_look() {
    let script = |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])];
    let mut office = Office::new(AskConfig::default(), false, script);
    let all = query("all", Worth::default());
    let right_edge = |side: u32| {
        let mut frame = frame("a", 0, 90, ms(0));
        frame.view = Letterbox::fit(Size::new(side, side), 1.0, CANVAS);
        let reply = office.ask(&frame, &[(Method::Coords, &all)]).remove(0);
        (reply.hits[0].pick.bbox.corners()[2].round().to_string(), reply.fresh)
    };
    let told = [1600, 1600, 800, 800].map(right_edge);
    let told: Vec<(&str, bool)> = told.iter().map(|(edge, fresh)| (edge.as_str(), *fresh)).collect();
    assert_eq!(told, [("320", true), ("320", false), ("160", true), ("160", false)]);
    assert_eq!((office.model.looks, office.model.asked), (2, 2));
}

#[test]
fn what_was_said_of_pixels_that_changed_is_no_answer_before_they_were_asked_about() {
    // In one place, one thing after another, none like those before.
    let script = |number: usize| {
        let mut look = vec![0.0; 4];
        look[number] = 1.0;
        vec![Thing { look, ..thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("car", 0.1)]) }]
    };
    let mut office = Office::new(AskConfig::default(), false, script);
    let car = query("car", Worth::default());
    let mut status = |number: u8, at: Duration| {
        let frame = frame("a", number.into(), 40 * (number + 1), at);
        let reply = office.ask(&frame, &[(Method::Retrieve, &car)]).remove(0);
        assert!(reply.hits.is_empty());
        (reply.status, office.model.asked)
    };
    assert!((0..3).all(|number| status(number, ms(number.into())) == (Status::Ok, usize::from(number) + 1)));
    // No more may be asked so soon, neither about this picture nor on the next one, which looks the same.
    assert_eq!(status(3, ms(3)), (shed(ShedReason::Waiting), 3));
    assert_eq!(status(3, ms(4)), (shed(ShedReason::Waiting), 3));
    assert_eq!(status(3, ms(900)), (Status::Ok, 4));
    assert_eq!(office.work.shed(ShedReason::Waiting), 2);
}

#[path = "pass_tests.rs"]
mod pass;
#[path = "street_tests.rs"]
mod street;
#[path = "told_tests.rs"]
mod told;

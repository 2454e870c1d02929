//! What is told between questions, and who is asked next.

use std::collections::BTreeMap;

use super::*;

fn make_busy(desk: &Desk) {
    let now = Instant::now();
    desk.common().budget.worked(now.checked_sub(Duration::from_secs(5)).unwrap(), now);
}

#[test]
fn two_that_overlap_as_much_as_matches_may_are_both_told_on_pictures_that_nobody_asked_about() {
    // Side by side: their IoU is 0.54.
    let script = |_| {
        let person = |x: f32, objectness| thing([x, 0.1, x + 0.4, 0.5], objectness, &[("person", 0.9)]);
        vec![person(0.1, 0.9), person(0.22, 0.8)]
    };
    let mut office = Office::new(AskConfig::default(), false, script);
    let person = query("person", Worth::default());
    for at in [0, 66, 133] {
        let reply = office.ask(&frame("a", 0, 90, ms(at)), &[(Method::Retrieve, &person)]).remove(0);
        assert_eq!((reply.hits.len(), reply.complete, reply.status), (2, true, Status::Ok), "after {at} ms");
    }
    assert_eq!(office.model.asked, 1);
}

#[test]
fn a_search_that_may_not_be_asked_has_no_still_picture_looked_at() {
    let mut office = Office::new(AskConfig::default(), true, |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])]);
    (office.model.hasty, office.model.pace[1]) = (true, ms(5));
    let poor = query("all", Worth { budget: Some(1e-9), ..Worth::default() });
    for _ in 0..20 {
        let reply = office.ask(&frame("a", 0, 90, ms(0)), &[(Method::Zoom, &poor)]).remove(0);
        assert_eq!(reply.status, shed(ShedReason::Budget));
    }
    // What it costs is known after the first time. The last look is the one on which there was no time to ask.
    let Scripted { asked, looks, .. } = office.model;
    assert!(asked <= 2 && looks == asked + 1, "asked {asked} times, {looks} looks");
}

#[test]
fn a_search_that_is_not_done_says_so_on_a_busy_device_too() {
    let mut office = Office::new(AskConfig::default(), true, |_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[])]);
    office.model.hasty = true;
    let all = query("all", Worth::default());
    for _ in 0..3 {
        make_busy(&office.desk);
        let reply = office.ask(&frame("a", 0, 90, ms(0)), &[(Method::Zoom, &all)]).remove(0);
        assert_eq!(reply.status, shed(ShedReason::Budget));
    }
    assert_eq!(office.model.asked, 1);
}

/// A model that keeps no looks, and never gets done.
#[derive(Default)]
struct Endless {
    asked: BTreeMap<String, usize>,
}

impl Able for Endless {
    fn words(&self) -> TextCheck {
        Arc::new(|_| Ok(()))
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        for asked in asks {
            *self.asked.entry(asked.ask.query.text.clone()).or_default() += 1;
            thread::sleep(ms(20));
        }
        Ok(asks.iter().map(|_| Err(Unanswered::Unfinished)).collect())
    }
}

#[test]
fn who_was_asked_in_vain_waits_its_turn_like_anyone_else() {
    let mut desk = Desk::new(AskConfig::default(), None, Arc::default());
    let mut model = Endless::default();
    let queries = ["ball", "cat"].map(|text| query(text, Worth::default()));
    for number in 0..20u8 {
        make_busy(&desk);
        let frame = frame("a", number.into(), 10 * number, ms(0));
        let asks = queries.each_ref().map(|query| Asked { method: Method::Zoom, ask: Ask { frame: &frame, query } });
        desk.answer(&mut model, &asks).unwrap();
    }
    assert!(model.asked.values().all(|times| *times >= 8) && model.asked.len() == 2, "{:?}", model.asked);
}

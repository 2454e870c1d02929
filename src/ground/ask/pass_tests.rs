//! Models that answer all questions about a picture in one pass.

use super::*;

/// A model that answers all questions about a picture in one pass, which takes as long as it is told.
struct OnePass {
    pace: Duration,
    passes: usize,
}

impl Able for OnePass {
    fn words(&self) -> TextCheck {
        Arc::new(|_| Ok(()))
    }

    fn at_once(&self) -> bool {
        true
    }

    fn answer(&mut self, asks: &[Asked<'_>]) -> Result<Vec<Told>, GroundError> {
        let frames = by_frame(asks, |asked| asked.ask.frame).count();
        self.passes += frames;
        thread::sleep(self.pace * u32::try_from(frames).unwrap());
        Ok(asks.iter().map(|_| Ok(Vec::new().into())).collect())
    }
}

#[test]
fn a_pass_that_answers_all_questions_has_its_price_for_each_and_is_left_out_where_nobody_can_pay() {
    let mut desk = Desk::new(AskConfig::default(), None, Arc::default());
    let mut model = OnePass { pace: ms(30), passes: 0 };
    let free = query("free", Worth::default());
    let hurried = query("hurried", Worth { deadline: Some(ms(10)), ..Worth::default() });
    let poor = query("poor", Worth { budget: Some(0.001), ..Worth::default() });
    let mut number = 0u8;
    // Each time another picture, so that all are due.
    let mut ask = |queries: &[&Query]| {
        number += 1;
        let frame = frame("a", 0, 20 * number, ms(0));
        let asks: Vec<Asked<'_>> = queries
            .iter()
            .map(|&query| Asked { method: Method::Detector, ask: Ask { frame: &frame, query } })
            .collect();
        let statuses: Vec<Status> =
            desk.answer(&mut model, &asks).unwrap().into_iter().map(|reply| reply.status).collect();
        (statuses, model.passes)
    };
    let (late, poorer) = (shed(ShedReason::Deadline), shed(ShedReason::Budget));
    assert_eq!(ask(&[&free]), (vec![Status::Ok], 1), "here it is seen how long a pass takes");
    assert_eq!(ask(&[&hurried]), (vec![late.clone()], 1));
    assert_eq!(ask(&[&hurried, &poor]), (vec![late, Status::Ok], 2));
    assert_eq!(ask(&[&poor]), (vec![poorer.clone()], 2));
    assert_eq!(ask(&[&poor, &free]), (vec![poorer, Status::Ok], 3));
}

#[test]
fn a_busy_device_leaves_questions_undone_but_no_pass() {
    // Of the time of a busy device nothing is for questions.
    let (config, work) = (AskConfig { once: false, share: 0.0, ..AskConfig::default() }, Arc::<Work>::default());
    let mut desk = Desk::new(config, None, Arc::clone(&work));
    let mut passing = OnePass { pace: Duration::ZERO, passes: 0 };
    let mut asking = Scripted::new(|_| vec![thing([0.1, 0.1, 0.2, 0.2], 0.9, &[("car", 0.9)])]);
    let queries = ["car", "bus", "dog"].map(|text| query(text, Worth::default()));
    for number in 1..=5u8 {
        let now = Instant::now();
        desk.common().budget.worked(now.checked_sub(Duration::from_secs(5)).unwrap(), now);
        let (picture, beside) = (frame("a", 0, 20 * number, ms(0)), frame("b", 0, 20 * number, ms(0)));
        let asks: Vec<Asked<'_>> = queries
            .iter()
            .map(|query| Asked { method: Method::Detector, ask: Ask { frame: &picture, query } })
            .collect();
        let replies = desk.answer(&mut passing, &asks).unwrap();
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "picture {number}");
        // The device is busy indeed, as whoever is asked one by one is told.
        let asks = [Asked { method: Method::Retrieve, ask: Ask { frame: &beside, query: &queries[0] } }];
        assert_eq!(desk.answer(&mut asking, &asks).unwrap()[0].status, shed(ShedReason::Busy), "picture {number}");
    }
    assert_eq!((passing.passes, asking.asked, work.asked()), (5, 0, 15));
    let all: u64 = ShedReason::ALL.iter().map(|reason| work.shed(*reason)).sum();
    assert_eq!((work.shed(ShedReason::Busy), all), (5, 5));
}

use std::path::PathBuf;

use super::*;
use crate::{
    ground::{Provider, methods::find::Want},
    types::{BBox, Job, QueryId, Rgb, Worth},
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

/// Answers as many questions as it likes, each with two matches. By "a" it takes one thing to be meant.
struct Told(usize);

impl Able for Told {
    fn words(&self) -> TextCheck {
        Arc::new(|_| Ok(()))
    }

    fn means_one(&self, text: &str) -> bool {
        text == "a"
    }

    fn answer(&mut self, _: &[Asked<'_>]) -> Result<Vec<super::Told>, GroundError> {
        let hit = |score| {
            let bbox = BBox::new(0.0, 0.0, 9.0, 9.0).unwrap();
            Hit { pick: Pick { bbox, score }, kind: ScoreKind::Logit, crop: None }
        };
        Ok((0..self.0).map(|_| Ok(vec![hit(0.9), hit(0.8)].into())).collect())
    }
}

fn batch() -> Batch {
    let frame = Frame::black("cam0", &Arc::default(), SIZE, SIZE);
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
    Batch { jobs: vec![Job { frame: Arc::new(frame), queries: vec![query("a"), query("b")] }] }
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
    Router::new(Box::new(model), info, Limits { max_batch: 1, canvases: SIZE.into() }, Vec::new())
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

#[test]
fn where_one_thing_is_meant_the_best_match_is_reported() {
    for asks_once in [false, true] {
        let mut router = router(Told(2));
        if asks_once {
            router.ask(&AskConfig::default(), false);
        }
        let answers = router.ground(&batch()).unwrap();
        let scores = |at: usize| answers[0][at].matches.iter().map(|m| m.score).collect::<Vec<_>>();
        assert_eq!((scores(0), scores(1)), (vec![0.9], vec![0.9, 0.8]));
    }
}

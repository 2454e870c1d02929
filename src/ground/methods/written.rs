//! `coords` and `bins`: the model writes where things are, as text or as location tokens.
//!
//! These models have a picture size of their own, so they are shown the full-size picture where there is one, and the
//! canvas without its borders otherwise. The picture is looked at once a frame, however many queries are asked of it.

use super::{
    by_frame,
    regions::Pick,
    retrieve::{Ask, TextCheck},
};
use crate::{
    ground::{GroundError, codec::RawBox, vision::VisionError},
    types::{BBox, Frame, Rgb, ScoreKind, Size, chain},
};

/// A query's matches with what their scores mean, best first; or why it could not be asked.
pub type Found = Result<Vec<(Pick, ScoreKind)>, String>;

/// The boxes that answer one question, in the order written, in fractions of its picture; or why it has no answer.
pub type Located = Result<Vec<RawBox>, GroundError>;

/// A model that writes its answers.
pub trait Writer: Send {
    /// What the model makes of a picture, before it is asked anything.
    type Seen;

    /// Tells from any thread whether words can be asked; says why not, for people.
    fn checker(&self) -> TextCheck;

    /// Tokens written so far; `None` if they are not counted.
    fn tokens(&self) -> Option<u64> {
        None
    }

    /// Looks at two pictures and says a word about them: what would fail on the first frame fails now, and what the model
    /// can do at once is found out. Until then it does one thing at a time.
    fn warm_up(&mut self, pictures: &[Rgb; 2]) -> Result<(), GroundError>;

    /// Looks at pictures, of any sizes, in as few passes as it can. One that cannot be prepared says why.
    fn look(&mut self, pictures: &[&Rgb]) -> Result<Vec<Result<Self::Seen, VisionError>>, GroundError>;

    /// For each text boxes that answer it, in the order written, in fractions of its picture. The words have passed the
    /// checker; questions about the same picture stand next to each other.
    ///
    /// What is wrong with one answer leaves the others as they are. An `Err` means that nothing was answered.
    fn locate_each(&mut self, asks: &[(&Self::Seen, &str)]) -> Result<Vec<Located>, GroundError>;

    /// The same, where one wrong answer spoils all.
    fn locate(&mut self, asks: &[(&Self::Seen, &str)]) -> Result<Vec<Vec<RawBox>>, GroundError> {
        self.locate_each(asks)?.into_iter().collect()
    }

    /// Looks at one picture.
    fn look_at(&mut self, picture: &Rgb) -> Result<Self::Seen, GroundError> {
        let missing = || Err(VisionError::Prompt("the model left the picture out".to_owned()));
        Ok(self.look(&[picture])?.pop().unwrap_or_else(missing)?)
    }
}

/// Answers all questions. Those about the same frame stand next to each other. A query without a threshold of its own gets
/// every box.
pub fn answer<W: Writer>(writer: &mut W, asks: &[Ask<'_>]) -> Result<Vec<Found>, GroundError> {
    let frames: Vec<_> = by_frame(asks, |ask| ask.frame).collect();
    let pictures: Vec<_> = frames.iter().map(|asks| picture(asks[0].frame)).collect();
    let shown: Vec<_> = pictures.iter().filter_map(|picture| picture.as_ref().ok()).collect();
    let mut looked = writer.look(&shown)?.into_iter();
    let mut seen_in = |picture: &Result<Rgb, String>| match picture {
        Ok(_) => looked.next().map_or_else(|| Err(String::new()), |seen| seen.map_err(|reason| reason.to_string())),
        Err(reason) => Err(reason.clone()),
    };
    let seen: Vec<_> = pictures.iter().map(&mut seen_in).collect();
    let questions = frames.iter().zip(&seen).filter_map(|(asks, seen)| Some((asks, seen.as_ref().ok()?)));
    let questions = questions.flat_map(|(asks, seen)| asks.iter().map(move |ask| (seen, ask.query.text.as_str())));
    let mut located = writer.locate_each(&questions.collect::<Vec<_>>())?.into_iter();
    let answers = frames.iter().zip(&seen).flat_map(|(asks, seen)| asks.iter().map(move |ask| (ask, seen)));
    let mut found = |(ask, seen): (&Ask<'_>, &Result<W::Seen, String>)| {
        seen.as_ref().map_err(Clone::clone)?;
        let raw = located.next().unwrap_or_else(|| Ok(Vec::new())).map_err(|error| chain(&error))?;
        Ok(chosen(&raw, ask.frame.source(), ask.query.threshold.unwrap_or(0.0)))
    };
    Ok(answers.map(&mut found).collect())
}

/// The whole picture, as large as there is.
pub(super) fn picture(frame: &Frame) -> Result<Rgb, String> {
    let source = frame.source();
    match (&frame.full, BBox::new(0.0, 0.0, source.width as f32, source.height as f32)) {
        (Some(full), Some(whole)) => full.crop(&whole, source),
        _ => frame.canvas.cut(&frame.view).ok_or_else(|| {
            let Size { width, height } = frame.canvas.size;
            format!("the canvas of {width}x{height} pixels is not the one its frame describes")
        }),
    }
}

/// Boxes in source pixels, best first; of equals the one written first. A box written twice counts once.
pub(super) fn chosen(raw: &[RawBox], source: Size, threshold: f32) -> Vec<(Pick, ScoreKind)> {
    let (w, h) = (source.width as f32, source.height as f32);
    let mut picks: Vec<(Pick, ScoreKind)> = Vec::with_capacity(raw.len());
    for RawBox { fractions: [x1, y1, x2, y2], score, .. } in raw {
        let Some(bbox) = BBox::new(x1 * w, y1 * h, x2 * w, y2 * h).and_then(|bbox| bbox.clipped(source)) else {
            continue;
        };
        let (score, kind) = score.map_or((1.0, ScoreKind::None), |score| (score.clamp(0.0, 1.0), ScoreKind::TokenProb));
        if score >= threshold && picks.iter().all(|(pick, _)| pick.bbox != bbox) {
            picks.push((Pick { bbox, score }, kind));
        }
    }
    picks.sort_by(|a, b| b.0.score.total_cmp(&a.0.score));
    picks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(fractions: [f32; 4], score: Option<f32>) -> RawBox {
        RawBox { label: String::new(), fractions, score }
    }

    #[test]
    fn boxes_are_in_source_pixels_once_each_and_best_first() {
        let boxes = [
            raw([0.0, 0.5, 0.5, 1.0], Some(0.4)),
            raw([0.25, 0.0, 0.5, 0.5], Some(0.9)),
            raw([0.25, 0.0, 0.5, 0.5], Some(0.8)),
            raw([0.0, 0.0, 0.1, 0.1], Some(0.39)),
            raw([0.5, 0.5, 1.0, 1.0], None),
        ];
        let got = chosen(&boxes, Size::new(200, 100), 0.4);
        let got: Vec<_> = got.iter().map(|(pick, kind)| (pick.bbox.corners(), pick.score, *kind)).collect();
        assert_eq!(
            got,
            [
                ([100.0, 50.0, 200.0, 100.0], 1.0, ScoreKind::None),
                ([50.0, 0.0, 100.0, 50.0], 0.9, ScoreKind::TokenProb),
                ([0.0, 50.0, 100.0, 100.0], 0.4, ScoreKind::TokenProb),
            ]
        );
    }
}

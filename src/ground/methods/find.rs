//! `detector`, and `retrieve` by models that are shown the whole picture: the model gives every box a score by the words.
//!
//! Like the models that write, these have a picture size of their own: they are shown the full-size picture where there
//! is one, unless the canvas holds all they would see of it. They look once at a frame, for all its queries.

use super::{
    Hit, Told, by_frame,
    regions::Pick,
    retrieve::{Ask, TextCheck},
    written::picture,
};
use crate::{
    ground::GroundError,
    types::{BBox, Frame, Letterbox, Rgb, ScoreKind, Size},
};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Want<'a> {
    /// The words; they have passed the checker.
    pub text: &'a str,
    /// Least score of a box that is of interest.
    pub least: f32,
}

/// What is looked for in the picture on one canvas.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The canvas.
    pub canvas: &'a Rgb,
    /// How the picture lies on it.
    pub view: &'a Letterbox,
    /// What is looked for.
    pub wants: &'a [Want<'a>],
}

/// A model that scores boxes by words.
pub trait Finder: Send {
    /// Tells from any thread whether words can be asked; says why not, for people.
    fn checker(&self) -> TextCheck;

    /// What a score means.
    fn score_kind(&self) -> ScoreKind;

    /// Tokens written so far; `None` if it writes none.
    fn tokens(&self) -> Option<u64> {
        None
    }

    /// Looks at `picture` for something: what would fail on the first frame fails now.
    fn warm_up(&mut self, picture: &Rgb) -> Result<(), GroundError>;

    /// The boxes that fit each text, in pixels of the picture: one list a want. In any order; those below `least` may be
    /// among them.
    fn find(&mut self, picture: &Rgb, wants: &[Want<'_>]) -> Result<Vec<Vec<Pick>>, GroundError>;

    /// The same in pictures on canvases, each in pixels of the picture as it lies there; `None` if the model would see more
    /// in a larger one. The decoder has scaled the picture already: where that will do, nothing is scaled again.
    fn find_on_canvases(&mut self, looks: &[Look<'_>]) -> Result<Vec<Option<Vec<Vec<Pick>>>>, GroundError> {
        Ok(looks.iter().map(|_| None).collect())
    }

    /// Canvases that it looks at at once.
    fn at_once(&self) -> usize {
        1
    }
}

/// Answers all questions. Those about the same frame stand next to each other. `least` holds where a query has no
/// threshold of its own.
pub fn answer(finder: &mut dyn Finder, asks: &[Ask<'_>], least: f32) -> Result<Vec<Told>, GroundError> {
    let kind = finder.score_kind();
    let wants: Vec<_> =
        asks.iter().map(|ask| Want { text: &ask.query.text, least: ask.query.threshold.unwrap_or(least) }).collect();
    let (mut frames, mut rest) = (Vec::new(), wants.as_slice());
    for asks in by_frame(asks, |ask| ask.frame) {
        let (own, others) = rest.split_at(asks.len());
        frames.push((asks[0].frame, own));
        rest = others;
    }
    let looks: Vec<_> =
        frames.iter().map(|(frame, wants)| Look { canvas: &frame.canvas, view: &frame.view, wants }).collect();
    let on_canvases = GroundError::unless_all(finder.find_on_canvases(&looks)?, frames.len())?;
    let mut answers = Vec::with_capacity(asks.len());
    for ((frame, wants), found) in frames.into_iter().zip(on_canvases) {
        let source = frame.source();
        match look(finder, frame, found, wants)? {
            Ok((found, size)) => answers.extend(
                wants
                    .iter()
                    .zip(found)
                    .map(|(want, found)| Ok(Hit::all(chosen(found, want.least, size, source), kind).into())),
            ),
            Err(reason) => answers.extend(wants.iter().map(|_| Err(reason.clone().into()))),
        }
    }
    Ok(answers)
}

/// Boxes a want, and the size of the picture whose pixels they are in; why there are none, for people, where the frame's
/// picture is no good.
type Found = Result<(Vec<Vec<Pick>>, Size), String>;

/// What was found on the canvas; in the full picture where that was not enough.
fn look(
    finder: &mut dyn Finder,
    frame: &Frame,
    on_canvas: Option<Vec<Vec<Pick>>>,
    wants: &[Want<'_>],
) -> Result<Found, GroundError> {
    let (found, size) = match on_canvas {
        Some(found) => (Ok(found), frame.view.inner),
        None => match picture(frame) {
            Ok(picture) => (finder.find(&picture, wants), picture.size),
            Err(reason) => return Ok(Err(reason)),
        },
    };
    match found {
        Err(GroundError::Picture(reason)) => Ok(Err(reason.to_string())),
        found => Ok(Ok((GroundError::unless_all(found?, wants.len())?, size))),
    }
}

/// What reaches `least`, in source pixels, best first; of equals the one found first.
fn chosen(found: Vec<Pick>, least: f32, picture: Size, source: Size) -> Vec<Pick> {
    let (x, y) = (source.width as f32 / picture.width as f32, source.height as f32 / picture.height as f32);
    let mut picks: Vec<_> = found
        .into_iter()
        .filter(|pick| pick.score >= least)
        .filter_map(|pick| {
            let [x1, y1, x2, y2] = pick.bbox.corners();
            let bbox = BBox::new(x1 * x, y1 * y, x2 * x, y2 * y)?.clipped(source)?;
            Some(Pick { bbox, score: pick.score.clamp(0.0, 1.0) })
        })
        .collect();
    picks.sort_by(|a, b| b.score.total_cmp(&a.score));
    picks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_in_source_pixels_best_first_and_no_worse_than_asked() {
        let pick = |x: f32, score| Pick { bbox: BBox::new(x, 0.0, x + 10.0, 10.0).unwrap(), score };
        let found = vec![pick(0.0, 0.5), pick(20.0, 0.4), pick(30.0, 0.9), pick(95.0, 0.5), pick(1.0, f32::NAN)];
        let got = chosen(found, 0.5, Size::new(100, 50), Size::new(200, 200));
        let got: Vec<_> = got.iter().map(|pick| (pick.bbox.corners(), pick.score)).collect();
        assert_eq!(
            got,
            [([60.0, 0.0, 80.0, 40.0], 0.9), ([0.0, 0.0, 20.0, 40.0], 0.5), ([190.0, 0.0, 200.0, 40.0], 0.5),]
        );
    }
}

//! What a graph can do at once, tried rather than believed: axes that are declared free may have been baked in when a graph was
//! exported, and some attention operators take a mask for a length. What gives other numbers than one at a time is not used.

use super::{decoder::Decoder, plan::Rows, speech::Talk};
use crate::{
    ground::GroundError,
    types::{Rgb, Size},
};

/// What two runs of the same sums may differ by, of the largest number: half precision in another order. What is really wrong
/// is off by far more, since half of what is looked at in a trial is filling or another's.
const ROUNDING: f32 = 1e-2;

/// Whether these are the same numbers, but for rounding.
pub(super) fn alike(a: &[f32], b: &[f32]) -> bool {
    let largest = a.iter().map(|v| v.abs()).fold(0.0, f32::max);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= ROUNDING * largest)
}

/// Two pictures of different shapes with something on them: of even ones it would not show if they were mixed up.
pub(in crate::ground) fn pictures() -> [Rgb; 2] {
    [(Size::new(64, 64), 7_u32), (Size::new(128, 64), 11)].map(|(size, step)| {
        let byte = |i: u32| u8::try_from(i.wrapping_mul(step).wrapping_mul(2_654_435_761) >> 24).unwrap_or(0);
        Rgb { size, data: (0..).take(size.area() * 3).map(byte).collect::<Vec<_>>().into() }
    })
}

/// How the graph takes several answers at once, tried on two talks of different lengths.
pub(super) fn rows(decoder: &mut Decoder, short: &Talk, long: &Talk) -> Result<Rows, GroundError> {
    const SAID: [u32; 2] = [0, 1];
    if !decoder.takes_rows() {
        return Ok(Rows::Alone);
    }
    let mut alone = |talk: &Talk, said: u32| {
        let mut talk = talk.clone();
        talk.say(decoder, &[said])?;
        Ok::<_, GroundError>(talk.logits().to_vec())
    };
    let [same, other, longer] = [alone(short, SAID[0])?, alone(short, SAID[1])?, alone(long, SAID[1])?];
    let mut together = |second: &Talk, apart: [&[f32]; 2]| {
        let joined = Talk::join(decoder, vec![short.clone(), second.clone()]);
        let said = joined.and_then(|mut talk| talk.say(decoder, &SAID).map(|()| talk));
        said.is_ok_and(|talk| apart.iter().enumerate().all(|(row, apart)| alike(apart, talk.next(row))))
    };
    Ok(match together(short, [&same, &other]) {
        false => Rows::Alone,
        true if together(long, [&same, &longer]) => Rows::Any,
        true => Rows::Alike,
    })
}

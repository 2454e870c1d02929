//! OFA: `<bin_x1> <bin_y1> <bin_x2> <bin_y2>`, x first, no label.
//!
//! `data/mm_data/refcoco_dataset.py`: `bin = round(x_resized / max_image_size · (bins − 1))`, halves to even
//! (`torch.round`), 1000 bins. **Divided by the largest image size (512), not by the picture's own side**; as
//! `utils/transforms.py` resizes short side and long side both to 512, the picture is stretched over the square and the
//! two agree, but a picture resized otherwise needs its own size. Token to bin: `id − len(dictionary) + 1000`.
//! The caller knows the label, for it is in the [`prompt`]; the answer has none.

use super::{
    Automaton, RawBox, Stream, checked, quantised,
    tags::{Part, Tags, number},
    tally::{Piece, Tally},
};
use crate::types::Size;

const BINS: u32 = 1000;

/// The prompt that asks for `text`, leading space and all.
pub fn prompt(text: &str) -> String {
    format!(" which region does the text \" {text} \" describe?")
}

/// What the bins are fractions of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// `max_image_size` of the checkpoint.
    pub max_image_size: u32,
    /// The size the picture was resized to.
    pub resized: Size,
}

impl Default for Scale {
    /// 512 by 512, as every published OFA.
    fn default() -> Self {
        Self { max_image_size: 512, resized: Size::new(512, 512) }
    }
}

impl Scale {
    /// Fraction of the image in one whole `max_image_size`, `(x, y)`.
    fn per_whole(self) -> (f64, f64) {
        let max = f64::from(self.max_image_size);
        (max / f64::from(self.resized.width), max / f64::from(self.resized.height))
    }
}

/// Reads one answer of OFA.
pub type Ofa = Stream<Bins>;

impl Ofa {
    /// A codec for pictures of this scale.
    pub fn new(scale: Scale) -> Self {
        Stream::over(Bins { scale, tags: Tags::default(), run: Vec::new(), tally: Tally::default() })
    }
}

/// The four bins of a box, x first.
pub fn quantise(scale: Scale, fractions: [f32; 4]) -> [u32; 4] {
    let (x, y) = scale.per_whole();
    let bin = |f: f32, per: f64| quantised(f, f64::from(BINS - 1) / per, BINS - 1);
    [bin(fractions[0], x), bin(fractions[1], y), bin(fractions[2], x), bin(fractions[3], y)]
}

/// Writes a box as the model would.
pub fn encode(scale: Scale, fractions: [f32; 4]) -> String {
    quantise(scale, fractions).map(|bin| format!("<bin_{bin}>")).join(" ")
}

/// The automaton of [`Ofa`].
#[derive(Debug, Clone)]
pub struct Bins {
    scale: Scale,
    tags: Tags,
    run: Vec<u32>,
    tally: Tally,
}

impl Automaton for Bins {
    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>) {
        let Self { scale, tags, run, tally } = self;
        tags.step(c, piece, |part| match part {
            Part::Tag(tag, pieces) => match number(tag, "bin_").filter(|n| *n < BINS) {
                Some(bin) => {
                    run.push(bin);
                    tally.touch_all(pieces);
                    if let &[x1, y1, x2, y2] = run.as_slice() {
                        let (x, y) = scale.per_whole();
                        let f = |bin: u32, per: f64| f64::from(bin) / f64::from(BINS - 1) * per;
                        let fractions = checked([f(x1, x), f(y1, y), f(x2, x), f(y2, y)]);
                        out.extend(fractions.map(|fractions| RawBox {
                            label: String::new(),
                            fractions,
                            score: tally.score(),
                        }));
                        run.clear();
                        *tally = Tally::default();
                    }
                }
                None => run.clear(),
            },
            Part::Char(c) if c.is_whitespace() => {}
            Part::Char(_) => run.clear(),
        });
        if run.is_empty() {
            *tally = Tally::default();
        }
    }

    fn end(&mut self, _out: &mut Vec<RawBox>) {
        self.run.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};

    fn read(scale: Scale, text: &str) -> Vec<RawBox> {
        Ofa::new(scale).push(text, Some(0.5))
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn bins_are_fractions_of_the_largest_size_not_of_the_picture() {
        let text = "<bin_0> <bin_0> <bin_999> <bin_999>";
        assert_eq!(read(Scale::default(), text)[0].fractions, [0.0, 0.0, 1.0, 1.0]);
        // A picture resized to 1024x512 has its right half beyond the last bin.
        let wide = Scale { max_image_size: 512, resized: Size::new(1024, 512) };
        assert_eq!(read(wide, text)[0].fractions, [0.0, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn the_prompt_keeps_its_spaces() {
        assert_eq!(prompt("a cat"), " which region does the text \" a cat \" describe?");
    }

    #[test]
    fn halves_round_to_even() {
        // 256.256.. px of 512 is bin 500.0; 0.5 bins: 1/1998 of the side.
        let f = |bins: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "test")]
            let f = (bins / 999.0) as f32;
            f
        };
        assert_eq!(quantise(Scale::default(), [f(2.4), f(2.6), f(500.0), 7.0]), [2, 3, 500, 999]);
        let exact = Scale { max_image_size: 999, resized: Size::new(999 * 2, 999 * 2) };
        assert_eq!(quantise(exact, [0.25 / 999.0, 0.75 / 999.0, 1.25 / 999.0, 1.0]), [0, 2, 2, 999]);
    }

    #[test]
    fn four_bins_in_a_row_or_nothing() {
        assert_eq!(read(Scale::default(), "<bin_1> <bin_2> <bin_3>"), []);
        assert_eq!(read(Scale::default(), "<bin_1> <bin_2> x <bin_3> <bin_4>"), []);
        assert_eq!(read(Scale::default(), "<bin_1><bin_2></s><bin_3><bin_4>"), []);
        assert_eq!(read(Scale::default(), "<bin_1><bin_2><bin_1000><bin_4>"), []);
        let got = read(Scale::default(), "<bin_1><bin_2><bin_3><bin_4>");
        assert!((got[0].score.unwrap() - 0.5).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_half_a_bin(
            x in 0.0f32..0.8, y in 0.0f32..0.8, w in 0.01f32..0.2, h in 0.01f32..0.2,
        ) {
            let fractions = [x, y, x + w, y + h];
            let got = read(Scale::default(), &encode(Scale::default(), fractions));
            for (a, b) in got[0].fractions.iter().zip(fractions) {
                prop_assert!((a - b).abs() <= 0.501 / 999.0);
            }
        }
    }
}

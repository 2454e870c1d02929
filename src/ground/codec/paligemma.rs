//! `PaliGemma`: `<locY1><locX1><locY2><locX2> label ; …`, 1024 bins, **y first**.
//!
//! Training writes `round(v · 1023)` with four digits (`big_vision/pp/proj/paligemma`); reading divides by 1024, as the
//! authors' own demo does with
//! `(.*?)<loc(\d{4})>×4\s*(<seg(\d{3})>×16)?\s*([^;<>]+)? ?(; )?`, so the round trip is exact only to a bin and a half.
//! Segmentation tokens are skipped. A label ends with `;`, the next tag or the text, so the last box of an answer comes
//! out with [`finish`](super::Codec::finish).

use super::{
    Automaton, MAX_LABEL, RawBox, Stream, checked, quantised,
    tags::{Part, Tags, number},
    tally::{Piece, Tally},
};

const BINS: u32 = 1024;

/// The prompt that asks for `labels`.
pub fn prompt(labels: &[&str]) -> String {
    format!("detect {}\n", labels.join(" ; "))
}

/// The bin of each corner, y first.
pub fn quantise(fractions: [f32; 4]) -> [u32; 4] {
    let [x1, y1, x2, y2] = fractions.map(|f| quantised(f, f64::from(BINS - 1), BINS - 1));
    [y1, x1, y2, x2]
}

/// Writes boxes as the model would.
pub fn encode(boxes: &[(&str, [f32; 4])]) -> String {
    let one = |(label, fractions): &(&str, [f32; 4])| {
        format!("{} {label}", quantise(*fractions).map(|bin| format!("<loc{bin:04}>")).concat())
    };
    boxes.iter().map(one).collect::<Vec<_>>().join(" ; ")
}

/// Reads one answer of `PaliGemma`.
pub type PaliGemma = Stream<Locations>;

impl Default for PaliGemma {
    fn default() -> Self {
        Stream::over(Locations { tags: Tags::default(), state: State::default() })
    }
}

/// The automaton of [`PaliGemma`].
#[derive(Debug, Clone)]
pub struct Locations {
    tags: Tags,
    state: State,
}

#[derive(Debug, Clone, Default)]
struct State {
    run: Vec<u32>,
    tally: Tally,
    /// The label of the box in `run`, while it has all four corners.
    label: String,
}

impl Automaton for Locations {
    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>) {
        let Self { tags, state } = self;
        tags.step(c, piece, |part| match part {
            Part::Char(';' | '<' | '>') => state.close(out),
            Part::Char(c) => state.text(c),
            Part::Tag(tag, pieces) => match location(tag) {
                Some(bin) => {
                    if state.run.len() == 4 {
                        state.close(out);
                    }
                    state.run.push(bin);
                    state.tally.touch_all(pieces);
                }
                None if is_segment(tag) && state.run.len() == 4 && state.label.trim().is_empty() => {}
                None => state.close(out),
            },
        });
    }

    fn end(&mut self, out: &mut Vec<RawBox>) {
        self.state.close(out);
    }
}

impl State {
    fn text(&mut self, c: char) {
        if self.run.len() < 4 {
            // The four corners stand together; text in between makes them none.
            *self = Self::default();
        } else if self.label.len() <= MAX_LABEL {
            self.label.push(c);
        }
    }

    fn close(&mut self, out: &mut Vec<RawBox>) {
        let State { run, tally, label } = std::mem::take(self);
        let &[y1, x1, y2, x2] = run.as_slice() else { return };
        if label.len() > MAX_LABEL {
            return;
        }
        let fractions = checked([x1, y1, x2, y2].map(|bin| f64::from(bin) / f64::from(BINS)));
        out.extend(fractions.map(|fractions| RawBox {
            label: label.trim().to_owned(),
            fractions,
            score: tally.score(),
        }));
    }
}

/// The bin of `loc0000` to `loc1023`.
fn location(tag: &str) -> Option<u32> {
    number(tag, "loc").filter(|bin| tag.len() == 7 && *bin < BINS)
}

/// `seg000` to `seg127`.
fn is_segment(tag: &str) -> bool {
    tag.len() == 6 && number(tag, "seg").is_some_and(|n| n < 128)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};

    fn read(text: &str) -> Vec<(String, [f32; 4])> {
        let mut codec = PaliGemma::default();
        let mut out = codec.push(text, None);
        out.extend(codec.finish());
        out.into_iter().map(|b| (b.label, b.fractions.map(|f| f * 1024.0))).collect()
    }

    #[test]
    fn y_comes_first_and_semicolons_part_the_boxes() {
        let text = "<loc0200><loc0100><loc0400><loc0300> cat ; <loc0000><loc0000><loc1023><loc0512> big dog";
        assert_eq!(
            read(text),
            [("cat".into(), [100.0, 200.0, 300.0, 400.0]), ("big dog".into(), [0.0, 0.0, 512.0, 1023.0])]
        );
    }

    #[test]
    fn a_box_comes_out_when_its_label_has_ended() {
        let mut codec = PaliGemma::default();
        assert_eq!(codec.push("<loc0001><loc0001><loc0002><loc0002> cat", Some(0.5)), []);
        assert_eq!(codec.push(" ;", Some(0.1)).len(), 1);
        assert_eq!(codec.finish(), []);
    }

    #[test]
    fn segmentation_tokens_are_skipped() {
        let segments = "<seg000><seg127>".repeat(8);
        let text = format!("<loc0001><loc0002><loc0003><loc0004>{segments} cat<eos>");
        assert_eq!(read(&text), [("cat".into(), [2.0, 1.0, 4.0, 3.0])]);
    }

    #[test]
    fn boxes_without_names_and_debris() {
        let four = "<loc0001><loc0002><loc0003><loc0004>";
        assert_eq!(read(&format!("{four}{four}")).len(), 2);
        assert_eq!(read("<loc0001><loc0002><loc0003> cat"), []);
        assert_eq!(read("<loc0001><loc0002> <loc0003><loc0004> cat"), []);
        assert_eq!(read("<loc0001><loc0002><loc0003><loc1024> cat"), []);
        assert_eq!(read("<loc001><loc002><loc003><loc004> cat"), []);
        assert_eq!(read(&format!("sure: {four} a; nothing else")), [("a".into(), [2.0, 1.0, 4.0, 3.0])]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_a_bin_and_a_half(
            boxes in proptest::collection::vec(
                ("[a-z ]{0,12}", 0.0f32..0.8, 0.0f32..0.8, 0.01f32..0.2, 0.01f32..0.2), 0..5),
        ) {
            let given: Vec<_> = boxes.iter().map(|(l, x, y, w, h)| (l.as_str(), [*x, *y, x + w, y + h])).collect();
            let mut codec = PaliGemma::default();
            let mut got = codec.push(&encode(&given), None);
            got.extend(codec.finish());
            prop_assert_eq!(got.len(), given.len());
            for (raw, (label, fractions)) in got.iter().zip(&given) {
                prop_assert_eq!(raw.label.as_str(), label.trim());
                for (a, b) in raw.fractions.iter().zip(fractions) {
                    prop_assert!((a - b).abs() <= 1.5 / 1023.0);
                }
            }
        }
    }
}

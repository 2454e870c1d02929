//! Florence-2: `label<loc_x1><loc_y1><loc_x2><loc_y2>`, thousandths of the image, several boxes to a label.
//!
//! After `processing_florence2.py` (transformers 4.57.1): `q = clamp(⌊x / (W/1000)⌋, 0, 999)`, back
//! `(q + 0.5) · W/1000`, y with H. There the result is truncated to whole pixels; here, as in transformers.js, it is
//! not. `<s>`, `</s>` and `<pad>` count as absent. A label is the text right before the first `<loc_…>`; it must not
//! break lines, loses its non-ASCII characters, and holds for all boxes that follow without a gap. The model has no task
//! for one referred box; it is asked to ground a caption's phrases, of which pronouns and their like are dropped ([`BANNED`]).
//!
//! Two things are stricter than the original, which reads such debris as labels (`loc_7>cat`): a run that follows a
//! broken run or an unknown tag without text in between has no label, and without one there is no box.

use super::{
    Automaton, MAX_LABEL, RawBox, Stream, checked, clamped,
    tags::{Part, Tags, number},
    tally::{Piece, Tally},
};

const BINS: f64 = 1000.0;

/// The prompt that asks for the phrases of `caption` (`<CAPTION_TO_PHRASE_GROUNDING>`).
pub fn prompt(caption: &str) -> String {
    format!("Locate the phrases in the caption: {}", caption.trim())
}

/// Phrases that phrase grounding drops: `banned_grounding_tokens` of the published processors
/// (`convert_florence2_original_pytorch_to_hf.py`). Case counts.
#[rustfmt::skip]
pub const BANNED: &[&str] = &[
    "I", "a", "a group", "a set", "all", "an", "another", "any", "anybody", "anyone", "anything", "each",
    "each other", "everybody", "everyone", "everything", "few", "he", "her", "hers", "herself", "him", "himself",
    "his", "image", "images", "it", "its", "itself", "lots", "many", "me", "mine", "myself", "nobody", "none", "one",
    "one another", "oneself", "other objects", "our", "ours", "ourselves", "several", "she", "some", "somebody",
    "someone", "something", "that", "the", "the image", "their", "theirs", "them", "themselves", "these", "they",
    "this", "those", "us", "we", "what", "which", "who", "whom", "whose", "you", "your", "yours", "yourself",
    "yourselves",
];

/// The bin of each corner.
pub fn quantise(fractions: [f32; 4]) -> [u32; 4] {
    fractions.map(|f| clamped((f64::from(f) * BINS).floor(), 999))
}

/// Writes a label and its boxes as the model would.
pub fn encode(label: &str, boxes: &[[f32; 4]]) -> String {
    let bins = boxes.iter().flat_map(|b| quantise(*b)).map(|bin| format!("<loc_{bin}>"));
    std::iter::once(label.to_owned()).chain(bins).collect()
}

/// Reads one answer of Florence-2.
pub type Florence = Stream<Locations>;

impl Default for Florence {
    fn default() -> Self {
        Stream::over(Locations { tags: Tags::default(), state: State::default() })
    }
}

/// The automaton of [`Florence`].
#[derive(Debug, Clone)]
pub struct Locations {
    tags: Tags,
    state: State,
}

impl Automaton for Locations {
    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>) {
        let Self { tags, state } = self;
        tags.step(c, piece, |part| match part {
            Part::Char(c) => state.text(c),
            Part::Tag("s" | "/s" | "pad", _) => {}
            Part::Tag(tag, pieces) => match number(tag, "loc_") {
                Some(bin) => out.extend(state.location(bin, pieces)),
                None => *state = State::default(),
            },
        });
    }

    fn end(&mut self, _out: &mut Vec<RawBox>) {
        self.state = State::default();
    }
}

#[derive(Debug, Clone, Default)]
struct State {
    /// Text since the last tag; what the boxes are called.
    label: String,
    /// A location has followed the label: the next text starts another.
    labelled: bool,
    /// Corners of the box under way.
    run: Vec<u32>,
    tally: Tally,
}

impl State {
    fn text(&mut self, c: char) {
        if self.labelled {
            *self = Self::default();
        }
        // One character over the limit marks the label as too long.
        if self.label.len() <= MAX_LABEL {
            self.label.push(c);
        }
    }

    fn location(&mut self, bin: u32, pieces: &[Piece]) -> Option<RawBox> {
        self.labelled = true;
        self.run.push(bin);
        self.tally.touch_all(pieces);
        let &[x1, y1, x2, y2] = self.run.as_slice() else { return None };
        self.run.clear();
        let score = std::mem::take(&mut self.tally).score();
        let fractions = checked([x1, y1, x2, y2].map(|bin| (f64::from(bin) + 0.5) / BINS))?;
        Some(RawBox { label: self.name()?, fractions, score })
    }

    /// What the boxes are called; `None` if that makes them no answer.
    fn name(&self) -> Option<String> {
        let usable = !self.label.is_empty() && self.label.len() <= MAX_LABEL;
        let one_line = !self.label.trim_start().contains('\n');
        let name = self.label.trim();
        let named = usable && one_line && !BANNED.contains(&name);
        named.then(|| name.chars().filter(char::is_ascii).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};

    fn read(text: &str) -> Vec<(String, [f32; 4])> {
        let mut codec = Florence::default();
        let mut out = codec.push(text, None);
        out.extend(codec.finish());
        // Bins again: easier to compare.
        out.into_iter().map(|b| (b.label, b.fractions.map(|f| (f * 1000.0 - 0.5).round()))).collect()
    }

    #[test]
    fn boxes_share_their_label() {
        let text = "</s><s>car<loc_54><loc_375><loc_906><loc_707>door<loc_710><loc_276><loc_908><loc_537><loc_1><loc_2>\
                    <loc_3><loc_4><loc_5>wheel<loc_708></s>";
        assert_eq!(
            read(text),
            [
                ("car".into(), [54.0, 375.0, 906.0, 707.0]),
                ("door".into(), [710.0, 276.0, 908.0, 537.0]),
                ("door".into(), [1.0, 2.0, 3.0, 4.0])
            ]
        );
    }

    #[test]
    fn phrase_grounding_drops_pronouns_and_foreign_letters() {
        let box_ = "<loc_1><loc_2><loc_3><loc_4>";
        let text = format!("it{box_} The Image{box_}the image{box_}a Café{box_}");
        let names: Vec<_> = read(&text).into_iter().map(|b| b.0).collect();
        assert_eq!(names, ["The Image", "a Caf"]);
    }

    #[test]
    fn a_label_is_needed() {
        let bare = "<loc_1><loc_2><loc_3><loc_4>";
        assert_eq!(read(bare), []);
        assert_eq!(read(&format!("a\nb{bare}")), []);
        assert_eq!(read(&format!("{}{bare}", "x".repeat(MAX_LABEL + 1))), []);
    }

    #[test]
    fn the_prompt_is_what_the_model_was_trained_on() {
        assert_eq!(prompt(" a cat "), "Locate the phrases in the caption: a cat");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_half_a_bin(
            boxes in proptest::collection::vec(
                (0.0f32..0.8, 0.0f32..0.8, 0.01f32..0.2, 0.01f32..0.2), 1..5),
            label in "[a-z ]{1,12}",
        ) {
            let boxes: Vec<_> = boxes.into_iter().map(|(x, y, w, h)| [x, y, x + w, y + h]).collect();
            prop_assume!(!BANNED.contains(&label.trim()));
            let got = Florence::default().push(&encode(&label, &boxes), None);
            prop_assert_eq!(got.len(), boxes.len());
            for (raw, given) in got.iter().zip(&boxes) {
                prop_assert_eq!(raw.label.as_str(), label.trim());
                for (a, b) in raw.fractions.iter().zip(given) {
                    prop_assert!((a - b).abs() <= 0.501e-3);
                }
            }
        }
    }
}

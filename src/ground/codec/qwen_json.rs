//! Qwen2.5-VL and Qwen3-VL: `[{"bbox_2d": [x1, y1, x2, y2], "label": "x"}]`.
//!
//! The two share the text and **not the numbers**: Qwen2.5-VL counts pixels of the *resized* image the model saw
//! (`grid · patch`, arXiv 2502.13923 section 2.1), Qwen3-VL and Qwen3.5 thousandths of the image
//! (`cookbooks/2d_grounding.ipynb` of Qwen3-VL). Labels are lower-cased, as the official evaluation does
//! (`evaluation/ODinW-13`), which also scores every box 1.0; ours carry the token probability instead.
//!
//! What models really write is read as far as it is complete: objects anywhere in the text, in either kind of
//! quotes, up to the one that was cut off. A list of more or fewer than four numbers is skipped, an exact repetition of
//! an earlier box is dropped, and nothing counts between `<think>` and `</think>`.

use super::{
    Automaton, RawBox, Stream, checked, clamped,
    json::{Object, Objects},
    tally::Piece,
};
use crate::types::Size;

/// Most boxes remembered to recognise a repetition; no model writes more that mean anything.
const MAX_REMEMBERED: usize = 1024;

/// The prompt for every instance of some categories (Qwen3-VL, `evaluation/ODinW-13/dataset_utils.py`).
pub fn prompt(labels: &[&str]) -> String {
    format!(
        "Locate every instance that belongs to the following categories: '{}'. Report bbox coordinates in JSON format.",
        labels.join(", ")
    )
}

/// The prompt for one described thing (`cookbooks/2d_grounding.ipynb`).
pub fn prompt_one(text: &str) -> String {
    format!("Locate the {}, output its bbox coordinates using JSON format.", bare(text))
}

/// The prompt for a query: for all that it fits, unless it is plainly about one thing, or says what would be read as several
/// categories.
pub fn asked(text: &str) -> String {
    if means_one(text) || text.contains([',', '\'']) { prompt_one(text) } else { prompt(&[text]) }
}

/// Superlatives that cameras' queries are made of, and that do not end in `most`.
const SUPERLATIVES: [&str; 19] = [
    "largest", "biggest", "smallest", "tiniest", "tallest", "shortest", "longest", "widest", "highest", "lowest",
    "nearest", "closest", "farthest", "furthest", "darkest", "oldest", "youngest", "fastest", "slowest",
];

/// Whether a phrase is about one thing: `the red car`, `leftmost person`.
fn means_one(text: &str) -> bool {
    let text = text.trim_start().to_lowercase();
    let superlative = |word: &str| (word.ends_with("most") && word != "almost") || SUPERLATIVES.contains(&word);
    text.starts_with("the ") || text.split(|c: char| !c.is_alphanumeric()).any(superlative)
}

/// A phrase without the article it begins with.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let rest = text
        .split_once(char::is_whitespace)
        .filter(|(first, _)| ["the", "a", "an"].iter().any(|article| first.eq_ignore_ascii_case(article)));
    rest.map_or(text, |(_, rest)| rest.trim_start())
}

/// What the numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Qwen2.5-VL: pixels of the resized image, `(grid_w · 14, grid_h · 14)`.
    Pixels(Size),
    /// Qwen3-VL, Qwen3.5: thousandths of the image.
    Thousandths,
}

impl Unit {
    /// Units in the whole image, `(x, y)`.
    fn whole(self) -> (f64, f64) {
        match self {
            Self::Pixels(size) => (size.width.into(), size.height.into()),
            Self::Thousandths => (1000.0, 1000.0),
        }
    }
}

/// Reads one answer of Qwen2.5-VL or Qwen3-VL.
pub type QwenJson = Stream<JsonBoxes>;

impl QwenJson {
    /// A codec for an image whose numbers are in `unit`.
    pub fn new(unit: Unit) -> Self {
        Stream::over(JsonBoxes {
            unit,
            objects: Objects::new("bbox_2d", "label"),
            thinking: false,
            recent: String::new(),
            seen: Vec::new(),
        })
    }
}

/// Writes boxes as the model would: whole units, rounded.
pub fn encode(unit: Unit, boxes: &[(&str, [f32; 4])]) -> String {
    let (w, h) = unit.whole();
    let objects = boxes.iter().map(|(label, [x1, y1, x2, y2])| {
        let [x1, x2] = [x1, x2].map(|v| clamped((f64::from(*v) * w).round(), u32::MAX));
        let [y1, y2] = [y1, y2].map(|v| clamped((f64::from(*v) * h).round(), u32::MAX));
        let label = serde_json::Value::from(*label);
        format!("\t{{\"bbox_2d\": [{x1}, {y1}, {x2}, {y2}], \"label\": {label}}}")
    });
    let objects: Vec<_> = objects.collect();
    format!("```json\n[\n{}\n]\n```", objects.join(",\n"))
}

/// The automaton of [`QwenJson`].
#[derive(Debug, Clone)]
pub struct JsonBoxes {
    unit: Unit,
    objects: Objects,
    thinking: bool,
    /// The last few characters outside objects, to see `<think>` and `</think>`.
    recent: String,
    seen: Vec<(String, [f32; 4])>,
}

impl Automaton for JsonBoxes {
    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>) {
        if self.objects.inside() {
            self.recent.clear();
        } else {
            self.watch(c);
        }
        if self.thinking {
            return;
        }
        if let Some(object) = self.objects.step(c, piece) {
            out.extend(self.make(object));
        }
    }

    fn end(&mut self, _out: &mut Vec<RawBox>) {
        // What has not closed was cut off: a box from half an object would be an invention.
        self.objects.reset();
    }
}

impl JsonBoxes {
    fn watch(&mut self, c: char) {
        const OPEN: &str = "<think>";
        const CLOSE: &str = "</think>";
        if c == '<' {
            self.recent.clear();
        }
        self.recent.push(c);
        if self.recent == OPEN {
            self.thinking = true;
        } else if self.recent == CLOSE {
            self.thinking = false;
        } else if !OPEN.starts_with(&*self.recent) && !CLOSE.starts_with(&*self.recent) {
            self.recent.clear();
        }
    }

    fn make(&mut self, object: Object) -> Option<RawBox> {
        let &[x1, y1, x2, y2] = object.list.as_deref()? else { return None };
        let (w, h) = self.unit.whole();
        let fractions = checked([x1 / w, y1 / h, x2 / w, y2 / h])?;
        let label = object.text.unwrap_or_default().trim().to_lowercase();
        let key = (label.clone(), fractions);
        if self.seen.contains(&key) {
            return None;
        }
        if self.seen.len() < MAX_REMEMBERED {
            self.seen.push(key);
        }
        Some(RawBox { label, fractions, score: object.tally.score() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};

    fn read(unit: Unit, text: &str) -> Vec<RawBox> {
        let mut codec = QwenJson::new(unit);
        let mut out = codec.push(text, None);
        out.extend(codec.finish());
        out
    }

    fn thousandths(text: &str) -> Vec<(String, [f32; 4])> {
        let boxes = read(Unit::Thousandths, text);
        boxes.into_iter().map(|b| (b.label, b.fractions.map(|f| (f * 1000.0).round()))).collect()
    }

    #[test]
    fn prompts_are_those_of_the_evaluation() {
        assert_eq!(
            prompt(&["cat", "red car"]),
            "Locate every instance that belongs to the following categories: 'cat, red car'. Report bbox coordinates in \
             JSON format."
        );
        for text in ["red car", "the red car", "A red car", " an  red car"] {
            let expected = "Locate the red car, output its bbox coordinates using JSON format.";
            assert_eq!(prompt_one(text), expected, "{text}");
        }
    }

    #[test]
    fn all_that_fits_is_asked_for_unless_one_is_meant() {
        for text in ["the red car", "The  dog", "leftmost person", "man in front, the Tallest", "a nearest bus"] {
            assert_eq!(asked(text), prompt_one(text), "{text}");
        }
        assert_eq!(asked("person in red, with a hat"), prompt_one("person in red, with a hat"));
        for text in ["person", "a man next to the van", "theatre", "person in a vest", "almost-new bus", ""] {
            assert_eq!(asked(text), prompt(&[text]), "{text}");
        }
    }

    #[test]
    fn the_units_differ() {
        let text = r#"```json
[{"bbox_2d": [280, 0, 560, 224], "label": "Cat"}]
```"#;
        let pixels = read(Unit::Pixels(Size::new(1120, 448)), text);
        assert_eq!(pixels, [RawBox { label: "cat".into(), fractions: [0.25, 0.0, 0.5, 0.5], score: None }]);
        assert_eq!(thousandths(text), [("cat".into(), [280.0, 0.0, 560.0, 224.0])]);
    }

    #[test]
    fn what_models_really_write_is_read() {
        let cat = ("cat".to_owned(), [10.0, 20.0, 30.0, 40.0]);
        for text in [
            r#"{"bbox_2d": [10, 20, 30, 40], "label": "cat"}"#,
            "[{'bbox_2d': [10, 20, 30, 40], 'label': 'Cat'}]",
            r#"[{"bbox_2d": ["10", "20.0", 30.0, " 40 "], "label": "cat"}]"#,
            r#"[{"bbox_2d": [30, 40, 10, 20], "label": "cat"}]"#,
            r#"[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}, {"bbox_2d": [1, 2, 3"#,
            r#"[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}, {"bbox_2d": [10, 20, 30, 40], "label": "cat"}]"#,
            r#"[{"bbox_2d": [1, 2, 3], "label": "x"}, {"bbox_2d": [10,20,30,40], "label": "cat"}]"#,
            r#"<think>{"bbox_2d": [1, 2, 3, 4], "label": "no"}</think>{"bbox_2d": [10,20,30,40], "label": "cat"}"#,
        ] {
            assert_eq!(thousandths(text), std::slice::from_ref(&cat), "{text}");
        }
        assert_eq!(thousandths("[]"), []);
        assert_eq!(thousandths("There are none."), []);
    }

    #[test]
    fn the_image_is_the_limit() {
        assert_eq!(
            thousandths(r#"{"bbox_2d": [-50, 900, 500, 1200]}"#),
            [(String::new(), [0.0, 900.0, 500.0, 1000.0])]
        );
        assert_eq!(thousandths(r#"{"bbox_2d": [1100, 0, 1200, 50]}"#), []);
        assert_eq!(thousandths(r#"{"bbox_2d": [5, 5, 5, 50]}"#), []);
        let nowhere = r#"{"bbox_2d": [1, 2, 3, 4]}"#;
        assert_eq!(read(Unit::Pixels(Size::new(0, 0)), nowhere), []);
    }

    #[test]
    fn a_thinking_model_is_heard_when_it_has_thought() {
        let object = r#"{"bbox_2d": [1, 2, 3, 4], "label": "a"}"#;
        assert_eq!(thousandths(&format!("<think>{object}")), []);
        let text = format!("<think>{{ maybe {object} <b></think>{object}");
        assert_eq!(thousandths(&text).len(), 1);
    }

    #[test]
    fn a_box_comes_out_with_its_closing_brace_and_the_score_of_its_numbers() {
        let mut codec = QwenJson::new(Unit::Thousandths);
        for (piece, prob) in [("[{\"", 0.1), ("bbox_2d", 0.1), ("\": [", 0.1), ("1", 0.9), (",", 0.1), (" 2", 0.4)] {
            assert_eq!(codec.push(piece, Some(prob)), []);
        }
        for (piece, prob) in [(", ", 0.1), ("3", 0.9), (",", 0.1), ("4", 0.4), ("], \"label\": \"a\"", 0.1)] {
            assert_eq!(codec.push(piece, Some(prob)), []);
        }
        let got = codec.push("}", Some(0.1));
        assert!((got[0].score.unwrap() - 0.6).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_half_a_unit(
            boxes in proptest::collection::vec(
                ("[a-z\"'{}\\[\\] ]{0,12}", 0.0f32..0.8, 0.0f32..0.8, 0.01f32..0.2, 0.01f32..0.2), 0..6),
            (gw, gh) in (20u32..80, 20u32..80),
        ) {
            for unit in [Unit::Thousandths, Unit::Pixels(Size::new(gw * 28, gh * 28))] {
                let given: Vec<_> =
                    boxes.iter().map(|(l, x, y, w, h)| (l.as_str(), [*x, *y, x + w, y + h])).collect();
                let got = read(unit, &encode(unit, &given));
                prop_assert_eq!(got.len(), given.len());
                let (w, h) = unit.whole();
                for (raw, (label, fractions)) in got.iter().zip(&given) {
                    prop_assert_eq!(raw.label.as_str(), label.trim());
                    for (i, (a, b)) in raw.fractions.iter().zip(fractions).enumerate() {
                        let units = if i % 2 == 0 { w } else { h };
                        prop_assert!((f64::from(a - b) * units).abs() < 0.501);
                    }
                }
            }
        }
    }
}

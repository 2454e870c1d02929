//! Qwen-VL and Qwen2-VL: `<ref>dog</ref><box>(x1,y1),(x2,y2)</box>`, numbers in thousandths of the image.
//!
//! Qwen-VL (arXiv 2308.12966, section 2.2) writes `<ref> </ref> <box> </box>`; Qwen2-VL (arXiv 2409.12191, section
//! 2.2.1) writes `<|object_ref_start|> … <|object_ref_end|>` and `<|box_start|> … <|box_end|>` with numbers in
//! `[0, 1000)`. **Neither is in pixels**; only Qwen2.5-VL is. A name holds for every box up to the next name, as in
//! Qwen-VL's own `_fetch_latest_ref` (`tokenization_qwen.py`). Labels keep their case.
//!
//! Neither paper gives the rounding; [`encode`] truncates, which keeps to `[0, 1000)`.

use super::{
    Automaton, MAX_LABEL, RawBox, Stream, checked, clamped,
    tags::{Part, Tags},
    tally::{Piece, Tally},
};

/// Longest text inside a box: four numbers with room for spaces.
const MAX_BOX: usize = 64;

/// Which markers the model was taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `<ref>`, `<box>`.
    QwenVl,
    /// `<|object_ref_start|>`, `<|box_start|>`.
    Qwen2Vl,
}

impl Dialect {
    /// Name opens, name closes, box opens, box closes; without the angle brackets.
    fn markers(self) -> [&'static str; 4] {
        match self {
            Self::QwenVl => ["ref", "/ref", "box", "/box"],
            Self::Qwen2Vl => ["|object_ref_start|", "|object_ref_end|", "|box_start|", "|box_end|"],
        }
    }
}

/// Reads one answer of Qwen-VL or Qwen2-VL.
pub type QwenBox = Stream<Boxes>;

impl QwenBox {
    /// A codec for `dialect`.
    pub fn new(dialect: Dialect) -> Self {
        Stream::over(Boxes { dialect, tags: Tags::default(), state: State::Between, label: String::new() })
    }
}

/// Writes a box as the model would; `fractions` is `[x1, y1, x2, y2]` of the image.
pub fn encode(dialect: Dialect, label: &str, fractions: [f32; 4]) -> String {
    let [x1, y1, x2, y2] = fractions.map(|f| clamped((f64::from(f) * 1000.0).floor(), 999));
    let [r, end_r, b, end_b] = dialect.markers();
    format!("<{r}>{label}<{end_r}><{b}>({x1},{y1}),({x2},{y2})<{end_b}>")
}

/// The automaton of [`QwenBox`].
#[derive(Debug, Clone)]
pub struct Boxes {
    dialect: Dialect,
    tags: Tags,
    state: State,
    /// The latest name.
    label: String,
}

#[derive(Debug, Clone)]
enum State {
    Between,
    Name(String),
    Box(String, Tally),
}

impl Automaton for Boxes {
    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>) {
        let Self { dialect, tags, state, label } = self;
        tags.step(c, piece, |part| match part {
            Part::Char(c) => state.text(c, piece),
            Part::Tag(tag, _) => state.tag(tag, *dialect, label, out),
        });
    }

    fn end(&mut self, _out: &mut Vec<RawBox>) {
        self.state = State::Between;
    }
}

impl State {
    fn text(&mut self, c: char, piece: Piece) {
        let (text, limit) = match self {
            Self::Between => return,
            Self::Name(text) => (text, MAX_LABEL),
            Self::Box(text, tally) => {
                if c.is_ascii_digit() {
                    tally.touch(piece);
                }
                (text, MAX_BOX)
            }
        };
        if text.len() >= limit {
            *self = Self::Between;
        } else {
            text.push(c);
        }
    }

    fn tag(&mut self, tag: &str, dialect: Dialect, label: &mut String, out: &mut Vec<RawBox>) {
        let [open_name, close_name, open_box, close_box] = dialect.markers();
        let state = std::mem::replace(self, Self::Between);
        if tag == open_name {
            label.clear();
            *self = Self::Name(String::new());
        } else if tag == open_box {
            *self = Self::Box(String::new(), Tally::default());
        } else {
            match state {
                Self::Name(name) if tag == close_name => name.trim().clone_into(label),
                Self::Box(text, tally) if tag == close_box => {
                    let fractions = corners(&text).and_then(|v| checked(v.map(|v| f64::from(v) / 1000.0)));
                    out.extend(fractions.map(|fractions| RawBox {
                        label: label.clone(),
                        fractions,
                        score: tally.score(),
                    }));
                }
                _ => {}
            }
        }
    }
}

/// The four numbers of `(x1,y1),(x2,y2)`; spaces are allowed between, nothing else.
fn corners(text: &str) -> Option<[u32; 4]> {
    let mut rest = text.trim();
    let mut out = [0; 4];
    for (i, value) in out.iter_mut().enumerate() {
        if i == 2 {
            rest = rest.strip_prefix(',')?.trim_start();
        }
        let (open, close) = if i % 2 == 0 { ('(', ',') } else { (' ', ')') };
        if open == '(' {
            rest = rest.strip_prefix(open)?.trim_start();
        }
        let (digits, after) = rest.split_once(close)?;
        *value = super::tags::number(digits.trim(), "")?;
        rest = after.trim_start();
    }
    rest.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};

    fn read(dialect: Dialect, text: &str) -> Vec<RawBox> {
        let mut codec = QwenBox::new(dialect);
        let mut out = codec.push(text, None);
        out.extend(codec.finish());
        out
    }

    #[test]
    fn a_name_holds_for_all_its_boxes() {
        let text = "I see <ref> Two dogs</ref><box>(100,200),(300,400)</box><box>(0,0),(500,500)</box> and \
                    <ref>a cat</ref><box>(1, 2), (3, 4)</box>.";
        let got: Vec<_> = read(Dialect::QwenVl, text)
            .into_iter()
            .map(|b| (b.label, b.fractions.map(|f| (f * 1e3).round())))
            .collect();
        assert_eq!(
            got,
            [
                ("Two dogs".into(), [100.0, 200.0, 300.0, 400.0]),
                ("Two dogs".into(), [0.0, 0.0, 500.0, 500.0]),
                ("a cat".into(), [1.0, 2.0, 3.0, 4.0])
            ]
        );
    }

    #[test]
    fn the_dialects_do_not_read_each_other() {
        let text = encode(Dialect::Qwen2Vl, "x", [0.1, 0.1, 0.2, 0.2]);
        assert_eq!(text, "<|object_ref_start|>x<|object_ref_end|><|box_start|>(100,100),(200,200)<|box_end|>");
        assert_eq!(read(Dialect::QwenVl, &text), []);
        assert_eq!(read(Dialect::Qwen2Vl, &text).len(), 1);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn reversed_corners_are_swapped_and_the_rest_is_cut_off() {
        let got = read(Dialect::QwenVl, "<box>(900,800),(100,2000)</box>");
        assert_eq!(got[0].fractions, [0.1, 0.8, 0.9, 1.0]);
    }

    #[test]
    fn anything_but_four_numbers_is_no_box() {
        for inner in [
            "",
            "(1,2)",
            "(1,2),(3,4),(5,6)",
            "(1,2)(3,4)",
            "1,2,3,4",
            "(1,2),(1,9)",
            "(-1,2),(3,4)",
            "(1,2),(3,x)",
            "(1,2),(3,4) a",
        ] {
            assert_eq!(read(Dialect::QwenVl, &format!("<box>{inner}</box>")), [], "{inner}");
        }
        assert_eq!(read(Dialect::QwenVl, "<box>(1,2),(3,4)"), []);
        assert_eq!(read(Dialect::QwenVl, "<box>(1,2),(3,4)</ref>"), []);
        assert_eq!(read(Dialect::QwenVl, "(1,2),(3,4)</box>"), []);
    }

    #[test]
    fn the_score_is_that_of_the_digits() {
        let mut codec = QwenBox::new(Dialect::QwenVl);
        let mut got = Vec::new();
        for (piece, prob) in [("<box>", 0.01), ("(", 0.01), ("1", 0.9), (",", 0.01), ("1", 0.4), ("),(", 0.01)] {
            got.extend(codec.push(piece, Some(prob)));
        }
        for (piece, prob) in [("90", 0.9), (",", 0.01), ("90", 0.4), (")", 0.01), ("</box>", 0.01)] {
            got.extend(codec.push(piece, Some(prob)));
        }
        assert!((got[0].score.unwrap() - 0.6).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_a_thousandth(
            x in 0.0f32..0.9, y in 0.0f32..0.9, w in 0.002f32..0.1, h in 0.002f32..0.1, label in "[a-zA-Z ]{0,12}",
        ) {
            let fractions = [x, y, x + w, y + h];
            for dialect in [Dialect::QwenVl, Dialect::Qwen2Vl] {
                let got = read(dialect, &encode(dialect, &label, fractions));
                prop_assert_eq!(&got[0].label, label.trim());
                for (a, b) in got[0].fractions.iter().zip(fractions) {
                    prop_assert!((a - b).abs() <= 1.001e-3);
                }
            }
        }
    }
}

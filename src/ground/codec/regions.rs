//! VLM-FO1 and VLX-Seek: `<ground>dog</ground><objects><region3><region7></objects>`, indexes of regions that were offered.
//!
//! A box is one of those the prompt offered, never a new one: an index beyond them is no box (the originals fail on one,
//! or skip it), and one named twice for the same label counts once, as in the original's set of indexes
//! (`extract_predictions_to_indexes` of VLM-FO1's `mm_utils.py`, `_build_result_bbox_list` of VLX-Seek's
//! `vlx_seek_worker.py`). VLX-Seek writes `<objN>`, allows white space between the two parts and line breaks in a label;
//! VLM-FO1 allows neither. What is absent is told by `None` in the list, by no list, or by an empty one.
//!
//! The originals read whole answers and drop a list whose end was cut off; here an object counts once its own tag is
//! complete.
//!
//! The score of a box is the probability of the piece, or the geometric mean of the pieces, that its index came in.

use super::{
    Automaton, MAX_LABEL, RawBox, Stream,
    tags::{Part, Tags, number},
    tally::{Piece, Tally},
};

/// Most regions a prompt can offer: the vocabularies have index tokens from 0 to 99.
pub const MOST: usize = 100;
/// Labels of one answer whose indexes are kept apart; further ones are not read.
const MOST_LABELS: usize = 64;

/// How the two families name a region and ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `<region0>`.
    Fo1,
    /// `<obj0>`.
    VlxSeek,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Self::Fo1 => "region",
            Self::VlxSeek => "obj",
        }
    }

    /// The tag that stands for region `index`, in prompt and answer.
    pub fn tag(self, index: usize) -> String {
        format!("<{}{index}>", self.prefix())
    }

    /// What precedes the user's turn.
    pub fn system(self) -> &'static str {
        match self {
            Self::Fo1 => "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
            Self::VlxSeek => "",
        }
    }

    /// What is asked, `{}` being the queries (`task_templates.py` of each).
    pub fn question(self) -> &'static str {
        match self {
            Self::Fo1 => "Please detect {} in this image. Answer the question with object indexes.",
            Self::VlxSeek => "Detect all the instances of: {}.",
        }
    }
}

/// Between queries of one question.
pub const SEPARATOR: &str = "; ";

/// What an answer about `label` begins with.
pub fn opening(label: &str) -> String {
    format!("<ground>{label}</ground><objects>")
}

/// Writes an answer as the model would.
pub fn encode(dialect: Dialect, label: &str, indexes: &[usize]) -> String {
    let tags: String = indexes.iter().map(|index| dialect.tag(*index)).collect();
    format!("{}{tags}</objects>", opening(label))
}

/// Whether `text` holds a tag of the answer's grammar: such words would be read as structure, not as words.
pub fn has_tags(dialect: Dialect, text: &str) -> bool {
    let marks = ["<ground>", "</ground>", "<objects>", "</objects>"];
    let index = |rest: &str| rest.split_once('>').is_some_and(|(digits, _)| number(digits, "").is_some());
    let open = format!("<{}", dialect.prefix());
    marks.iter().any(|mark| text.contains(mark)) || text.split(&open).skip(1).any(index)
}

/// Which of the queries a label answers. Where only one thing was asked for every label is an answer to it, whatever words
/// the model found; of several it is those with the same words, capitals, spacing and full stops aside: queries may differ
/// in nothing else but their thresholds. None for a label that nobody asked for.
pub fn answered(label: &str, queries: &[&str]) -> Vec<usize> {
    let named = plain(label);
    let asked: Vec<_> = queries.iter().map(|query| plain(query)).collect();
    let is_one_thing = asked.iter().all(|one| *one == asked[0]);
    (0..asked.len()).filter(|at| is_one_thing || asked[*at] == named).collect()
}

fn plain(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ").trim_end_matches(['.', ' ']).to_owned()
}

/// Reads one answer.
pub type Regions = Stream<Objects>;

impl Regions {
    /// A codec of answers to a prompt that offered `boxes`, of which those beyond [`MOST`] have no index.
    pub fn new(dialect: Dialect, mut boxes: Vec<[f32; 4]>) -> Self {
        boxes.truncate(MOST);
        Stream::over(Objects { dialect, boxes, tags: Tags::default(), state: State::Between, seen: Vec::new() })
    }
}

/// The automaton of [`Regions`].
#[derive(Debug, Clone)]
pub struct Objects {
    dialect: Dialect,
    boxes: Vec<[f32; 4]>,
    tags: Tags,
    state: State,
    /// Labels so far, and a bit an index.
    seen: Vec<(String, u128)>,
}

#[derive(Debug, Clone)]
enum State {
    Between,
    /// In a label.
    Label(String),
    /// After a label.
    Named(String),
    /// In the list of the label at this place of `seen`.
    List(usize),
}

impl Automaton for Objects {
    const CHOOSES: bool = true;

    fn step(&mut self, c: char, piece: Piece, out: &mut Vec<RawBox>) {
        let Self { dialect, boxes, tags, state, seen } = self;
        tags.step(c, piece, |part| match part {
            Part::Char(c) => state.text(c, *dialect),
            Part::Tag(tag, pieces) => {
                state.tag(tag, seen);
                if let State::List(at) = state
                    && let Some((label, taken)) = seen.get_mut(*at)
                    && let Some(index) = number(tag, dialect.prefix()).and_then(|index| usize::try_from(index).ok())
                    && let Some(fractions) = boxes.get(index)
                    && *taken & (1 << index) == 0
                {
                    *taken |= 1 << index;
                    let mut tally = Tally::default();
                    tally.touch_all(pieces);
                    out.push(RawBox { label: label.clone(), fractions: *fractions, score: tally.score() });
                }
            }
        });
    }

    fn end(&mut self, _out: &mut Vec<RawBox>) {
        self.state = State::Between;
    }
}

impl State {
    fn text(&mut self, c: char, dialect: Dialect) {
        let lenient = dialect == Dialect::VlxSeek;
        match self {
            Self::Label(label) if label.len() < MAX_LABEL && (lenient || c != '\n') => label.push(c),
            Self::Named(_) if lenient && c.is_whitespace() => {}
            // Words between the indexes of a list say nothing, `None` among them.
            Self::Between | Self::List(_) => {}
            Self::Label(_) | Self::Named(_) => *self = Self::Between,
        }
    }

    fn tag(&mut self, tag: &str, seen: &mut Vec<(String, u128)>) {
        *self = match (std::mem::replace(self, Self::Between), tag) {
            (_, "ground") => Self::Label(String::new()),
            (Self::Label(label), "/ground") => Self::Named(label.trim().to_owned()),
            (Self::Named(label), "objects") => match seen.iter().position(|(known, _)| *known == label) {
                Some(at) => Self::List(at),
                None if seen.len() < MOST_LABELS => {
                    seen.push((label, 0));
                    Self::List(seen.len() - 1)
                }
                None => Self::Between,
            },
            (Self::List(_), "/objects") => Self::Between,
            (Self::List(at), _) => Self::List(at),
            _ => Self::Between,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};
    use crate::types::query::MAX_TEXT;

    fn boxes(count: usize) -> Vec<[f32; 4]> {
        (0..count).map(|i| [0.0, 0.0, 0.5, (i + 1) as f32 / (count + 1) as f32]).collect()
    }

    /// Labels and indexes of an answer to a prompt with `count` regions.
    fn read(dialect: Dialect, count: usize, text: &str) -> Vec<(String, usize)> {
        let offered = boxes(count);
        let mut codec = Regions::new(dialect, offered.clone());
        let mut out = codec.push(text, None);
        out.extend(codec.finish());
        let same = |one: &[f32; 4], raw: &RawBox| one.map(f32::to_bits) == raw.fractions.map(f32::to_bits);
        let at = |raw: &RawBox| offered.iter().position(|one| same(one, raw)).expect("a region that was offered");
        out.iter().map(|raw| (raw.label.clone(), at(raw))).collect()
    }

    fn named(label: &str, indexes: &[usize]) -> Vec<(String, usize)> {
        indexes.iter().map(|index| (label.to_owned(), *index)).collect()
    }

    #[test]
    fn objects_are_the_regions_that_were_offered() {
        let text = "I see <ground> red car </ground><objects><region3><region7></objects> and \
                    <ground>dog</ground><objects><region0></objects>, 3 in all.";
        let want = [named("red car", &[3, 7]), named("dog", &[0])].concat();
        assert_eq!(read(Dialect::Fo1, 9, text), want);
        assert_eq!(read(Dialect::VlxSeek, 9, text), []);
        let text = "<ground>dog</ground>\n<objects>\n<obj3>, <obj7>\n</objects>";
        assert_eq!(read(Dialect::VlxSeek, 9, text), named("dog", &[3, 7]));
        assert_eq!(read(Dialect::Fo1, 9, text), []);
    }

    #[test]
    fn an_index_beyond_the_regions_is_no_box_and_one_named_twice_is_one() {
        let text = "<ground>a</ground><objects><region8><region9><region2><region2></objects>\
                    <ground>a</ground><objects><region2><region1></objects><ground>b</ground><objects><region2></objects>";
        assert_eq!(read(Dialect::Fo1, 9, text), [named("a", &[8, 2, 1]), named("b", &[2])].concat());
        assert_eq!(read(Dialect::Fo1, 0, text), []);
        let beyond =
            "<ground>a</ground><objects><region99><region100><region101><region999999><region9999999></objects>";
        assert_eq!(read(Dialect::Fo1, 300, beyond).len(), 1, "there are a hundred index tokens");
    }

    #[test]
    fn what_is_absent_has_no_regions() {
        for text in [
            "None",
            "<ground>dog</ground><objects>None</objects>",
            "<ground>dog</ground><objects></objects>",
            "<ground>dog</ground>None",
            "There is no dog in the image.",
            "",
        ] {
            assert_eq!(read(Dialect::Fo1, 9, text), [], "{text}");
            assert_eq!(read(Dialect::VlxSeek, 9, text), [], "{text}");
        }
    }

    #[test]
    fn indexes_outside_a_list_of_a_label_are_words() {
        for text in [
            "<region3>",
            "<objects><region3></objects>",
            "<ground><region3></ground>",
            "<ground>dog</ground> and <objects><region3></objects>",
            "<ground>dog</ground><region3>",
            "<ground>dog</ground><objects></objects><region3>",
            "<ground>dog</ground><objects><region-3><region 3><regionx><region3",
            "<ground>dog<objects><region3></objects>",
            "<ground>a\nb</ground><objects><region3></objects>",
        ] {
            assert_eq!(read(Dialect::Fo1, 9, text), [], "{text}");
        }
        // What was written before the answer was cut off stays.
        assert_eq!(read(Dialect::Fo1, 9, "<ground>dog</ground><objects><region3><reg"), named("dog", &[3]));
    }

    #[test]
    fn the_score_is_that_of_the_index() {
        let mut codec = Regions::new(Dialect::Fo1, boxes(9));
        let mut got = codec.push(&opening("dog"), Some(0.01));
        got.extend(codec.push("<region3>", Some(0.7)));
        got.extend(codec.push("<reg", Some(0.9)));
        got.extend(codec.push("ion4>", Some(0.4)));
        let scores: Vec<_> = got.iter().map(|raw| raw.score.unwrap()).collect();
        assert!((scores[0] - 0.7).abs() < 1e-6 && (scores[1] - 0.6).abs() < 1e-6, "{scores:?}");
    }

    #[test]
    fn labels_find_their_query() {
        let queries = ["red car", "a Dog", "the man  next to the van."];
        let got = ["Red  car", "a dog.", "the man next to the van", "cat", ""].map(|label| answered(label, &queries));
        assert_eq!(got, [vec![0], vec![1], vec![2], vec![], vec![]]);
        assert_eq!(answered("anything", &["dog"]), [0]);
        assert!(answered("dog", &[]).is_empty());
    }

    #[test]
    fn a_label_answers_every_query_with_its_words() {
        let queries = ["red car", "dog", "Red car", "red  car."];
        assert_eq!(answered("Red Car", &queries), [0, 2, 3]);
        assert_eq!(answered("dog", &queries), [1]);
        // As where it was asked for once.
        assert_eq!(answered("automobile", &["red car", "Red car"]), [0, 1]);
        assert!(answered("automobile", &queries).is_empty());
    }

    #[test]
    fn words_that_are_structure_are_told() {
        for text in ["<ground>", "a</objects>b", "<region3>", "x <region> <region12> y"] {
            assert!(has_tags(Dialect::Fo1, text), "{text}");
        }
        for text in ["a red car", "<region>", "<regionx>", "<region3", "region3>", "<obj3>", "a < b > c"] {
            assert!(!has_tags(Dialect::Fo1, text), "{text}");
        }
        assert!(has_tags(Dialect::VlxSeek, "<obj3>") && !has_tags(Dialect::VlxSeek, "<objx> <region3>"));
    }

    #[test]
    fn endless_labels_are_not_kept() {
        let text: String = (0..1000).map(|i| encode(Dialect::Fo1, &i.to_string(), &[0])).collect();
        assert_eq!(read(Dialect::Fo1, 1, &text).len(), MOST_LABELS);
        let long = encode(Dialect::Fo1, &"x".repeat(MAX_LABEL + 1), &[0]);
        assert_eq!(read(Dialect::Fo1, 1, &long), []);
        let query = "\u{8eca}".repeat(MAX_TEXT);
        assert_eq!(read(Dialect::Fo1, 1, &encode(Dialect::Fo1, &query, &[0])).len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            indexes in prop::collection::vec(0usize..120, 0..40), offered in 0usize..120, label in "[a-zA-Z ,'é]{0,12}",
        ) {
            for dialect in [Dialect::Fo1, Dialect::VlxSeek] {
                let mut want: Vec<usize> = Vec::new();
                for index in indexes.iter().filter(|index| **index < offered.min(MOST)) {
                    if !want.contains(index) {
                        want.push(*index);
                    }
                }
                prop_assert_eq!(read(dialect, offered, &encode(dialect, &label, &indexes)), named(label.trim(), &want));
            }
        }

        #[test]
        fn no_text_makes_a_region_that_was_not_offered(text in "(<(/)?(ground|objects)>|<(region|obj)[0-9]{1,4}>|\\PC|<){0,60}") {
            for dialect in [Dialect::Fo1, Dialect::VlxSeek] {
                let got = read(dialect, 7, &text);
                let tags = text.matches(&format!("<{}", dialect.prefix())).count();
                prop_assert!(got.len() <= tags);
            }
        }
    }
}

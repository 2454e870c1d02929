//! Florence-2: `label<loc_x1><loc_y1><loc_x2><loc_y2>`, thousandths of the image, several boxes to a label.
//!
//! After `processing_florence2.py` (transformers 4.57.1): `q = clamp(⌊x / (W/1000)⌋, 0, 999)`, back
//! `(q + 0.5) · W/1000`, y with H. There the result is truncated to whole pixels; here, as in transformers.js, it is
//! not. `<s>`, `</s>` and `<pad>` count as absent. A label is the text right before the first `<loc_…>`; it must not
//! break lines, loses its non-ASCII characters, and holds for all boxes that follow without a gap. Phrase grounding
//! drops pronouns and their like ([`BANNED`]), Region proposals need no label, segmentation and open-vocabulary
//! detection may answer with polygons, of which we keep the bounds.
//!
//! Two things are stricter than the original, which reads such debris as labels (`loc_7>cat`): a run that follows a
//! broken run or an unknown tag without text in between has no label, and without one there is no box.
//!
//! The model has no task for one referred box: ask [`Task::PhraseGrounding`], or [`Task::ReferringSegmentation`] for
//! its bounds.

use super::{
    Automaton, MAX_LABEL, RawBox, Stream, checked, clamped,
    tags::{Part, Tags, number},
    tally::{Piece, Tally},
};

const BINS: f64 = 1000.0;

/// What the model can be asked that has boxes for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `<OD>`: every object it knows a name for.
    ObjectDetection,
    /// `<DENSE_REGION_CAPTION>`: every region with a description.
    DenseRegionCaption,
    /// `<REGION_PROPOSAL>`: regions without names.
    RegionProposal,
    /// `<CAPTION_TO_PHRASE_GROUNDING>`: the phrases of the input.
    PhraseGrounding,
    /// `<OPEN_VOCABULARY_DETECTION>`: the input.
    OpenVocabulary,
    /// `<REFERRING_EXPRESSION_SEGMENTATION>`: the input, as a polygon.
    ReferringSegmentation,
}

impl Task {
    /// The text the tokeniser gets instead of the task's token.
    pub fn prompt(self, input: &str) -> String {
        match self {
            Self::ObjectDetection => "Locate the objects with category name in the image.".into(),
            Self::DenseRegionCaption => "Locate the objects in the image, with their descriptions.".into(),
            Self::RegionProposal => "Locate the region proposals in the image.".into(),
            Self::PhraseGrounding => format!("Locate the phrases in the caption: {}", input.trim()),
            Self::OpenVocabulary => format!("Locate {} in the image.", input.trim()),
            Self::ReferringSegmentation => format!("Locate {} in the image with mask", input.trim()),
        }
    }

    fn needs_label(self) -> bool {
        !matches!(self, Self::RegionProposal | Self::ReferringSegmentation)
    }
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

impl Florence {
    /// A codec for the answer to `task`.
    pub fn new(task: Task) -> Self {
        Stream::over(Locations { tags: Tags::default(), state: State { task, ..State::default() } })
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
            Part::Char(c) => state.text(c, out),
            Part::Tag("s" | "/s" | "pad", _) => {}
            Part::Tag("poly", _) => state.open_polygon(out),
            Part::Tag("sep", _) => state.polygon.next_ring(),
            Part::Tag("/poly", _) => state.close_polygon(out),
            Part::Tag(tag, pieces) => match number(tag, "loc_") {
                Some(bin) => state.location(bin, pieces, out),
                None => state.gap(out),
            },
        });
    }

    fn end(&mut self, out: &mut Vec<RawBox>) {
        self.state.gap(out);
    }
}

#[derive(Debug, Clone)]
struct State {
    task: Task,
    /// Text since the last tag; what the boxes are called.
    label: String,
    /// A location has followed the label: the next text starts another.
    labelled: bool,
    /// Corners of the box under way.
    run: Vec<u32>,
    tally: Tally,
    polygon: Polygon,
}

impl Default for State {
    fn default() -> Self {
        Self {
            task: Task::ObjectDetection,
            label: String::new(),
            labelled: false,
            run: Vec::new(),
            tally: Tally::default(),
            polygon: Polygon::default(),
        }
    }
}

impl State {
    fn text(&mut self, c: char, out: &mut Vec<RawBox>) {
        if self.labelled {
            self.gap(out);
        }
        // One character over the limit marks the label as too long.
        if self.label.len() <= MAX_LABEL {
            self.label.push(c);
        }
    }

    /// The label and whatever was under way are over.
    fn gap(&mut self, out: &mut Vec<RawBox>) {
        if self.task == Task::ReferringSegmentation {
            self.close_polygon(out);
        }
        self.label.clear();
        self.labelled = false;
        self.run.clear();
        self.tally = Tally::default();
        self.polygon = Polygon::default();
    }

    fn location(&mut self, bin: u32, pieces: &[Piece], out: &mut Vec<RawBox>) {
        self.labelled = true;
        if self.polygon.open || self.task == Task::ReferringSegmentation {
            self.polygon.add(bin, pieces);
            return;
        }
        self.run.push(bin);
        self.tally.touch_all(pieces);
        if let &[x1, y1, x2, y2] = self.run.as_slice() {
            self.emit([x1, y1, x2, y2], self.tally.score(), out);
            self.run.clear();
            self.tally = Tally::default();
        }
    }

    fn open_polygon(&mut self, out: &mut Vec<RawBox>) {
        if self.polygon.locations > 0 {
            self.close_polygon(out);
        }
        self.labelled = true;
        self.polygon = Polygon { open: true, ..Polygon::default() };
    }

    fn close_polygon(&mut self, out: &mut Vec<RawBox>) {
        let polygon = std::mem::take(&mut self.polygon);
        if let Some(bounds) = polygon.bounds.filter(|_| polygon.locations >= 4) {
            self.emit(bounds, polygon.tally.score(), out);
        }
    }

    fn emit(&self, bins: [u32; 4], score: Option<f32>, out: &mut Vec<RawBox>) {
        let Some(label) = self.name() else { return };
        let fractions = checked(bins.map(|bin| (f64::from(bin) + 0.5) / BINS));
        out.extend(fractions.map(|fractions| RawBox { label, fractions, score }));
    }

    /// What the boxes are called; `None` if that makes them no answer.
    fn name(&self) -> Option<String> {
        if !self.task.needs_label() {
            return Some(String::new());
        }
        let usable = !self.label.is_empty() && self.label.len() <= MAX_LABEL;
        let one_line = !self.label.trim_start().contains('\n');
        let name = self.label.trim();
        let banned = self.task == Task::PhraseGrounding && BANNED.contains(&name);
        (usable && one_line && !banned).then(|| name.chars().filter(char::is_ascii).collect())
    }
}

/// Bounds of the polygon under way; its rings are parted by `<sep>`.
#[derive(Debug, Clone, Default)]
struct Polygon {
    open: bool,
    locations: u32,
    /// A point's x whose y has not come; the original drops it with its ring.
    x: Option<u32>,
    bounds: Option<[u32; 4]>,
    tally: Tally,
}

impl Polygon {
    fn add(&mut self, bin: u32, pieces: &[Piece]) {
        self.locations = self.locations.saturating_add(1);
        self.tally.touch_all(pieces);
        match self.x.take() {
            None => self.x = Some(bin),
            Some(x) => {
                let [x1, y1, x2, y2] = self.bounds.unwrap_or([x, bin, x, bin]);
                self.bounds = Some([x1.min(x), y1.min(bin), x2.max(x), y2.max(bin)]);
            }
        }
    }

    fn next_ring(&mut self) {
        self.x = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::Codec, *};

    fn read(task: Task, text: &str) -> Vec<(String, [f32; 4])> {
        let mut codec = Florence::new(task);
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
            read(Task::ObjectDetection, text),
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
        let names: Vec<_> = read(Task::PhraseGrounding, &text).into_iter().map(|b| b.0).collect();
        assert_eq!(names, ["The Image", "a Caf"]);
        assert_eq!(read(Task::ObjectDetection, &text).len(), 4);
    }

    #[test]
    fn a_label_is_needed_but_for_proposals() {
        let bare = "<loc_1><loc_2><loc_3><loc_4>";
        assert_eq!(read(Task::ObjectDetection, bare), []);
        assert_eq!(read(Task::ObjectDetection, &format!("a\nb{bare}")), []);
        assert_eq!(read(Task::ObjectDetection, &format!("{}{bare}", "x".repeat(MAX_LABEL + 1))), []);
        assert_eq!(read(Task::RegionProposal, bare), [(String::new(), [1.0, 2.0, 3.0, 4.0])]);
    }

    #[test]
    fn polygons_are_kept_as_their_bounds() {
        let ring = "<loc_10><loc_20><loc_50><loc_20><loc_30><loc_90>";
        let bounds = (String::new(), [10.0, 20.0, 50.0, 90.0]);
        assert_eq!(read(Task::ReferringSegmentation, ring), std::slice::from_ref(&bounds));
        assert_eq!(read(Task::ReferringSegmentation, &format!("{ring}<loc_999>")), std::slice::from_ref(&bounds));
        let wide = (String::new(), [10.0, 20.0, 70.0, 90.0]);
        let two_rings = format!("{ring}<loc_1><sep><loc_60><loc_60><loc_70><loc_70>");
        assert_eq!(read(Task::ReferringSegmentation, &two_rings), [wide]);
        let named = format!("cat<poly>{ring}</poly><poly>{ring}</poly>dog<loc_1><loc_2><loc_3><loc_4>");
        assert_eq!(
            read(Task::OpenVocabulary, &named),
            [("cat".into(), bounds.1), ("cat".into(), bounds.1), ("dog".into(), [1.0, 2.0, 3.0, 4.0])]
        );
        assert_eq!(read(Task::OpenVocabulary, &format!("cat<poly>{ring}")), [], "an open polygon was cut off");
    }

    #[test]
    fn prompts_are_what_the_model_was_trained_on() {
        assert_eq!(Task::OpenVocabulary.prompt(" a red car "), "Locate a red car in the image.");
        assert_eq!(Task::PhraseGrounding.prompt("a cat"), "Locate the phrases in the caption: a cat");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_within_half_a_bin(
            boxes in proptest::collection::vec(
                (0.0f32..0.8, 0.0f32..0.8, 0.01f32..0.2, 0.01f32..0.2), 1..5),
            label in "[a-z ]{1,12}",
        ) {
            let boxes: Vec<_> = boxes.into_iter().map(|(x, y, w, h)| [x, y, x + w, y + h]).collect();
            let got = Florence::new(Task::ObjectDetection).push(&encode(&label, &boxes), None);
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

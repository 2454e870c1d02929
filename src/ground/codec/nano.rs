//! nano's answer tokens: boxes as digits or as location tokens, both by one decoder.
//!
//! ```text
//! answer = (<coords> | <bins>) { <box> place } <end>
//! place  = 12 digits                        x1 y1 x2 y2 in thousandths of the model's frame, three digits each
//!        | <bin_a> <bin_b> <bin_c> <bin_d>  x1 y1 x2 y2, each (bin + 0.5) / 256 of the frame
//! ```
//!
//! (`tools/train/train/losses.py`, `spell` and `sentence`.) The reader says which tokens may come next, so that the
//! decoder never leaves the grammar; fed with tokens that leave it nevertheless, it is over. What the probability of
//! `<box>` was where it was written is the box's score: how sure the model was that there is another.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{RawBox, checked, softmax::best};

/// Location tokens on either side of the frame.
pub const BINS: usize = 256;

/// Digits of a coordinate.
const DIGITS: usize = 3;

/// Boxes written a second time after which nothing new is to be expected.
const REPEATS: usize = 2;

/// How boxes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// As digits.
    Coords,
    /// As location tokens.
    Bins,
}

impl Form {
    /// Tokens of a box after `<box>`.
    fn length(self) -> usize {
        match self {
            Self::Coords => 4 * DIGITS,
            Self::Bins => 4,
        }
    }
}

/// The answer tokens' ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pad: usize,
    begin: [usize; 2],
    next: usize,
    end: usize,
    digits: Vec<usize>,
    bins: Vec<usize>,
    count: usize,
}

impl Answers {
    /// Reads them by name: `<pad>`, `<coords>`, `<bins>`, `<box>`, `<end>`, `0` to `9`, `<bin_0>` to `<bin_255>`. They
    /// number from 0 without gaps; an error says what is missing or in the way.
    pub fn new(ids: &HashMap<String, i64>) -> Result<Self, String> {
        let count = ids.len();
        let mut taken = vec![false; count];
        let mut id = |name: &str| {
            let given = ids.get(name).ok_or_else(|| format!("the answer token `{name}` is missing"))?;
            let at = usize::try_from(*given).ok().filter(|at| *at < count);
            let at = at.ok_or_else(|| format!("`{name}` is {given}; answer tokens number from 0 to {}", count - 1))?;
            if std::mem::replace(&mut taken[at], true) {
                return Err(format!("`{name}` is {given}, which another answer token is already"));
            }
            Ok(at)
        };
        let answers = Self {
            pad: id("<pad>")?,
            begin: [id("<coords>")?, id("<bins>")?],
            next: id("<box>")?,
            end: id("<end>")?,
            digits: (0..10).map(|digit| id(&digit.to_string())).collect::<Result<_, _>>()?,
            bins: (0..BINS).map(|bin| id(&format!("<bin_{bin}>"))).collect::<Result<_, _>>()?,
            count,
        };
        match taken.iter().position(|taken| !taken) {
            Some(_) => Err(format!("there are {count} answer tokens, of which {} are known", 15 + BINS)),
            None => Ok(answers),
        }
    }

    /// How many there are: the width of the logits.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What fills up an answer that is over.
    pub fn pad(&self) -> usize {
        self.pad
    }

    /// The first token of an answer.
    pub fn begin(&self, form: Form) -> usize {
        self.begin[usize::from(form == Form::Bins)]
    }
}

/// Reads one answer, token by token, after its first.
#[derive(Debug, Clone)]
pub struct Reader {
    answers: Arc<Answers>,
    form: Form,
    most: usize,
    /// What a box has been given so far; `None` between boxes.
    held: Option<Vec<usize>>,
    /// How sure the model was that there is this box.
    score: f32,
    seen: Vec<[f32; 4]>,
    written: usize,
    repeats: usize,
    over: bool,
}

impl Reader {
    /// A reader of at most `most` boxes.
    pub fn new(answers: &Arc<Answers>, form: Form, most: usize) -> Self {
        Self {
            answers: Arc::clone(answers),
            form,
            most,
            held: None,
            score: 0.0,
            seen: Vec::new(),
            written: 0,
            repeats: 0,
            over: most == 0,
        }
    }

    /// Whether the answer has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The tokens that may come next; none when it is over.
    pub fn legal(&self) -> Vec<usize> {
        match (&self.held, self.form) {
            _ if self.over => Vec::new(),
            (None, _) => vec![self.answers.next, self.answers.end],
            (Some(_), Form::Coords) => self.answers.digits.clone(),
            (Some(_), Form::Bins) => self.answers.bins.clone(),
        }
    }

    /// The best of the tokens that may come next, by logits over all answer tokens, and its probability among those that
    /// may. `None` if the answer is over, there are too few logits, or the legal ones are not numbers.
    pub fn choose(&self, logits: &[f32]) -> Option<(usize, f32)> {
        let legal = self.legal();
        let values: Vec<f32> = legal.iter().map(|id| logits.get(*id).copied()).collect::<Option<_>>()?;
        best(&values).map(|(at, probability)| (legal[at], probability))
    }

    /// Takes the next token, which the model gave `probability`; returns the box that it completed. Boxes that are empty
    /// or were written before are none. A token that may not come ends the answer, as does a box written over and over.
    pub fn push(&mut self, token: usize, probability: f32) -> Option<RawBox> {
        let answers = Arc::clone(&self.answers);
        if self.over {
            return None;
        }
        let Some(held) = &mut self.held else {
            self.over = token != answers.next;
            if !self.over {
                self.held = Some(Vec::with_capacity(self.form.length()));
                self.score = probability;
            }
            return None;
        };
        let values = if self.form == Form::Coords { &answers.digits } else { &answers.bins };
        let Some(value) = values.iter().position(|id| *id == token) else {
            self.over = true;
            return None;
        };
        held.push(value);
        if held.len() < self.form.length() {
            return None;
        }
        let place = place(self.form, held);
        self.held = None;
        self.written += 1;
        let found = self.fresh(place);
        self.over = self.written >= self.most || self.repeats >= REPEATS;
        found
    }

    /// The box at `place`, unless it is none or was written before.
    fn fresh(&mut self, place: [f64; 4]) -> Option<RawBox> {
        let [x1, y1, x2, y2] = place;
        // Corners the other way round were never taught: they are no box, rather than one to be guessed at.
        let fractions = if x1 < x2 && y1 < y2 { checked(place) } else { None }?;
        if self.seen.contains(&fractions) {
            self.repeats += 1;
            return None;
        }
        self.seen.push(fractions);
        Some(RawBox {
            label: String::new(),
            fractions,
            score: Some(self.score).filter(|score| (0.0..=1.0).contains(score)),
        })
    }
}

/// The corners that a box's values stand for.
fn place(form: Form, values: &[usize]) -> [f64; 4] {
    let corner = |at: usize| match form {
        Form::Coords => {
            let digits: Range<usize> = at * DIGITS..(at + 1) * DIGITS;
            values[digits].iter().fold(0.0, |sum, digit| sum * 10.0 + *digit as f64) / 1000.0
        }
        Form::Bins => (values[at] as f64 + 0.5) / BINS as f64,
    };
    std::array::from_fn(corner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{clamped, quantised},
        *,
    };

    fn ids() -> HashMap<String, i64> {
        let names = ["<pad>", "<coords>", "<bins>", "<box>", "<end>"].map(str::to_owned).into_iter();
        let names = names.chain((0..10).map(|d| d.to_string())).chain((0..BINS).map(|b| format!("<bin_{b}>")));
        names.zip(0..).collect()
    }

    fn answers() -> Arc<Answers> {
        Arc::new(Answers::new(&ids()).unwrap())
    }

    /// The tokens after `<box>` that stand for a box in fractions of the frame.
    fn spell(form: Form, fractions: [f32; 4]) -> Vec<usize> {
        match form {
            Form::Coords => digits(&fractions.map(|f| format!("{:03}", quantised(f, 1000.0, 999))).concat()),
            // The bin that holds it, not the nearest bin's edge.
            Form::Bins => fractions.map(|f| 15 + clamped((f64::from(f) * BINS as f64).floor(), 255) as usize).to_vec(),
        }
    }

    const NEXT: usize = 3;
    const END: usize = 4;

    fn read(form: Form, tokens: &[usize]) -> (Vec<RawBox>, Reader) {
        let mut reader = Reader::new(&answers(), form, 10);
        let found = tokens.iter().filter_map(|token| reader.push(*token, 0.75)).collect();
        (found, reader)
    }

    fn digits(text: &str) -> Vec<usize> {
        text.bytes().filter(u8::is_ascii_digit).map(|byte| usize::from(byte - b'0') + 5).collect()
    }

    #[test]
    fn digits_are_thousandths_and_bins_are_their_middles() {
        let (found, reader) = read(Form::Coords, &[vec![NEXT], digits("100 020 903 999"), vec![END]].concat());
        assert_eq!(found, [RawBox { label: String::new(), fractions: [0.1, 0.02, 0.903, 0.999], score: Some(0.75) }]);
        assert!(reader.is_over() && reader.legal().is_empty());
        let (found, _) = read(Form::Bins, &[NEXT, 15, 15 + 127, 15 + 128, 15 + 255, END]);
        let fractions = [0.5 / 256.0, 127.5 / 256.0, 128.5 / 256.0, 255.5 / 256.0];
        assert_eq!(found, [RawBox { label: String::new(), fractions, score: Some(0.75) }]);
    }

    #[test]
    fn the_grammar_says_what_may_come() {
        let mut reader = Reader::new(&answers(), Form::Coords, 10);
        assert_eq!(reader.legal(), [NEXT, END]);
        reader.push(NEXT, 0.9);
        assert_eq!(reader.legal(), (5..15).collect::<Vec<_>>());
        let mut reader = Reader::new(&answers(), Form::Bins, 10);
        reader.push(NEXT, 0.9);
        assert_eq!(reader.legal(), (15..271).collect::<Vec<_>>());
        // The best logit that may not come does not; the probability is among those that may.
        let mut logits = vec![9.0; 271];
        (logits[NEXT], logits[END]) = (1.0, 1.0 + 3.0f32.ln());
        let (token, probability) = Reader::new(&answers(), Form::Bins, 10).choose(&logits).unwrap();
        assert!(token == END && (probability - 0.75).abs() < 1e-6);
        assert_eq!(reader.choose(&[0.0; 20]), None);
        assert_eq!(reader.choose(&[f32::NAN; 271]), None);
    }

    #[test]
    fn boxes_that_are_empty_or_were_written_before_are_not_reported() {
        let place = |text: &str| [vec![NEXT], digits(text)].concat();
        let tokens =
            [place("100100200200"), place("300300300400"), place("500500400600"), place("100100200200")].concat();
        let (found, reader) = read(Form::Coords, &tokens);
        assert_eq!(found.len(), 1);
        assert!(!reader.is_over());
        let (found, reader) = read(Form::Coords, &[tokens, place("100100200200"), place("000000100100")].concat());
        assert!(found.len() == 1 && reader.is_over(), "a box written a third time is the end");
    }

    #[test]
    fn no_more_boxes_are_read_than_asked_for() {
        let one = |at: usize| [NEXT, 15 + at, 15 + at, 25 + at, 25 + at];
        let tokens: Vec<_> = (0..20).flat_map(one).collect();
        let (found, reader) = read(Form::Bins, &tokens);
        assert!(found.len() == 10 && reader.is_over());
        assert!(Reader::new(&answers(), Form::Bins, 0).is_over());
    }

    #[test]
    fn a_list_of_tokens_that_would_mislead_is_refused() {
        let with = |name: &str, id: Option<i64>| {
            let mut ids = ids();
            match id {
                Some(id) => ids.insert(name.to_owned(), id),
                None => ids.remove(name),
            };
            Answers::new(&ids).unwrap_err()
        };
        assert!(with("<bin_7>", None).contains("`<bin_7>` is missing"));
        assert!(with("<box>", Some(4)).contains("another"));
        assert!(with("5", Some(-1)).contains("`5` is -1"));
        assert!(with("5", Some(999)).contains("from 0 to 270"));
        assert!(with("<more>", Some(271)).contains("272 answer tokens"));
        assert!(Answers::new(&HashMap::new()).is_err());
    }

    fn forms() -> impl Strategy<Value = Form> {
        prop::sample::select(vec![Form::Coords, Form::Bins])
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            form in forms(), boxes in proptest::collection::vec((0.0f32..0.8, 0.0f32..0.8, 0.01f32..0.199, 0.01f32..0.199), 0..10),
        ) {
            let mut places: Vec<_> = boxes.iter().map(|(x, y, w, h)| [*x, *y, x + w, y + h]).collect();
            // Those that are written alike are one.
            let mut spelled = std::collections::HashSet::new();
            places.retain(|place| spelled.insert(spell(form, *place)));
            let tokens = places.iter().flat_map(|place| [vec![NEXT], spell(form, *place)].concat());
            let tokens: Vec<_> = tokens.chain([END]).collect();
            let (found, reader) = read(form, &tokens);
            prop_assert!(reader.is_over());
            let off = if form == Form::Coords { 0.5001 / 1000.0 } else { 0.5001 / 256.0 };
            prop_assert_eq!(found.len(), places.len());
            for (raw, place) in found.iter().zip(&places) {
                let close = raw.fractions.iter().zip(place).all(|(a, b)| (a - b).abs() <= off + 1e-6);
                prop_assert!(close, "{raw:?} is not {place:?}");
            }
        }

        #[test]
        fn any_tokens_give_sound_boxes_that_were_written(
            form in forms(), tokens in proptest::collection::vec((0usize..280, any::<f32>()), 0..300), most in 0usize..20,
        ) {
            let mut reader = Reader::new(&answers(), form, most);
            let mut found: Vec<RawBox> = Vec::new();
            for (i, (token, probability)) in tokens.iter().enumerate() {
                let legal = reader.legal();
                let was_over = reader.is_over();
                let raw = reader.push(*token, *probability);
                prop_assert_eq!(legal.is_empty(), was_over);
                prop_assert!(raw.is_none() || legal.contains(token));
                if !was_over && !legal.contains(token) {
                    prop_assert!(reader.is_over());
                }
                if let Some(raw) = raw {
                    prop_assert!(i >= form.length());
                    found.push(raw);
                }
            }
            prop_assert!(found.len() <= most && found.len() * (form.length() + 1) <= tokens.len());
            for (i, raw) in found.iter().enumerate() {
                let [x1, y1, x2, y2] = raw.fractions;
                prop_assert!(x1 < x2 && y1 < y2 && raw.fractions.iter().all(|f| (0.0..=1.0).contains(f)));
                let written_again = |other: &RawBox| RawBox { score: raw.score, ..other.clone() } == *raw;
                prop_assert!(!found[..i].iter().any(written_again));
                prop_assert!(raw.score.is_none_or(|score| (0.0..=1.0).contains(&score)));
            }
        }

        #[test]
        fn an_answer_chosen_within_the_grammar_ends(form in forms(), seed in any::<u64>(), most in 1usize..12) {
            let mut reader = Reader::new(&answers(), form, most);
            let (mut state, mut tokens) = (seed, 0);
            while !reader.is_over() {
                let logits: Vec<f32> = (0..271).map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    f32::from(u16::try_from(state >> 48).unwrap()) / 8192.0
                }).collect();
                let (token, probability) = reader.choose(&logits).unwrap();
                prop_assert!(reader.legal().contains(&token) && probability > 0.0 && probability <= 1.0);
                reader.push(token, probability);
                tokens += 1;
                prop_assert!(tokens <= most * (form.length() + 1) + 1);
            }
        }
    }
}

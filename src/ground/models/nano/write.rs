//! nano's decoder: boxes about selected regions, token by token, several answers at once.
//!
//! `write`: `states` f32 `[P,K,D]`, `shown` f32 `[P,K]` (how much each region is meant), `tokens` i64 `[P,T]`, `past` f32
//! `[P,Y,H,S,E]` (keys and values of `Y/2` layers, `S` tokens that were written) -> `logits` f32 `[P,T,V]`, `present` f32
//! `[P,Y,H,S+T,E]`, which is the next step's past and stays where the engine computed it.
//!
//! Answers that are over are fed padding until half of the rows are; then the rest goes on without them. Leaving a row
//! out means to fetch the cache from the engine and to cut it, which is worth it only for many rows at once: dropped
//! one by one or never, a batch of one long answer among short ones takes longer.

use std::sync::Arc;

use super::super::not_numbers;
use crate::ground::{
    codec::{
        RawBox,
        nano::{Answers, Form, Reader},
    },
    engine::{self, Data, Element, Engine, EngineError, Input, Kept, Port, Tensor},
};

/// Boxes in an answer: the decoder learned to count no further.
const MAX_BOXES: usize = 10;

/// The opened graph.
pub(super) struct Write {
    graph: Box<dyn Engine>,
    answers: Arc<Answers>,
    regions: usize,
    width: usize,
    most: usize,
    /// `Y`, `H` and `E`.
    cache: [usize; 3],
    /// Answer tokens so far.
    written: u64,
}

/// What was written before, wherever it is.
enum Past {
    Kept(Kept),
    Here(Tensor),
}

/// One answer under way.
struct Row {
    /// The pair it is about.
    pair: usize,
    reader: Reader,
    next: usize,
}

impl Write {
    /// Checks the graph against the model's numbers; answers hold at most `most` boxes.
    pub(super) fn open(
        graph: Box<dyn Engine>,
        answers: Answers,
        regions: usize,
        width: usize,
        most: usize,
    ) -> Result<Self, EngineError> {
        let fixed = graph.input("past").and_then(|port| match *port.shape {
            [None, Some(y), Some(h), None, Some(e)] => Some([y, h, e]),
            _ => None,
        });
        let cache = fixed.ok_or_else(|| graph.wrong_inputs("past f32[?,layers,heads,?,width]".to_owned()))?;
        let [layers, heads, head] = cache.map(Some);
        let (k, d) = (Some(regions), Some(width));
        let f32s = |name, shape: &[Option<usize>]| Port::new(name, Element::F32, shape);
        let inputs = [
            f32s("states", &[None, k, d]),
            f32s("shown", &[None, k]),
            Port::new("tokens", Element::I64, &[None, None]),
            f32s("past", &[None, layers, heads, None, head]),
        ];
        let logits = f32s("logits", &[None, None, Some(answers.count())]);
        let outputs = [logits, f32s("present", &[None, layers, heads, None, head])];
        engine::check_ports(graph.as_ref(), &inputs, &outputs)?;
        Ok(Self { graph, answers: Arc::new(answers), regions, width, most: most.min(MAX_BOXES), cache, written: 0 })
    }

    /// Answer tokens written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes one answer for each form; `states` and `shown` have a row each. Boxes are in fractions of the model's frame.
    pub(super) fn run(
        &mut self,
        states: Vec<f32>,
        shown: Vec<f32>,
        forms: &[Form],
    ) -> Result<Vec<Vec<RawBox>>, EngineError> {
        let [y, h, e] = self.cache;
        let row = |(pair, form): (usize, &Form)| {
            let reader = Reader::new(&self.answers, *form, self.most);
            Row { pair, reader, next: self.answers.begin(*form) }
        };
        let mut rows: Vec<Row> = forms.iter().enumerate().map(row).collect();
        let mut found = vec![Vec::new(); rows.len()];
        let mut states = Tensor::f32s(&[rows.len(), self.regions, self.width], states);
        let mut shown = Tensor::f32s(&[rows.len(), self.regions], shown);
        let mut past = Past::Kept(self.graph.blank("past", &[rows.len(), y, h, 0, e])?);
        let over = |rows: &[Row]| rows.iter().filter(|row| row.reader.is_over()).count();
        while over(&rows) < rows.len() {
            let halved = over(&rows) * 2 >= rows.len();
            let logits = self.step(&rows, (&states, &shown), &mut past, !halved)?;
            self.read(&mut rows, &logits, &mut found)?;
            if let (Past::Here(cache), true) = (&mut past, halved) {
                let alive: Vec<bool> = rows.iter().map(|row| !row.reader.is_over()).collect();
                for tensor in [&mut states, &mut shown, cache] {
                    keep_rows(tensor, &alive);
                }
                rows.retain(|row| !row.reader.is_over());
            }
        }
        Ok(found)
    }

    /// Says the next token of every row; the logits of each. The cache stays with the engine if `keep`.
    fn step(
        &mut self,
        rows: &[Row],
        (states, shown): (&Tensor, &Tensor),
        past: &mut Past,
        keep: bool,
    ) -> Result<Vec<f32>, EngineError> {
        self.written += rows.iter().filter(|row| !row.reader.is_over()).count() as u64;
        let tokens = rows.iter().map(|row| if row.reader.is_over() { self.answers.pad() } else { row.next });
        let tokens = tokens.map(|token| i64::try_from(token).unwrap_or_default()).collect();
        let tokens = Tensor::i64s(&[rows.len(), 1], tokens);
        let behind = match &*past {
            Past::Kept(kept) => Input::Kept(kept),
            Past::Here(tensor) => Input::Tensor(tensor),
        };
        let inputs = [
            ("states", Input::Tensor(states)),
            ("shown", Input::Tensor(shown)),
            ("tokens", Input::Tensor(&tokens)),
            ("past", behind),
        ];
        let mut outputs = self.graph.run_keeping(&inputs, &|name| keep && name == "present")?;
        let present = if keep {
            outputs.take_kept("present").map(Past::Kept)
        } else {
            outputs.host.take("present").map(Past::Here)
        };
        let missing =
            |what: &str| self.graph.failed(format!("it gave no `{what}` of the shape that its inputs call for"));
        *past = present.ok_or_else(|| missing("present"))?;
        let shape = [rows.len(), 1, self.answers.count()];
        let logits = outputs.host.take("logits").filter(|logits| logits.shape == shape);
        logits.and_then(Tensor::into_f32).ok_or_else(|| missing("logits"))
    }

    /// Lets every row take its best token.
    fn read(&self, rows: &mut [Row], logits: &[f32], found: &mut [Vec<RawBox>]) -> Result<(), EngineError> {
        for (row, logits) in rows.iter_mut().zip(logits.chunks(self.answers.count())) {
            if row.reader.is_over() {
                continue;
            }
            let chosen = row.reader.choose(logits);
            let (token, probability) = chosen.ok_or_else(|| self.graph.failed(not_numbers("logits")))?;
            row.next = token;
            found[row.pair].extend(row.reader.push(token, probability));
        }
        Ok(())
    }
}

/// Leaves out the rows that are not wanted any more.
fn keep_rows(tensor: &mut Tensor, wanted: &[bool]) {
    let each: usize = tensor.shape[1..].iter().product();
    if let Data::F32(data) = &mut tensor.data {
        let rows = data.chunks_exact(each.max(1)).zip(wanted).filter(|(_, wanted)| **wanted);
        *data = rows.flat_map(|(row, _)| row).copied().collect();
    }
    tensor.shape[0] = wanted.iter().filter(|wanted| **wanted).count();
}

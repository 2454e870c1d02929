//! From one token to the next: what all families that write have in common, for one answer or several side by side.
//!
//! Answers that go side by side have the shorter caches filled up in front, so that what is new stands in one column; the
//! mask hides what was filled in, and each is told its own position. Numbers are those of one at a time, but for the order of
//! sums.

use super::{
    decoder::{Cache, Decoder},
    plan,
};
use crate::ground::{
    GroundError,
    engine::{Data, Input, Tensor},
};

/// How a family tells its language model where a token stands, and what else it feeds with each.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Three equal positions; zeros for that many layers that see the picture again.
    Mrope {
        /// Layers that see the picture's features again.
        deepstack: usize,
    },
    /// One position.
    Counted,
    /// None: the graph counts, so that all rows stand at the same place.
    Encoder {
        /// `encoder_hidden_states`, of picture and text.
        states: Tensor,
        /// `encoder_attention_mask`.
        mask: Tensor,
    },
}

/// Where one answer stands.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// Tokens behind it; the next one's place.
    place: usize,
    /// What to add to a place to get a position.
    delta: i64,
}

/// Answers under way, one or several.
#[derive(Debug, Clone)]
pub struct Talk {
    cache: Cache,
    manner: Manner,
    rows: Vec<Row>,
    /// Of the latest tokens, one row after the other.
    logits: Vec<f32>,
    width: usize,
}

/// A prompt's last piece, as the decoder takes it.
pub struct Prompt<'a> {
    /// What the decoder is fed.
    pub feeds: &'a [(&'a str, &'a Tensor)],
    /// Tokens of the whole prompt.
    pub length: usize,
    /// What to add to a place to get a position.
    pub delta: i64,
    /// How many last positions' logits are kept.
    pub last: usize,
}

impl Talk {
    /// Reads a prompt on top of what the cache holds of it already.
    pub fn begin(
        decoder: &mut Decoder,
        mut cache: Cache,
        manner: Manner,
        prompt: &Prompt<'_>,
    ) -> Result<Self, GroundError> {
        let mut feeds: Vec<_> = prompt.feeds.iter().map(|(name, tensor)| (*name, Input::Tensor(tensor))).collect();
        manner.encoder(&mut feeds);
        let logits = decoder.run(&mut cache, &feeds, prompt.last)?;
        let width = logits.len() / prompt.last.max(1);
        Ok(Self { cache, manner, rows: vec![Row { place: prompt.length, delta: prompt.delta }], logits, width })
    }

    /// Puts talks side by side.
    pub fn join(decoder: &mut Decoder, mut talks: Vec<Self>) -> Result<Self, GroundError> {
        if talks.len() == 1
            && let Some(one) = talks.pop()
        {
            return Ok(one);
        }
        let caches: Vec<_> = talks.iter().map(|talk| &talk.cache).collect();
        let cache = decoder.join(&caches)?;
        let rows = talks.iter().flat_map(|talk| talk.rows.clone()).collect();
        let next = |talk: &Self| (0..talk.rows.len()).flat_map(|row| talk.next(row).to_vec()).collect::<Vec<_>>();
        let logits = talks.iter().flat_map(next).collect();
        let width = talks.first().map_or(0, |talk| talk.width);
        let manners: Vec<_> = talks.into_iter().map(|talk| talk.manner).collect();
        Ok(Self { cache, manner: Manner::join(manners), rows, logits, width })
    }

    /// Goes on with these rows only.
    pub fn pick(&mut self, decoder: &mut Decoder, rows: &[usize]) -> Result<(), GroundError> {
        self.logits = rows.iter().flat_map(|row| self.next(*row)).copied().collect();
        self.rows = rows.iter().filter_map(|row| self.rows.get(*row)).copied().collect();
        self.manner.pick(rows);
        let longest = self.longest();
        decoder.pick(&mut self.cache, rows, longest)
    }

    /// Leaves out the encoder's states, for graphs that read them once and then look into their cache: nothing of them has to
    /// be carried to every step.
    pub(super) fn without_states(mut self) -> Self {
        if let Manner::Encoder { states, .. } = &mut self.manner {
            let shape = vec![states.shape[0], 1, states.shape[2]];
            *states = Tensor { data: Data::F32(vec![0.0; shape.iter().product()]), shape };
        }
        self
    }

    /// Logits after the latest tokens; after a prompt those of the last positions asked for.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Logits of what follows in one row.
    pub fn next(&self, row: usize) -> &[f32] {
        let from = self.logits.len() - (self.rows.len() - row) * self.width;
        &self.logits[from..from + self.width]
    }

    /// Tokens behind the answer in one row.
    pub fn place(&self, row: usize) -> usize {
        self.rows[row].place
    }

    fn longest(&self) -> usize {
        self.rows.iter().map(|row| row.place).max().unwrap_or(0)
    }

    /// Says a token in each row: the next logits are those of what follows.
    pub fn say(&mut self, decoder: &mut Decoder, tokens: &[u32]) -> Result<(), GroundError> {
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let (count, total) = (self.rows.len(), self.longest() + 1);
        let position = |row: &Row| i64::try_from(row.place).unwrap_or(i64::MAX).saturating_add(row.delta);
        let positions: Vec<i64> = self.rows.iter().map(position).collect();
        let mask = self.rows.iter().flat_map(|row| plan::mask(row.place + 1, total)).collect();
        let mut extra = vec![
            ("inputs_embeds", decoder.embed_rows(count, &ids)?),
            // Where the graph asks for it.
            ("attention_mask", Tensor::i64s(&[count, total], mask)),
        ];
        match self.manner {
            Manner::Mrope { deepstack } => {
                extra.push(("position_ids", Tensor::i64s(&[3, count, 1], positions.repeat(3))));
                if deepstack > 0 {
                    let data = Data::F32(vec![0.0; deepstack * count * decoder.hidden()]);
                    let shape = vec![deepstack, count, 1, decoder.hidden()];
                    extra.push(("deepstack_embeds", Tensor { shape, data }));
                }
            }
            Manner::Counted => extra.push(("position_ids", Tensor::i64s(&[count, 1], positions))),
            Manner::Encoder { .. } => {}
        }
        let mut feeds: Vec<_> = extra.iter().map(|(name, tensor)| (*name, Input::Tensor(tensor))).collect();
        self.manner.encoder(&mut feeds);
        self.logits = decoder.run(&mut self.cache, &feeds, 1)?;
        self.width = self.logits.len() / count.max(1);
        for row in &mut self.rows {
            row.place += 1;
        }
        Ok(())
    }
}

impl Manner {
    fn encoder<'a>(&'a self, feeds: &mut Vec<(&'a str, Input<'a>)>) {
        if let Self::Encoder { states, mask } = self {
            feeds.push(("encoder_hidden_states", Input::Tensor(states)));
            feeds.push(("encoder_attention_mask", Input::Tensor(mask)));
        }
    }

    /// Manners of one family side by side.
    fn join(manners: Vec<Self>) -> Self {
        let both = |manner: &Self| match manner {
            Self::Encoder { states, mask } => Some((states.clone(), mask.clone())),
            _ => None,
        };
        let (states, masks): (Vec<_>, Vec<_>) = manners.iter().filter_map(both).unzip();
        match manners.into_iter().next() {
            Some(Self::Encoder { .. }) => Self::Encoder { states: stacked(&states), mask: stacked(&masks) },
            Some(other) => other,
            None => Self::Counted,
        }
    }

    fn pick(&mut self, rows: &[usize]) {
        if let Self::Encoder { states, mask } = self {
            for tensor in [states, mask] {
                let each = tensor.shape[1..].iter().product::<usize>();
                match &mut tensor.data {
                    Data::F32(data) => *data = picked(data, each, rows),
                    Data::I64(data) => *data = picked(data, each, rows),
                    _ => {}
                }
                tensor.shape[0] = rows.len();
            }
        }
    }
}

fn picked<T: Copy>(data: &[T], each: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|row| &data[row * each..(row + 1) * each]).copied().collect()
}

/// Tensors `[rows, length, …]` under one another, zeros before those that are shorter: as the cache is filled up.
fn stacked(tensors: &[Tensor]) -> Tensor {
    fn rows<T: Copy + Default>(tensor: &Tensor, data: &[T], total: usize, out: &mut Vec<T>) {
        let each: usize = tensor.shape[2..].iter().product();
        for row in data.chunks(tensor.shape[1] * each) {
            out.resize(out.len() + (total - tensor.shape[1]) * each, T::default());
            out.extend_from_slice(row);
        }
    }
    let total = tensors.iter().map(|tensor| tensor.shape[1]).max().unwrap_or(0);
    let (mut floats, mut numbers, mut count) = (Vec::new(), Vec::new(), 0);
    for tensor in tensors {
        count += tensor.shape[0];
        match &tensor.data {
            Data::F32(data) => rows(tensor, data, total, &mut floats),
            Data::I64(data) => rows(tensor, data, total, &mut numbers),
            _ => {}
        }
    }
    let more = tensors.first().map(|tensor| tensor.shape[2..].to_vec()).unwrap_or_default();
    let data = if floats.is_empty() { Data::I64(numbers) } else { Data::F32(floats) };
    Tensor { shape: [vec![count, total], more].concat(), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_states_stand_where_their_keys_do() {
        let heard = |length: usize, value: u8| {
            let states = Tensor::f32s(&[1, length, 2], vec![f32::from(value); length * 2]);
            Manner::Encoder { states, mask: Tensor::i64s(&[1, length], vec![1; length]) }
        };
        let mut joined = Manner::join(vec![heard(1, 5), heard(3, 6), heard(2, 7)]);
        joined.pick(&[0, 2]);
        let Manner::Encoder { states, mask } = joined else { panic!("another manner") };
        assert_eq!((states.shape, mask.shape), (vec![2, 3, 2], vec![2, 3]));
        assert_eq!(mask.data, Data::I64(vec![0, 0, 1, 0, 1, 1]));
        let expected = [0.0, 0.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0, 7.0, 7.0, 7.0, 7.0];
        assert_eq!(states.data, Data::F32(expected.to_vec()));
    }
}

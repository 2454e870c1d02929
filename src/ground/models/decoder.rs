//! A language model as two graphs, `embed_tokens` and `decoder_model_merged`, and the cache between its steps.
//!
//! The names are those of the exports published for transformers.js; what a graph has beyond the needed is read from its
//! ports: `num_logits_to_keep`, `use_cache_branch`, `position_ids`, `deepstack_embeds`. The cache is whatever inputs begin
//! with `past_key_values.`, in whatever element type; it stays where the engine computed it.

use super::{Open, need, open_role};
use crate::ground::{
    GroundError,
    engine::{self, Data, Element, Engine, EngineError, Input, Kept, Port, Tensor},
    manifest::{self, Manifest},
};

const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";

/// Inputs that are fed here if the graph has them, and by whom asked for.
const KNOWN: &[&str] = &[
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "num_logits_to_keep",
    "deepstack_embeds",
    "use_cache_branch",
    "encoder_attention_mask",
    "encoder_hidden_states",
];

/// One input of the cache, and the output that becomes it.
struct Slot {
    past: String,
    present: String,
    empty: [usize; 4],
    /// Of the encoder: computed in the first step, the same ever after.
    lasting: bool,
}

/// What a conversation has behind it, one entry a slot.
pub struct Cache {
    kept: Vec<Kept>,
    begun: bool,
}

/// The two graphs.
pub struct Decoder {
    embed: Box<dyn Engine>,
    graph: Box<dyn Engine>,
    slots: Vec<Slot>,
    hidden: usize,
    vocabulary: usize,
}

impl Decoder {
    /// Opens the two files of `manifest`.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let facts = need(manifest, "decoder", manifest.decoder.as_ref())?;
        let embed = open_role(manifest, "embed_tokens", open)?;
        let graph = open_role(manifest, "decoder_model_merged", open)?;
        let (hidden, vocabulary) = (facts.hidden, facts.vocabulary);
        let ids = Port::new("input_ids", Element::I64, &[None, None]);
        let embeds = Port::new("inputs_embeds", Element::F32, &[None, None, Some(hidden)]);
        engine::check_ports(embed.as_ref(), &[ids], &[embeds])?;
        let slots = slots(graph.as_ref(), facts)?;
        Ok(Self { embed, graph, slots, hidden, vocabulary })
    }

    /// Width of an embedding.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Whether the graph has this input.
    pub fn takes(&self, name: &str) -> bool {
        self.graph.inputs().iter().any(|p| p.name == name)
    }

    /// The embeddings of some tokens, `[1, tokens, hidden]`.
    pub fn embed(&mut self, ids: &[i64]) -> Result<Tensor, GroundError> {
        let input = Tensor { shape: vec![1, ids.len()], data: Data::I64(ids.to_vec()) };
        let shape = [1, ids.len(), self.hidden];
        let [data] = engine::run_f32(self.embed.as_mut(), &[("input_ids", &input)], [("inputs_embeds", &shape)])?;
        Ok(Tensor { shape: shape.to_vec(), data: Data::F32(data) })
    }

    /// A cache with nothing in it.
    pub fn begin(&self) -> Result<Cache, GroundError> {
        let blank = |slot: &Slot| self.graph.blank(&slot.past, &slot.empty);
        let kept = self.slots.iter().map(blank).collect::<Result<_, _>>()?;
        Ok(Cache { kept, begun: false })
    }

    /// Feeds `feeds` on top of `cache`, which grows by it; the logits of the last `last` positions, one after the other.
    pub fn run(
        &mut self,
        cache: &mut Cache,
        feeds: &[(&str, Input<'_>)],
        last: usize,
    ) -> Result<Vec<f32>, GroundError> {
        let count = i64::try_from(last).unwrap_or(i64::MAX);
        let keep = Tensor { shape: vec![], data: Data::I64(vec![count]) };
        let branch = Tensor { shape: vec![1], data: Data::Bool(vec![cache.begun]) };
        let mut inputs = feeds.to_vec();
        for (name, tensor) in [("num_logits_to_keep", &keep), ("use_cache_branch", &branch)] {
            if self.takes(name) {
                inputs.push((name, Input::Tensor(tensor)));
            }
        }
        inputs.extend(self.slots.iter().zip(&cache.kept).map(|(slot, kept)| (slot.past.as_str(), Input::Kept(kept))));
        let mut outputs = self.graph.run_keeping(&inputs, &|name| name.starts_with(PRESENT))?;
        for (slot, kept) in self.slots.iter().zip(&mut cache.kept) {
            let present = outputs.take_kept(&slot.present);
            if !(slot.lasting && cache.begun) {
                *kept = present.ok_or_else(|| self.failed(format!("it gave no `{}`", slot.present)))?;
            }
        }
        cache.begun = true;
        let logits = outputs.host.take("logits").ok_or_else(|| self.failed("it gave no `logits`".to_owned()))?;
        self.last_rows(logits, last)
    }

    fn last_rows(&self, logits: Tensor, last: usize) -> Result<Vec<f32>, GroundError> {
        let (shape, wanted) = (logits.shape.clone(), self.vocabulary);
        let data = logits.into_f32().filter(|data| {
            matches!(shape.as_slice(), &[1, rows, width] if rows >= last && width >= wanted && data.len() == rows * width)
        });
        let problem =
            || self.failed(format!("its `logits` are {shape:?}; {last} rows of {wanted} floats were expected"));
        let mut data = data.ok_or_else(problem)?;
        let width = shape.last().copied().unwrap_or(wanted);
        Ok(data.split_off(data.len() - last * width))
    }

    /// An error that names the decoder's file.
    pub fn failed(&self, reason: String) -> EngineError {
        EngineError::Run { file: self.graph.file().to_owned(), reason }
    }
}

/// The graph's cache, checked against the manifest's numbers and the graph's other inputs against what is known here.
fn slots(graph: &dyn Engine, facts: &manifest::Decoder) -> Result<Vec<Slot>, EngineError> {
    let wrong = |what, expected: String, found: String| EngineError::Ports {
        file: graph.file().to_owned(),
        what,
        expected,
        found,
    };
    let mut slots = Vec::new();
    for port in graph.inputs() {
        let Some(rest) = port.name.strip_prefix(PAST) else {
            if KNOWN.contains(&port.name.as_str()) {
                continue;
            }
            return Err(wrong("inputs", format!("among {} and {PAST}*", KNOWN.join(", ")), port.to_string()));
        };
        let present = format!("{PRESENT}{rest}");
        if !graph.outputs().iter().any(|p| p.name == present) {
            return Err(wrong("outputs", format!("with {present}"), "without it".to_owned()));
        }
        let axis = |at: usize, usual: usize| port.shape.get(at).copied().flatten().unwrap_or(usual);
        let empty = [1, axis(1, facts.kv_heads), 0, axis(3, facts.head_dim)];
        if port.shape.len() != 4 || empty[1] != facts.kv_heads || empty[3] != facts.head_dim {
            let expected = format!("{} of [?,{},?,{}]", port.name, facts.kv_heads, facts.head_dim);
            return Err(wrong("inputs", expected, port.to_string()));
        }
        slots.push(Slot { past: port.name.clone(), present, empty, lasting: rest.contains(".encoder.") });
    }
    let own = slots.iter().filter(|slot| !slot.lasting).count();
    if own != facts.layers * 2 {
        let expected = format!("a key and a value for each of {} layers", facts.layers);
        return Err(wrong("inputs", expected, format!("{own} of them")));
    }
    Ok(slots)
}

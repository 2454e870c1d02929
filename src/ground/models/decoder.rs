//! A language model as two graphs, `embed_tokens` and `decoder_model_merged`, and the cache between its steps.
//!
//! The names are those of the exports published for transformers.js; what a graph has beyond the needed is read from its
//! ports: `num_logits_to_keep`, `use_cache_branch`, `position_ids`, `deepstack_embeds`. The cache is whatever inputs begin
//! with `past_key_values.`, in whatever element type; it stays where the engine computed it. Layers, heads and widths are what
//! the ports say; a manifest's `[decoder]` is compared with them, and asked only for what they leave open.

use super::{Open, open_role};
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
    written: u64,
}

impl Decoder {
    /// Opens the two files of `manifest`.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let facts = manifest.decoder.as_ref();
        let mut embed = open_role(manifest, "embed_tokens", open)?;
        let graph = open_role(manifest, "decoder_model_merged", open)?;
        let hidden = match facts.map(|facts| facts.hidden).or_else(|| last_axis(embed.outputs(), "inputs_embeds")) {
            Some(hidden) => hidden,
            None => width(embed.as_mut())?,
        };
        let vocabulary =
            facts.map(|facts| facts.vocabulary).or_else(|| last_axis(graph.outputs(), "logits")).unwrap_or(1);
        let ids = Port::new("input_ids", Element::I64, &[None, None]);
        let embeds = Port::new("inputs_embeds", Element::F32, &[None, None, Some(hidden)]);
        engine::check_ports(embed.as_ref(), &[ids], &[embeds])?;
        let slots = slots(graph.as_ref(), facts)?;
        Ok(Self { embed, graph, slots, hidden, vocabulary, written: 0 })
    }

    /// Width of an embedding.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Tokens of answers so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Counts a token of an answer.
    pub(super) fn wrote(&mut self) {
        self.written += 1;
    }

    /// Layers that see the picture's features again.
    pub fn deepstack(&self) -> usize {
        let port = self.graph.inputs().iter().find(|port| port.name == "deepstack_embeds");
        port.and_then(|port| port.shape.first().copied().flatten()).unwrap_or(0)
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
        // Exports differ in what they take; what a graph has no place for it works out itself.
        let mut inputs: Vec<_> = feeds.iter().filter(|(name, _)| self.takes(name)).copied().collect();
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

/// The last axis of a port, if it is fixed.
fn last_axis(ports: &[Port], name: &str) -> Option<usize> {
    ports.iter().find(|port| port.name == name)?.shape.last().copied().flatten()
}

/// The width of an embedding where the port does not say: by one token.
fn width(embed: &mut dyn Engine) -> Result<usize, EngineError> {
    let one = Tensor { shape: vec![1, 1], data: Data::I64(vec![0]) };
    let given = embed.run(&[("input_ids", &one)])?.take("inputs_embeds");
    given.and_then(|tensor| tensor.shape.last().copied()).ok_or_else(|| EngineError::Ports {
        file: embed.file().to_owned(),
        what: "outputs",
        expected: "inputs_embeds".to_owned(),
        found: embed.outputs().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })
}

/// The graph's cache, checked against the manifest's numbers if it has any, and the graph's other inputs against what is
/// known here.
fn slots(graph: &dyn Engine, facts: Option<&manifest::Decoder>) -> Result<Vec<Slot>, EngineError> {
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
        let axis = |at: usize| port.shape.get(at).copied().flatten();
        let said = facts.map(|facts| (facts.kv_heads, facts.head_dim));
        let (heads, width) = (axis(1).or(said.map(|said| said.0)), axis(3).or(said.map(|said| said.1)));
        let empty = match (heads, width, port.shape.len()) {
            (Some(heads), Some(width), 4) if said.is_none_or(|said| said == (heads, width)) => [1, heads, 0, width],
            _ => {
                let (heads, width) =
                    said.map_or(("heads".into(), "width".into()), |s| (s.0.to_string(), s.1.to_string()));
                let expected = format!("{} of [?,{heads},?,{width}]", port.name);
                return Err(wrong("inputs", expected, port.to_string()));
            }
        };
        slots.push(Slot { past: port.name.clone(), present, empty, lasting: rest.contains(".encoder.") });
    }
    let own = slots.iter().filter(|slot| !slot.lasting).count();
    match facts {
        Some(facts) if own != facts.layers * 2 => {
            let expected = format!("a key and a value for each of {} layers", facts.layers);
            Err(wrong("inputs", expected, format!("{own} of them")))
        }
        None if own == 0 || !own.is_multiple_of(2) => {
            Err(wrong("inputs", "a key and a value for each layer".to_owned(), format!("{own} of them")))
        }
        _ => Ok(slots),
    }
}

//! A language model as two graphs, `embed_tokens` and `decoder_model_merged`, and the cache between its steps.
//!
//! The names are those of the exports published for transformers.js; what a graph has beyond the needed is read from its
//! ports: `num_logits_to_keep`, `use_cache_branch`, `position_ids`, `deepstack_embeds`, `hidden_states`. The cache is whatever inputs begin
//! with `past_key_values.`, in whatever element type; it stays where the engine computed it. Layers, heads and widths are what
//! the ports say; a manifest's `[decoder]` is compared with them, and asked only for what they leave open.

use std::sync::Arc;

use super::{Open, open_role, plan};
use crate::ground::{
    GroundError,
    engine::{self, Data, Element, Engine, EngineError, Input, Kept, Part, Port, Tensor},
    manifest::{self, Manifest},
};

const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";
const STATES: &str = "hidden_states";

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

/// What conversations have behind them, one entry a slot, one row a conversation. A copy shares what is kept: going on from
/// one leaves the other as it was.
#[derive(Debug, Clone)]
pub struct Cache {
    kept: Vec<Arc<Kept>>,
    begun: bool,
}

/// The two graphs.
pub struct Decoder {
    embed: Box<dyn Engine>,
    graph: Box<dyn Engine>,
    slots: Vec<Slot>,
    hidden: usize,
    vocabulary: usize,
    state: Vec<f32>,
    written: u64,
}

impl Decoder {
    /// Opens the two files of `manifest`.
    pub fn open(manifest: &Manifest, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let facts = manifest.decoder.as_ref();
        let mut embed = open_role(manifest, "embed_tokens", open)?;
        let graph = open_role(manifest, "decoder_model_merged", open)?;
        let hidden = match facts.map(|facts| facts.hidden).or_else(|| last_axis(embed.output("inputs_embeds"))) {
            Some(hidden) => hidden,
            None => width(embed.as_mut())?,
        };
        let vocabulary = facts.map(|facts| facts.vocabulary).or_else(|| last_axis(graph.output("logits"))).unwrap_or(1);
        let ids = Port::new("input_ids", Element::I64, &[None, None]);
        let embeds = Port::new("inputs_embeds", Element::F32, &[None, None, Some(hidden)]);
        engine::check_ports(embed.as_ref(), &[ids], &[embeds])?;
        let slots = slots(graph.as_ref(), facts)?;
        Ok(Self { embed, graph, slots, hidden, vocabulary, state: Vec::new(), written: 0 })
    }

    /// Width of an embedding.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Whether the graph gives the last layer's states, normed: what the logits are made of.
    pub fn gives_states(&self) -> bool {
        self.graph.output(STATES).is_some()
    }

    /// The last layer's state at the last position of the latest run; empty if the graph gives none.
    pub fn state(&self) -> &[f32] {
        &self.state
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
        self.graph.input("deepstack_embeds").and_then(|port| port.shape.first().copied().flatten()).unwrap_or(0)
    }

    /// Whether the graph has this input.
    pub fn takes(&self, name: &str) -> bool {
        self.graph.input(name).is_some()
    }

    /// The embeddings of some tokens, `[1, tokens, hidden]`.
    pub fn embed(&mut self, ids: &[i64]) -> Result<Tensor, GroundError> {
        self.embed_rows(1, ids)
    }

    /// The embeddings of the tokens of some rows, `[rows, tokens of each, hidden]`.
    pub(super) fn embed_rows(&mut self, rows: usize, ids: &[i64]) -> Result<Tensor, GroundError> {
        let each = ids.len() / rows.max(1);
        let input = Tensor::i64s(&[rows, each], ids.to_vec());
        let shape = [rows, each, self.hidden];
        let [data] = engine::run_f32(self.embed.as_mut(), &[("input_ids", &input)], [("inputs_embeds", &shape)])?;
        Ok(Tensor::f32s(&shape, data))
    }

    /// The same, with `features` in place of those from the `from`th on. Which tokens stand there is all one: they may lie
    /// outside the table.
    pub(super) fn embed_with(&mut self, ids: &[i64], from: usize, features: &[f32]) -> Result<Tensor, GroundError> {
        let (hidden, mut ids) = (self.hidden, ids.to_vec());
        ids[from..from + features.len() / hidden.max(1)].fill(0);
        let mut embeds = self.embed(&ids)?;
        if let Data::F32(rows) = &mut embeds.data {
            rows[from * hidden..][..features.len()].copy_from_slice(features);
        }
        Ok(embeds)
    }

    /// A cache with nothing in it.
    pub fn begin(&self) -> Result<Cache, GroundError> {
        let blank = |slot: &Slot| self.graph.blank(&slot.past, &slot.empty).map(Arc::new);
        let kept = self.slots.iter().map(blank).collect::<Result<_, _>>()?;
        Ok(Cache { kept, begun: false })
    }

    /// Whether the graphs say that any number of conversations goes in at once.
    pub(super) fn takes_rows(&self) -> bool {
        let free = |port: &Port| {
            let batch = match port.name.as_str() {
                "num_logits_to_keep" | "use_cache_branch" => return true,
                "position_ids" => port.shape.len().saturating_sub(2),
                "deepstack_embeds" => 1,
                _ => 0,
            };
            port.shape.get(batch).is_some_and(Option::is_none)
        };
        let logits = self.graph.output("logits");
        self.embed.inputs().iter().chain(self.graph.inputs()).chain(logits).all(free)
    }

    /// Conversations side by side. The shorter ones are filled up in front.
    pub(super) fn join(&mut self, caches: &[&Cache]) -> Result<Cache, GroundError> {
        let arranged = |slot: usize| {
            let kept: Vec<_> = caches.iter().map(|cache| cache.kept[slot].as_ref()).collect();
            let total = kept.iter().map(|kept| kept.shape[2]).max().unwrap_or(0);
            let parts = kept.into_iter().map(|kept| {
                let columns = plan::columns(kept.shape[2], total);
                Part { columns, ..Part::whole(kept) }
            });
            let parts: Vec<_> = parts.collect();
            Ok(Arc::new(self.graph.arrange(&parts)?))
        };
        let kept = (0..self.slots.len()).map(arranged).collect::<Result<_, EngineError>>()?;
        Ok(Cache { kept, begun: caches.iter().all(|cache| cache.begun) })
    }

    /// Leaves only these rows, the longest of which is `length`, of a cache.
    pub(super) fn pick(&mut self, cache: &mut Cache, rows: &[usize], length: usize) -> Result<(), GroundError> {
        let rows: Vec<i64> = rows.iter().filter_map(|row| i64::try_from(*row).ok()).collect();
        for (slot, kept) in self.slots.iter().zip(&mut cache.kept) {
            let mut part = Part { rows: rows.clone(), ..Part::whole(kept) };
            if !slot.lasting {
                part.columns.drain(..kept.shape[2].saturating_sub(length));
            }
            *kept = Arc::new(self.graph.arrange(&[part])?);
        }
        Ok(())
    }

    /// Feeds `feeds` on top of `cache`, which grows by it; the logits of the last `last` positions, one after the other, of
    /// one row after the other.
    pub fn run(
        &mut self,
        cache: &mut Cache,
        feeds: &[(&str, Input<'_>)],
        last: usize,
    ) -> Result<Vec<f32>, GroundError> {
        let count = i64::try_from(last).unwrap_or(i64::MAX);
        let keep = Tensor::i64s(&[], vec![count]);
        let branch = Tensor { shape: vec![1], data: Data::Bool(vec![cache.begun]) };
        // Exports differ in what they take; what a graph has no place for it works out itself.
        let mut inputs: Vec<_> = feeds.iter().filter(|(name, _)| self.takes(name)).copied().collect();
        for (name, tensor) in [("num_logits_to_keep", &keep), ("use_cache_branch", &branch)] {
            if self.takes(name) {
                inputs.push((name, Input::Tensor(tensor)));
            }
        }
        inputs.extend(
            self.slots.iter().zip(&cache.kept).map(|(slot, kept)| (slot.past.as_str(), Input::Kept(kept.as_ref()))),
        );
        let mut outputs = self.graph.run_keeping(&inputs, &|name| name.starts_with(PRESENT))?;
        for (slot, kept) in self.slots.iter().zip(&mut cache.kept) {
            let present = outputs.take_kept(&slot.present);
            if !(slot.lasting && cache.begun) {
                let present = present.ok_or_else(|| self.failed(format!("it gave no `{}`", slot.present)))?;
                *kept = Arc::new(present);
            }
        }
        cache.begun = true;
        self.state = self.last_state(outputs.host.take(STATES))?;
        let logits = outputs.host.take("logits").ok_or_else(|| self.failed("it gave no `logits`".to_owned()))?;
        self.last_rows(logits, last)
    }

    fn last_state(&self, states: Option<Tensor>) -> Result<Vec<f32>, EngineError> {
        let Some(states) = states else { return Ok(Vec::new()) };
        let (shape, hidden) = (states.shape.clone(), self.hidden);
        let data = states.into_f32().filter(|data| shape.last() == Some(&hidden) && data.len() >= hidden);
        let mut data = data.ok_or_else(|| {
            self.failed(format!("its `{STATES}` are {shape:?}; f32[1, positions, {hidden}] was expected"))
        })?;
        Ok(data.split_off(data.len() - hidden))
    }

    fn last_rows(&self, logits: Tensor, last: usize) -> Result<Vec<f32>, GroundError> {
        let (shape, wanted) = (logits.shape.clone(), self.vocabulary);
        let data = logits.into_f32().filter(|data| {
            matches!(shape.as_slice(), &[batch, rows, width]
                if rows >= last.max(1) && width >= wanted.max(1) && data.len() == batch * rows * width)
        });
        let problem =
            || self.failed(format!("its `logits` are {shape:?}; {last} rows of {wanted} floats were expected"));
        let mut data = data.ok_or_else(problem)?;
        let (rows, width) = (shape[1], shape[2]);
        if rows > last {
            data = data.chunks(rows * width).flat_map(|own| &own[(rows - last) * width..]).copied().collect();
        }
        Ok(data)
    }

    /// An error that names the decoder's file.
    pub fn failed(&self, reason: String) -> EngineError {
        self.graph.failed(reason)
    }
}

/// The last axis of a port, if it is fixed.
fn last_axis(port: Option<&Port>) -> Option<usize> {
    port?.shape.last().copied().flatten()
}

/// The width of an embedding where the port does not say: by one token.
fn width(embed: &mut dyn Engine) -> Result<usize, EngineError> {
    let one = Tensor::i64s(&[1, 1], vec![0]);
    let given = embed.run(&[("input_ids", &one)])?.take("inputs_embeds");
    let width = given.and_then(|tensor| tensor.shape.last().copied());
    width.ok_or_else(|| embed.wrong_outputs("inputs_embeds".to_owned()))
}

/// The graph's cache, checked against the manifest's numbers if it has any, and the graph's other inputs against what is
/// known here.
fn slots(graph: &dyn Engine, facts: Option<&manifest::Decoder>) -> Result<Vec<Slot>, EngineError> {
    let mut slots = Vec::new();
    for port in graph.inputs() {
        let Some(rest) = port.name.strip_prefix(PAST) else {
            if KNOWN.contains(&port.name.as_str()) {
                continue;
            }
            return Err(graph.wrong_ports(
                "inputs",
                format!("among {} and {PAST}*", KNOWN.join(", ")),
                port.to_string(),
            ));
        };
        let present = format!("{PRESENT}{rest}");
        if graph.output(&present).is_none() {
            return Err(graph.wrong_ports("outputs", format!("with {present}"), "without it".to_owned()));
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
                return Err(graph.wrong_ports("inputs", expected, port.to_string()));
            }
        };
        slots.push(Slot { past: port.name.clone(), present, empty, lasting: rest.contains(".encoder.") });
    }
    let own = slots.iter().filter(|slot| !slot.lasting).count();
    match facts {
        Some(facts) if own != facts.layers * 2 => {
            let expected = format!("a key and a value for each of {} layers", facts.layers);
            Err(graph.wrong_ports("inputs", expected, format!("{own} of them")))
        }
        None if own == 0 || !own.is_multiple_of(2) => {
            Err(graph.wrong_ports("inputs", "a key and a value for each layer".to_owned(), format!("{own} of them")))
        }
        _ => Ok(slots),
    }
}

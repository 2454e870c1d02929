//! Engines that note down what is run, and that may be worse than they say.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use groundd::ground::engine::{
    Data, Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor, local::Local,
};

/// One run of one graph: rows and tokens of `inputs_embeds` or `input_ids`, or pictures and patches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    pub(crate) graph: String,
    pub(crate) rows: usize,
    pub(crate) length: usize,
    pub(crate) ids: Vec<i64>,
    pub(crate) past: usize,
    /// Length of the encoder's states that were fed.
    pub(crate) states: usize,
    /// Of every row, after what was fed last.
    pub(crate) logits: Vec<Vec<f32>>,
}

pub(crate) type Runs = Arc<Mutex<Vec<Run>>>;

/// How a graph is worse than it says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Vice {
    None,
    /// Takes every key for one that counts.
    Maskless,
    /// Takes one row at a time.
    OneRow,
    /// Takes a prompt only with an empty cache.
    WholePrompts,
    /// Sees the last picture in the place of every other.
    MixesPictures,
    /// Has memory for two rows.
    Tight,
    /// Reads the encoder's states at every step.
    Forgetful,
}

pub(crate) struct Watched {
    engine: Local,
    vice: Vice,
    runs: Runs,
}

impl Watched {
    /// `engine`, whose runs are noted down.
    pub(crate) fn new(engine: Local, vice: Vice, runs: &Runs) -> Self {
        Self { engine, vice, runs: Arc::clone(runs) }
    }

    fn is(&self, graph: &str) -> bool {
        self.engine.file().ends_with(format!("{graph}.onnx"))
    }

    fn fails(&self, first: &Tensor) -> EngineError {
        self.note("refused", first, [0, 0], Vec::new());
        self.failed("it does not do that".to_owned())
    }

    fn name(&self) -> String {
        self.engine.file().file_stem().unwrap().to_string_lossy().into_owned()
    }

    fn note(&self, graph: &str, first: &Tensor, [past, states]: [usize; 2], logits: Vec<Vec<f32>>) {
        let graph = graph.to_owned();
        let ids = if let Data::I64(ids) = &first.data { ids.clone() } else { Vec::new() };
        let length = first.shape.get(1).copied().unwrap_or(1);
        self.runs.lock().unwrap().push(Run { graph, rows: first.shape[0], length, ids, past, states, logits });
    }
}

impl Engine for Watched {
    fn inputs(&self) -> &[Port] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.engine.outputs()
    }

    fn file(&self) -> &Path {
        self.engine.file()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        self.note(&self.name(), inputs[0].1, [0, 0], Vec::new());
        if self.vice == Vice::MixesPictures && self.is("vision_encoder") {
            let mut mixed = inputs[0].1.clone();
            let Data::F32(values) = &mut mixed.data else { panic!("pixels are floats") };
            let half = values.len() / 2;
            // Pictures of a trial lie one behind the other.
            let several = if inputs.len() == 1 { mixed.shape[0] > 1 } else { inputs[1].1.shape[0] > 1 };
            if several {
                values.copy_within(half.., 0);
            }
            return self.engine.run(&[&[(inputs[0].0, &mixed)], &inputs[1..]].concat());
        }
        self.engine.run(inputs)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        let host = |name: &str| inputs.iter().find(|(n, _)| *n == name).map(|(_, input)| *input);
        let Some(Input::Tensor(fed)) = host("inputs_embeds") else { panic!("it is on the host") };
        let past = inputs.iter().find_map(|(name, input)| match input {
            Input::Kept(kept) if !name.contains("encoder") => Some(kept.shape[2]),
            _ => None,
        });
        let past = past.unwrap();
        if (self.vice == Vice::Tight && fed.shape[0] > 2)
            || (self.vice == Vice::OneRow && fed.shape[0] > 1)
            || (self.vice == Vice::WholePrompts && past > 0 && fed.shape[1] > 1)
        {
            return Err(self.fails(fed));
        }
        let mut blind: Vec<(usize, Tensor)> = Vec::new();
        if self.vice == Vice::Maskless {
            for (at, (name, input)) in
                inputs.iter().enumerate().filter(|(_, (name, _))| name.ends_with("attention_mask"))
            {
                let Input::Tensor(mask) = input else { panic!("{name} is on the host") };
                let data = Data::I64(vec![1; mask.shape.iter().product()]);
                blind.push((at, Tensor { shape: mask.shape.clone(), data }));
            }
        }
        let mut given = inputs.to_vec();
        for (at, tensor) in &blind {
            given[*at].1 = Input::Tensor(tensor);
        }
        let mut outputs = self.engine.run_keeping(&given, keep)?;
        let mut logits = outputs.host.take("logits").unwrap();
        let states = match host("encoder_hidden_states") {
            Some(Input::Tensor(states)) => states.shape[1],
            _ => 0,
        };
        if let (Vice::Forgetful, 1, Data::F32(values)) = (self.vice, states, &mut logits.data) {
            for value in values {
                *value = -*value;
            }
        }
        let (width, each) = (logits.shape[2], logits.shape[1] * logits.shape[2]);
        let Data::F32(values) = &logits.data else { panic!("logits are floats") };
        let last = values.chunks(each).map(|row| row[row.len() - width..].to_vec()).collect();
        self.note(&self.name(), fed, [past, states], last);
        outputs.host = Outputs::new(vec![("logits".into(), logits)]);
        Ok(outputs)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.engine.blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.engine.arrange(parts)
    }
}

/// What was run since this was asked last.
pub(crate) fn taken(runs: &Runs) -> Vec<Run> {
    std::mem::take(&mut *runs.lock().unwrap())
}

/// The runs of one graph.
pub(crate) fn of<'a>(runs: &'a [Run], graph: &'a str) -> impl Iterator<Item = &'a Run> {
    runs.iter().filter(move |run| run.graph == graph)
}

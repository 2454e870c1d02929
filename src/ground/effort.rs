//! What answers take, whatever the machine: runs of the model's graphs are counted where files are opened, so no family can
//! forget them; tokens are counted by those who write them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    AskConfig, GroundError, Grounder, Limits, ModelInfo, QueryCheck,
    engine::{Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor},
};
use crate::types::{Answer, Batch, Followed, Work};

/// What a model has done since it was loaded; differences are what an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Runs of the model's graphs, each of its files counted; `None` if nobody counts them.
    pub passes: Option<u64>,
    /// Tokens the model wrote; `None` if nobody counts them.
    pub tokens: Option<u64>,
}

impl Effort {
    /// What was done after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let difference = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self { passes: difference(self.passes, before.passes), tokens: difference(self.tokens, before.tokens) }
    }
}

/// Counts the runs of a model's engines.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// `engine`, whose runs are counted from now on.
    pub(super) fn count(&self, engine: impl Engine + 'static) -> Box<dyn Engine> {
        Box::new(Counted { engine, runs: Arc::clone(&self.0) })
    }

    /// The model whose engines these are.
    pub(super) fn grounder(self, grounder: Box<dyn Grounder>) -> Box<dyn Grounder> {
        Box::new(Metered { grounder, meter: self })
    }
}

struct Counted<E> {
    engine: E,
    runs: Arc<AtomicU64>,
}

impl<E: Engine> Engine for Counted<E> {
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
        self.runs.fetch_add(1, Relaxed);
        self.engine.run(inputs)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        self.runs.fetch_add(1, Relaxed);
        self.engine.run_keeping(inputs, keep)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.engine.blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.engine.arrange(parts)
    }
}

struct Metered {
    grounder: Box<dyn Grounder>,
    meter: Meter,
}

impl Grounder for Metered {
    fn limits(&self) -> Limits {
        self.grounder.limits()
    }

    fn describe(&self) -> ModelInfo {
        self.grounder.describe()
    }

    fn checker(&self) -> QueryCheck {
        self.grounder.checker()
    }

    fn effort(&self) -> Effort {
        Effort { passes: Some(self.meter.0.load(Relaxed)), ..self.grounder.effort() }
    }

    fn ask(&mut self, config: &AskConfig, stream_time: bool) {
        self.grounder.ask(config, stream_time);
    }

    fn work(&self) -> Arc<Work> {
        self.grounder.work()
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.grounder.follow(followed);
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        self.grounder.ground(batch)
    }
}

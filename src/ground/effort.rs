//! What answers take, whatever the machine: runs of the model's graphs are counted where files are opened, so no family can
//! forget them; tokens are counted by those who write them.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    AskConfig, GroundError, Grounder, Limits, ModelInfo, QueryCheck,
    engine::{Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor},
};
use crate::types::{Answer, Batch, Followed, Pulse, Work};

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
pub(super) struct Meter(Arc<Runs>);

#[derive(Debug, Default)]
struct Runs {
    count: AtomicU64,
    /// Beats with every run, once there is one.
    pulse: OnceLock<Pulse>,
}

impl Runs {
    /// One begins.
    fn begin(&self) {
        self.count.fetch_add(1, Relaxed);
        if let Some(pulse) = self.pulse.get() {
            pulse.beat();
        }
    }
}

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
    runs: Arc<Runs>,
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
        self.runs.begin();
        self.engine.run(inputs)
    }

    fn lanes(&self) -> usize {
        self.engine.lanes()
    }

    fn run_each(&mut self, runs: &[Vec<(&str, &Tensor)>]) -> Result<Vec<Outputs>, EngineError> {
        for _ in runs {
            self.runs.begin();
        }
        self.engine.run_each(runs)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        self.runs.begin();
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
        Effort { passes: Some(self.meter.0.count.load(Relaxed)), ..self.grounder.effort() }
    }

    fn ask(&mut self, config: &AskConfig, stream_time: bool) {
        self.grounder.ask(config, stream_time);
    }

    fn work(&self) -> Arc<Work> {
        self.grounder.work()
    }

    fn beat(&mut self, pulse: Pulse) {
        // A model has one thread, and the thread one pulse.
        self.meter.0.pulse.set(pulse).ok();
    }

    fn follow(&mut self, followed: Arc<Followed>) {
        self.grounder.follow(followed);
    }

    fn another(&mut self) -> Option<Box<dyn Grounder>> {
        self.grounder.another()
    }

    fn ground(&mut self, batch: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
        self.grounder.ground(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::ground::worker;

    /// Takes this long for a pass.
    struct Slow(Duration);

    impl Engine for Slow {
        fn inputs(&self) -> &[Port] {
            &[]
        }

        fn outputs(&self) -> &[Port] {
            &[]
        }

        fn file(&self) -> &Path {
            Path::new("slow.onnx")
        }

        fn run(&mut self, _: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
            thread::sleep(self.0);
            Ok(Outputs::new(Vec::new()))
        }

        fn run_keeping(&mut self, _: &[(&str, Input<'_>)], _: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
            thread::sleep(self.0);
            Ok(Mixed { host: Outputs::new(Vec::new()), kept: Vec::new() })
        }

        fn blank(&self, _: &str, _: &[usize]) -> Result<Kept, EngineError> {
            Ok(Kept { shape: Vec::new(), value: Box::new(()) })
        }

        fn arrange(&mut self, _: &[Part<'_>]) -> Result<Kept, EngineError> {
            self.blank("", &[])
        }
    }

    /// A model that takes some passes to answer, and looks at its own pulse after them.
    struct Passes {
        engine: Box<dyn Engine>,
        pulse: Pulse,
        seen: mpsc::Sender<Option<Duration>>,
    }

    impl Grounder for Passes {
        fn limits(&self) -> Limits {
            unreachable!("nobody asks")
        }

        fn describe(&self) -> ModelInfo {
            unreachable!("nobody asks")
        }

        fn checker(&self) -> QueryCheck {
            Arc::new(|_| Ok(()))
        }

        fn ground(&mut self, _: &Batch) -> Result<Vec<Vec<Answer>>, GroundError> {
            for _ in 0..10 {
                self.engine.run(&[])?;
                self.engine.run_keeping(&[], &|_| true)?;
            }
            self.seen.send(self.pulse.busy_for()).unwrap();
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_batch_of_many_passes_is_alive_and_a_pass_that_hangs_is_not() {
        let (meter, pulse) = (Meter::default(), Pulse::new("ground"));
        let pass = Duration::from_millis(40);
        let (seen, passes) = mpsc::channel();
        let model = Passes { engine: meter.count(Slow(pass)), pulse: pulse.clone(), seen };
        let worker = worker::spawn(vec![(meter.grounder(Box::new(model)), pulse.clone())]);
        worker.batches.blocking_send(Batch { jobs: Vec::new() }).unwrap();
        // The last pass counts in full, those before it not at all.
        let alone = passes.recv().unwrap().unwrap();
        assert!(alone + Duration::from_millis(1) >= pass && alone < pass * 10, "{alone:?}");
    }
}

//! A graph opened several times, a thread each: several pictures at once cost less than one after the other by all threads.
//!
//! Threads that share a small convolution wait for one another more than they compute. YOLOX-nano on two cores takes 6.5 ms
//! by one thread, and 7.1 ms of both by two.

use std::{
    panic::resume_unwind,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor};

/// A single picture gets all threads where they are at least this much faster than one: they take more of the processor.
const WORTH: f64 = 1.2;
/// Nor does it where one thread needs no longer than this: a picture of a camera that sends thirty a second. What all threads
/// would save is less than anybody sees, and costs processor time around the clock.
const FAST: Duration = Duration::from_millis(33);
/// Runs of each kind that are compared; the fastest counts, so that a busy machine does not decide.
const RUNS: usize = 5;
/// After this long there is a decision with fewer runs.
const PATIENCE: Duration = Duration::from_secs(1);

/// One file, opened for all threads together and for each alone.
pub struct Lanes<E> {
    /// For single pictures; gone where a thread alone is as good.
    together: Option<E>,
    /// For as many pictures at once. Never empty.
    alone: Vec<E>,
    compared: bool,
}

impl<E: Engine> Lanes<E> {
    /// `together` runs by all threads, each of `alone` by one. Without the latter, all runs are by all threads.
    pub fn new(together: E, alone: Vec<E>) -> Self {
        if alone.is_empty() {
            return Self { together: None, alone: vec![together], compared: true };
        }
        Self { together: Some(together), alone, compared: false }
    }

    /// Finds out by `inputs` whether single pictures should have all threads. Numbers may differ in their last digits between the two
    /// ways, so this is done once and then kept to.
    fn compare(&mut self, inputs: &[(&str, &Tensor)]) -> Result<(), EngineError> {
        let Some(together) = &mut self.together else { return Ok(()) };
        let timed = |engine: &mut E| {
            let began = Instant::now();
            engine.run(inputs).map(|_| began.elapsed())
        };
        // A first run allocates.
        timed(together)?;
        timed(&mut self.alone[0])?;
        let (began, mut all, mut one) = (Instant::now(), Duration::MAX, Duration::MAX);
        for _ in 0..RUNS {
            all = all.min(timed(together)?);
            one = one.min(timed(&mut self.alone[0])?);
            if began.elapsed() > PATIENCE {
                break;
            }
        }
        tracing::debug!(file = %self.alone[0].file().display(), ?all, ?one, "a picture by all threads and by one");
        if one <= FAST || one.as_secs_f64() < all.as_secs_f64() * WORTH {
            self.together = None;
        }
        Ok(())
    }
}

impl<E: Engine> Engine for Lanes<E> {
    fn inputs(&self) -> &[Port] {
        self.alone[0].inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.alone[0].outputs()
    }

    fn file(&self) -> &Path {
        self.alone[0].file()
    }

    fn lanes(&self) -> usize {
        self.alone.len()
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        if !self.compared {
            self.compared = true;
            self.compare(inputs)?;
        }
        self.together.as_mut().unwrap_or(&mut self.alone[0]).run(inputs)
    }

    fn run_each(&mut self, runs: &[Vec<(&str, &Tensor)>]) -> Result<Vec<Outputs>, EngineError> {
        if let [inputs] = runs {
            return Ok(vec![self.run(inputs)?]);
        }
        let next = AtomicUsize::new(0);
        let work = |engine: &mut E| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Relaxed);
                let Some(inputs) = runs.get(at) else { return done };
                done.push((at, engine.run(inputs)));
            }
        };
        let mut done = thread::scope(|scope| {
            let work = &work;
            let lanes: Vec<_> =
                self.alone.iter_mut().take(runs.len()).map(|engine| scope.spawn(move || work(engine))).collect();
            let joined = lanes.into_iter().flat_map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.collect::<Vec<_>>()
        });
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, outputs)| outputs).collect()
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        self.alone[0].run_keeping(inputs, keep)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.alone[0].blank(name, shape)
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.alone[0].arrange(parts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::ground::engine::Data;

    /// Takes a while, doubles a number, and may wait for another of its kind.
    struct Doubles {
        millis: u64,
        meets: Option<Arc<Barrier>>,
    }

    impl Engine for Doubles {
        fn inputs(&self) -> &[Port] {
            &[]
        }

        fn outputs(&self) -> &[Port] {
            &[]
        }

        fn file(&self) -> &Path {
            Path::new("doubles.onnx")
        }

        fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
            thread::sleep(Duration::from_millis(self.millis));
            if let Some(barrier) = &self.meets {
                barrier.wait();
            }
            let Data::I64(numbers) = &inputs[0].1.data else { panic!("not a number") };
            if numbers[0] < 0 {
                let reason = format!("{} is negative", numbers[0]);
                return Err(EngineError::Run { file: self.file().to_owned(), reason });
            }
            let data = Data::I64(vec![numbers[0] * 2]);
            Ok(Outputs::new(vec![("twice".into(), Tensor { shape: vec![1], data })]))
        }

        fn run_keeping(&mut self, _: &[(&str, Input<'_>)], _: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
            unreachable!()
        }

        fn blank(&self, _: &str, _: &[usize]) -> Result<Kept, EngineError> {
            unreachable!()
        }

        fn arrange(&mut self, _: &[Part<'_>]) -> Result<Kept, EngineError> {
            unreachable!()
        }
    }

    fn number(value: i64) -> Tensor {
        Tensor { shape: vec![1], data: Data::I64(vec![value]) }
    }

    fn twice(outputs: Vec<Outputs>) -> Vec<Data> {
        outputs.into_iter().map(|mut outputs| outputs.take("twice").unwrap().data).collect()
    }

    #[test]
    fn each_run_has_its_own_answer_and_they_run_at_once() {
        // Two of them meet in every run: one after the other they would wait for ever.
        let barrier = Arc::new(Barrier::new(2));
        let lane = || Doubles { millis: 0, meets: Some(Arc::clone(&barrier)) };
        let mut lanes = Lanes::new(Doubles { millis: 0, meets: None }, vec![lane(), lane()]);
        let numbers: Vec<_> = (1..=6).map(number).collect();
        let runs: Vec<_> = numbers.iter().map(|number| vec![("n", number)]).collect();
        let doubled = twice(lanes.run_each(&runs).unwrap());
        assert_eq!(doubled, (1..=6).map(|n| Data::I64(vec![n * 2])).collect::<Vec<_>>());
    }

    #[test]
    fn a_run_that_fails_is_the_error() {
        let lane = || Doubles { millis: 0, meets: None };
        let mut lanes = Lanes::new(lane(), vec![lane(), lane()]);
        let numbers = [number(1), number(-5), number(2)];
        let runs: Vec<_> = numbers.iter().map(|number| vec![("n", number)]).collect();
        assert!(lanes.run_each(&runs).unwrap_err().to_string().contains("-5 is negative"));
    }

    #[test]
    fn single_pictures_get_all_threads_only_where_that_is_worth_it() {
        let takes = |millis| Doubles { millis, meets: None };
        for (together, alone, kept) in [(5, 50, true), (50, 50, false), (50, 5, false), (1, 10, false)] {
            let mut lanes = Lanes::new(takes(together), vec![takes(alone), takes(alone)]);
            lanes.run(&[("n", &number(1))]).unwrap();
            assert_eq!(lanes.together.is_some(), kept, "{together} ms against {alone} ms");
        }
        let mut only = Lanes::new(takes(0), vec![]);
        assert_eq!(only.lanes(), 1);
        assert_eq!(twice(only.run_each(&[vec![("n", &number(3))]]).unwrap()), [Data::I64(vec![6])]);
    }
}

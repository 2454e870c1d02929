//! A graph opened several times, a thread each: several pictures at once cost less than one after the other by all threads.
//!
//! Threads that share a small convolution wait for one another more than they compute. YOLOX-nano on two cores takes 6.5 ms
//! by one thread, and 7.1 ms of both by two.

use std::{
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
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

/// One file, opened for all threads together and for each alone. Clones share what was opened: each run takes what is free.
pub struct Lanes<E>(Arc<Opened<E>>);

struct Opened<E> {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    file: PathBuf,
    lanes: usize,
    /// For single pictures; gone where a thread alone is as good.
    together: Mutex<Option<E>>,
    compared: Once,
    /// For as many pictures at once: those that nobody runs just now.
    free: Mutex<Vec<E>>,
    /// Rings when one has come back.
    back: Condvar,
}

/// One of the engines that run by a thread, while it is somebody's.
struct Lane<'a, E: Engine> {
    /// There until it is given back.
    engine: Option<E>,
    opened: &'a Opened<E>,
}

impl<E: Engine> Lane<'_, E> {
    fn with<T>(&mut self, work: impl FnOnce(&mut E) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let file = &self.opened.file;
        let gone = || EngineError::Run { file: file.clone(), reason: "its engine was given back".to_owned() };
        self.engine.as_mut().ok_or_else(gone).and_then(work)
    }
}

impl<E: Engine> Drop for Lane<'_, E> {
    fn drop(&mut self) {
        held(&self.opened.free).extend(self.engine.take());
        self.opened.back.notify_one();
    }
}

/// A panic elsewhere leaves an engine as it was: its numbers are its own.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Engine> Opened<E> {
    /// An engine, as soon as one is free.
    fn lane(&self) -> Lane<'_, E> {
        let free = held(&self.free);
        let mut free = self.back.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        Lane { engine: free.pop(), opened: self }
    }

    /// At most so many engines, of those that are free now.
    fn more(&self, most: usize) -> Vec<Lane<'_, E>> {
        let mut free = held(&self.free);
        let first = free.len().saturating_sub(most);
        free.drain(first..).map(|engine| Lane { engine: Some(engine), opened: self }).collect()
    }

    /// Finds out by `inputs` whether single pictures should have all threads. Numbers may differ in their last digits between the two
    /// ways, so this is done once and then kept to.
    fn compare(&self, inputs: &[(&str, &Tensor)]) -> Result<(), EngineError> {
        let mut kept = held(&self.together);
        let Some(together) = kept.as_mut() else { return Ok(()) };
        let mut lane = self.lane();
        let timed = |engine: &mut E| {
            let began = Instant::now();
            engine.run(inputs).map(|_| began.elapsed())
        };
        // A first run allocates.
        timed(together)?;
        lane.with(timed)?;
        let (began, mut all, mut one) = (Instant::now(), Duration::MAX, Duration::MAX);
        for _ in 0..RUNS {
            all = all.min(timed(together)?);
            one = one.min(lane.with(timed)?);
            if began.elapsed() > PATIENCE {
                break;
            }
        }
        tracing::debug!(file = %self.file.display(), ?all, ?one, "a picture by all threads and by one");
        if one <= FAST || one.as_secs_f64() < all.as_secs_f64() * WORTH {
            *kept = None;
        }
        Ok(())
    }
}

impl<E: Engine> Lanes<E> {
    /// `together` runs by all threads, each of `alone` by one. Without the latter, all runs are by all threads.
    pub fn new(together: E, alone: Vec<E>) -> Self {
        let (inputs, outputs) = (together.inputs().to_vec(), together.outputs().to_vec());
        let file = together.file().to_owned();
        let compared = Once::new();
        let (together, alone) = if alone.is_empty() { (None, vec![together]) } else { (Some(together), alone) };
        Self(Arc::new(Opened {
            inputs,
            outputs,
            file,
            lanes: alone.len(),
            together: Mutex::new(together),
            compared,
            free: Mutex::new(alone),
            back: Condvar::new(),
        }))
    }

    /// How many pictures are run at once, each as fast as if it were alone: more than one where a thread is as good as all.
    /// Known once there was a run.
    pub fn at_once(&self) -> usize {
        if held(&self.0.together).is_none() { self.0.lanes } else { 1 }
    }
}

impl<E> Clone for Lanes<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E: Engine> Engine for Lanes<E> {
    fn inputs(&self) -> &[Port] {
        &self.0.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.0.outputs
    }

    fn file(&self) -> &Path {
        &self.0.file
    }

    fn lanes(&self) -> usize {
        self.0.lanes
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        let mut compared = Ok(());
        self.0.compared.call_once(|| compared = self.0.compare(inputs));
        compared?;
        if let Some(together) = held(&self.0.together).as_mut() {
            return together.run(inputs);
        }
        self.0.lane().with(|engine| engine.run(inputs))
    }

    fn run_each(&mut self, runs: &[Vec<(&str, &Tensor)>]) -> Result<Vec<Outputs>, EngineError> {
        if let [inputs] = runs {
            return Ok(vec![self.run(inputs)?]);
        }
        let next = AtomicUsize::new(0);
        let work = |mut lane: Lane<'_, E>| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Relaxed);
                let Some(inputs) = runs.get(at) else { return done };
                done.push((at, lane.with(|engine| engine.run(inputs))));
            }
        };
        // One there has to be; others help as far as nobody else has them.
        let first = self.0.lane();
        let others = self.0.more(runs.len().saturating_sub(1));
        let mut done = thread::scope(|scope| {
            let work = &work;
            let helpers: Vec<_> = others.into_iter().map(|lane| scope.spawn(move || work(lane))).collect();
            let mut done = work(first);
            done.extend(helpers.into_iter().flat_map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic))));
            done
        });
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, outputs)| outputs).collect()
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        self.0.lane().with(|engine| engine.run_keeping(inputs, keep))
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        self.0.lane().with(|engine| engine.blank(name, shape))
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        self.0.lane().with(|engine| engine.arrange(parts))
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
                return Err(self.failed(reason));
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
    fn clones_share_the_lanes_and_wait_for_one_another_only_where_none_is_free() {
        // Runs of two clones meet, each by an engine of its own.
        let barrier = Arc::new(Barrier::new(2));
        let lane = || Doubles { millis: 0, meets: Some(Arc::clone(&barrier)) };
        let mut one = Lanes::new(lane(), vec![lane(), lane()]);
        one.0.compared.call_once(|| *held(&one.0.together) = None);
        let mut other = one.clone();
        let (two, three) = (number(2), number(3));
        thread::scope(|scope| {
            let doubled = scope.spawn(|| twice(vec![other.run(&[("n", &two)]).unwrap()]));
            assert_eq!(twice(vec![one.run(&[("n", &three)]).unwrap()]), [Data::I64(vec![6])]);
            assert_eq!(doubled.join().unwrap(), [Data::I64(vec![4])]);
        });
        // With the only one that is free, all runs are one after the other; nobody waits for those that others have.
        let takes = || Doubles { millis: 0, meets: None };
        let mut busy = Lanes::new(takes(), vec![takes(), takes()]);
        let opened = Arc::clone(&busy.0);
        let taken = opened.lane();
        let runs: Vec<_> = [&two, &three].map(|number| vec![("n", number)]).into();
        assert_eq!(twice(busy.run_each(&runs).unwrap()), [Data::I64(vec![4]), Data::I64(vec![6])]);
        drop(taken);
        assert_eq!(held(&opened.free).len(), 2);
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
            assert_eq!(lanes.at_once(), if kept { 1 } else { 2 }, "{together} ms against {alone} ms");
        }
        let mut only = Lanes::new(takes(0), vec![]);
        assert_eq!((only.lanes(), only.at_once()), (1, 1));
        assert_eq!(twice(only.run_each(&[vec![("n", &number(3))]]).unwrap()), [Data::I64(vec![6])]);
    }
}

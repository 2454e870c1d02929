//! The yardstick: what the engine and the decoder cost by themselves, on the same machine in the same run.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::stop::Stop;
use crate::{
    cli::{Exit, Failure},
    ground::{ModelConfig, bare as engine},
    http::process::Usage,
    ingest::bare::Bare as Clip,
    types::Rgb,
};

/// Pictures that the engine runs on, over and over.
const PICTURES: usize = 16;

/// Processor milliseconds a picture.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bare {
    /// One pass of the model's vision graph on a tensor that is there already, by one thread on an otherwise idle machine: the
    /// least that it can cost. What a frame of a system costs is held against it.
    pub(super) engine_ms: f64,
    /// The same on the wall clock.
    pub(super) engine_wall_ms: f64,
    /// The same pass while as many threads as the daemon would take run an engine each: they share caches, memory and what the
    /// cooling allows, so that each costs more. What this machine could do at most goes by it. Where the daemon opens the file
    /// once, for it is large or a device computes, it is `engine_ms`.
    pub(super) engine_busy_ms: f64,
    /// Decoding, on one thread of the decoder.
    pub(super) decode_ms: f64,
    /// Scaling to the model's canvas and conversion to RGB.
    pub(super) scale_ms: f64,
    /// The file that the engine ran.
    pub(super) file: PathBuf,
}

impl Bare {
    /// Measures each for about `limit`. Nothing else may run in this process meanwhile.
    pub(super) fn measure(
        clip: &Clip,
        model: &ModelConfig,
        folders: &[PathBuf],
        limit: Duration,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let mut engine = engine::Bare::open(model, folders)?;
        let canvases = clip.canvases(engine.canvas(), PICTURES)?;
        engine.run(&canvases, limit / 10)?;
        let (engine_ms, engine_wall_ms) = cost(|| Ok(engine.run(&canvases, limit)?))?;
        stop.check()?;
        let engine_busy_ms = match engine.lanes(model) {
            0 => engine_ms,
            lanes => busy(lanes, model, folders, &canvases, limit)?,
        };
        stop.check()?;
        clip.decode(limit / 10, None)?;
        let (decode_ms, _) = cost(|| Ok(clip.decode(limit, None)?))?;
        stop.check()?;
        let (both_ms, _) = cost(|| Ok(clip.decode(limit, Some(engine.canvas()))?))?;
        let (file, scale_ms) = (engine.file().to_owned(), (both_ms - decode_ms).max(0.0));
        Ok(Self { engine_ms, engine_wall_ms, engine_busy_ms, decode_ms, scale_ms, file })
    }

    /// What a frame that is analysed costs at least, when `decoded` pictures are decoded for each.
    pub(super) fn per_frame_ms(&self, decoded: f64) -> f64 {
        self.engine_ms + self.decode_ms * decoded
    }
}

/// Processor milliseconds of a pass while `lanes` threads run an engine each.
fn busy(
    lanes: usize,
    model: &ModelConfig,
    folders: &[PathBuf],
    canvases: &[Rgb],
    limit: Duration,
) -> Result<f64, Failure> {
    let engines: Result<Vec<_>, _> = (0..lanes).map(|_| engine::Bare::open(model, folders)).collect();
    let mut engines = engines?;
    together(&mut engines, canvases, limit / 10)?;
    let (busy_ms, _) = cost(|| together(&mut engines, canvases, limit))?;
    Ok(busy_ms)
}

/// Runs all engines at once, a thread each; returns the passes of all.
fn together(engines: &mut [engine::Bare], canvases: &[Rgb], limit: Duration) -> Result<u64, Failure> {
    thread::scope(|scope| {
        let runs: Vec<_> = engines.iter_mut().map(|engine| scope.spawn(move || engine.run(canvases, limit))).collect();
        let passes = runs.into_iter().map(|run| -> Result<u64, Failure> {
            let ran = run.join().map_err(|_| Failure::new(Exit::Internal, "a thread with an engine panicked"))?;
            Ok(ran?)
        });
        passes.sum()
    })
}

/// Processor and wall milliseconds for each of the things that `work` counts.
fn cost(mut work: impl FnMut() -> Result<u64, Failure>) -> Result<(f64, f64), Failure> {
    let (before, began) = (Usage::now(), Instant::now());
    let count = work()?.max(1) as f64;
    let wall = began.elapsed().as_secs_f64();
    let cpu = Usage::now().cpu.unwrap_or_default() - before.cpu.unwrap_or_default();
    Ok((cpu * 1e3 / count, wall * 1e3 / count))
}

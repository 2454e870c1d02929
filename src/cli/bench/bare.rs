//! The yardstick: what the engine and the decoder cost by themselves, on the same machine in the same run.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    cli::Failure,
    ground::{ModelConfig, bare as engine},
    http::process::Usage,
    ingest::bare::Bare as Clip,
};

/// Pictures that the engine runs on, over and over.
const PICTURES: usize = 16;

/// Processor milliseconds a picture.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bare {
    /// One pass of the model's vision graph on a tensor that is there already.
    pub(super) engine_ms: f64,
    /// The same on the wall clock.
    pub(super) engine_wall_ms: f64,
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
    ) -> Result<Self, Failure> {
        let mut engine = engine::Bare::open(model, folders)?;
        let canvases = clip.canvases(engine.canvas(), PICTURES)?;
        engine.run(&canvases, limit / 10)?;
        let (engine_ms, engine_wall_ms) = cost(|| Ok(engine.run(&canvases, limit)?))?;
        clip.decode(limit / 10, None)?;
        let (decode_ms, _) = cost(|| Ok(clip.decode(limit, None)?))?;
        let (both_ms, _) = cost(|| Ok(clip.decode(limit, Some(engine.canvas()))?))?;
        let file = engine.file().to_owned();
        Ok(Self { engine_ms, engine_wall_ms, decode_ms, scale_ms: (both_ms - decode_ms).max(0.0), file })
    }

    /// What a frame that is analysed costs at least, when `decoded` pictures are decoded for each.
    pub(super) fn per_frame_ms(&self, decoded: f64) -> f64 {
        self.engine_ms + self.decode_ms * decoded
    }
}

/// Processor and wall milliseconds for each of the things that `work` counts.
fn cost(mut work: impl FnMut() -> Result<u64, Failure>) -> Result<(f64, f64), Failure> {
    let (before, began) = (Usage::now(), Instant::now());
    let count = work()?.max(1) as f64;
    let wall = began.elapsed().as_secs_f64();
    let cpu = Usage::now().cpu.unwrap_or_default() - before.cpu.unwrap_or_default();
    Ok((cpu * 1e3 / count, wall * 1e3 / count))
}

//! The yardstick: what the engine and the decoder cost by themselves, on the same machine in the same run.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::stop::Stop;
use crate::{
    cli::{Exit, Failure},
    ground::{ModelConfig, Provider, bare as engine},
    http::process::Usage,
    ingest::bare::Bare as Clip,
    types::Size,
};

/// Pictures that the engine runs on, over and over.
const PICTURES: usize = 16;
/// Longest time that one of its parts is measured for.
const MOST: Duration = Duration::from_secs(2);
/// The part of a case's time that one of its parts is measured for.
const SHARE: f64 = 1.0 / 6.0;

/// Processor milliseconds a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Bare {
    /// One pass of the model's vision graph as it was published, on a tensor that is there already, by one thread on an otherwise
    /// idle machine. What a frame of a system costs is held against it.
    pub(super) engine_ms: f64,
    /// The same on the wall clock.
    pub(super) engine_wall_ms: f64,
    /// The same as `engine_ms` on as much canvas as groundd shows the graph of these pictures, which may have no border.
    pub(super) engine_shown_ms: f64,
    /// That pass while as many threads as the daemon would take run an engine each: they share caches, memory and what the
    /// cooling allows, so that each costs more. What this machine could do at most goes by it. Where the daemon opens the file
    /// once, for it is large or a device computes, it is `engine_shown_ms`.
    pub(super) engine_busy_ms: f64,
    /// Whether a device computes, one pass after the other: what it could do at most goes by the wall clock then.
    pub(super) on_device: bool,
    /// Decoding, on one thread of the decoder.
    pub(super) decode_ms: f64,
    /// Scaling to the model's canvas and conversion to RGB.
    pub(super) scale_ms: f64,
}

impl Bare {
    /// What a frame that is analysed costs at least, when `decoded` pictures are decoded for each.
    pub(super) fn per_frame_ms(&self, decoded: f64) -> f64 {
        self.engine_ms + self.decode_ms * decoded
    }

    /// The same on as much canvas as groundd shows the graph.
    pub(super) fn per_shown_frame_ms(&self, decoded: f64) -> f64 {
        self.engine_shown_ms + self.decode_ms * decoded
    }

    /// Pictures a second that could be analysed, where `left_ms` milliseconds of the processor are left for that each second.
    pub(super) fn possible(&self, left_ms: f64) -> f64 {
        if self.on_device { 1e3 / self.engine_wall_ms } else { left_ms / self.engine_busy_ms }
    }

    /// The mean of several, of which there is at least one.
    pub(super) fn mean(all: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| all.iter().map(part).sum::<f64>() / all.len().max(1) as f64;
        Self {
            engine_ms: of(|bare| bare.engine_ms),
            engine_wall_ms: of(|bare| bare.engine_wall_ms),
            engine_shown_ms: of(|bare| bare.engine_shown_ms),
            engine_busy_ms: of(|bare| bare.engine_busy_ms),
            on_device: all.iter().any(|bare| bare.on_device),
            decode_ms: of(|bare| bare.decode_ms),
            scale_ms: of(|bare| bare.scale_ms),
        }
    }
}

/// The engine and the decoder, open and at hand. They are measured before and after every case: on a shared machine what a
/// pass costs drifts by a fifth within minutes, which is more than what the cases are to tell.
pub(super) struct Yardstick<'a> {
    /// The file as it was published.
    engine: engine::Bare,
    /// The file as the daemon opens it, where that shows it less than the whole canvas.
    own: Option<engine::Bare>,
    /// What the daemon opens, to run at once; none where it opens the file once.
    lanes: Vec<engine::Bare>,
    clip: &'a Clip,
    on_device: bool,
    limit: Duration,
    measured: Vec<Bare>,
}

impl<'a> Yardstick<'a> {
    /// Opens the engines and measures for the first time; `seconds` is how long a case takes.
    pub(super) fn new(
        clip: &'a Clip,
        model: &ModelConfig,
        folders: &[PathBuf],
        seconds: f64,
        stop: &Stop,
    ) -> Result<Self, Failure> {
        let mut engine = engine::Bare::open(model, folders)?;
        engine.show(&clip.canvases(engine.canvas(), PICTURES)?);
        let mut own = engine::Bare::open_as_shown(model, folders, clip.size()?)?;
        if let Some(own) = &mut own {
            own.show(&clip.canvases(own.canvas(), PICTURES)?);
        }
        let first = own.as_ref().unwrap_or(&engine);
        let lanes = (0..first.lanes(model)).map(|_| first.another()).collect::<Result<Vec<_>, _>>()?;
        let limit = Duration::from_secs_f64(seconds * SHARE).min(MOST);
        let on_device = model.provider != Provider::Cpu;
        let mut rule = Self { engine, own, lanes, clip, on_device, limit, measured: Vec::new() };
        rule.measure(stop)?;
        Ok(rule)
    }

    /// Measures each part. Nothing else may run in this process meanwhile.
    pub(super) fn measure(&mut self, stop: &Stop) -> Result<(), Failure> {
        let Self { engine, own, lanes, clip, limit, .. } = self;
        let (limit, warm) = (*limit, *limit / 10);
        engine.run(warm)?;
        let (engine_ms, engine_wall_ms) = cost(|| Ok(engine.run(limit)?))?;
        stop.check()?;
        let engine_shown_ms = match own {
            Some(own) => {
                own.run(warm)?;
                cost(|| Ok(own.run(limit)?))?.0
            }
            None => engine_ms,
        };
        stop.check()?;
        let engine_busy_ms = if lanes.is_empty() {
            engine_shown_ms
        } else {
            together(lanes, warm)?;
            cost(|| together(lanes, limit))?.0
        };
        stop.check()?;
        decoding(clip, None, warm)?;
        let decode_ms = decoding(clip, None, limit)?;
        stop.check()?;
        let both_ms = decoding(clip, Some(engine.canvas()), limit)?;
        let scale_ms = (both_ms - decode_ms).max(0.0);
        let on_device = self.on_device;
        self.measured.push(Bare {
            engine_ms,
            engine_wall_ms,
            engine_shown_ms,
            engine_busy_ms,
            on_device,
            decode_ms,
            scale_ms,
        });
        Ok(())
    }

    /// The file that the engine runs.
    pub(super) fn file(&self) -> &Path {
        self.engine.file()
    }

    /// The last measurement and the one before it, between which there was a case.
    pub(super) fn around(&self) -> Bare {
        Bare::mean(&self.measured[self.measured.len().saturating_sub(2)..])
    }

    /// Size of the canvas that the file was published for, and of what the daemon shows it of the clip's pictures.
    pub(super) fn canvases(&self) -> [Size; 2] {
        let whole = self.engine.canvas();
        [whole, self.own.as_ref().map_or(whole, engine::Bare::canvas)]
    }

    /// All measurements.
    pub(super) fn all(&self) -> Bare {
        Bare::mean(&self.measured)
    }
}

/// Runs all engines at once, a thread each; returns the passes of all.
fn together(engines: &mut [engine::Bare], limit: Duration) -> Result<u64, Failure> {
    thread::scope(|scope| {
        let runs: Vec<_> = engines.iter_mut().map(|engine| scope.spawn(move || engine.run(limit))).collect();
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

/// Processor milliseconds a picture that decoding the clip costs, on a `canvas` too where there is one: from the first picture to
/// the last, for to start a decoder and to end it is dear.
fn decoding(clip: &Clip, canvas: Option<Size>, limit: Duration) -> Result<f64, Failure> {
    let cpu = || Usage::now().cpu.unwrap_or_default();
    let (mut start, mut pictures, mut seconds) = (None, 0_u32, 0.0);
    clip.decode(canvas, &mut || {
        let (began, before) = *start.get_or_insert_with(|| (Instant::now(), cpu()));
        if began.elapsed() < limit {
            pictures += 1;
            return true;
        }
        seconds = cpu() - before;
        false
    })?;
    Ok(seconds * 1e3 / f64::from(pictures.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_every_part() {
        let bare = |ms: f64| Bare {
            engine_ms: ms,
            engine_wall_ms: ms + 1.0,
            on_device: false,
            engine_shown_ms: ms - 1.0,
            engine_busy_ms: ms + 2.0,
            decode_ms: ms + 3.0,
            scale_ms: ms + 4.0,
        };
        assert_eq!(Bare::mean(&[bare(1.0), bare(3.0)]), bare(2.0));
        assert!((bare(1.0).per_frame_ms(2.0) - 9.0).abs() < 1e-9);
        assert!((bare(1.0).per_shown_frame_ms(2.0) - 8.0).abs() < 1e-9);
    }
}

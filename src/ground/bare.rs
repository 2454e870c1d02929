//! The model's engine alone: the yardstick that the whole way from camera to broker is held against.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    GroundError, ModelConfig,
    engine::{
        Data, Element, Engine,
        local::{Compute, Local, Runtime},
    },
    library_path,
    manifest::Manifest,
    models::closed::Closed,
    seeing::{self, Seeing},
};
use crate::{
    ground::engine::Tensor,
    types::{Rgb, Size},
};

/// A model's vision graph and nothing around it.
pub struct Bare {
    engine: Local,
    seeing: Seeing,
    compute: Compute,
    input: String,
    /// What the input holds: bytes `[B,H,W,3]` or floats `[1,3,H,W]`.
    element: Element,
    canvas: Size,
    /// The pictures it runs on.
    shown: Arc<[Tensor]>,
}

impl Bare {
    /// Opens the file of the configured model that sees every picture, as it was published. On a processor it runs by one thread,
    /// which costs least.
    pub fn open(config: &ModelConfig, folders: &[PathBuf]) -> Result<Self, GroundError> {
        let manifest = seeing::manifest(config, folders)?;
        let (runtime, file, compute) = parts(config, &manifest)?;
        let seeing = Seeing::as_published(&runtime, &file);
        Self::opened(&manifest, seeing, compute, manifest.canvases().usual())
    }

    /// Opens it as the daemon does where that shows it less than the whole canvas of pictures of this size; `None` where it does not.
    pub fn open_as_shown(
        config: &ModelConfig,
        folders: &[PathBuf],
        picture: Size,
    ) -> Result<Option<Self>, GroundError> {
        let manifest = seeing::manifest(config, folders)?;
        if !manifest.input.rect {
            return Ok(None);
        }
        let (runtime, file, compute) = parts(config, &manifest)?;
        let (seeing, engine) = Seeing::first(&runtime, &manifest, &file, compute)?;
        let mut engine = Some(engine);
        let mut open = |_: &Path| Ok(Box::new(engine.take().map_or_else(|| seeing.open(compute), Ok)?) as _);
        let canvas = Closed::open(&manifest, &mut open)?.image_of(picture);
        if canvas == manifest.canvas() {
            return Ok(None);
        }
        Self::opened(&manifest, seeing, compute, canvas).map(Some)
    }

    /// Opens the same once more, to run on the same pictures.
    pub fn another(&self) -> Result<Self, GroundError> {
        let (input, element, seeing) = (self.input.clone(), self.element.clone(), self.seeing.clone());
        Ok(Self { engine: seeing.open(self.compute)?, seeing, input, element, shown: Arc::clone(&self.shown), ..*self })
    }

    fn opened(manifest: &Manifest, seeing: Seeing, compute: Compute, canvas: Size) -> Result<Self, GroundError> {
        let engine = seeing.open(compute)?;
        let (input, element) = match engine.inputs() {
            [port] if (port.element == Element::U8 || port.element.is_float()) && port.shape.len() == 4 => {
                (port.name.clone(), port.element.clone())
            }
            _ => {
                let reason = "the bare engine can run files that take one picture, bytes [B,H,W,3] or f32[1,3,H,W]";
                return Err(GroundError::unfit(manifest, reason));
            }
        };
        Ok(Self { engine, seeing, compute, input, element, canvas, shown: Arc::default() })
    }

    /// How often the daemon would open the file, a thread each; 0 where it would not.
    pub fn lanes(&self, config: &ModelConfig) -> usize {
        let compute = Compute { provider: config.provider, device: config.device, threads: config.threads };
        compute.lanes(self.engine.file())
    }

    /// The file that runs.
    pub fn file(&self) -> &Path {
        self.engine.file()
    }

    /// Size of the pictures it takes.
    pub fn canvas(&self) -> Size {
        self.canvas
    }

    /// Shows it `pictures` of its canvas's size, which become tensors here: that is no part of what a run costs.
    pub fn show(&mut self, pictures: &[Rgb]) {
        self.shown = pictures.iter().map(|picture| self.tensor(picture)).collect();
    }

    fn tensor(&self, picture: &Rgb) -> Tensor {
        let (height, width) = (self.canvas.height as usize, self.canvas.width as usize);
        let plane = |colour: usize| {
            picture.data.iter().skip(colour).step_by(3).map(|byte| f32::from(*byte)).collect::<Vec<_>>()
        };
        match self.element {
            Element::F32 | Element::F16 => Tensor::f32s(&[1, 3, height, width], [0, 1, 2].map(plane).concat()),
            _ => Tensor { shape: vec![1, height, width, 3], data: Data::U8(picture.data.to_vec()) },
        }
    }

    /// Runs on the pictures it was shown, one a pass, over and over for about `limit`; returns the passes.
    pub fn run(&mut self, limit: Duration) -> Result<u64, GroundError> {
        let (began, mut passes) = (Instant::now(), 0);
        for tensor in self.shown.iter().cycle() {
            self.engine.run(&[(&self.input, tensor)])?;
            passes += 1;
            if began.elapsed() >= limit {
                break;
            }
        }
        Ok(passes)
    }
}

/// What the file that sees every picture is opened from.
fn parts(config: &ModelConfig, manifest: &Manifest) -> Result<(Runtime, PathBuf, Compute), GroundError> {
    let file = seeing::file(manifest).ok_or_else(|| {
        let reason = "the bare engine needs a file with role = \"vision\" or \"detector\"";
        GroundError::unfit(manifest, reason)
    })?;
    let compute = Compute { provider: config.provider, device: config.device, threads: 1 };
    Ok((Runtime::load(&library_path(config)?)?, file, compute))
}

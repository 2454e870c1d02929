//! The model's engine alone: the yardstick that the whole way from camera to broker is held against.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    GroundError, ModelConfig,
    engine::{
        Data, Element, Engine,
        local::{Compute, Local, Runtime},
    },
    find, library_path,
};
use crate::{
    ground::engine::Tensor,
    types::{Rgb, Size},
};

/// The file that sees every picture.
const ROLE: &str = "vision";

/// A model's vision graph and nothing around it.
pub struct Bare {
    engine: Local,
    input: String,
    canvas: Size,
}

impl Bare {
    /// Opens the file with the role `vision` of the configured model, as [`super::load`] would.
    pub fn open(config: &ModelConfig, folders: &[PathBuf]) -> Result<Self, GroundError> {
        let manifest = find(&config.path, folders)?;
        let unfit = |reason: &str| GroundError::Unfit { manifest: manifest.path(), reason: reason.to_owned() };
        let file = manifest.file(ROLE).ok_or_else(|| unfit("the bare engine needs a file with role = \"vision\""))?;
        let runtime = Runtime::load(&library_path(config)?)?;
        let compute = Compute { provider: config.provider, device: config.device, threads: config.threads };
        let engine = Local::open(&runtime, &file, compute)?;
        let input = match engine.inputs() {
            [port] if port.element == Element::U8 && port.shape.len() == 4 => port.name.clone(),
            _ => return Err(unfit("the bare engine can run vision files that take one tensor of bytes [B,H,W,3]")),
        };
        Ok(Self { engine, input, canvas: manifest.canvas() })
    }

    /// The file that runs.
    pub fn file(&self) -> &Path {
        self.engine.file()
    }

    /// Size of the pictures it takes.
    pub fn canvas(&self) -> Size {
        self.canvas
    }

    /// Runs `pictures`, one a pass, over and over for about `limit`; returns the passes. They are tensors before the
    /// time begins.
    pub fn run(&mut self, pictures: &[Rgb], limit: Duration) -> Result<u64, GroundError> {
        let shape = vec![1, self.canvas.height as usize, self.canvas.width as usize, 3];
        let tensor = |picture: &Rgb| Tensor { shape: shape.clone(), data: Data::U8(picture.data.to_vec()) };
        let tensors: Vec<Tensor> = pictures.iter().map(tensor).collect();
        let (began, mut passes) = (Instant::now(), 0);
        for tensor in tensors.iter().cycle() {
            self.engine.run(&[(&self.input, tensor)])?;
            passes += 1;
            if began.elapsed() >= limit {
                break;
            }
        }
        Ok(passes)
    }
}

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
    manifest::Manifest,
    models::closed::Closed,
    opening,
};
use crate::{
    ground::engine::Tensor,
    types::{Rgb, Size},
};

/// The file that sees every picture, by the families' names for it.
const ROLES: [&str; 2] = ["vision", "detector"];

/// Whether this file of a model sees every picture.
pub(super) fn sees(manifest: &Manifest, file: &Path) -> bool {
    ROLES.iter().any(|role| manifest.file(role).is_some_and(|one| one == file))
}

/// A model's vision graph and nothing around it.
pub struct Bare {
    engine: Local,
    input: String,
    /// What the input holds: bytes `[B,H,W,3]` or floats `[1,3,H,W]`.
    element: Element,
    canvas: Size,
}

impl Bare {
    /// Opens the file of the configured model that sees every picture, as it was published. On a processor it runs by one thread,
    /// which costs least.
    pub fn open(config: &ModelConfig, folders: &[PathBuf]) -> Result<Self, GroundError> {
        Self::opened(config, folders, None)
    }

    /// Opens it as the daemon does, which leaves out the border around pictures of this size if the manifest lets it.
    pub fn open_as_shown(config: &ModelConfig, folders: &[PathBuf], picture: Size) -> Result<Self, GroundError> {
        Self::opened(config, folders, Some(picture))
    }

    fn opened(config: &ModelConfig, folders: &[PathBuf], picture: Option<Size>) -> Result<Self, GroundError> {
        let manifest = find(&config.path, folders)?;
        let unfit = |reason: &str| GroundError::Unfit { manifest: manifest.path(), reason: reason.to_owned() };
        let file = ROLES.iter().find_map(|role| manifest.file(role));
        let file = file.ok_or_else(|| unfit("the bare engine needs a file with role = \"vision\" or \"detector\""))?;
        let runtime = Runtime::load(&library_path(config)?)?;
        let compute = Compute { provider: config.provider, device: config.device, threads: 1 };
        let freed = picture.and_then(|picture| Some((picture, opening::freed(&manifest, &file, compute)?)));
        let open = || match &freed {
            Some((_, graph)) => Local::open_changed(&runtime, &file, graph, compute),
            None => Local::open(&runtime, &file, compute),
        };
        let canvas = match &freed {
            Some((picture, _)) => Closed::open(&manifest, &mut |_| Ok(Box::new(open()?)))?.image_of(*picture)?,
            None => manifest.canvas(),
        };
        let engine = open()?;
        let (input, element) = match engine.inputs() {
            [port] if (port.element == Element::U8 || port.element.is_float()) && port.shape.len() == 4 => {
                (port.name.clone(), port.element.clone())
            }
            _ => {
                return Err(unfit(
                    "the bare engine can run files that take one picture, bytes [B,H,W,3] or f32[1,3,H,W]",
                ));
            }
        };
        Ok(Self { engine, input, element, canvas })
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

    /// Runs `pictures`, one a pass, over and over for about `limit`; returns the passes. They are tensors before the
    /// time begins.
    pub fn run(&mut self, pictures: &[Rgb], limit: Duration) -> Result<u64, GroundError> {
        let (height, width) = (self.canvas.height as usize, self.canvas.width as usize);
        let plane = |picture: &Rgb, colour: usize| -> Vec<f32> {
            picture.data.iter().skip(colour).step_by(3).map(|byte| f32::from(*byte)).collect()
        };
        let tensor = |picture: &Rgb| match self.element {
            Element::F32 | Element::F16 => {
                let planes = [0, 1, 2].map(|colour| plane(picture, colour)).concat();
                Tensor { shape: vec![1, 3, height, width], data: Data::F32(planes) }
            }
            _ => Tensor { shape: vec![1, height, width, 3], data: Data::U8(picture.data.to_vec()) },
        };
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

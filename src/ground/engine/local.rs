//! ONNX Runtime in this process: the only user of `ort`.
//!
//! `ort` loads the library by itself, and panics when it cannot, unless it was given one before anything else is
//! called. Therefore everything here hangs off [`Runtime`], which only exists once a library is loaded.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use half::f16;
use ort::{
    environment::Environment,
    logging::LogLevel,
    memory::MemoryInfo,
    session::{Session, SessionInputValue, builder::SessionBuilder},
    value::{DynTensor, DynValue, Outlet, TensorElementType, TensorRef, ValueType},
};

use super::{Data, Element, Engine, EngineError, Input, Kept, Mixed, Outputs, Part, Port, Tensor, arrange::Arranger};

pub use super::compute::Compute;

/// The oldest ONNX Runtime that is accepted is 1.(this): the level `ort` is built for.
pub const API_LEVEL: u32 = ort::MINOR_VERSION;

/// The runtime's name for the folder that a graph's weights lie in (`onnxruntime_session_options_config_keys.h`).
const FOLDER_OF_WEIGHTS: &str = "session.model_external_initializers_file_folder_path";

/// The loaded library. A process can hold one; it stays until the end.
#[derive(Debug, Clone)]
pub struct Runtime {
    library: PathBuf,
    environment: Environment,
}

static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Loads `library`, or takes the one that is loaded already if it is the same.
    pub fn load(library: &Path) -> Result<Self, EngineError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = loaded.as_ref() {
            return if runtime.library == library {
                Ok(runtime.clone())
            } else {
                Err(EngineError::OtherLibrary { wanted: library.to_owned(), loaded: runtime.library.clone() })
            };
        }
        let bad = |reason: String| EngineError::BadLibrary { path: library.to_owned(), reason };
        let builder = ort::init_from(library).map_err(|e| bad(e.to_string()))?;
        let environment = builder
            .with_name("groundd")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|e| bad(e.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        Ok(loaded.insert(Self { library: library.to_owned(), environment }).clone())
    }

    /// The library that is loaded.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The version in the library's name, if it has one, and the build the library itself names: `ort` keeps the
    /// version it checked to itself.
    pub fn version(&self) -> String {
        let build = ort::info().split_once("git-commit-id=").map_or("unknown", |(_, rest)| rest);
        let build = build.split([',', ' ']).next().unwrap_or(build);
        let name = self.library.file_name().unwrap_or_default().to_string_lossy();
        match name.split_once(".so.") {
            Some((_, version)) => format!("{version}, build {build}"),
            None => format!("build {build}"),
        }
    }
}

/// The runtime reports failures as results too, and those are told where they matter: here is the small print.
fn log(level: LogLevel, _category: &str, _id: &str, at: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", at, "{message}"),
        LogLevel::Error | LogLevel::Warning => tracing::debug!(target: "onnxruntime", at, "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", at, "{message}"),
    }
}

/// One opened ONNX file.
pub struct Local {
    file: PathBuf,
    session: Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    names: Vec<Arc<str>>,
    /// Where outputs that are kept stay.
    memory: MemoryInfo<'static>,
    arranger: Arranger,
    /// What it runs on, for graphs beside it.
    runtime: Runtime,
    compute: Compute,
}

impl Local {
    /// Opens `file`, whose inputs have the same shape in every run, but for the batch. A provider that is not there is an
    /// error, never another provider.
    pub fn open(runtime: &Runtime, file: &Path, compute: Compute) -> Result<Self, EngineError> {
        Self::opened(runtime, file, compute, true, |mut builder| builder.commit_from_file(file))
    }

    /// The same for a file whose inputs have other shapes in every run, as those of a decoder: the longer it runs, the more of
    /// them there are.
    pub fn open_varied(runtime: &Runtime, file: &Path, compute: Compute) -> Result<Self, EngineError> {
        Self::opened(runtime, file, compute, false, |mut builder| builder.commit_from_file(file))
    }

    /// The same for what was [made](super::resizable) of `file`: its pictures may have a few sizes, those of the cameras.
    pub fn open_changed(runtime: &Runtime, file: &Path, bytes: &[u8], compute: Compute) -> Result<Self, EngineError> {
        // Where weights beside the file are looked for: bytes lie nowhere.
        let folder = file.parent().unwrap_or(file).to_string_lossy();
        Self::opened(runtime, file, compute, true, |builder| {
            builder.with_config_entry(FOLDER_OF_WEIGHTS, &folder)?.commit_from_memory(bytes)
        })
    }

    fn opened(
        runtime: &Runtime,
        file: &Path,
        compute: Compute,
        patterns: bool,
        commit: impl FnOnce(SessionBuilder) -> ort::Result<Session>,
    ) -> Result<Self, EngineError> {
        let failed = |reason: String| EngineError::Open { file: file.to_owned(), reason };
        let builder = compute.options(&runtime.environment, patterns).map_err(failed)?;
        let builder = compute.provided(builder, patterns.then_some(file)).map_err(|reason| EngineError::Provider {
            provider: compute.provider,
            device: compute.device,
            library: runtime.library.clone(),
            reason,
        })?;
        let session = commit(builder).map_err(|e| failed(e.to_string()))?;
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect::<Vec<_>>();
        let (inputs, outputs) = (ports(session.inputs()), ports(session.outputs()));
        let names = outputs.iter().map(|p| p.name.as_str().into()).collect();
        let memory = compute.memory().map_err(|e| failed(e.to_string()))?;
        let (file, runtime, arranger) = (file.to_owned(), runtime.clone(), Arranger::default());
        Ok(Self { file, session, inputs, outputs, names, memory, arranger, runtime, compute })
    }
}

fn port(outlet: &Outlet) -> Port {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            (element(*ty), shape.iter().map(|axis| usize::try_from(*axis).ok()).collect())
        }
        other => (Element::Other(other.to_string()), Vec::new()),
    };
    Port { name: outlet.name().to_owned(), element, shape }
}

fn element(ty: TensorElementType) -> Element {
    match ty {
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Bool => Element::Bool,
        other => Element::Other(other.to_string()),
    }
}

impl Engine for Local {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn file(&self) -> &Path {
        &self.file
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        let failed = |e: ort::Error| EngineError::Run { file: self.file.clone(), reason: e.to_string() };
        let value = |name: &str, tensor| {
            if takes_halves(&self.inputs, name) { Ok(owned(tensor, true)?.into()) } else { borrow(tensor) }
        };
        let values = inputs.iter().map(|(name, tensor)| Ok(((*name).to_owned(), value(name, tensor)?)));
        let values = values.collect::<ort::Result<Vec<_>>>().map_err(failed)?;
        let results = self.session.run(values).map_err(failed)?;
        let tensors =
            self.names.iter().zip(results.values()).map(|(name, value)| Ok((Arc::clone(name), copy(&value)?)));
        tensors.collect::<ort::Result<Vec<_>>>().map(Outputs::new).map_err(failed)
    }

    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
        let failed = |e: ort::Error| EngineError::Run { file: self.file.clone(), reason: e.to_string() };
        let given: Vec<_> =
            inputs.iter().map(|(name, input)| (*name, *input, takes_halves(&self.inputs, name))).collect();
        let (session, names, memory) = (&mut self.session, &self.names, &self.memory);
        bound_run(session, names, memory, &given, keep).map_err(failed)
    }

    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError> {
        let outlet = self.session.inputs().iter().find(|outlet| outlet.name() == name);
        match outlet.map(Outlet::dtype) {
            Some(ValueType::Tensor { ty, .. }) => {
                let tensor = DynTensor::new(self.session.allocator(), *ty, shape);
                let tensor = tensor.map_err(|e| self.failed(e.to_string()))?;
                Ok(Kept { shape: shape.to_vec(), value: Box::new(tensor.into_dyn()) })
            }
            _ => Err(self.failed(format!("it has no tensor `{name}` among its inputs"))),
        }
    }

    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError> {
        let (runtime, compute) = (&self.runtime, self.compute);
        // Every arrangement has lengths of its own.
        let beside = || compute.provided(compute.options(&runtime.environment, false)?, None);
        let arranged = self.arranger.run(parts, &self.memory, &beside);
        arranged.map_err(|reason| self.failed(reason))
    }
}

/// A value that stays where it is, with its shape; `None` if it is no tensor.
pub(super) fn kept(value: DynValue) -> Option<Kept> {
    let ValueType::Tensor { shape, .. } = value.dtype() else { return None };
    let shape = shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
    Some(Kept { shape, value: Box::new(value) })
}

fn takes_halves(ports: &[Port], name: &str) -> bool {
    ports.iter().any(|port| port.name == name && port.element == Element::F16)
}

/// A binding lives for one run: one that lives on would hand out the same memory again. An input is its name, the value, and
/// whether the graph takes it in half precision.
fn bound_run(
    session: &mut Session,
    names: &[Arc<str>],
    memory: &MemoryInfo<'static>,
    inputs: &[(&str, Input<'_>, bool)],
    keep: &dyn Fn(&str) -> bool,
) -> ort::Result<Mixed> {
    let mut binding = session.create_binding()?;
    for (name, input, half) in inputs {
        match input {
            Input::Tensor(tensor) => binding.bind_input(*name, &owned(tensor, *half)?)?,
            Input::Kept(kept) => match kept.value.downcast_ref::<DynValue>() {
                Some(value) => binding.bind_input(*name, value)?,
                None => return Err(ort::Error::new(format!("the value kept for `{name}` is another engine's"))),
            },
        }
    }
    let host = MemoryInfo::default();
    for name in names {
        binding.bind_output_to_device(&**name, if keep(name) { memory } else { &host })?;
    }
    let mut results = session.run_binding(&binding)?;
    binding.synchronize_outputs()?;
    let (mut tensors, mut kept) = (Vec::new(), Vec::new());
    for name in names {
        let missing = || ort::Error::new(format!("the output `{name}` did not come back"));
        let value = results.remove(&**name).ok_or_else(missing)?;
        if keep(name) {
            kept.push((Arc::clone(name), self::kept(value).ok_or_else(missing)?));
        } else {
            tensors.push((Arc::clone(name), copy(&value)?));
        }
    }
    Ok(Mixed { host: Outputs::new(tensors), kept })
}

fn borrow(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    let shape = tensor.shape.as_slice();
    Ok(match &tensor.data {
        Data::F32(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
        Data::I64(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
        Data::U8(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
        Data::Shared(data) => TensorRef::from_array_view((shape, &**data))?.into(),
        Data::Bool(data) => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
    })
}

/// A copy, for bindings: `ort` 2.0.0-rc.15 copies borrowed data by a session of its own and locks itself out doing so. Floats
/// become halves where that is asked for.
fn owned(tensor: &Tensor, half: bool) -> ort::Result<DynValue> {
    let shape = tensor.shape.as_slice();
    Ok(match &tensor.data {
        Data::F32(data) if half => {
            let halves: Vec<f16> = data.iter().map(|value| f16::from_f32(*value)).collect();
            ort::value::Tensor::from_array((shape, halves))?.into_dyn()
        }
        Data::F32(data) => ort::value::Tensor::from_array((shape, data.clone()))?.into_dyn(),
        Data::I64(data) => ort::value::Tensor::from_array((shape, data.clone()))?.into_dyn(),
        Data::U8(data) => ort::value::Tensor::from_array((shape, data.clone()))?.into_dyn(),
        Data::Shared(data) => ort::value::Tensor::from_array((shape, data.to_vec()))?.into_dyn(),
        Data::Bool(data) => ort::value::Tensor::from_array((shape, data.clone()))?.into_dyn(),
    })
}

fn copy(value: &DynValue) -> ort::Result<Tensor> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(ort::Error::new(format!("an output is a {} instead of a tensor", value.dtype())));
    };
    let data = match ty {
        TensorElementType::Float32 => Data::F32(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Float16 => {
            Data::F32(value.try_extract_tensor::<f16>()?.1.iter().map(|half| half.to_f32()).collect())
        }
        TensorElementType::Int64 => Data::I64(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Uint8 => Data::U8(value.try_extract_tensor()?.1.to_vec()),
        TensorElementType::Bool => Data::Bool(value.try_extract_tensor()?.1.to_vec()),
        other => return Err(ort::Error::new(format!("an output holds {other}, which no model here uses"))),
    };
    Ok(Tensor { shape: shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect(), data })
}

//! Run tensors: named tensors in, named tensors out. What the tensors mean is the models' business.

use std::{any::Any, fmt, sync::Arc};

mod arrange;
mod compute;
mod error;
pub mod lanes;
pub mod library;
pub mod local;
pub mod resizable;

pub use error::EngineError;

/// A tensor's numbers, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// Bytes.
    U8(Vec<u8>),
    /// Bytes that somebody else holds as well: a picture need not be copied to be looked at.
    Shared(Arc<[u8]>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// A dense tensor on the host. Owners keep their input tensors and refill them, so that a pass allocates nothing large.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Length of every axis; their product is the number of elements.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Data,
}

impl Tensor {
    /// One of floats.
    pub fn f32s(shape: &[usize], data: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), data: Data::F32(data) }
    }

    /// One of 64-bit integers.
    pub fn i64s(shape: &[usize], data: Vec<i64>) -> Self {
        Self { shape: shape.to_vec(), data: Data::I64(data) }
    }

    /// The element type.
    pub fn element(&self) -> Element {
        match self.data {
            Data::F32(_) => Element::F32,
            Data::I64(_) => Element::I64,
            Data::U8(_) | Data::Shared(_) => Element::U8,
            Data::Bool(_) => Element::Bool,
        }
    }

    /// The elements, if they are floats.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        if let Data::F32(data) = self.data { Some(data) } else { None }
    }
}

/// An element type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float. The engine turns what goes in and what comes out of it into 32-bit floats.
    F16,
    /// 64-bit signed integer.
    I64,
    /// Byte.
    U8,
    /// Truth value.
    Bool,
    /// One that no model here uses, by the engine's name for it.
    Other(String),
}

impl Element {
    /// Whether it is a float: in and out, the engine turns one precision into the other.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::Other(name) => name,
        })
    }
}

/// A named input or output, as the opened file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Its element type.
    pub element: Element,
    /// Its shape; `None` is an axis whose length may change from run to run.
    pub shape: Vec<Option<usize>>,
}

impl Port {
    /// A port as a model's code expects it.
    pub fn new(name: &str, element: Element, shape: &[Option<usize>]) -> Self {
        Self { name: name.to_owned(), element, shape: shape.to_vec() }
    }

    /// Whether this declared port can serve where `wanted` is expected. An axis that must be free has to be free;
    /// an axis of known length may be declared free. Half precision serves for single.
    pub fn serves(&self, wanted: &Self) -> bool {
        self.name == wanted.name
            && (self.element == wanted.element || (self.element == Element::F16 && wanted.element == Element::F32))
            && self.has_shape(&wanted.shape)
    }

    /// Whether it may have this shape: each axis is as long, or free. One that must be free is `None`.
    pub fn has_shape(&self, wanted: &[Option<usize>]) -> bool {
        self.shape.len() == wanted.len() && self.ends_in(wanted)
    }

    /// The same of its last axes.
    pub fn ends_in(&self, wanted: &[Option<usize>]) -> bool {
        let axis = |(have, want): (&Option<usize>, &Option<usize>)| have.is_none() || have == want;
        self.shape.len() >= wanted.len() && self.shape.iter().rev().zip(wanted.iter().rev()).all(axis)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<_> = self.shape.iter().map(|a| a.map_or("?".to_owned(), |n| n.to_string())).collect();
        write!(f, "{} {}[{}]", self.name, self.element, axes.join(","))
    }
}

/// What came out of a run.
#[derive(Debug)]
pub struct Outputs(Vec<(Arc<str>, Tensor)>);

impl Outputs {
    /// Outputs in any order.
    pub fn new(outputs: Vec<(Arc<str>, Tensor)>) -> Self {
        Self(outputs)
    }

    /// Takes the output `name` out; `None` if there is none, or no more.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.0.iter().position(|(n, _)| **n == *name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes the output `name`, floats of a known shape; otherwise says what came.
    pub fn take_f32(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        self.take_f32_if(name, shape, |found| found == shape)
    }

    /// The same where a batch of one may be around it.
    pub fn take_only_f32(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        self.take_f32_if(name, shape, |found| found == shape || (found.first() == Some(&1) && found[1..] == *shape))
    }

    fn take_f32_if(
        &mut self,
        name: &str,
        shape: &[usize],
        fits: impl Fn(&[usize]) -> bool,
    ) -> Result<Vec<f32>, String> {
        let output = self.take(name);
        let found = output.as_ref().map_or("nothing".to_owned(), |t| format!("{}{:?}", t.element(), t.shape));
        let data = output.filter(|t| fits(&t.shape)).and_then(Tensor::into_f32);
        data.ok_or_else(|| format!("its output `{name}` should be f32{shape:?} and is {found}"))
    }
}

/// A tensor that stays where an engine computed it, to be given back to that engine: an attention cache never needs to
/// be looked into, and on a GPU it would be slow to.
pub struct Kept {
    /// Length of every axis.
    pub shape: Vec<usize>,
    /// The engine's own value.
    pub(crate) value: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept{:?}", self.shape)
    }
}

/// What [`Engine::arrange`] takes of a kept tensor `[rows, heads, columns, width]`: these rows, and of each these columns.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// The tensor.
    pub kept: &'a Kept,
    /// Numbers of rows, in any order.
    pub rows: Vec<i64>,
    /// Numbers of columns, in any order; one may come more than once.
    pub columns: Vec<i64>,
}

impl<'a> Part<'a> {
    /// All of a tensor.
    pub fn whole(kept: &'a Kept) -> Self {
        let all = |axis: usize| (0..).take(kept.shape.get(axis).copied().unwrap_or(0)).collect();
        Self { kept, rows: all(0), columns: all(2) }
    }
}

/// An input of [`Engine::run_keeping`].
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A tensor on the host.
    Tensor(&'a Tensor),
    /// One that the engine has kept.
    Kept(&'a Kept),
}

/// What came out of a run that keeps some outputs.
#[derive(Debug)]
pub struct Mixed {
    /// The outputs on the host.
    pub host: Outputs,
    /// The outputs that stayed where they are.
    pub kept: Vec<(Arc<str>, Kept)>,
}

impl Mixed {
    /// Takes the kept output `name` out; `None` if there is none, or no more.
    pub fn take_kept(&mut self, name: &str) -> Option<Kept> {
        let at = self.kept.iter().position(|(n, _)| **n == *name)?;
        Some(self.kept.swap_remove(at).1)
    }
}

/// One opened file of a model. Owned by one thread: a run is not reentrant.
pub trait Engine: Send {
    /// What it takes.
    fn inputs(&self) -> &[Port];
    /// What it gives.
    fn outputs(&self) -> &[Port];
    /// The file it came from, for messages.
    fn file(&self) -> &std::path::Path;
    /// An error that names the file.
    fn failed(&self, reason: String) -> EngineError {
        EngineError::Run { file: self.file().to_owned(), reason }
    }
    /// The input of this name.
    fn input(&self, name: &str) -> Option<&Port> {
        self.inputs().iter().find(|port| port.name == name)
    }
    /// The output of this name.
    fn output(&self, name: &str) -> Option<&Port> {
        self.outputs().iter().find(|port| port.name == name)
    }
    /// An error that names the file and says what of its ports, `inputs` or `outputs`, should be otherwise.
    fn wrong_ports(&self, what: &'static str, expected: String, found: String) -> EngineError {
        EngineError::Ports { file: self.file().to_owned(), what, expected, found }
    }
    /// The same of all its inputs.
    fn wrong_inputs(&self, expected: String) -> EngineError {
        self.wrong_ports("inputs", expected, listed(self.inputs()))
    }
    /// The same of all its outputs.
    fn wrong_outputs(&self, expected: String) -> EngineError {
        self.wrong_ports("outputs", expected, listed(self.outputs()))
    }
    /// Runs it once. Inputs are borrowed for the time of the run and not copied.
    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, EngineError>;
    /// Runs that it does at once in [`Engine::run_each`].
    fn lanes(&self) -> usize {
        1
    }
    /// Runs it once for each of `runs`, in any order and at once where it can; what came out is in their order.
    fn run_each(&mut self, runs: &[Vec<(&str, &Tensor)>]) -> Result<Vec<Outputs>, EngineError> {
        runs.iter().map(|inputs| self.run(inputs)).collect()
    }
    /// Runs it once; the outputs whose names `keep` picks stay where they were computed.
    fn run_keeping(&mut self, inputs: &[(&str, Input<'_>)], keep: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError>;
    /// A kept tensor of the element type that the input `name` takes. Its elements, if it has any, are zeros.
    fn blank(&self, name: &str, shape: &[usize]) -> Result<Kept, EngineError>;
    /// A kept tensor made of parts of others, one under the other, without leaving the engine. The parts have equally many
    /// columns.
    fn arrange(&mut self, parts: &[Part<'_>]) -> Result<Kept, EngineError>;
}

/// Ports, for messages.
pub fn listed(ports: &[Port]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Checks that an opened file has exactly the wanted inputs, and at least the wanted outputs.
pub fn check_ports(engine: &dyn Engine, inputs: &[Port], outputs: &[Port]) -> Result<(), EngineError> {
    let found = |have: &[Port], want: &Port| have.iter().any(|p| p.serves(want));
    if inputs.len() != engine.inputs().len() || !inputs.iter().all(|w| found(engine.inputs(), w)) {
        return Err(engine.wrong_inputs(listed(inputs)));
    }
    if !outputs.iter().all(|w| found(engine.outputs(), w)) {
        return Err(engine.wrong_outputs(listed(outputs)));
    }
    Ok(())
}

/// Runs an engine and takes one `f32` output of a known shape out of every name, in the order asked.
pub fn run_f32<const N: usize>(
    engine: &mut dyn Engine,
    inputs: &[(&str, &Tensor)],
    wanted: [(&str, &[usize]); N],
) -> Result<[Vec<f32>; N], EngineError> {
    let mut outputs = engine.run(inputs)?;
    let mut taken = [const { Vec::new() }; N];
    for (slot, (name, shape)) in taken.iter_mut().zip(wanted) {
        *slot = outputs.take_f32(name, shape).map_err(|reason| engine.failed(reason))?;
    }
    Ok(taken)
}

//! Rows and columns of kept tensors, put together where they lie: graphs of a few nodes, made when first asked for, on the
//! same device as the model's own. On a GPU nothing of it passes the host but the numbers of rows and columns.

use ort::{
    editor::{Graph, Model, Node, ONNX_DOMAIN, Opset},
    memory::MemoryInfo,
    operator::Attribute,
    session::{Session, builder::SessionBuilder},
    value::{DynValue, Outlet, Shape, SymbolicDimensions, TensorElementType, ValueType},
};

use super::{Kept, Part};

/// The operators' version: that of the exports.
const OPSET: u32 = 17;
/// The axes of rows and of columns.
const AXES: [(&str, i64); 2] = [("rows", 0), ("columns", 2)];

/// Parts that one graph puts together. More are put together pair by pair: a session keeps the memory it once used, so there
/// should be few of them.
const MOST: usize = 2;

/// The graphs made so far, each with the element type and the number of parts that it is for.
#[derive(Default)]
pub(super) struct Arranger(Vec<((TensorElementType, usize), Session)>);

impl Arranger {
    /// The parts, one under the other, in `memory`; `options` is asked for what a new session runs on.
    pub(super) fn run(
        &mut self,
        parts: &[Part<'_>],
        memory: &MemoryInfo<'static>,
        options: &dyn Fn() -> Result<SessionBuilder, String>,
    ) -> Result<Kept, String> {
        if parts.len() > MOST {
            let (upper, lower) = parts.split_at(parts.len() / 2);
            let both = [self.run(upper, memory, options)?, self.run(lower, memory, options)?];
            return self.run(&both.each_ref().map(Part::whole), memory, options);
        }
        let values: Option<Vec<_>> = parts.iter().map(|part| part.kept.value.downcast_ref::<DynValue>()).collect();
        let values = values.ok_or_else(|| "a value to be arranged is another engine's".to_owned())?;
        let Some(ValueType::Tensor { ty, .. }) = values.first().map(|value| value.dtype()) else {
            return Err("there is nothing to arrange".to_owned());
        };
        let key = (*ty, parts.len());
        let at = if let Some(at) = self.0.iter().position(|(of, _)| *of == key) {
            at
        } else {
            let model = graph(*ty, parts.len()).map_err(|e| e.to_string())?;
            self.0.push((key, model.into_session(&options()?).map_err(|e| e.to_string())?));
            self.0.len() - 1
        };
        run(&mut self.0[at].1, parts, &values, memory).map_err(|e| e.to_string())
    }
}

/// Of `count` inputs the rows and then the columns, and all of that under one another.
fn graph(ty: TensorElementType, count: usize) -> ort::Result<Model> {
    let outlet = |name: String, ty, axes: usize| {
        let dtype = ValueType::Tensor {
            ty,
            shape: Shape::new(vec![-1; axes]),
            dimension_symbols: SymbolicDimensions::empty(axes),
        };
        Outlet::new(name, dtype)
    };
    let mut graph = Graph::new()?;
    let (mut inputs, mut parts) = (Vec::new(), Vec::new());
    for i in 0..count {
        inputs.push(outlet(format!("kept.{i}"), ty, 4));
        let mut of = format!("kept.{i}");
        for (what, axis) in AXES {
            let (numbers, taken) = (format!("{what}.{i}"), format!("{what}.{i}.taken"));
            inputs.push(outlet(numbers.clone(), TensorElementType::Int64, 1));
            let (from, to) = ([of, numbers], [taken.clone()]);
            graph.add_node(Node::new("Gather", ONNX_DOMAIN, &taken, from, to, [Attribute::new("axis", axis)?])?)?;
            of = taken;
        }
        parts.push(of);
    }
    let axis = Attribute::new("axis", 0_i64)?;
    graph.add_node(Node::new("Concat", ONNX_DOMAIN, "under", parts, ["arranged"], [axis])?)?;
    graph.set_inputs(inputs)?;
    graph.set_outputs([outlet("arranged".to_owned(), ty, 4)])?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET)?])?;
    model.set_graph(graph)?;
    Ok(model)
}

fn run(
    session: &mut Session,
    parts: &[Part<'_>],
    values: &[&DynValue],
    memory: &MemoryInfo<'static>,
) -> ort::Result<Kept> {
    let mut binding = session.create_binding()?;
    for (i, (part, value)) in parts.iter().zip(values).enumerate() {
        binding.bind_input(format!("kept.{i}"), value)?;
        for ((what, _), numbers) in AXES.iter().zip([&part.rows, &part.columns]) {
            let numbers = ort::value::Tensor::from_array(([numbers.len()], numbers.clone()))?;
            binding.bind_input(format!("{what}.{i}"), &numbers)?;
        }
    }
    binding.bind_output_to_device("arranged", memory)?;
    let mut results = session.run_binding(&binding)?;
    binding.synchronize_outputs()?;
    let missing = || ort::Error::new("the arranged tensor did not come back");
    super::local::kept(results.remove("arranged").ok_or_else(missing)?).ok_or_else(missing)
}

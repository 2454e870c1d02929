//! The graph of `detector`: `cells`, `places`, `text`, `ids` -> `boxes` f32 `[P,M,4]`, `scores` f32 `[P,M]`.

use super::{
    Sizes,
    look::Looked,
    ports::{needs, said, sound},
};
use crate::ground::{
    GroundError,
    engine::{self, Element, Engine, Port, Tensor},
};

/// The opened graph.
pub(super) struct Detect {
    pub(super) graph: Box<dyn Engine>,
    /// Numbers a cell has.
    pub(super) channels: usize,
    /// Cells on a canvas, where all canvases have equally many.
    pub(super) cells: Option<usize>,
    /// Cells that come back.
    pub(super) each: usize,
}

impl Detect {
    /// Checks the graph against `vision`'s and the model's numbers.
    pub(super) fn open(vision: &dyn Engine, graph: Box<dyn Engine>, sizes: &Sizes) -> Result<Self, GroundError> {
        let fixed = |port: Option<&Port>, name: &str| {
            port.and_then(|port| port.shape.get(1).copied().flatten()).ok_or_else(|| {
                let found = port.map_or("nothing of that name".to_owned(), ToString::to_string);
                graph.wrong_ports("ports", format!("{name} with an axis 1 of fixed length"), found)
            })
        };
        let cells = graph.input("cells");
        let count = cells.and_then(|port| port.shape.get(2).copied().flatten());
        let channels = fixed(cells, "cells")?;
        let each = fixed(graph.output("scores"), "scores")?;
        let free = |name, shape: &[Option<usize>]| Port::new(name, Element::F32, shape);
        let mut looked = vec![free("cells", &[None, Some(channels), count]), free("places", &[None, Some(4), count])];
        needs(vision, &looked)?;
        let given = [free("boxes", &[None, Some(each), Some(4)]), free("scores", &[None, Some(each)])];
        looked.extend(said(sizes));
        engine::check_ports(graph.as_ref(), &looked, &given)?;
        Ok(Self { graph, channels, cells: count, each })
    }

    /// The best cells of each of some canvases of one size, and their scores, by the words of each.
    pub(super) fn run(
        &mut self,
        looked: &[&Looked],
        (text, ids): (&Tensor, &Tensor),
    ) -> Result<(Vec<f32>, Vec<f32>), GroundError> {
        let (p, each) = (looked.len(), self.each);
        let n = looked.first().map_or(0, |one| one.cells.places.len() / 4);
        let rows = |of: fn(&Looked) -> &[f32]| looked.iter().flat_map(|one| of(one)).copied().collect();
        let cells = Tensor::f32s(&[p, self.channels, n], rows(|one| &one.cells.features));
        let places = Tensor::f32s(&[p, 4, n], rows(|one| &one.cells.places));
        let inputs = [("cells", &cells), ("places", &places), ("text", text), ("ids", ids)];
        let wanted: [(&str, &[usize]); 2] = [("boxes", &[p, each, 4]), ("scores", &[p, each])];
        let [boxes, scores] = engine::run_f32(self.graph.as_mut(), &inputs, wanted)?;
        Ok((boxes, sound(self.graph.as_ref(), "scores", scores)?))
    }
}

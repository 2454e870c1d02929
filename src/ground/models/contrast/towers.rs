//! The two towers, apart or in one graph.

use super::{Embedding, Open};
use crate::{
    ground::{
        GroundError,
        engine::{Element, Engine, EngineError, Port, Tensor},
        manifest::Manifest,
        models::{open_role, reader::Ids},
    },
    types::Size,
};

/// Names of a picture's embedding, the best first: what the text's is compared with, then what a model without
/// projection has.
const PICTURE: [&str; 2] = ["image_embeds", "pooler_output"];
/// Names of a text's embedding.
const TEXT: [&str; 2] = ["text_embeds", "pooler_output"];

/// The graphs, and what of them is read.
pub(super) struct Towers {
    graphs: Graphs,
    image: Size,
    picture: &'static str,
    text: &'static str,
}

enum Graphs {
    Apart {
        vision: Box<dyn Engine>,
        text: Box<dyn Engine>,
    },
    /// Both in one, which therefore always computes both: the other one gets as little as there is.
    One(Box<dyn Engine>),
}

impl Towers {
    pub(super) fn open(manifest: &Manifest, image: Size, open: &mut Open<'_>) -> Result<Self, GroundError> {
        let graphs = if manifest.files.iter().any(|file| file.role == "model") {
            Graphs::One(open_role(manifest, "model", open)?)
        } else {
            let vision = open_role(manifest, "vision_model", open)?;
            Graphs::Apart { vision, text: open_role(manifest, "text_model", open)? }
        };
        let (vision, words, most): (_, _, &[&str]) = match &graphs {
            Graphs::Apart { vision, text } => (vision.as_ref(), text.as_ref(), &["pixel_values"]),
            Graphs::One(both) => (both.as_ref(), both.as_ref(), &["pixel_values", "input_ids", "attention_mask"]),
        };
        inputs(vision, &["pixel_values"], most)?;
        let most = if most.len() == 1 { &["input_ids", "attention_mask"] } else { most };
        inputs(words, &["input_ids"], most)?;
        let (picture, text) = (output(vision, &PICTURE)?, output(words, &TEXT)?);
        Ok(Self { graphs, image, picture, text })
    }

    /// Most pictures in one pass, where the graph has a fixed number.
    pub(super) fn most_pictures(&self) -> Option<usize> {
        let (Graphs::Apart { vision, .. } | Graphs::One(vision)) = &self.graphs;
        vision.input("pixel_values")?.shape.first().copied().flatten()
    }

    /// The embeddings of `count` prepared pictures.
    pub(super) fn pictures(&mut self, mut pixels: Vec<f32>, count: usize) -> Result<Vec<Embedding>, GroundError> {
        // A graph of a fixed batch gets it full.
        let batch = self.most_pictures().unwrap_or(count).max(count);
        let area = self.image.area() * 3;
        pixels.resize(batch * area, 0.0);
        let shape = vec![batch, 3, self.image.height as usize, self.image.width as usize];
        let pixels = Tensor::f32s(&shape, pixels);
        let found = match &mut self.graphs {
            Graphs::Apart { vision, .. } => embeddings(vision.as_mut(), &[("pixel_values", &pixels)], self.picture)?,
            Graphs::One(both) => {
                let [ids, mask] = Ids { ids: vec![0], count: 1 }.tensors();
                let feeds = [("pixel_values", &pixels), ("input_ids", &ids), ("attention_mask", &mask)];
                embeddings(both.as_mut(), &feeds, self.picture)?
            }
        };
        if found.len() != batch {
            let (Graphs::Apart { vision, .. } | Graphs::One(vision)) = &self.graphs;
            let reason = format!("its output `{}` has {} rows for {batch} pictures", self.picture, found.len());
            return Err(vision.failed(reason).into());
        }
        Ok(found.into_iter().take(count).collect())
    }

    /// The embedding of a text.
    pub(super) fn text(&mut self, ids: &Ids) -> Result<Embedding, GroundError> {
        let [ids, mask] = ids.tensors();
        let feeds = [("input_ids", &ids), ("attention_mask", &mask)];
        let (image, name) = (self.image, self.text);
        let shape = vec![1, 3, image.height as usize, image.width as usize];
        let (engine, mut found) = match &mut self.graphs {
            Graphs::Apart { text, .. } => {
                let found = embeddings(text.as_mut(), &feeds, name)?;
                (text, found)
            }
            Graphs::One(both) => {
                let grey = Tensor::f32s(&shape, vec![0.0; image.area() * 3]);
                let found = embeddings(both.as_mut(), &[feeds[0], feeds[1], ("pixel_values", &grey)], name)?;
                (both, found)
            }
        };
        Ok(found.pop().ok_or_else(|| engine.failed(format!("its output `{name}` has no row for a text")))?)
    }
}

/// The rows of an output, each of length 1. Feeds that the graph has no input for are left out.
fn embeddings(engine: &mut dyn Engine, feeds: &[(&str, &Tensor)], name: &str) -> Result<Vec<Embedding>, EngineError> {
    let feeds: Vec<_> = feeds.iter().filter(|(name, _)| engine.input(name).is_some()).copied().collect();
    let output = engine.run(&feeds)?.take(name);
    let width = output.as_ref().and_then(|t| if t.shape.len() == 2 { t.shape.last().copied() } else { None });
    let rows = output.and_then(Tensor::into_f32).zip(width.filter(|width| *width > 0));
    let (rows, width) = rows.ok_or_else(|| engine.failed(format!("its output `{name}` should be f32[rows, width]")))?;
    let unit = |row: &[f32]| -> Result<Embedding, EngineError> {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        // It would be like nothing at all, and be remembered so.
        if !length.is_finite() {
            return Err(engine.failed(crate::ground::models::not_numbers(name)));
        }
        Ok(row.iter().map(|v| v / length.max(1e-12)).collect())
    };
    rows.chunks_exact(width).map(unit).collect()
}

/// Checks that a graph takes what it must, and nothing that nobody feeds.
fn inputs(engine: &dyn Engine, least: &[&str], most: &[&str]) -> Result<(), EngineError> {
    let right = |port: &Port| match port.name.as_str() {
        "pixel_values" => port.element.is_float() && port.shape.len() == 4,
        name => most.contains(&name) && port.element == Element::I64 && port.shape.len() == 2,
    };
    if engine.inputs().iter().all(right) && least.iter().all(|name| engine.input(name).is_some()) {
        return Ok(());
    }
    Err(engine.wrong_inputs(format!("{}: pixels as f32, ids as i64", most.join(", "))))
}

fn output(engine: &dyn Engine, names: &[&'static str]) -> Result<&'static str, EngineError> {
    let has = |name: &str| engine.output(name).is_some_and(|port| port.element.is_float());
    names.iter().copied().find(|name| has(name)).ok_or_else(|| engine.wrong_outputs(names.join(" or ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ground::engine::{Input, Kept, Mixed, Outputs, Part};

    /// Embeds as many pictures as it likes.
    struct Rows {
        ports: [Port; 1],
        count: usize,
        value: f32,
    }

    impl Engine for Rows {
        fn inputs(&self) -> &[Port] {
            &self.ports
        }

        fn outputs(&self) -> &[Port] {
            &self.ports
        }

        fn file(&self) -> &Path {
            Path::new("vision_model.onnx")
        }

        fn run(&mut self, _: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
            let rows = Tensor::f32s(&[self.count, 2], vec![self.value; self.count * 2]);
            Ok(Outputs::new(vec![("image_embeds".into(), rows)]))
        }

        fn run_keeping(&mut self, _: &[(&str, Input<'_>)], _: &dyn Fn(&str) -> bool) -> Result<Mixed, EngineError> {
            unreachable!("nothing is kept")
        }

        fn blank(&self, _: &str, _: &[usize]) -> Result<Kept, EngineError> {
            unreachable!("nothing is kept")
        }

        fn arrange(&mut self, _: &[Part<'_>]) -> Result<Kept, EngineError> {
            unreachable!("nothing is kept")
        }
    }

    fn towers(count: usize, value: f32) -> Towers {
        let ports = [Port::new("pixel_values", Element::F32, &[None; 4])];
        let graphs = Graphs::One(Box::new(Rows { ports, count, value }));
        Towers { graphs, image: Size::new(1, 1), picture: "image_embeds", text: "text_embeds" }
    }

    #[test]
    fn a_graph_that_leaves_pictures_out_fails_rather_than_mixing_them_up() {
        for count in 0..4 {
            match towers(count, 1.0).pictures(vec![0.5; 6], 2) {
                Ok(found) => assert!(count == 2 && found.len() == 2),
                Err(error) => assert!(count != 2 && error.to_string().contains("rows for 2 pictures"), "{error}"),
            }
        }
    }

    #[test]
    fn an_embedding_that_is_no_number_is_not_kept() {
        for value in [f32::NAN, f32::INFINITY] {
            let error = towers(2, value).pictures(vec![0.5; 6], 2).unwrap_err().to_string();
            assert!(error.contains("its `image_embeds` are not numbers"), "{error}");
        }
        let nothing = towers(1, 0.0).pictures(vec![0.5; 3], 1).unwrap();
        assert!(nothing[0].iter().all(|v| v.abs() < 1e-9));
    }

    #[test]
    fn towers_may_be_in_half_precision() {
        for (element, may) in [(Element::F32, true), (Element::F16, true), (Element::U8, false)] {
            let graph = Rows { ports: [Port::new("pixel_values", element, &[None; 4])], count: 1, value: 1.0 };
            assert_eq!(inputs(&graph, &["pixel_values"], &["pixel_values"]).is_ok(), may);
            assert_eq!(output(&graph, &["pixel_values"]).is_ok(), may);
        }
    }
}
